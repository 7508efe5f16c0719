"""Queries, documents, runs, qrels: the plain types, and a module of readers and writers for each format.

Every reader takes plain and gzip files, and `-` for standard input; what it cannot use is an `InputError` that names
file and line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmrank.data.corpus import iter_corpus
    from llmrank.data.files import file_sha256, open_lines, spooled, writing
    from llmrank.data.inputs import RerankInputs
    from llmrank.data.pairs import iter_pairs
    from llmrank.data.qrels import format_grade, iter_qrels, read_qrels, write_qrels
    from llmrank.data.queries import iter_queries, read_queries
    from llmrank.data.requests import iter_requests
    from llmrank.data.run import ScoredDoc, format_ranking, iter_run, read_run
    from llmrank.data.types import Candidates, Document, Query
    from llmrank.data.wanted import WantedDocuments, temporary_database

__all__ = [
    "Candidates",
    "Document",
    "Query",
    "RerankInputs",
    "ScoredDoc",
    "WantedDocuments",
    "file_sha256",
    "format_grade",
    "format_ranking",
    "iter_corpus",
    "iter_pairs",
    "iter_qrels",
    "iter_queries",
    "iter_requests",
    "iter_run",
    "open_lines",
    "read_qrels",
    "read_queries",
    "read_run",
    "spooled",
    "temporary_database",
    "write_qrels",
    "writing",
]

_NAMES = {
    "corpus": ("iter_corpus",),
    "files": ("file_sha256", "open_lines", "spooled", "writing"),
    "inputs": ("RerankInputs",),
    "pairs": ("iter_pairs",),
    "qrels": ("format_grade", "iter_qrels", "read_qrels", "write_qrels"),
    "queries": ("iter_queries", "read_queries"),
    "requests": ("iter_requests",),
    "run": ("ScoredDoc", "format_ranking", "iter_run", "read_run"),
    "types": ("Candidates", "Document", "Query"),
    "wanted": ("WantedDocuments", "temporary_database"),
}
_WHERE = {name: f"llmrank.data.{module}" for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # Loaded when first used: whoever needs one format, or the types alone, need not wait for the others.
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'llmrank.data' has no attribute {name!r}")
