"""The manifest of a job: everything needed to repeat it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from typing import Any

import llmrank
from llmrank.data.files import file_sha256
from llmrank.llm.types import identity_of
from llmrank.rerank.reranker import Reranker
from llmrank.voice import Voice


def describe(reranker: Reranker, config: Mapping[str, Any], inputs: Iterable[str]) -> dict[str, Any]:
    """Versions, model, template, flags and the hashes of the inputs; no key and no credentials.

    config: the job's own flags. With the settings it makes up the manifest's `config`, which is what a --config file
    takes: with the same inputs and the same replies it gives the same run.
    """
    settings, (_, main), *parts = reranker.settings, *reranker.voices.items()
    told = {**config, **settings.model_dump(mode="json"), "base_url": getattr(reranker.backend, "origin", None)}
    options = {name: getattr(value, "told", lambda value=value: value)() for name, value in reranker.options.items()}
    if "stages" in options:  # as they were read, whatever becomes of their file
        told["stages"] = options["stages"]
        told["option"] = [pair for pair in config.get("option", ()) if not pair.startswith("stages=")] or None
    if settings.examples is not None:
        inputs = [*inputs, settings.examples]
    model = identity_of(reranker.backend)._asdict()
    return {
        "llmrank": llmrank.__version__,
        "python": platform.python_version(),
        "model": model | ({"model": settings.model_id} if settings.model_id else {}),
        "method": reranker.method.name,
        "options": options,
        "template": _template(main),
        "parts": {
            name: {"model": identity_of(voice.backend)._asdict(), "template": _template(voice)} for name, voice in parts
        },
        "inputs": {path: None if path == "-" else file_sha256(path) for path in inputs},
        "config": {name: value for name, value in told.items() if value is not None},
    }


def _template(voice: Voice) -> dict[str, Any]:
    template = voice.template
    return {
        "name": template.name,
        "version": template.header.version,
        "hash": template.hash,
        "text": template.text,
    }
