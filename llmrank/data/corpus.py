"""Files of documents: TSV or JSON lines, read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llmrank.data.files import Source, first_line
from llmrank.data.records import (
    DOC_ID,
    DOC_TEXT,
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
from llmrank.data.types import Document
from llmrank.errors import InputError

Wanted = Callable[[str], Any]
"""Whether (as a truth value) the document with an id is wanted."""


def iter_corpus(path: Source, wanted: Wanted | None = None) -> Iterator[tuple[int, Document]]:
    """The documents, all or the wanted ones, with their lines. Of the others only the form is checked, which is fast.

    Ids are not compared with each other: that would take memory for the whole corpus.
    """
    start, lines = first_line(path)
    return (_from_json if is_json(path, start) else _from_tsv)(path, lines, wanted)


def content(record: Record) -> tuple[str, str, Record]:
    """Text, title and everything else in a JSON object, whose id was taken."""
    return take_text(record, DOC_TEXT), take_string(record, "title"), record


def _from_json(path: Source, lines: Lines, wanted: Wanted | None) -> Iterator[tuple[int, Document]]:
    for number, line in lines:
        if not line or line.isspace():
            continue
        try:
            record = load(line)
            doc_id = take_id(record, DOC_ID)
            if wanted is not None and not wanted(doc_id):
                continue
            text, title, rest = content(record)
        except BadRecord as problem:
            raise InputError.at(path, number, str(problem)) from None
        yield number, Document(doc_id, text, title, metadata=rest)


def _from_tsv(path: Source, lines: Lines, wanted: Wanted | None) -> Iterator[tuple[int, Document]]:
    for number, line in lines:
        if not line or line.isspace():
            continue
        try:
            doc_id, tab, text = line.partition("\t")  # real passages have tabs
            if not tab:
                raise BadRecord("expected doc_id<TAB>text, found no tab")
            checked_id(doc_id, "doc_id")
        except BadRecord as problem:
            raise InputError.at(path, number, str(problem)) from None
        if wanted is None or wanted(doc_id):
            yield number, Document(doc_id, text)
