"""The inputs of a rerank job: checked to their end before the first request, in bounded memory, then read lazily."""

from __future__ import annotations

import os
import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Self

from llmrank.data.files import Source, spooled
from llmrank.data.queries import numbered_queries, repeated
from llmrank.data.requests import iter_requests
from llmrank.data.run import ScoredDoc, iter_run, trec_order
from llmrank.data.types import Candidates, Document, Query
from llmrank.data.wanted import WantedDocuments, temporary_database
from llmrank.errors import InputError


class RerankInputs:
    """Queries with their candidates, in the order of the run or of the requests; can be gone through again and again.

    Use it in a `with` statement, or close it: it may hold temporary files.
    """

    sizes: Counter[int]
    """How many queries have so many candidates to rerank, those below the depth not counted."""
    max_documents: int
    """The largest number of candidates of a query, those below the depth counted too."""

    def __init__(self, read: Callable[[], Iterator[Candidates]], counts: _Counts, resources: ExitStack) -> None:
        self._read = read
        self._resources = resources
        self.sizes = counts.sizes
        self.max_documents = counts.largest

    @classmethod
    def from_files(cls, queries: Source, corpus: Source, run: Source, depth: int) -> Self:
        """Inputs from three files. Only the first `depth` documents of a query need, and get, their texts."""
        if [os.fspath(path) for path in (queries, corpus, run)].count("-") > 1:
            raise InputError("only one of queries, corpus and run can be - (standard input)")
        with ExitStack() as resources, room():
            database = resources.enter_context(closing(temporary_database()))
            topics, documents, counts = _Topics(database), WantedDocuments(database), _Counts(depth)
            with spooled(queries) as query_file, spooled(run) as run_file:
                topics.load(query_file, run_file)
                for query_id, ranking in topics.rankings():
                    if len({document.doc_id for document in ranking}) < len(ranking):
                        raise _repeated_document(run_file, query_id)
                    documents.want(document.doc_id for document in ranking[:depth])
                    counts.add(len(ranking))
                documents.load(corpus)
                if documents.missing():
                    raise _missing_document(topics, documents, depth, run_file, corpus)
            return cls(lambda: _read_files(topics, documents, depth), counts, resources.pop_all())

    @classmethod
    def from_requests(cls, path: Source, depth: int | None = None) -> Self:
        """Inputs from one file of requests, in which all candidates have their texts."""
        with ExitStack() as resources, room():
            source = resources.enter_context(spooled(path))
            counts = _Counts(depth)
            with closing(temporary_database()) as database:
                database.execute("CREATE TABLE queries (id TEXT PRIMARY KEY, line INTEGER)")
                for line, candidates in iter_requests(source):
                    insert_query(database, source, candidates.query.id, line)
                    counts.add(len(candidates.documents))
            return cls(lambda: (candidates for _, candidates in iter_requests(source)), counts, resources.pop_all())

    def __len__(self) -> int:
        """The number of queries."""
        return self.sizes.total()

    def __iter__(self) -> Iterator[Candidates]:
        return self._read()

    def close(self) -> None:
        """Removes the temporary files."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Counts:
    """What planning needs to know of the sizes of queries."""

    def __init__(self, depth: int | None) -> None:
        self._depth = depth
        self.sizes: Counter[int] = Counter()
        self.largest = 0

    def add(self, documents: int) -> None:
        self.sizes[documents if self._depth is None else min(documents, self._depth)] += 1
        self.largest = max(self.largest, documents)


class _Topics:
    """The queries and the run in a temporary database."""

    _SCHEMA = (
        "CREATE TABLE queries (id TEXT PRIMARY KEY, line INTEGER, text, description, narrative, instruction)",
        # A row holds the successive lines of one query, which in most runs are all of its lines.
        "CREATE TABLE blocks (number INTEGER PRIMARY KEY, query_id TEXT, line INTEGER, doc_ids TEXT, scores BLOB)",
        "CREATE TABLE topics (number INTEGER PRIMARY KEY, query_id TEXT)",
    )

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        for statement in self._SCHEMA:
            database.execute(statement)

    def load(self, queries: Source, run: Source) -> None:
        """Reads both files to their end. Every topic of the run must be among the queries."""
        for line, query in numbered_queries(queries):
            rest = (query.text, query.description, query.narrative, query.instruction)
            insert_query(self._database, queries, query.id, line, *rest)
        self._database.executemany("INSERT INTO blocks VALUES (NULL, ?, ?, ?, ?)", _blocks(run))
        unknown = "SELECT query_id, line FROM blocks WHERE query_id NOT IN (SELECT id FROM queries) ORDER BY number"
        for query_id, line in self._database.execute(f"{unknown} LIMIT 1"):
            raise InputError.at(run, line, f"topic {query_id} is not in {queries}; add it, or drop it from the run")
        self._database.execute("CREATE INDEX by_query ON blocks (query_id, number)")
        self._database.execute(
            "INSERT INTO topics (query_id) SELECT query_id FROM blocks GROUP BY query_id ORDER BY min(number)"
        )

    def rankings(self) -> Iterator[tuple[str, list[ScoredDoc]]]:
        """The topics of the run in order of first appearance, with their documents as trec_eval orders them."""
        for (query_id,) in self._database.execute("SELECT query_id FROM topics ORDER BY number"):
            doc_ids: list[str] = []
            scores = array("d")
            blocks = "SELECT doc_ids, scores FROM blocks WHERE query_id = ? ORDER BY number"
            for some_ids, some_scores in self._database.execute(blocks, (query_id,)):
                doc_ids += some_ids.split(" ")
                scores.frombytes(some_scores)
            yield query_id, trec_order(doc_ids, scores)

    def query(self, query_id: str) -> Query:
        """A query of the run."""
        columns = "SELECT id, text, description, narrative, instruction FROM queries WHERE id = ?"
        return Query(*self._database.execute(columns, (query_id,)).fetchone())


def _read_files(topics: _Topics, documents: WantedDocuments, depth: int) -> Iterator[Candidates]:
    for query_id, ranking in topics.rankings():
        shown = (documents.get(doc_id, score) for doc_id, score in ranking[:depth])
        below = (Document(doc_id, score=score) for doc_id, score in ranking[depth:])
        yield Candidates(topics.query(query_id), (*shown, *below))


def _blocks(run: Source) -> Iterator[tuple[str, int, str, bytes]]:
    for query_id, lines in groupby(iter_run(run), itemgetter(1)):
        numbers, _, doc_ids, scores = zip(*lines, strict=True)
        yield query_id, numbers[0], " ".join(doc_ids), array("d", scores).tobytes()


def insert_query(database: sqlite3.Connection, path: Source, query_id: str, line: int, *rest: str) -> None:
    """Adds a row to a table of queries; a query that is there already is an error."""
    row = (query_id, line, *rest)
    marks = ", ".join("?" * len(row))
    if not database.execute(f"INSERT OR IGNORE INTO queries VALUES ({marks})", row).rowcount:
        (first,) = database.execute("SELECT line FROM queries WHERE id = ?", (query_id,)).fetchone()
        raise repeated(path, line, query_id, first)


def _repeated_document(run: Source, query_id: str) -> InputError:
    first_lines: dict[str, int] = {}
    for line, query, doc_id, _ in iter_run(run):
        if query == query_id and first_lines.setdefault(doc_id, line) != line:
            break
    return InputError.at(run, line, f"document {doc_id} is in query {query_id} already, in line {first_lines[doc_id]}")


def _missing_document(
    topics: _Topics, documents: WantedDocuments, depth: int, run: Source, corpus: Source
) -> InputError:
    """The error that names the first of the missing documents."""
    wanted = ((query_id, document.doc_id) for query_id, ranking in topics.rankings() for document in ranking[:depth])
    query_id, doc_id = next(pair for pair in wanted if pair[1] not in documents)
    line = next(line.line for line in iter_run(run) if (line.query_id, line.doc_id) == (query_id, doc_id))
    others = documents.missing() - 1
    also = f", nor are {others} others" if others > 1 else ", nor is another" if others else ""
    return InputError.at(
        run,
        line,
        f"document {doc_id} of topic {query_id} is not in {corpus}{also}; the first {depth} documents of a topic "
        "need their texts",
    )


@contextmanager
def room() -> Iterator[None]:
    """Tells in one sentence where a temporary file finds no room."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise InputError(f"no room for a temporary file ({error}); set TMPDIR to a folder with more") from None
