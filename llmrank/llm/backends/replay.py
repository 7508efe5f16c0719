"""The `replay` backend: answers only from a ledger, and fails on anything new."""

from __future__ import annotations

from collections.abc import Mapping

from llmrank.errors import InputError
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import CAPABILITIES, Failure, Identity, Reply, Request


class ReplayBackend:
    """Stands in for the model whose replies the ledger holds. The client looks them up; what it lacks ends up here."""

    capabilities = frozenset(CAPABILITIES)  # what the recorded model could not answer is simply not in the ledger

    def __init__(self, path: str, parameters: Mapping[str, str]) -> None:
        if not path:
            raise InputError("the backend replay: lacks its ledger; write replay:LEDGER")
        if unknown := set(parameters) - {"model"}:
            raise InputError(f"replay: {min(unknown)} is no parameter; there is model")
        self.ledger = Ledger(path, read_only=True)
        found = [Identity(*row) for row in self.ledger.query("SELECT DISTINCT kind, model FROM replies")]
        if "model" in parameters:
            found = [identity for identity in found if identity.model == parameters["model"]]
        if len(found) != 1:
            self.ledger.close()
            models = ", ".join(sorted(identity.model for identity in found)) or "none"
            raise InputError(f"replay:{path}: one model is needed, found {models}; name one with ?model=NAME")
        self.identity = found[0]

    async def complete(self, request: Request) -> Reply | Failure:
        return Failure("not-in-ledger")
