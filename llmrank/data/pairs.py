"""Files of (query, document) pairs to judge: two columns, or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator

from llmrank.data.files import Source, first_line
from llmrank.data.records import DOC_ID, QUERY_ID, BadRecord, is_json, load, take_id
from llmrank.errors import InputError


def iter_pairs(path: Source) -> Iterator[tuple[int, str, str]]:
    """Line, query id and document id of each pair, in the order of the file and as often as it is there."""
    start, lines = first_line(path)
    parse = _from_json if is_json(path, start) else _from_columns
    for number, line in lines:
        if not line.strip():
            continue
        try:
            query_id, doc_id = parse(line)
        except BadRecord as problem:
            raise InputError.at(path, number, str(problem)) from None
        yield number, query_id, doc_id


def _from_json(line: str) -> tuple[str, str]:
    record = load(line)
    # A bare `id` could be either's.
    return take_id(record, QUERY_ID[:2]), take_id(record, DOC_ID[:2])


def _from_columns(line: str) -> tuple[str, str]:
    columns = line.split()
    if len(columns) != 2:
        raise BadRecord(f"expected two columns (query_id doc_id), found {len(columns)}")
    return columns[0], columns[1]
