"""JSON records as people write them: ids, texts and titles under any of their usual names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from llmrank.data.files import Source

QUERY_ID = ("query_id", "qid", "_id", "id")
QUERY_TEXT = ("text", "query", "title")
DOC_ID = ("doc_id", "docid", "_id", "id")
DOC_TEXT = ("text", "contents", "content", "segment")

Record = dict[str, Any]
Lines = Iterator[tuple[int, str]]


class BadRecord(ValueError):
    """What is wrong with a record; whoever knows the file and the line makes an InputError of it."""


def is_json(path: Source, first_line: str) -> bool:
    """Whether a file holds JSON lines: told by its first line, or by its name."""
    name = str(path).removesuffix(".gz")
    return first_line.startswith("{") or name.endswith((".jsonl", ".json", ".ndjson"))


def load(line: str) -> Record:
    """The JSON object in a line."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadRecord(f"invalid JSON ({error.msg}, at column {error.colno})") from None
    return an_object(value, "a line")


def an_object(value: object, what: str) -> Record:
    """The value, which must be a JSON object."""
    if not isinstance(value, dict):
        raise BadRecord(f"{what} must be a JSON object, not {_shown(value)}")
    return value


def name_in(record: Record, names: tuple[str, ...]) -> str | None:
    """The first of the names under which the record has something."""
    for name in names:
        if record.get(name) is not None:
            return name
    return None


def take_id(record: Record, names: tuple[str, ...]) -> str:
    """Removes and returns the id."""
    name = name_in(record, names)
    if name is None:
        raise BadRecord(f"no id: expected one of {', '.join(names)}")
    return checked_id(record.pop(name), name)


def take_text(record: Record, names: tuple[str, ...]) -> str:
    """Removes and returns the text; it may be empty but must be there."""
    name = name_in(record, names)
    if name is None:
        raise BadRecord(f"no text: expected one of {', '.join(names)}")
    return take_string(record, name)


def take_string(record: Record, name: str) -> str:
    """Removes and returns an optional string, empty where it is absent."""
    value = record.pop(name, None)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRecord(f"{name} must be a string, not {_shown(value)}")
    return value


def checked_id(value: object, name: str) -> str:
    """An id as TREC files can hold it: not empty, without white space. Whole numbers are taken as they are written."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise BadRecord(f"{name} must be a string or a whole number, not {_shown(value)}")
    if value.split() != [value]:
        raise BadRecord(
            f"{name} {value!r} has white space, which no TREC file can hold" if value else f"{name} is empty"
        )
    return value


def _shown(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", type(None): "null", bool: "true or false"}
    return kinds.get(type(value)) or repr(value)
