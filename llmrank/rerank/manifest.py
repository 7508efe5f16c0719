"""The manifest of a job: everything needed to repeat it."""

from __future__ import annotations

import platform
from typing import Any

import llmrank
from llmrank.data.files import file_sha256
from llmrank.llm.types import identity_of
from llmrank.rerank.reranker import Reranker


def describe(reranker: Reranker, inputs: list[str], *, depth: int, backend: str) -> dict[str, Any]:
    """Versions, method, template, model, settings and the hashes of the inputs; no key and no credentials."""
    settings, template = reranker.settings, reranker.template
    told = settings.model_dump(mode="json")
    told["base_url"] = getattr(reranker.backend, "origin", None)
    return {
        "llmrank": llmrank.__version__,
        "python": platform.python_version(),
        "method": reranker.method.name,
        "options": reranker.options,
        "depth": depth,
        "template": {"name": template.name, "version": template.header.version, "hash": template.hash},
        "backend": backend,
        "model": identity_of(reranker.backend)._asdict() | ({"model": settings.model_id} if settings.model_id else {}),
        "settings": told,
        "inputs": {path: None if path == "-" else file_sha256(path) for path in inputs},
    }
