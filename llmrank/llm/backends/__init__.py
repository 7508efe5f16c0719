"""The backends by name, and `open_backend`, which makes one from a SPEC such as `openai:gpt-4o-mini`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from llmrank.errors import InputError
from llmrank.llm.types import Backend

BACKENDS: dict[str, str] = {
    "openai": "openai:MODEL  any OpenAI-compatible server (--base-url, OPENAI_BASE_URL, OPENAI_API_KEY); with "
    "?effort=low, ?thinking=off, ?api=responses, and for scoring models ?api=rerank, score or generative-scoring",
    "vllm": "vllm:PATH  a model in this process through vLLM (--engine-option KEY=VALUE)",
    "transformers": "transformers:PATH  a model in this process through transformers (--engine-option KEY=VALUE)",
    "nano": "nano  the small judge that ships with the package: a lexical one, for trying things out",
    "simulated": "simulated:QRELS?noise=0.1  answers from known grades, with errors of known kinds",
    "lexical": "lexical  word overlap, the baseline that any judge must beat",
    "replay": "replay:LEDGER  answers only from a ledger",
}
WITH_ENGINE = ("vllm", "transformers")


def open_backend(spec: str, *, base_url: str | None = None, engine_options: Mapping[str, Any] | None = None) -> Backend:
    """The backend that a SPEC names. Raises InputError where it names none, or not one that can be made.

    engine_options: what a backend with an engine in this process hands on to it, by name.
    """
    kind, _, rest = spec.partition(":")
    if engine_options and kind in BACKENDS and kind not in WITH_ENGINE:
        raise InputError(
            f"--engine-option {next(iter(engine_options))}: the backend {kind} has no engine in this process; leave it "
            f"out, or take one of {', '.join(WITH_ENGINE)}"
        )
    if kind == "openai":
        from llmrank.llm.backends.openai import OpenAIBackend

        model, parameters = _parameters(rest)
        _only(parameters, ("client", "api", "effort", "thinking", "labels"), spec)
        return OpenAIBackend(model, base_url=base_url, **parameters)
    if kind == "vllm":
        from llmrank.llm.backends.vllm import VllmBackend

        return VllmBackend(rest, engine_options)
    if kind == "transformers":
        from llmrank.llm.backends.transformers import TransformersBackend

        return TransformersBackend(rest, engine_options)
    if kind == "nano":
        from llmrank.llm.backends.nano import NanoBackend

        if rest:
            raise InputError(f"--backend {spec}: the backend nano takes nothing; write just nano")
        return NanoBackend()
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
        _only(_parameters(path)[1], ("model",), spec)
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


def _only(parameters: Mapping[str, str], names: tuple[str, ...], spec: str) -> None:
    if unknown := set(parameters) - set(names):
        kind = spec.partition(":")[0]
        there = f"there {'is' if len(names) == 1 else 'are'} {', '.join(names)}"
        raise InputError(f"--backend {spec}: {min(unknown)} is no parameter of {kind}; {there}")
