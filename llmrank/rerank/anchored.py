"""Reference anchors: the grade of a candidate follows from what it wins against documents of known grade."""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from typing import NamedTuple

from llmrank.ask.base import Ask
from llmrank.data.files import open_lines
from llmrank.data.records import BadRecord, Record, load
from llmrank.data.types import Anchor
from llmrank.errors import InputError
from llmrank.rerank.methods import Count, Item, Ranked, between, by_score, method

SHOWN_QUERY = "reference_query"
"""Where the template finds the query of an anchor that has one of its own."""


class Reference(NamedTuple):
    """One anchor as a file gives it."""

    text: str
    grade: float
    query: str = ""
    """Its own query; empty: it belongs to the query whose candidates are ranked."""
    query_id: str | None = None
    """The only query for which it counts; None: any."""
    id: str = ""


GENERAL = (
    Reference(
        "Sourdough bread rises through wild yeast and bacteria that live in the starter, a mix of flour and water kept "
        "from one baking to the next. The bacteria also make the acids that give it its taste.",
        3,
        "what makes sourdough bread rise",
    ),
    Reference(
        "The Panama Canal opened to ships in August 1914, after ten years of work by the United States. An earlier "
        "French attempt had been given up.",
        3,
        "when did the panama canal open",
    ),
    Reference(
        "Most house plants do well with indirect light. Some, among them the snake plant and the cast-iron plant, "
        "forgive a good deal of shade; others need feeding in spring.",
        2,
        "house plants that grow without much light",
    ),
    Reference(
        "Violins are made of spruce and maple, and old Italian instruments fetch high prices at auction. Players "
        "choose strings of gut, steel or a synthetic core.",
        1,
        "how often should violin strings be changed",
    ),
    Reference(
        "The town council meets on the first Tuesday of each month. Minutes are published on its web site within ten "
        "days.",
        0,
        "how do bats find their way in the dark",
    ),
)
"""Pairs of query and passage for when no anchors are given: the method compares across queries."""


def _fault(anchors: str | None, swap: bool) -> None:
    references(anchors)  # which tells itself what is wrong with the file


def _problem(n: int, anchors: str | None, swap: bool, query_id: str | None = None) -> str | None:
    if query_id is not None and n and not anchors_for(anchors, query_id):
        return f"{anchors} has no anchor for it; give some with this query_id, or some without one for all queries"
    return None


def _per_candidate(anchors: str | None, swap: bool) -> tuple[int, int]:
    """The least and the most questions about one candidate, over all queries that the anchors name."""
    listed = references(anchors)
    own = Counter(reference.query_id for reference in listed if reference.query_id is not None)
    shared = len(listed) - own.total()
    sizes = [shared + many for many in own.values()] + ([shared] if shared else [])
    return min(sizes) * (1 + swap), max(sizes) * (1 + swap)


def _calls(n: int, anchors: str | None, swap: bool) -> Count:
    least, most = _per_candidate(anchors, swap)
    return between(n * least, n * most)


@method(
    question="compare",
    source="Meta Ranking 2402.12146",
    template="pairwise/anchored",
    calls=_calls,
    rounds=lambda n, **options: min(n, 1),
    formula=("n x anchors, twice that with swap=on", "1"),
    shown=lambda n, **options: 2,
    problem=_problem,
    fault=_fault,
)
async def reference_anchored(
    items: Sequence[Item], ask: Ask, *, anchors: str | None = None, swap: bool = False, query_id: str = ""
) -> Ranked:
    """Compares every candidate with a few anchors of known grade; its grade follows from what it wins.

    n x `anchors` calls, one round. `anchors`: a JSONL file of `text` and `grade`, each with `query_id` where it counts
    for one query alone, `query` where its grade is for another query than the candidate's, and `id`; without a file,
    five general pairs of query and passage. A tie is half a win, and P(win) counts where it is known. The anchors stand
    in a row by grade, and a candidate that wins as often as one among them would has its grade: between two grades it
    is interpolated, and beyond the ends it goes on by half a step. Every other anchor is shown first; `swap=on` asks
    about each in both orders. A comparison that failed is left out. Exact up to ties of score.
    """
    known = anchors_for(anchors, query_id)
    return by_score(items, await asyncio.gather(*(_graded(item, ask, known) for item in items)), "anchored-grade")


