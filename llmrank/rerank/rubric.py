"""Scores on a rubric, from several replies: what they come to together, and how far they lie apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from statistics import fmean, median, stdev
from typing import Literal

from llmrank.ask.base import Ask
from llmrank.questions import Grade
from llmrank.rerank.methods import Item, Ranked, by_score, method
from llmrank.rerank.pointwise import kind_of


def trimmed(values: Sequence[float]) -> float:
    """The mean without the highest and the lowest fifth, at least one of each where there are three or more."""
    cut = max(len(values) // 5, len(values) >= 3)
    return fmean(sorted(values)[cut : len(values) - cut])


COMBINE: dict[str, Callable[[Sequence[float]], float]] = {"mean": fmean, "median": median, "trimmed": trimmed}


@method(
    question="grade",
    source="Retro* 2509.24869; ERank 2509.00520",
    template="pointwise/rubric",
    calls=lambda n, samples, combine: n * samples,
    rounds=lambda n, samples, combine: min(n, 1),
    formula=("n x samples", "1"),
    shown=lambda n, **options: 1,
)
async def rubric_score(
    items: Sequence[Item], ask: Ask, *, samples: int = 5, combine: Literal["mean", "median", "trimmed"] = "mean"
) -> Ranked:
    """Has every candidate scored from 0 to 100 by a rubric, reasoning first, in several replies put together.

    n x `samples` calls, one round. `combine`: the `mean`, the `median`, or the mean without the highest and the lowest
    fifth (`trimmed`). The standard deviation of a candidate's replies is kept as its spread. --samples is the same as
    `samples`; several replies need a temperature, which the template has: at --temperature 0 one is taken. A reply that
    failed is left out; a candidate without any keeps its place. Exact up to ties of score.
    """
    replies = await asyncio.gather(*(_replies(item, ask, samples) for item in items))
    told = [[grade.value for grade in grades if grade.value is not None] for grades in replies]
    scores = [COMBINE[combine](values) if values else None for values in told]
    spread = [stdev(values) if len(values) > 1 else None for values in told]
    return by_score(items, scores, kind_of([grade for grades in replies for grade in grades]), spread)


async def _replies(item: Item, ask: Ask, samples: int) -> Sequence[Grade]:
    return await asyncio.gather(*(ask.grade(item, sample=i) for i in range(samples)))
