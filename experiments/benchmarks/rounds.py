"""Calls and rounds of every method at n=20, 100 and 1000, beside those of a run that asks one question at a time.

A round is a step of the longest chain of questions that wait for each other: each question takes one unit of virtual
time. A run that asks one at a time has as many rounds as calls. Two judges: one always right, from a drawn order, and
one with noise, from an order about as good as a first stage's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
from collections.abc import Hashable, Mapping

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: more threads only get in each other's way

from llmrank.ask.base import Ask, BothOrders, OneOrder, Remember
from llmrank.ask.virtual import VirtualLoop
from llmrank.errors import LlmrankError
from llmrank.questions import Answer, Choice, Grade, Order, Preference, Question, Written
from llmrank.rerank.methods import Method, all_methods

SIZES = (20, 100, 1000)
MOST = 100_000  # questions; of a method that asks more only what it declares is told
SLOW = {
    "active": "its own work grows with n^3",
    "permutation-consistency": "the consensus of so many takes longer than all the rest",
}
"""What is not run beyond 100 candidates, and why."""


class Judge(Ask):
    """Knows what every item is worth, sees it through noise drawn for each question, and takes one unit of time."""

    def __init__(self, worth: Mapping[Hashable, float], noise: float) -> None:
        self.calls = 0
        self._worth = worth
        self._noise = noise

    async def answer(self, question: Question) -> Answer:
        self.calls += 1
        await asyncio.sleep(1)
        if question.kind == "write":
            return Written(text="a text")
        draw = random.Random(f"{question.kind} {question.items}")
        worths = [self._worth[item] + draw.gauss(0, self._noise) for item in question.items]
        order = sorted(range(len(worths)), key=lambda i: -worths[i])
        if question.kind == "grade":
            return Grade(value=worths[0])
        if question.kind == "compare":
            return Preference(share=float(worths[0] > worths[1]))
        if question.kind == "choose":
            return Choice(index=order[-1 if question.worst else 0])
        return Order(permutation=tuple(order))


def right(n: int) -> Judge:
    return Judge(dict(enumerate(random.Random(0).sample(range(n), n))), 0.0)


def noisy(n: int) -> Judge:
    draw = random.Random(0)
    return Judge({i: (n - i) / n + draw.gauss(0, 0.3) for i in range(n)}, 0.2)


def measured(method: Method, judge: Judge, n: int) -> tuple[int, int]:
    """Calls and rounds."""
    values = method.checked({})
    ask: Ask = Remember(judge)
    if method.question == "compare":
        ask = BothOrders(ask) if values.get("swap", True) else OneOrder(ask)
    loop = VirtualLoop()
    loop.run(method.run(list(range(n)), ask, values))
    return judge.calls, round(loop.time())


def line(method: Method, n: int) -> str:
    if n > 100 and method.name in SLOW:
        return f"skipped: {SLOW[method.name]}"
    calls, rounds = method.expected(n, method.checked({}))
    least = calls if isinstance(calls, int) else calls[0]
    if least > MOST:
        return f"skipped: {least:,} calls in {rounds} rounds, as declared"
    try:
        told = [measured(method, judge(n), n) for judge in (right, noisy)]
    except LlmrankError as error:
        return f"skipped: {error}"
    return "   ".join(f"{calls:>8,} {rounds:>7,} {calls / max(1, rounds):>6.1f}x" for calls, rounds in told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of candidates")
    sizes = parser.parse_args().sizes
    print(f"{'':31}{'right, from a drawn order':^24}   {'noisy, from a first stage':^24}")
    print(f"{'method':24} {'n':>5} {'calls':>9} {'rounds':>7} {'':>7}   {'calls':>8} {'rounds':>7}")
    print("x: how many times as many rounds it takes to ask one question at a time, which is one a call")
    for method in all_methods().values():
        for n in sizes:
            print(f"{method.name:24} {n:>5}  {line(method, n)}", flush=True)


if __name__ == "__main__":
    main()
