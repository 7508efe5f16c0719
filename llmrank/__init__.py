"""llmrank: an LLM reranks retrieved candidates and judges relevance, and you can tell how far to trust it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmrank.data.types import Candidates, Document, Query
    from llmrank.errors import InputError, LlmrankError
    from llmrank.judge.judge import Judge
    from llmrank.judge.judgment import Judgment
    from llmrank.llm.client import BackendRefused
    from llmrank.rerank.ranking import Hit, Ranking
    from llmrank.rerank.reranker import Cascade, Reranker
    from llmrank.rerank.stages import Stage

__version__ = "0.1.0"
__all__ = [
    "BackendRefused",
    "Candidates",
    "Cascade",
    "Document",
    "Hit",
    "InputError",
    "Judge",
    "Judgment",
    "LlmrankError",
    "Query",
    "Ranking",
    "Reranker",
    "Stage",
]

_WHERE = {
    "BackendRefused": "llmrank.llm.client",
    "Candidates": "llmrank.data.types",
    "Cascade": "llmrank.rerank.reranker",
    "Document": "llmrank.data.types",
    "Hit": "llmrank.rerank.ranking",
    "InputError": "llmrank.errors",
    "Judge": "llmrank.judge.judge",
    "Judgment": "llmrank.judge.judgment",
    "LlmrankError": "llmrank.errors",
    "Query": "llmrank.data.types",
    "Ranking": "llmrank.rerank.ranking",
    "Reranker": "llmrank.rerank.reranker",
    "Stage": "llmrank.rerank.stages",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used, so that `import llmrank` costs next to nothing.
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in ("aggregate", "agree", "data", "judge", "llm", "rerank", "templates"):
        return import_module(f"llmrank.{name}")
    raise AttributeError(f"module 'llmrank' has no attribute {name!r}")
