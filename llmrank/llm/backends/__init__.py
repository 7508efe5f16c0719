"""The backends by name, and `open_backend`, which makes one from a SPEC such as `openai:gpt-4o-mini`."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from llmrank.errors import InputError
from llmrank.llm.types import Backend

BACKENDS: dict[str, str] = {
    "openai": "openai:MODEL  any OpenAI-compatible server (--base-url, OPENAI_BASE_URL, OPENAI_API_KEY)",
    "simulated": "simulated:QRELS?noise=0.1  answers from known grades, with errors of known kinds",
    "lexical": "lexical  word overlap, the baseline that any judge must beat",
    "replay": "replay:LEDGER  answers only from a ledger",
}


def open_backend(spec: str, *, base_url: str | None = None) -> Backend:
    """The backend that a SPEC names. Raises InputError where it names none, or not one that can be made."""
    kind, _, rest = spec.partition(":")
    if kind == "openai":
        from llmrank.llm.backends.openai import OpenAIBackend

        model, parameters = _parameters(rest)
        _only(parameters, "client", spec)
        return OpenAIBackend(model, base_url=base_url, client=parameters.get("client", "aiohttp"))
    if kind == "simulated":
        from llmrank.llm.backends.simulated import SimulatedBackend

        return SimulatedBackend.from_file(*_parameters(rest))
    if kind == "lexical":
        from llmrank.llm.backends.lexical import LexicalBackend

        if rest:
            raise InputError(f"--backend {spec}: the backend lexical takes nothing; write just lexical")
        return LexicalBackend()
    if kind == "replay":
        from llmrank.llm.backends.replay import ReplayBackend

        path, named, model_name = rest.partition("?model=")  # to its end: names of models may hold ?, & and =
        _only(_parameters(path)[1], "model", spec)
        return ReplayBackend(path, model_name if named else None)
    raise InputError(f"--backend {spec}: there is no backend {kind!r}; there are {', '.join(BACKENDS)}")


def _parameters(text: str) -> tuple[str, dict[str, str]]:
    """What stands before the last `?`, and the parameters behind it."""
    name, mark, query = text.rpartition("?")
    if not mark or "=" not in query:
        return text, {}
    pairs = parse_qsl(query, keep_blank_values=True)
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise InputError(f"?{query}: a parameter is given twice; keep one")
    return name, parameters


def _only(parameters: Mapping[str, str], name: str, spec: str) -> None:
    if unknown := set(parameters) - {name}:
        kind = spec.partition(":")[0]
        raise InputError(f"--backend {spec}: {min(unknown)} is no parameter of {kind}; there is {name}")
