"""TREC qrels files: relevance grades of (query, document) pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from llmrank.data.files import Source, open_lines, writing
from llmrank.errors import InputError

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


class QrelsLine(NamedTuple):
    """A line of a qrels file."""

    line: int
    query_id: str
    doc_id: str
    grade: int


def read_qrels(path: Source) -> dict[str, dict[str, int]]:
    """Grades by query and document, in the order of the file. A pair may be repeated only with the same grade."""
    qrels: dict[str, dict[str, int]] = {}
    for line, query_id, doc_id, grade in iter_qrels(path):
        before = qrels.setdefault(query_id, {}).setdefault(doc_id, grade)
        if before != grade:
            problem = f"query {query_id}, document {doc_id} has grade {grade} here and {before} further up; keep one"
            raise InputError.at(path, line, problem)
    return qrels


def iter_qrels(path: Source) -> Iterator[QrelsLine]:
    """The lines of a qrels file as they stand, each checked by itself."""
    for number, line in open_lines(path):
        columns = line.split()
        if not columns:
            continue
        if len(columns) != 4:
            problem = f"expected four columns (query_id 0 doc_id grade), found {len(columns)}"
            raise InputError.at(path, number, problem)
        query_id, _, doc_id, grade = columns
        if not _WHOLE_NUMBER.fullmatch(grade):
            raise InputError.at(path, number, f"the grade {grade!r} is not a whole number")
        yield QrelsLine(number, query_id, doc_id, int(grade))


def write_qrels(path: Source, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Writes grades in the order in which they are given."""
    with writing(path) as stream:
        for query_id, grades in qrels.items():
            stream.writelines(format_grade(query_id, doc_id, grade) for doc_id, grade in grades.items())


def format_grade(query_id: str, doc_id: str, grade: int) -> str:
    """One line of a qrels file."""
    return f"{query_id} 0 {doc_id} {grade}\n"
