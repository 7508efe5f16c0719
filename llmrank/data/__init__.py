"""Queries, documents, runs, qrels: the plain types, and a module of readers and writers for each format.

Every reader takes plain and gzip files, and `-` for standard input; what it cannot use is an `InputError` that names
file and line.
"""

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
