"""Several replies to one question, put together: the mean, the most frequent, the mean place."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, cast

from llmrank.ask.base import Ask
from llmrank.questions import Answer, Choice, Grade, Kind, Order, Preference, Question, Written


class Sampled(Ask):
    """Asks each question once of every one of its sources, at once; a sample that failed is left out."""

    def __init__(self, sources: Sequence[Ask]) -> None:
        self._sources = sources

    async def answer(self, question: Question) -> Answer:
        answers = await asyncio.gather(*(source.answer(question) for source in self._sources))
        usable = [answer for answer in answers if answer.usable]
        if not usable:
            return next((answer for answer in answers if answer.status == "failed"), answers[0])
        together = COMBINE[question.kind](usable)
        repairs = dict.fromkeys(repair for answer in usable for repair in answer.repairs)
        if len(usable) < len(answers):
            repairs["fewer-samples"] = None
        status = "repaired" if repairs else "ok"
        return type(usable[0])(status=status, repairs=tuple(repairs), **together)  # type: ignore[arg-type]


def _grade(answers: Sequence[Answer]) -> dict[str, Any]:
    grades = cast(Sequence[Grade], answers)
    kinds = dict.fromkeys(grade.score_kind for grade in grades)
    return {
        "value": fmean(grade.value for grade in grades if grade.value is not None),
        "score_kind": "+".join(kinds),
        "label": _commonest([grade.label for grade in grades]),
        "distribution": _mean_distribution([_as_distribution(grade) for grade in grades]),
    }


def _preference(answers: Sequence[Answer]) -> dict[str, Any]:
    told = cast(Sequence[Preference], answers)
    known = [answer.p_left for answer in told if answer.p_left is not None]
    return {
        "share": fmean(answer.share for answer in told if answer.share is not None),
        "p_left": fmean(known) if known else None,
    }


def _choice(answers: Sequence[Answer]) -> dict[str, Any]:
    return {"index": _commonest([choice.index for choice in cast(Sequence[Choice], answers)])}


def _order(answers: Sequence[Answer]) -> dict[str, Any]:
    orders = [order.permutation for order in cast(Sequence[Order], answers) if order.permutation is not None]
    places = [sum(order.index(item) for order in orders) for item in range(len(orders[0]))]
    return {"permutation": tuple(sorted(range(len(places)), key=places.__getitem__))}


def _written(answers: Sequence[Answer]) -> dict[str, Any]:
    first = cast(Written, answers[0])  # texts have no mean
    return {"text": first.text, "parts": first.parts}


COMBINE: dict[Kind, Callable[[Sequence[Answer]], dict[str, Any]]] = {
    "grade": _grade,
    "compare": _preference,
    "choose": _choice,
    "order": _order,
    "write": _written,
}


def _commonest(values: Sequence[Any]) -> Any:
    """The most frequent value; of several the one that was said first."""
    return Counter(values).most_common(1)[0][0]


def _as_distribution(grade: Grade) -> Mapping[str, float]:
    if grade.distribution is not None:
        return grade.distribution
    return {} if grade.label is None else {grade.label: 1.0}


def _mean_distribution(distributions: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    labels = dict.fromkeys(label for distribution in distributions for label in distribution)
    return {label: fmean(d.get(label, 0.0) for d in distributions) for label in labels} or None
