"""TREC run files: read in the order that trec_eval sees, written so that every evaluator sees the same order."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeGuard

from llmrank.data.files import Source, open_lines
from llmrank.errors import InputError

SMALLEST = 2.0**-126
"""The smallest normal 32-bit float; what lies between it and 0 is lost by some readers."""
LARGEST = 1e38
"""Scores beyond it are written as this: 32-bit floats end soon after, and room is needed to go below -LARGEST."""
EXACT = 1 << 24
"""Up to here 32-bit floats hold every whole number."""
_FLOAT = struct.Struct("<f")
_BITS = struct.Struct("<i")


class RunLine(NamedTuple):
    """A line of a run; its rank is not kept, since trec_eval goes by the scores alone."""

    line: int
    query_id: str
    doc_id: str
    score: float


class ScoredDoc(NamedTuple):
    """A retrieved document."""

    doc_id: str
    score: float


def read_run(path: Source) -> dict[str, list[ScoredDoc]]:
    """A run in memory: queries in order of first appearance, documents as trec_eval orders them."""
    lines: dict[str, dict[str, int]] = {}
    scores: dict[str, list[float]] = {}
    for line, query_id, doc_id, score in iter_run(path):
        first = lines.setdefault(query_id, {}).setdefault(doc_id, line)
        if first != line:
            raise InputError.at(path, line, f"document {doc_id} is in query {query_id} already, in line {first}")
        scores.setdefault(query_id, []).append(score)
    return {query_id: trec_order(list(lines[query_id]), scores[query_id]) for query_id in lines}


def iter_run(path: Source) -> Iterator[RunLine]:
    """The lines of a run as they stand, each checked by itself."""
    for number, line in open_lines(path):
        columns = line.split()
        if len(columns) != 6:
            if not columns:
                continue
            problem = f"expected six columns (query_id Q0 doc_id rank score tag), found {len(columns)}"
            raise InputError.at(path, number, problem)
        yield RunLine(number, columns[0], columns[2], _score(columns[4], path, number))


def trec_order(doc_ids: Sequence[str], scores: Sequence[float]) -> list[ScoredDoc]:
    """Documents by score as a 32-bit float, falling; equal scores by document id, falling."""
    ranked = sorted(zip(array("f", scores), doc_ids, scores, strict=True), reverse=True)
    return [ScoredDoc(doc_id, score) for _, doc_id, score in ranked]


def format_ranking(query_id: str, doc_ids: Sequence[str], scores: Sequence[float | None] | None, tag: str) -> str:
    """The lines of one query in the given order, with ranks from 1 and scores that fall strictly as 32-bit floats.

    Without scores (None, or not one known) document number r of n gets n - r + 1. Given ones keep at least 6
    significant digits; one that does not fall, or is None or NaN, goes just below the one before it. A None at the
    start takes the first known score. Magnitudes above 1e38 are cut to that, below 2**-126 to 0.
    """
    n = len(doc_ids)
    texts: Iterable[str]
    if scores is not None and len(scores) != n:
        raise ValueError(f"{n} documents, {len(scores)} scores")
    if scores is not None and any(_known(score) for score in scores):
        texts = map(_text, falling(scores))
    elif n <= EXACT:
        texts = map(str, range(n, 0, -1))
    else:
        texts = map(_text, falling(range(n, 0, -1)))
    ranked = enumerate(zip(doc_ids, texts, strict=True), 1)
    return "".join(f"{query_id} Q0 {doc_id} {rank} {score} {tag}\n" for rank, (doc_id, score) in ranked)


def falling(scores: Sequence[float | None]) -> Iterator[float]:
    """The scores as 32-bit floats, each lowered by as little as makes it fall strictly below its predecessor."""
    previous = next((_single(score) for score in scores if _known(score)), 0.0)
    for place, score in enumerate(scores):
        value = _single(score) if _known(score) else previous
        if place and not value < previous:
            value = _next_below(previous)
        previous = value
        yield value


def _score(text: str, path: Source, line: int) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    # float() also reads 1_000 and digits of other scripts, where trec_eval would see another number.
    if math.isnan(score) or "_" in text or not text.isascii():
        raise InputError.at(path, line, f"the score {text!r} is not a number")
    return score


def _known(score: float | None) -> TypeGuard[float]:
    return score is not None and not math.isnan(score)


def _single(score: float) -> float:
    """The nearest 32-bit float that is not denormal and leaves room below."""
    if abs(score) < SMALLEST:
        return 0.0
    return float(_FLOAT.unpack(_FLOAT.pack(max(-LARGEST, min(LARGEST, score))))[0])


def _next_below(value: float) -> float:
    """The next smaller 32-bit float that is not denormal."""
    if value == 0:
        return -SMALLEST
    if value == SMALLEST:
        return 0.0
    (bits,) = _BITS.unpack(_FLOAT.pack(value))
    return float(_FLOAT.unpack(_BITS.pack(bits - 1 if value > 0 else bits + 1))[0])


def _text(value: float) -> str:
    """The shortest text, of at least 6 digits, that every reader takes for this 32-bit float."""
    for digits in (6, 7, 8):
        text = f"{value:.{digits}g}"
        if _single(float(text)) == value:
            return text
    return f"{value:.9g}"  # always enough, also for readers that round to 64 bits first
