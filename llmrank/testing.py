"""Tests for methods of one's own: `check_method`, and the judges that it asks, whose every answer is known."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from llmrank.ask.base import Ask, Remember
from llmrank.ask.virtual import VirtualLoop
from llmrank.data.types import Anchor
from llmrank.questions import Answer, Choice, Grade, Order, Preference, Question, Written, failed, unasked
from llmrank.rerank.methods import Count, Method, Ranked, find

Judge = Callable[[Question], Answer]
"""Answers a question about items whose worth it knows."""
SIZES = (0, 1, 2, 3, 5, 10, 11, 19, 20, 21, 40, 64, 100)


def check_method(
    method: str | Method,
    *,
    exact: Callable[[int], int] | None = None,
    sizes: Iterable[int] = SIZES,
    seeds: Iterable[int] = range(4),
    **options: Any,
) -> None:
    """Raises AssertionError, in one sentence, where the method does not keep what every method promises.

    For every size: the documents that go in come out, each once; questions and rounds are as declared; the ranking is
    the same in whatever order answers arrive, and the same again; scores fall along it and have a kind; where nothing
    is answered, or everything fails, the order stays. exact: how many of n documents a judge that is always right puts
    in their place at the top. options: the method's own, as `--option` gives them.
    """
    known = find(method) if isinstance(method, str) else method
    for n in sizes:
        values = known.given(options).checked(options)
        if known.given(options).problem(n, **values, **({"query_id": ""} if known.knows_query else {})):
            continue  # it says that it cannot rank so many
        for seed in seeds:
            worth: dict[Hashable, float] = dict(enumerate(random.Random(seed).sample(range(n), n)))
            for judge in (perfect(worth), erratic(seed), noisy(worth, 0.3 * n, seed)):
                _check_run(known, n, judge, seed, options)
            if exact is not None:
                _check_exact(known, n, worth, exact(n), seed, options)
        for answer in (failed, unasked):
            ranked, _, _ = run(known, n, lambda question, a=answer: a(question.kind, "drawn"), **options)  # type: ignore[misc]
            assert ranked.items == list(range(n)), f"{known.name}, n={n}: nothing was answered, yet the order changed"


def _check_run(method: Method, n: int, judge: Judge, seed: int, options: Mapping[str, Any]) -> None:
    where = f"{method.name}, n={n}, seed={seed}"
    one, asked, time = run(method, n, judge, **options)
    other, asked_again, _ = run(method, n, judge, random.Random(seed), **options)
    assert sorted(one.items) == list(range(n)), f"{where}: documents out are not documents in"
    assert one.items == other.items, f"{where}: the ranking hangs on the order in which answers arrive"
    assert one.scores == other.scores, f"{where}: the scores hang on the order in which answers arrive"
    assert asked == asked_again, f"{where}: it asks {asked} or {asked_again} questions, as answers arrive"
    known = method.given(options)
    calls, rounds = map(_ends, known.expected(n, known.checked(options)))
    assert calls[0] <= asked <= calls[1], f"{where}: it asks {asked} questions and declares {calls[0]} to {calls[1]}"
    assert rounds[0] <= time <= rounds[1], f"{where}: it takes {time:g} rounds and declares {rounds[0]} to {rounds[1]}"
    assert one.scores is None or one.score_kind, f"{where}: it has scores and does not say of what kind"
    told = [score for score in one.scores or () if score is not None]
    assert all(a >= b for a, b in pairwise(told)), f"{where}: its scores do not fall along its ranking"


def _check_exact(
    method: Method, n: int, worth: Mapping[Hashable, float], top: int, seed: int, options: Mapping[str, Any]
) -> None:
    ranked, _, _ = run(method, n, perfect(worth), **options)
    best = sorted(range(n), key=lambda i: -worth[i])
    assert ranked.items[:top] == best[:top], f"{method.name}, n={n}, seed={seed}: the top {top} are not the best {top}"


def _ends(count: Count) -> tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


def perfect(worth: Mapping[Hashable, float]) -> Judge:
    """A judge that is always right; equal items stand in the order shown."""

    most = max(worth.values(), default=0.0)

    def answer(question: Question) -> Answer:
        if question.kind == "write":
            return Written(text="what the query asks for", parts=("what", "the query asks for"))
        worths = [item.worth * most if isinstance(item, Anchor) else worth[item] for item in question.items]
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
        return perfect({item: worth[item] + draw.gauss(0, noise) for item in question.items if item in worth})(question)

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
        if question.kind == "write":
            return Written(text=draw.choice(["some text", "another"]))
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
