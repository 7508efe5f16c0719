"""Texts that a user brings for each query: references, rubrics, nuggets, responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from llmrank.data.files import open_lines
from llmrank.errors import InputError

IDS = ("query_id", "qid", "_id", "id")
TEXTS = ("text", "reference", "answer", "response", "nugget")


class Line(NamedTuple):
    """One line of such a file."""

    query_id: str
    text: str
    fields: Mapping[str, Any]
    """Everything that stands in it."""


@lru_cache(maxsize=8)
def texts_of(path: str, flag: str) -> Mapping[str, tuple[Line, ...]]:
    """The lines of a JSONL file by query. `flag` names the option that brought it, for people."""
    found: dict[str, list[Line]] = {}
    for line in _lines(path, flag):
        found.setdefault(line.query_id, []).append(line)
    if not found:
        raise InputError(f"{flag} {path}: the file is empty; it has one JSON object a line, with query_id and text")
    return MappingProxyType({query: tuple(lines) for query, lines in found.items()})


def _lines(path: str, flag: str) -> Iterator[Line]:
    for number, text in open_lines(path):
        if not text.strip():
            continue
        try:
            fields = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise InputError.at(path, number, f"this is no JSON ({error}); {flag} takes one object a line") from error
        named = fields if isinstance(fields, dict) else {}
        query = next((named[key] for key in IDS if key in named), None)
        told = next((named[key] for key in TEXTS if isinstance(named.get(key), str)), None)
        if query is None or told is None:
            missing = "query_id" if query is None else "text"
            raise InputError.at(path, number, f"{missing} is missing; {flag} takes objects with query_id and text")
        yield Line(str(query), told, named)
