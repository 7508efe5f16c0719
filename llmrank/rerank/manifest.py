"""The manifest of a job: everything needed to repeat it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from typing import Any

import llmrank
from llmrank.data.files import file_sha256
from llmrank.llm.types import identity_of
from llmrank.rerank.reranker import Reranker


def describe(reranker: Reranker, config: Mapping[str, Any], inputs: Iterable[str]) -> dict[str, Any]:
    """Versions, model, template, flags and the hashes of the inputs; no key and no credentials.

    config: the job's own flags. With the settings it makes up the manifest's `config`, which is what a --config file
    takes: with the same inputs and the same replies it gives the same run.
    """
    settings, template = reranker.settings, reranker.template
    told = {**config, **settings.model_dump(mode="json"), "base_url": getattr(reranker.backend, "origin", None)}
    model = identity_of(reranker.backend)._asdict()
    return {
        "llmrank": llmrank.__version__,
        "python": platform.python_version(),
        "model": model | ({"model": settings.model_id} if settings.model_id else {}),
        "method": reranker.method.name,
        "options": reranker.options,
        "template": {
            "name": template.name,
            "version": template.header.version,
            "hash": template.hash,
            "text": template.text,
        },
        "inputs": {path: None if path == "-" else file_sha256(path) for path in inputs},
        "config": {name: value for name, value in told.items() if value is not None},
    }
