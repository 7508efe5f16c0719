"""Files of worked examples for few-shot prompts: training queries with documents whose relevance is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmrank.data.files import Source, open_lines
from llmrank.data.records import DOC_ID, DOC_TEXT, QUERY_ID, BadRecord, Record, load, name_in, take_id, take_string
from llmrank.errors import InputError

SIDES = {"left": (1.0, 0.0), "right": (0.0, 1.0), "tie": (0.5, 0.5)}
FORMS = "`left`, `right` and `answer`, or `document` and `label`, or `documents` with grades or an `answer`"


class Judged(NamedTuple):
    """A document of a training query."""

    text: str
    doc_id: str = ""
    label: str | float | None = None
    """Its label as a template spells it, or its grade."""
    worth: float | None = None
    """A number that rises with relevance, within its query; None where only a label in words is known."""


@dataclass(frozen=True, slots=True)
class TrainingQuery:
    """A line of the file: a query, and documents of which it is known how good they are."""

    line: int
    query_id: str
    query: str
    documents: tuple[Judged, ...]
    only_best: bool = False
    """The answer names one document, and says nothing of the order of the others."""
    difficulty: float | None = None
    """How hard it is for a model, as the file says: higher is harder."""


def read_examples(path: Source) -> list[TrainingQuery]:
    """The training queries of a JSONL file.

    A line has `query_id`, `query`, maybe `difficulty`, and one of: `left`, `right` and `answer` (left, right or tie);
    `document` and `label` (a label of the template, or a grade); `documents`, each an object with `text` and `grade`
    or `label` and maybe `doc_id`, or with an `answer` beside them: the number of the best, counted from 1, or the
    numbers from best to worst.
    """
    found: list[TrainingQuery] = []
    for line, text in open_lines(path):
        if not text.strip():
            continue
        try:
            found.append(_training_query(load(text), line))
        except BadRecord as problem:
            raise InputError.at(path, line, str(problem)) from None
    if not found:
        raise InputError(f"{path}: there are no examples in it; write one JSON object a line")
    return found


def _training_query(record: Record, line: int) -> TrainingQuery:
    query_id = take_id(record, QUERY_ID)
    query = take_string(record, "query") or take_string(record, "text")
    if not query.strip():
        raise BadRecord("no query: expected its text under `query`")
    difficulty = record.pop("difficulty", None)
    if difficulty is not None and not _is_number(difficulty):
        raise BadRecord(f"difficulty must be a number, not {difficulty!r}")
    answer = record.get("answer")
    if "left" in record and "right" in record:
        if answer not in SIDES:
            raise BadRecord(f"answer must be left, right or tie, not {answer!r}")
        documents = [_document(record[side]) for side in ("left", "right")]
        judged = [d._replace(worth=worth) for d, worth in zip(documents, SIDES[answer], strict=True)]
    elif "document" in record:
        judged = [_document(record["document"], record)]
    elif isinstance(record.get("documents"), list) and record["documents"]:
        judged = _answered([_document(d) for d in record["documents"]], answer)
    else:
        raise BadRecord(f"no documents: expected {FORMS}")
    return TrainingQuery(line, query_id, query, tuple(judged), type(answer) is int, difficulty)


def _document(given: Any, beside: Mapping[str, Any] | None = None) -> Judged:
    """A document: a text, or an object. `beside`: where its label stands otherwise."""
    if isinstance(given, str):
        record: Record = {"text": given}
    elif isinstance(given, Mapping):
        record = dict(given)
    else:
        raise BadRecord(f"a document is a text or an object with `text`, not {given!r}")
    name = name_in(record, DOC_TEXT)
    if name is None or not isinstance(record[name], str) or not record[name].strip():
        raise BadRecord(f"a document has no text: expected one of {', '.join(DOC_TEXT)}")
    doc_id = take_id(record, DOC_ID) if name_in(record, DOC_ID) else ""
    title = take_string(record, "title")
    text = f"{title}\n{record[name]}" if title else record[name]
    told = {**(beside or {}), **record}
    label = told.get("label", told.get("grade"))
    if label is not None and not isinstance(label, str) and not _is_number(label):
        raise BadRecord(f"label must be a word or a number, not {label!r}")
    worth = None if label is None or isinstance(label, str) else float(label)
    return Judged(text, doc_id, label, worth)


def _answered(documents: list[Judged], answer: Any) -> list[Judged]:
    """The documents with what the answer says they are worth; by their own grades where there is none."""
    n = len(documents)
    if answer is None:
        if any(d.label is None for d in documents):
            raise BadRecord("documents need a `grade` or `label` each, or an `answer` beside them")
        return documents
    if type(answer) is int and 1 <= answer <= n:
        return [d._replace(worth=float(i == answer)) for i, d in enumerate(documents, 1)]
    if isinstance(answer, list) and sorted(answer, key=str) == sorted(range(1, n + 1), key=str):
        return [d._replace(worth=float(n - answer.index(i))) for i, d in enumerate(documents, 1)]
    raise BadRecord(f"answer must be the number of the best of {n}, or all {n} numbers from best to worst: {answer!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
