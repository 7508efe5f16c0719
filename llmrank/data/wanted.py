"""The texts of the documents that a job needs, in a temporary file: bounded memory, whatever the size of the corpus."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import orjson

from llmrank.data.corpus import iter_corpus
from llmrank.data.files import Source
from llmrank.data.types import Document
from llmrank.errors import InputError

CACHE_KIB = 16 * 1024
SLOTS = 1 << 24

_SCHEMA = (
    "CREATE TABLE wanted (doc_id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE documents (line INTEGER PRIMARY KEY, doc_id TEXT, text TEXT, title TEXT, metadata BLOB)",
)
_REPEATED = """
SELECT doc_id, min(line), max(line) FROM documents JOIN wanted USING (doc_id)
GROUP BY doc_id HAVING count(*) > 1 ORDER BY max(line) LIMIT 1
"""
_MISSING = """
SELECT count(*) FROM wanted
WHERE NOT EXISTS (SELECT * FROM documents WHERE documents.doc_id = wanted.doc_id)
"""


def temporary_database() -> sqlite3.Connection:
    """A database that lives in memory while it is small, then in a nameless file that goes when it is closed."""
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}", "temp_store = FILE"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("BEGIN")  # never ended, which saves a commit for every row
    return database


class WantedDocuments:
    """First `want` ids, then `load` the corpus once, then `get` documents as often as needed."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._sieve = _Sieve()
        for statement in _SCHEMA:
            database.execute(statement)

    def want(self, doc_ids: Iterable[str]) -> None:
        """Notes ids; one may be noted again."""
        rows = ((self._sieve.add(doc_id),) for doc_id in doc_ids)
        self._database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", rows)

    def load(self, corpus: Source) -> None:
        """Reads a corpus to its end and keeps the wanted documents; two of one id are an error."""
        rows = (
            (line, document.id, document.text, document.title, _dumps(document))
            for line, document in iter_corpus(corpus, self._sieve.may_have)
        )
        self._database.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", rows)
        self._database.execute("CREATE INDEX by_id ON documents (doc_id)")
        for doc_id, first, line in self._database.execute(_REPEATED):
            raise InputError.at(corpus, line, f"document {doc_id} is there already, in line {first}; ids must differ")

    def missing(self) -> int:
        """How many of the wanted documents the corpus lacks."""
        (number,) = self._database.execute(_MISSING).fetchone()
        return int(number)

    def __contains__(self, doc_id: str) -> bool:
        return self._row(doc_id) is not None

    def get(self, doc_id: str, score: float | None = None) -> Document:
        """A document that the corpus has, with its first-stage score."""
        row = self._row(doc_id)
        if row is None:
            raise KeyError(doc_id)
        text, title, metadata = row
        return Document(doc_id, text, title, score, orjson.loads(metadata) if metadata else {})

    def _row(self, doc_id: str) -> tuple[str, str, bytes | None] | None:
        columns = "SELECT text, title, metadata FROM documents WHERE doc_id = ?"
        row: tuple[str, str, bytes | None] | None = self._database.execute(columns, (doc_id,)).fetchone()
        return row


def _dumps(document: Document) -> bytes | None:
    return orjson.dumps(document.metadata) if document.metadata else None


class _Sieve:
    """A Bloom filter: tells in no time of most ids that they are not wanted, so that a large corpus is soon read."""

    def __init__(self) -> None:
        self._slots = bytearray(SLOTS)

    def add(self, doc_id: str) -> str:
        key = hash(doc_id)
        self._slots[key % SLOTS] = self._slots[(key >> 24) % SLOTS] = 1
        return doc_id

    def may_have(self, doc_id: str) -> int:
        key = hash(doc_id)
        return self._slots[key % SLOTS] and self._slots[(key >> 24) % SLOTS]
