"""The `replay` backend: answers only from a ledger, and fails on anything new."""

from __future__ import annotations

import contextlib

from llmrank.errors import InputError
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import CAPABILITIES, Failure, Identity, Reply, Request

LOGPROBS_ASKED = (
    "SELECT 1 FROM replies WHERE kind = ? AND model = ? AND json_extract(CAST(request AS TEXT), '$[2][4]') > 0 LIMIT 1"
)


class ReplayBackend:
    """Stands in for the model whose replies the ledger holds. The client looks them up; what it lacks ends up here."""

    def __init__(self, path: str, model: str | None = None) -> None:
        if not path:
            raise InputError("the backend replay: lacks its ledger; write replay:LEDGER")
        self.ledger_path = path
        """What a client of this backend reads, in place of any other ledger."""
        with contextlib.closing(Ledger(path, read_only=True)) as ledger:
            self.identity = _recorded(ledger, f"replay:{path}", model)
            asked_logprobs = ledger.query(LOGPROBS_ASKED, self.identity)
        # A recorded model without log-probabilities was asked for none, so its replies stand under keys without them.
        missing = set() if asked_logprobs else {"logprobs", "later-logprobs", "label-logprobs", "prompt-logprobs"}
        self.capabilities = frozenset(CAPABILITIES) - missing

    async def complete(self, request: Request) -> Reply | Failure:
        return Failure("not-in-ledger")


def _recorded(ledger: Ledger, spec: str, model: str | None) -> Identity:
    """The model whose replies are replayed: the one named, or the only one."""
    found = [Identity(*row) for row in ledger.query("SELECT DISTINCT kind, model FROM replies")]
    models = ", ".join(sorted(identity.model for identity in found))
    if not found:
        raise InputError(f"{spec}: the ledger is empty; name one that a job has written")
    if model is not None:
        found = [identity for identity in found if identity.model == model]
        if not found:
            raise InputError(f"{spec}: the ledger holds no replies of the model {model}; it has {models}")
    if len(found) > 1:
        raise InputError(f"{spec}: the ledger holds several models; name one with ?model=NAME: {models}")
    return found[0]
