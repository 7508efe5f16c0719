"""Requests to rerank, as rerankers exchange them: a query with its candidates and their texts in one JSON object."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, TextIO

from llmrank.data.corpus import content
from llmrank.data.files import BUFFER, Source, begins_with, open_lines, opened, spooled
from llmrank.data.queries import query_of
from llmrank.data.records import (
    DOC_ID,
    QUERY_ID,
    BadRecord,
    Record,
    an_object,
    load,
    name_in,
    take_id,
)
from llmrank.data.types import Candidates, Document
from llmrank.errors import InputError

Numbered = Iterator[tuple[int, str]]
_DECODER = json.JSONDecoder()
_FIRST = re.compile(r"\s*\]?")
_NEXT = re.compile(r"\s*(?:,\s*|\])")
_LONGEST_TOKEN = 64  # of those that may be cut in two but for strings: numbers, literals, escapes, white space


def iter_requests(path: Source) -> Iterator[tuple[int, Candidates]]:
    """The requests of a JSONL file, or of one JSON array, with the lines in which they start.

    `{"query": {"qid", "text"}, "candidates": [{"docid", "score", "doc": {...}}]}`; also read are a query that is a
    plain string with the id beside it or in each candidate, `hits` for `candidates`, a `doc` that is a plain string,
    and a candidate with the keys of the document among its own.
    """
    with spooled(path) as source:
        for number, text in _array(source) if begins_with(source, b"[") else open_lines(source):
            if not text or text.isspace():
                continue
            try:
                candidates = _candidates(load(text))
            except BadRecord as problem:
                raise InputError.at(source, number, str(problem)) from None
            yield number, candidates


def _candidates(record: Record) -> Candidates:
    key = "candidates" if "candidates" in record else "hits"
    listed = record.get(key)
    if not isinstance(listed, list):
        raise BadRecord("no list of candidates")
    query = query_of(_query_record(record, listed))
    documents: dict[str, Document] = {}
    for place, entry in enumerate(listed, 1):
        try:
            document = _document(entry)
        except BadRecord as problem:
            raise BadRecord(f"candidate {place} of query {query.id}: {problem}") from None
        if document.id in documents:
            raise BadRecord(f"candidate {place} of query {query.id}: document {document.id} is listed already")
        documents[document.id] = document
    return Candidates(query, tuple(documents.values()))


def _query_record(record: Record, listed: list[Any]) -> Record:
    query = record.get("query")
    if not isinstance(query, str):
        return an_object(query, "query")
    name = name_in(record, QUERY_ID)
    ids = [record[name]] if name else [entry["qid"] for entry in listed if isinstance(entry, dict) and "qid" in entry]
    if not ids or any(query_id != ids[0] for query_id in ids):
        raise BadRecord('the query has no id; write {"query": {"qid": ..., "text": ...}, ...}')
    return {"qid": ids[0], "text": query}


def _document(entry: Any) -> Document:
    record = an_object(entry, "it")
    score = record.pop("score", None)
    if score is not None and type(score) not in (int, float):
        raise BadRecord(f"the score {score!r} is not a number")
    doc = record.pop("doc", record)
    if isinstance(doc, str):
        doc = {"text": doc}
    doc = an_object(doc, "doc")
    doc_id = take_id(record if name_in(record, DOC_ID) else doc, DOC_ID)
    text, title, rest = content(doc)
    return Document(doc_id, text, title, None if score is None else float(score), rest)


def _array(path: Source) -> Numbered:
    """The texts of the elements of a JSON array with their lines; holds not much more than one of them."""
    try:
        with opened(path) as stream:
            yield from _elements(path, io.TextIOWrapper(stream, encoding="utf-8", newline="\n"))
    except (ValueError, EOFError, OSError, zlib.error):
        for _ in open_lines(path):  # what cannot be decoded or unpacked is named there, with its line
            pass
        raise


def _elements(path: Source, characters: TextIO) -> Numbered:
    held = characters.read(BUFFER)
    opening = held.index("[") + 1
    line, at, separator = 1 + held.count("\n", 0, opening), opening, _FIRST
    while True:  # `line` is the line of held[at]
        try:
            before = _match(separator, held, at)
            start = before.end()
            if before[0].endswith("]"):
                break
            _, end = _DECODER.raw_decode(held, start)
        except json.JSONDecodeError as error:
            more = "" if _is_wrong(error, held) else characters.read(max(BUFFER, len(held) - at))
            if not more:
                problem = f"invalid JSON array ({error.msg[0].lower()}{error.msg[1:]})"
                raise InputError.at(path, line + held.count("\n", at, error.pos), problem) from None
            held, at = held[at:] + more, 0
            continue
        line += held.count("\n", at, start)
        yield line, held[start:end]
        line += held.count("\n", start, end)
        at, separator = end, _NEXT
    if held[start:].strip() or characters.read(BUFFER).strip():
        line += held.count("\n", at, start)
        raise InputError.at(path, line, "something follows the JSON array; write one array, or one object a line")


def _match(separator: re.Pattern[str], held: str, at: int) -> re.Match[str]:
    match = separator.match(held, at)
    if match is None:
        raise json.JSONDecodeError("Expecting , or ]", held, len(held) - len(held[at:].lstrip()))
    return match


def _is_wrong(error: json.JSONDecodeError, held: str) -> bool:
    """Whether the JSON is wrong wherever it goes on: an element cut off by the end of what is held fails near there."""
    return error.pos < len(held) - _LONGEST_TOKEN and not error.msg.startswith("Unterminated string")