async def _graded(item: Item, ask: Ask, anchors: Sequence[Anchor]) -> float | None:
    shares = await asyncio.gather(*(_share(item, ask, anchor, i % 2 == 1) for i, anchor in enumerate(anchors)))
    met = [(anchor.grade, share) for anchor, share in zip(anchors, shares, strict=True) if share is not None]
    return grade_of([grade for grade, _ in met], math.fsum(share for _, share in met)) if met else None


async def _share(item: Item, ask: Ask, anchor: Anchor, second: bool) -> float | None:
    """The candidate's share of the win; P(win) where it is known."""
    answer = await (ask.compare(anchor, item) if second else ask.compare(item, anchor))
    left = answer.share if answer.p_left is None else answer.p_left
    return None if left is None else 1 - left if second else left


def grade_of(grades: Sequence[float], wins: float) -> float:
    """The grade of one who has so many wins over anchors of these grades.

    One of the same grade as some of them beats those below and ties with these; so each grade has a number of wins.
    Between two of them the grade is interpolated, and from the last ones to no wins and to all wins it goes on by half
    of a mean step. So it rises with every bit of a win.
    """
    groups = [(grade, len(list(same))) for grade, same in groupby(sorted(grades))]
    step = (groups[-1][0] - groups[0][0]) / (len(groups) - 1) if len(groups) > 1 else 1.0
    points, below = [(0.0, groups[0][0] - step / 2)], 0
    for grade, many in groups:
        points.append((below + many / 2, grade))
        below += many
    points.append((float(below), groups[-1][0] + step / 2))
    for (few, low), (more, high) in pairwise(points):
        if wins <= more:
            return low + (high - low) * (wins - few) / (more - few)
    return points[-1][1]


def anchors_for(anchors: str | None, query_id: str) -> tuple[Anchor, ...]:
    """The anchors that count for a query, in the order of the file."""
    listed = references(anchors)
    grades = [reference.grade for reference in listed]
    low, high = min(grades), max(grades)
    return tuple(
        Anchor(
            f"{number}\x1fanchor",  # no candidate's id
            reference.text,
            metadata={SHOWN_QUERY: reference.query} if reference.query else {},
            of="" if reference.query else reference.id,
            query=reference.query,
            grade=reference.grade,
            worth=(reference.grade - low) / (high - low) if high > low else 0.5,
        )
        for number, reference in enumerate(listed)
        if reference.query_id in (None, query_id)
    )


def references(anchors: str | None) -> tuple[Reference, ...]:
    """The anchors in a file; without one, the general ones."""
    return GENERAL if anchors is None else _read(anchors, _changed(anchors))


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0  # reading it tells what is wrong


@lru_cache(maxsize=16)
def _read(path: str, changed: float) -> tuple[Reference, ...]:
    listed = tuple(_records(path))
    if not listed:
        raise InputError(f"--option anchors={path}: the file holds no anchors; give a text and a grade a line")
    return listed


def _records(path: str) -> Iterator[Reference]:
    cure = 'write {"text": "...", "grade": 2}, with query_id, query and id where they are known'
    for number, line in open_lines(path):
        if not line.strip():
            continue
        try:
            yield _reference(load(line))
        except BadRecord as problem:
            raise InputError.at(path, number, f"{problem}; {cure}") from None


def _reference(record: Record) -> Reference:
    told = {name: _text(record, name) for name in ("text", "query", "query_id", "id")}
    if not told["text"]:
        raise BadRecord("the anchor has no text")
    grade = record.get("grade")
    if isinstance(grade, bool) or not isinstance(grade, int | float) or not math.isfinite(grade):
        raise BadRecord("the anchor has no grade, or one that is no number")
    return Reference(told["text"], float(grade), told["query"], told["query_id"] or None, told["id"])


def _text(record: Record, name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRecord(f"the {name} of the anchor is no text")
    return str(value).strip()
