"""Recipes that settle one label in steps: binary, then refined; several criteria, then put together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from llmrank.criteria import CRITERIA
from llmrank.data.types import Document
from llmrank.judge.recipes import Asking, recipe
from llmrank.questions import Grade
from llmrank.voice import Part

CUTS = (5, 7, 10)
"""The sums of four grades from 0 to 3 from which the label is 1, 2, 3."""


@recipe(
    "binary-then-refine",
    source="binary judgment, refined where it is positive; in the family of UMBRELA 2406.06519",
    template="relevance/binary",
    calls=lambda n: (n, 2 * n),
    rounds=lambda n: (min(n, 1), 2 * min(n, 1)),
    formula=("n to 2n", "1 to 2"),
    parts=lambda: {"refine": Part("relevance/refine", "grade")},
    scale=(0, 1, 2, 3),
)
async def binary_then_refine(item: Document, ask: Asking) -> Grade:
    """Asks whether the document is relevant, and of one that is, how relevant, from 1 to 3.

    n to 2n calls, two rounds. Where both steps have probabilities the distribution is over 0 to 3: that of the second
    step times the probability of relevant.
    """
    first = await ask.grade(item)
    if not first.usable or first.label == "no":
        return first
    second = await ask.grade(item, by="refine")
    if second.usable and first.repairs:
        second = replace(second, status="repaired", repairs=tuple(dict.fromkeys((*first.repairs, *second.repairs))))
    if not second.usable or first.distribution is None or second.distribution is None:
        return second
    relevant = first.distribution["yes"]
    shares = {"0": 1 - relevant} | {label: relevant * p for label, p in second.distribution.items()}
    expected = sum(int(label) * share for label, share in shares.items())
    return Grade(
        status=second.status,
        repairs=second.repairs,
        value=expected,
        score_kind="expected-grade",
        label=second.label,
        distribution=shares,
    )


@recipe(
    "four-criteria",
    source="four-criteria prompts 2507.09488",
    template="relevance/criterion-grade",
    calls=lambda n, combine: n * (4 + (combine == "prompt")),
    rounds=lambda n, combine: min(n, 1) * (1 + (combine == "prompt")),
    formula=("4n, and n more for combine=prompt", "1; 2 for combine=prompt"),
    parts=lambda combine: {"verdict": Part("relevance/criteria-verdict", "grade")} if combine == "prompt" else {},
    scale=(0, 1, 2, 3),
)
async def four_criteria(item: Document, ask: Asking, *, combine: Literal["sum", "rules", "prompt"] = "sum") -> Grade:
    """Grades exactness, coverage, topicality and contextual fit apart, from 0 to 3, and puts them together.

    4n calls, one round. `combine`: `sum`, from whose total the label is 1 at 5, 2 at 7, 3 at 10; `rules`: 0 off the
    topic, 3 where it is exact and covers most, 2 where it is nearly exact, else 1; `prompt`: a last question shows the
    four grades (n calls and one round more). A criterion whose question failed fails the label: what is missing is no
    0.
    """
    asked = (ask.grade(item, given={"criterion": text}) for text in CRITERIA.values())
    grades = dict(zip(CRITERIA, await asyncio.gather(*asked), strict=True))
    lost = next((grade for grade in grades.values() if not grade.usable or grade.value is None), None)
    if lost is not None:
        return lost
    values = {name: grade.value or 0.0 for name, grade in grades.items()}
    if combine == "prompt":
        told = "\n".join(f"- {CRITERIA[name]} Grade: {value:.2g}" for name, value in values.items())
        return await ask.grade(item, by="verdict", given={"grades": told})
    label = _by_sum(values) if combine == "sum" else _by_rules(values)
    repairs = tuple(dict.fromkeys(repair for grade in grades.values() for repair in grade.repairs))
    return Grade(
        status="repaired" if repairs else "ok",
        repairs=repairs,
        value=float(label),
        score_kind="grade",
        label=str(label),
    )


def _by_sum(values: Mapping[str, float]) -> int:
    total = round(sum(values.values()), 9)
    return sum(total >= cut for cut in CUTS)


def _by_rules(values: Mapping[str, float]) -> int:
    exact, covers = values["exactness"], values["coverage"]
    if values["topicality"] < 0.5:
        return 0
    if exact >= 2.5 and covers >= 1.5:
        return 3
    return 2 if exact >= 1.5 else 1
