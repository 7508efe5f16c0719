"""Pointwise methods: every candidate is graded on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llmrank.ask.base import Ask
from llmrank.rerank.methods import Item, Ranked, by_score, method

ONE_EACH = {
    "question": "grade",
    "calls": lambda n: n,
    "rounds": lambda n: min(n, 1),
    "formula": ("n", "1"),
    "shown": lambda n, **options: 1,
}


async def pointwise(items: Sequence[Item], ask: Ask) -> Ranked:
    """Grades every candidate and sorts by the grade.

    n calls, one round. Exact up to ties of grade; equal grades keep first-stage order, and a candidate whose
    question failed keeps its place.
    """
    grades = await asyncio.gather(*(ask.grade(item) for item in items))
    kinds = {grade.score_kind for grade in grades if grade.value is not None}
    # Scores of different kinds would stand on different scales; naming all of them says so.
    return by_score(items, [grade.value for grade in grades], "+".join(sorted(kinds)) or "grade")


for _name, _template, _needs, _source in (
    ("pointwise", "pointwise/yes-no", ("text",), "any `grade` template"),
    ("yes-no", "pointwise/yes-no", ("text", "logprobs"), "RG-YN 2310.14122; target words of monoT5 2003.06713"),
    ("graded", "pointwise/graded", ("text",), "fine-grained relevance labels 2310.14122"),
):
    method(name=_name, template=_template, needs=_needs, source=_source, **ONE_EACH)(pointwise)  # type: ignore[arg-type]
