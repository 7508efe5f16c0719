"""Criteria: every candidate graded by several criteria apart, whose grades are then put together."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from statistics import median
from typing import Literal

from llmrank.ask.base import Ask
from llmrank.criteria import CRITERIA
from llmrank.questions import Grade
from llmrank.rerank.methods import Item, Part, Ranked, by_score, method
from llmrank.rerank.pointwise import by_grade, kind_of

FINAL = "final"
Combination = Literal["sum", "weights", "min", "log-sigmoid", "prompt"]
Row = list[float | None]
"""A candidate's grade by each criterion; None where the question failed."""


def named(criteria: str) -> list[str]:
    """The criteria in words: of names separated by commas, or as they are, separated by semicolons."""
    names = [name.strip() for name in criteria.split(",")]
    parts = names if all(name in CRITERIA for name in names) else [part.strip() for part in criteria.split(";")]
    return list(dict.fromkeys(CRITERIA.get(part, part) for part in parts if part))


def _fault(criteria: str, combine: str, weights: str | None) -> str | None:
    asked = named(criteria)
    if not asked:
        return f"--option criteria={criteria}: name at least one, such as {', '.join(CRITERIA)}"
    names = [name.strip() for name in criteria.split(",")]
    if ";" not in criteria and len(asked) == 1 and not CRITERIA.keys().isdisjoint(names) and len(names) > 1:
        unknown = next(name for name in names if name not in CRITERIA)
        return (
            f"--option criteria={criteria}: {unknown} is not among the criteria with a name, {', '.join(CRITERIA)}; "
            "separate criteria in words of your own by semicolons"
        )
    return _unfit(combine, weights, len(asked))


def _unfit(combine: str, weights: str | None, many: int) -> str | None:
    """What is wrong with the weights."""
    if weights is None:
        return "--option combine=weights: say which, such as weights=2,1,1,1" if combine == "weights" else None
    if combine in ("min", "prompt"):
        return f"--option weights={weights}: combine={combine} weighs nothing; leave the weights out"
    try:
        told = _weights(weights, many)
    except ValueError:
        return f"--option weights={weights}: they must be numbers separated by commas, such as 2,1,1,1"
    if len(told) != many:
        return f"--option weights={weights}: it must be one weight for each of the {many} criteria"
    if min(told) < 0 or not 0 < sum(told) < math.inf:
        return f"--option weights={weights}: no weight must be below 0, and one must be above"
    return None


@method(
    question="grade",
    source="four-criteria prompts 2507.09488; log-sigmoid sums 2402.00742",
    template="pointwise/criterion",
    calls=lambda n, criteria, combine, weights: n * (len(named(criteria)) + (combine == "prompt")),
    rounds=lambda n, criteria, combine, weights: min(n, 1) * (1 + (combine == "prompt")),
    formula=("n x criteria, and n more for combine=prompt", "1; 2 for combine=prompt"),
    shown=lambda n, **options: 1,
    parts=lambda combine, **options: {FINAL: Part("pointwise/criteria-final", "grade")} if combine == "prompt" else {},
    brings=("criterion",),
    fault=_fault,
)
async def criteria(
    items: Sequence[Item],
    ask: Ask,
    *,
    criteria: str = ",".join(CRITERIA),
    combine: Combination = "sum",
    weights: str | None = None,
) -> Ranked:
    """Grades every candidate by several criteria apart, all at once, and puts the grades together.

    n x `criteria` calls, one round. `criteria`: names, or criteria in words, separated by semicolons. `combine`: the
    `sum`; the sum by `weights`, such as 2,1,1,1; the `min`; `log-sigmoid`, the sum of log sigmoid(grade - median of the
    criterion over the candidates), in which nothing makes up for a weak criterion; or `prompt`, in which a last
    question about every candidate shows its grades (n calls and one round more). A criterion whose question failed is
    left out, and the others stand for it; a candidate without any keeps its place. Exact up to ties of score.
    """
    asked = named(criteria)
    grades = await asyncio.gather(*(_by_criterion(item, ask, asked) for item in items))
    if combine == "prompt":
        told = ({"grades": _told(asked, row)} for row in grades)
        finals = (ask.grade(item, by=FINAL, given=given) for item, given in zip(items, told, strict=True))
        return by_grade(items, await asyncio.gather(*finals))
    rows: list[Row] = [[grade.value for grade in row] for row in grades]
    kind = kind_of([grade for row in grades for grade in row])
    if combine == "min":
        return by_score(items, [min((v for v in row if v is not None), default=None) for row in rows], kind)
    if combine == "log-sigmoid":
        rows, kind = _log_sigmoids(rows), "log-sigmoid"
    share = _weights(weights, len(asked))
    return by_score(items, [_weighted(row, share) for row in rows], f"{kind}-sum")


async def _by_criterion(item: Item, ask: Ask, asked: Sequence[str]) -> Sequence[Grade]:
    return await asyncio.gather(*(ask.grade(item, given={"criterion": criterion}) for criterion in asked))


def _told(asked: Sequence[str], grades: Sequence[Grade]) -> str:
    """A candidate's grades, a line for each criterion."""
    values = ["not graded" if grade.value is None else f"{grade.value:.2g}" for grade in grades]
    return "\n".join(f"- {criterion} Grade: {value}" for criterion, value in zip(asked, values, strict=True))


def _weights(weights: str | None, many: int) -> list[float]:
    return [1.0] * many if weights is None else [float(part) for part in weights.split(",")]


def _weighted(row: Row, weights: Sequence[float]) -> float | None:
    """The weighted sum; what is not known is taken for the mean of what is."""
    known = [(value, weight) for value, weight in zip(row, weights, strict=True) if value is not None]
    total = math.fsum(weight for _, weight in known)
    if not total:
        return None
    return math.fsum(value * weight for value, weight in known) * math.fsum(weights) / total


def _log_sigmoids(rows: Sequence[Row]) -> list[Row]:
    """log sigmoid(grade - the criterion's median): how sure it is that a candidate is better than a usual one."""
    columns = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    usual = [median(column) if column else 0.0 for column in columns]
    return [
        [None if value is None else -_softplus(middle - value) for value, middle in zip(row, usual, strict=True)]
        for row in rows
    ]


def _softplus(x: float) -> float:
    """log(1 + e**x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
