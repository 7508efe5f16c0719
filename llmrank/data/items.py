"""Files of items to compare: JSON lines of query_id, item_id and text; and the inputs of a job that compares them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from types import TracebackType
from typing import NamedTuple, Self

import orjson

from llmrank.data.files import Source, open_lines, spooled
from llmrank.data.inputs import insert_query, room
from llmrank.data.queries import numbered_queries
from llmrank.data.records import DOC_TEXT, QUERY_ID, BadRecord, Record, load, take_id, take_string, take_text
from llmrank.data.types import Candidates, Document, Query
from llmrank.data.wanted import temporary_database
from llmrank.errors import InputError

ITEM_ID = ("item_id", "system", "doc_id", "docid")
_SCHEMA = (
    "CREATE TABLE queries (id TEXT PRIMARY KEY, line INTEGER, text, description, narrative, instruction)",
    "CREATE TABLE items (number INTEGER PRIMARY KEY, query_id, item_id, line INTEGER, text, title, rest BLOB)",
)


class Item(NamedTuple):
    """One line of an items file."""

    line: int
    query_id: str
    document: Document
    """Its id is the item's."""


def iter_items(path: Source) -> Iterator[Item]:
    """Every item, in the order of the file; one without a text is an error."""
    for number, line in open_lines(path):
        if not line.strip():
            continue
        try:
            record = load(line)
            query_id, item_id = take_id(record, QUERY_ID[:2]), _take_name(record)
            text, title = take_text(record, DOC_TEXT), take_string(record, "title")
        except BadRecord as problem:
            raise InputError.at(path, number, str(problem)) from None
        yield Item(number, query_id, Document(item_id, text, title, metadata=record))


def _take_name(record: Record) -> str:
    """Removes and returns the item's id: a system's name may hold spaces, which no document's id does."""
    key = next((name for name in ITEM_ID if record.get(name) is not None), None)
    value = None if key is None else record.pop(key)
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise BadRecord(f"no item id: expected one of {', '.join(ITEM_ID)}, a text or a whole number")
    return value


class ItemInputs:
    """Queries with their items, in the order in which the items file first names them; read and checked to the end.

    Use it in a `with` statement, or close it: it holds temporary files.
    """

    def __init__(self, database: sqlite3.Connection, resources: ExitStack) -> None:
        self._database = database
        self._resources = resources

    @classmethod
    def open(cls, queries: Source, items: Source) -> Self:
        """Both files. Every item's query must be among the queries, and an item stands once under its query."""
        if [os.fspath(path) for path in (queries, items)].count("-") > 1:
            raise InputError("only one of queries and items can be - (standard input)")
        with ExitStack() as resources, room():
            database = resources.enter_context(closing(temporary_database()))
            for statement in _SCHEMA:
                database.execute(statement)
            query_file, item_file = (resources.enter_context(spooled(path)) for path in (queries, items))
            for line, query in numbered_queries(query_file):
                rest = (query.text, query.description, query.narrative, query.instruction)
                insert_query(database, query_file, query.id, line, *rest)
            rows = (
                (
                    i.query_id,
                    i.document.id,
                    i.line,
                    i.document.text,
                    i.document.title,
                    orjson.dumps(i.document.metadata),
                )
                for i in iter_items(item_file)
            )
            database.executemany("INSERT INTO items VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows)
            database.execute("CREATE INDEX by_query ON items (query_id, item_id)")
            _check(database, query_file, item_file)
            return cls(database, resources.pop_all())

    def sizes(self) -> Iterator[int]:
        """How many items each query has."""
        for (size,) in self._database.execute("SELECT count(*) FROM items GROUP BY query_id"):
            yield size

    def __len__(self) -> int:
        """The number of queries that have items."""
        (number,) = self._database.execute("SELECT count(DISTINCT query_id) FROM items").fetchone()
        return int(number)

    def __iter__(self) -> Iterator[Candidates]:
        first = "SELECT query_id FROM items GROUP BY query_id ORDER BY min(number)"
        for (query_id,) in self._database.execute(first):
            columns = "SELECT id, text, description, narrative, instruction FROM queries WHERE id = ?"
            query = Query(*self._database.execute(columns, (query_id,)).fetchone())
            rows = "SELECT item_id, text, title, rest FROM items WHERE query_id = ? ORDER BY number"
            listed = self._database.execute(rows, (query_id,))
            yield Candidates(query, tuple(Document(i, t, n, metadata=orjson.loads(r)) for i, t, n, r in listed))

    def close(self) -> None:
        """Removes the temporary files."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check(database: sqlite3.Connection, queries: Source, items: Source) -> None:
    unknown = "SELECT query_id, line FROM items WHERE query_id NOT IN (SELECT id FROM queries) ORDER BY number LIMIT 1"
    for query_id, line in database.execute(unknown):
        raise InputError.at(items, line, f"query {query_id} is not in {queries}; add it, or drop its items")
    twice = (
        "SELECT query_id, item_id, min(line), max(line) FROM items GROUP BY query_id, item_id "
        "HAVING count(*) > 1 ORDER BY max(line) LIMIT 1"
    )
    for query_id, item_id, first, line in database.execute(twice):
        told = f"item {item_id} of query {query_id} is there already, in line {first}; ids must differ"
        raise InputError.at(items, line, told)
