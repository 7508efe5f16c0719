"""Cascades: several methods one after the other, each over fewer of the best, and texts written once for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from llmrank.ask.base import Ask
from llmrank.questions import Answer, Question
from llmrank.rerank.methods import Count, Item, Part, Ranked, between, method
from llmrank.rerank.stages import Stages, Step


def _expected(n: int, stages: Stages | None) -> tuple[Count, Count]:
    """Calls and rounds: those of the stages, one after the other; texts that follow each other are written at once."""
    calls, rounds = [0, 0], [0, 0]
    for group in _groups(stages, n):
        first = group[0]
        if first.method is None:
            told: tuple[Count, Count] = len(group), 1
        else:
            told = first.method.expected(first.size(n), first.values)
        for total, count in zip((calls, rounds), told, strict=True):
            least, most = _ends(count)
            total[0] += least
            total[1] += most
    return between(*calls), between(*rounds)


def _groups(stages: Stages | None, n: int) -> Iterator[list[Step]]:
    """The stages that have something to ask about n documents; texts that do not wait for each other together."""
    number = 0

    def together(step: Step) -> tuple[int, bool]:
        nonlocal number
        if step.method is not None or step.template.header.given:  # it waits for what stands above it
            number += 1
        return number, step.method is None

    for _, group in groupby(_asking(Stages.of(stages).steps, n), together):
        yield list(group)


def _asking(steps: Sequence[Step], n: int) -> list[Step]:
    """The stages that have something to ask, and the texts that these show."""
    asking: list[Step] = []
    shown: set[str] = set()
    for step in reversed(steps):
        if step.named in shown if step.method is None else _most(step.method.expected(step.size(n), step.values)[0]):
            asking.append(step)
            shown.update(step.template.header.given)
    return asking[::-1]


def _parts(stages: Stages | None) -> Mapping[str, Part]:
    """The template and the model of each stage, and of the parts of its method."""
    parts: dict[str, Part] = {}
    for step in Stages.of(stages).steps:
        n = step.size(10**9)
        own = Part(step.template, step.question, step.stage.backend, shown=n, who=step.who)
        if (inner := step.method) is not None:
            shown = inner.shown(n, **inner.clamped(step.values, n))
            own = replace(own, worst=inner.worst, needs=inner.needs, shown=shown, whole=inner.whole)
            for name, part in inner.parts(**step.values).items():
                backend = part.backend if part.backend is not None else step.stage.backend
                parts[f"{step.name}/{name}"] = replace(part, backend=backend, who=step.who)
        parts[step.name] = own
    return parts


def _problem(n: int, stages: Stages | None, query_id: str = "") -> str | None:
    for step in Stages.of(stages).steps:
        if step.method is None:
            continue
        known = {"query_id": query_id} if step.method.knows_query else {}
        if problem := step.method.problem(step.size(n), **step.values, **known):
            return f"{step.who}: {problem}"
    return None


@method(
    question="grade",
    source="Expando-Mono-Duo 2101.05667; DeAR 2508.16998; texts for the ranker: RichRAG, CoTRR",
    template="pointwise/yes-no",
    needs=("text", "logprobs"),
    calls=lambda n, stages: _expected(n, stages)[0],
    rounds=lambda n, stages: _expected(n, stages)[1],
    formula=("those of its stages, added up; n+90 as it stands", "those of its stages; 2 as it stands"),
    shown=lambda n, **options: 1,
    problem=_problem,
    parts=_parts,
    apart=True,
)
async def cascade(
    items: Sequence[Item], ask: Ask, *, stages: Stages | None = None, seed: int = 0, query_id: str = ""
) -> Ranked | list[Item]:
    """Runs `stages` one after the other: each reorders the first documents of what the one above left.

    `stages` is a YAML file, or a list of `Stage`s; without it every candidate is graded (`yes-no`), then the ten best
    are compared (`all-pairs`). What a stage does not look at keeps its order below. A stage with `write` asks for a
    text about the query once, which later templates show; where that fails they show nothing in its place. Calls and
    rounds add up. Exact as far as its stages are. Scores are those of the last stage, of the documents that it looked
    at; a last stage without scores that changed the order leaves ranks only.
    """
    ranking, texts = list(items), dict[str, str]()
    scores: dict[Item, tuple[float | None, float | None]] = {}
    kind = None
    for group in _groups(stages, len(ranking)):
        if group[0].method is None:
            told = await asyncio.gather(*(_Stage(ask, s, texts).write(ranking[: s.size(len(ranking))]) for s in group))
            texts |= {step.named: written.text or "" for step, written in zip(group, told, strict=True)}
            continue
        (step,) = group
        size = step.size(len(ranking))
        ranked = await _ranked(step, ranking[:size], _Stage(ask, step, texts), seed, query_id)
        if ranked.scores is not None:
            told_with = zip(ranked.scores, ranked.spread or [None] * size, strict=True)
            scores, kind = dict(zip(ranked.items, told_with, strict=True)), ranked.score_kind
        elif ranked.items != ranking[:size]:
            scores, kind = {}, None  # numbers of an earlier order would contradict this one
        ranking[:size] = ranked.items
    if kind is None:
        return ranking
    values, spreads = zip(*(scores.get(item, (None, None)) for item in ranking), strict=True)
    return Ranked(ranking, list(values), kind, list(spreads) if any(s is not None for s in spreads) else None)


async def _ranked(step: Step, head: Sequence[Any], ask: Ask, seed: int, query_id: str) -> Ranked:
    assert step.method is not None
    asking = step.method.asking(ask, step.values)
    return await step.method.run(head, asking, step.values, seed=seed, query_id=query_id)


class _Stage(Ask):
    """Marks questions as those of a stage, and gives them the written texts that its template shows."""

    def __init__(self, inner: Ask, step: Step, texts: Mapping[str, str]) -> None:
        self._inner = inner
        self._name = step.name
        self._given = tuple((name, texts[name]) for name in step.template.header.given if name in texts)

    async def answer(self, question: Question) -> Answer:
        if question.by:  # a part of the stage's method, with a template of its own
            return await self._inner.answer(question._replace(by=f"{self._name}/{question.by}"))
        return await self._inner.answer(question._replace(by=self._name, given=question.given + self._given))


def _ends(count: Count) -> tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


def _most(count: Count) -> int:
    return _ends(count)[1]
