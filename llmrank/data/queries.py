"""Files of queries: TSV, JSON lines, or TREC topics; the content tells which."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator

from llmrank.data.files import Source, first_line
from llmrank.data.records import (
    QUERY_ID,
    QUERY_TEXT,
    BadRecord,
    Lines,
    Record,
    checked_id,
    is_json,
    load,
    take_id,
    take_string,
    take_text,
)
from llmrank.data.types import Query
from llmrank.errors import InputError

TOPIC_FIELDS = {
    "id": ("num", "number", "qid", "id"),
    "text": ("query", "title"),
    "description": ("desc", "description", "question"),
    "narrative": ("narr", "narrative"),
}
"""The fields of a query and the tags that hold them in TREC topics."""
OTHER_TAGS = ("head", "dom", "smry", "con", "fac", "def", "nat", "time")
"""Tags of the early TREC topics, which end the field before them."""
LABELS = {"id": "Number:", "text": "Topic:", "description": "Description:", "narrative": "Narrative:"}
"""What the classic topics repeat after a tag."""


def read_queries(path: Source) -> dict[str, Query]:
    """The queries by id, in the order of the file."""
    return {query.id: query for query in iter_queries(path)}


def iter_queries(path: Source) -> Iterator[Query]:
    """The queries in the order of the file; two with one id are an error."""
    first_lines: dict[str, int] = {}
    for number, query in numbered_queries(path):
        if query.id in first_lines:
            raise repeated(path, number, query.id, first_lines[query.id])
        first_lines[query.id] = number
        yield query


def numbered_queries(path: Source) -> Iterator[tuple[int, Query]]:
    """The queries with the lines in which they start, each checked by itself."""
    start, lines = first_line(path)
    if start.startswith("<"):
        return _from_topics(path, lines)
    return _from_lines(path, lines, _from_json if is_json(path, start) else _from_tsv)


def repeated(path: Source, line: int, query_id: str, first: int) -> InputError:
    """The error of a query id that was there before."""
    return InputError.at(path, line, f"query {query_id} is there already, in line {first}; ids must differ")


def query_of(record: Record) -> Query:
    """The query in a JSON object."""
    query_id = take_id(record, QUERY_ID)
    text = take_text(record, QUERY_TEXT)
    rest = (take_string(record, name) for name in ("description", "narrative", "instruction"))
    return _checked(Query(query_id, text, *rest))


def _from_json(line: str) -> Query:
    return query_of(load(line))


def _from_tsv(line: str) -> Query:
    columns = line.split("\t")
    if len(columns) != 2:
        found = f"{len(columns)} columns" if len(columns) > 1 else "no tab"
        raise BadRecord(f"expected query_id<TAB>text, found {found}; more than a text can be given as JSONL")
    return _checked(Query(checked_id(columns[0], "query_id"), columns[1]))


def _from_lines(path: Source, lines: Lines, parse: Callable[[str], Query]) -> Iterator[tuple[int, Query]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            query = parse(line)
        except BadRecord as problem:
            raise InputError.at(path, number, str(problem)) from None
        yield number, query


def _checked(query: Query) -> Query:
    if not query.text.strip():
        raise BadRecord(f"query {query.id} has no text")
    return query


def _from_topics(path: Source, lines: Lines) -> Iterator[tuple[int, Query]]:
    numbered = list(lines)
    line, at = numbered[0][0], 0
    text = "\n".join(text for _, text in numbered)
    topic = None
    for topic in _TOPIC.finditer(text):
        line += text.count("\n", at, topic.start())
        at = topic.start()
        try:
            query = _from_topic(topic[2], topic[3])
        except BadRecord as problem:
            raise InputError.at(path, line, str(problem)) from None
        yield line, query
    if topic is None:
        raise InputError(f"cannot read {path}: it starts with < but has no <top> or <topic>; write TSV or JSONL")


def _from_topic(attributes: str, body: str) -> Query:
    fields = {}
    for field, tags in TOPIC_FIELDS.items():
        found = (match for tag in tags if (match := _CONTENT[tag].search(body)))
        if match := next(found, None):
            fields[field] = _clean(match[1] or match[2] or "", LABELS[field])
    number = _NUMBER_ATTRIBUTE.search(attributes)
    query_id = checked_id(number[1].strip() if number else fields.get("id", ""), "the number of the topic")
    description = fields.get("description", "")
    # Topics of question answering have nothing but a description, those of clinical trials nothing but a text.
    text = fields.get("text") or description or ("" if fields else _clean(body, ""))
    return _checked(Query(query_id, text, description, fields.get("narrative", "")))


def _clean(text: str, label: str) -> str:
    bare = _ENTITY.sub(lambda entity: html.unescape(entity[0]), _TAG.sub(" ", text))
    return " ".join(bare.split()).removeprefix(label).lstrip()


_ALL_TAGS = "|".join(sum(TOPIC_FIELDS.values(), OTHER_TAGS))
_FLAGS = re.DOTALL | re.IGNORECASE
_TOPIC = re.compile(r"<(top|topic)\b([^>]*)>(.*?)(?=</\1\s*>|<\1\b|\Z)", _FLAGS)
_NUMBER_ATTRIBUTE = re.compile(rf"\b(?:{'|'.join(TOPIC_FIELDS['id'])})\s*=\s*[\"']([^\"']*)[\"']", re.IGNORECASE)
_CONTENT = {
    # Up to the closing tag or, since the classic topics close none, to where the next tag starts.
    tag: re.compile(rf"<{tag}\b[^>]*>(?:(.*?)</{tag}\s*>|(.*?)(?=</?(?:{_ALL_TAGS})\b|\n\s*<|\Z))", _FLAGS)
    for tags in TOPIC_FIELDS.values()
    for tag in tags
}
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->", re.DOTALL)
_ENTITY = re.compile(r"&#?\w+;")
