"""Answers from known worths: perfect, random and garbage judges for tests of strategies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Mapping

from llmrank.ask.base import Ask, Remember
from llmrank.ask.virtual import VirtualLoop
from llmrank.questions import Answer, Choice, Grade, Order, Preference, Question, failed, unasked
from llmrank.rerank.methods import Method, Ranked

Judge = Callable[[Question], Answer]


def perfect(worth: Mapping[Hashable, float]) -> Judge:
    """A judge that is always right; equal items stand in the order shown."""

    def answer(question: Question) -> Answer:
        worths = [worth[item] for item in question.items]
        order = sorted(range(len(worths)), key=lambda i: -worths[i])
        if question.kind == "grade":
            return Grade(value=worths[0])
        if question.kind == "compare":
            return Preference(share=0.5 if worths[0] == worths[1] else float(worths[0] > worths[1]))
        if question.kind == "choose":
            order = order[::-1] if question.worst else order
            shares = [1 / (2 + order.index(i)) for i in range(len(worths))]
            return Choice(index=order[0], distribution=tuple(share / sum(shares) for share in shares))
        return Order(permutation=tuple(order), scores=tuple(worths))

    return answer


def noisy(worth: Mapping[Hashable, float], noise: float, seed: int) -> Judge:
    """A judge that sees every worth with Gaussian noise, drawn anew for every question."""

    def answer(question: Question) -> Answer:
        draw = random.Random(f"{seed}{question}")
        return perfect({item: worth[item] + draw.gauss(0, noise) for item in question.items})(question)

    return answer


def from_first_stage(n: int, noise: float, seed: int) -> dict[int, float]:
    """Worths of n items that fall from the first stage's best to its last, but for Gaussian noise."""
    draw = random.Random(seed)
    return {i: (n - i) / n + draw.gauss(0, noise) for i in range(n)}


def erratic(seed: int, failing: float = 0.2) -> Judge:
    """A judge that answers at random, and sometimes not at all; the same question gets the same answer."""

    def answer(question: Question) -> Answer:
        draw = random.Random(f"{seed}{question}")
        if draw.random() < failing:
            return (failed if draw.random() < 0.5 else unasked)(question.kind, "drawn")
        n = len(question.items)
        if question.kind == "grade":
            return Grade(value=draw.choice([0.0, 0.5, 1.0]))
        if question.kind == "compare":
            return Preference(share=draw.choice([0.0, 0.5, 1.0]), p_left=draw.choice([None, None, 0.45, 0.9]))
        if question.kind == "choose":
            shares = draw.choice([None, [draw.choice([0.0, 0.1, 0.1, 0.3]) + 0.01 for _ in range(n)]])
            distribution = None if shares is None else tuple(share / sum(shares) for share in shares)
            return Choice(index=draw.randrange(n), distribution=distribution)
        scores = draw.choice([None, tuple(draw.choice([None, 0.0, 3.0, 4.5]) for _ in range(n))])
        return Order(permutation=tuple(draw.sample(range(n), n)), scores=scores)

    return answer


class Asked(Ask):
    """Asks a judge; each answer takes a time drawn from `latency`, one unit without it. Counts the questions."""

    def __init__(self, judge: Judge, latency: random.Random | None = None) -> None:
        self.questions: list[Question] = []
        self._judge = judge
        self._latency = latency

    async def answer(self, question: Question) -> Answer:
        self.questions.append(question)
        await asyncio.sleep(1 if self._latency is None else self._latency.expovariate(1.0))
        return self._judge(question)


def run(
    method: Method, n: int, judge: Judge, latency: random.Random | None = None, **options: object
) -> tuple[Ranked, int, float]:
    """The ranking of items 0..n-1, the number of questions, and the time that it took in units."""
    method = method.given(options)
    asked = Asked(judge, latency)
    values = method.checked(options)
    ask: Ask = Remember(asked)
    loop = VirtualLoop()
    ranked = loop.run(method.run(list(range(n)), method.asking(ask, values), values))
    return ranked, len(asked.questions), loop.time()
