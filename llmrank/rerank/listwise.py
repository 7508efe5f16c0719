"""Listwise methods: several candidates are put in order by one question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from llmrank.ask.base import Ask
from llmrank.rerank.methods import Count, Item, between, method, top_first


def starts(n: int, window: int, stride: int) -> list[int]:
    """Where the windows start, from the bottom up; the last one starts at 0 and is full-size. None for n < 2."""
    if n < 2:
        return []
    return [*range(n - window, 0, -stride), 0]


def window_count(n: int, window: int, stride: int, passes: int) -> Count:
    """How many windows are asked about."""
    # A later pass may come upon a window that stands as it was asked about before, which is not asked again.
    once = len(starts(n, window, stride))
    return once if passes == 1 else (once, once * passes)


@method(
    question="order",
    source="RankGPT 2304.09542; LRL 2305.02156; RankVicuna 2309.15088; RankZephyr 2312.02724",
    template="listwise/rank",
    calls=lambda n, window, stride, passes: window_count(n, window, stride, passes),
    rounds=lambda n, window, stride, passes: window_count(n, window, stride, passes),
    formula=("passes x (ceil((n-window)/stride)+1)", "as calls"),
    shown=lambda n, window, **options: min(n, window),
)
async def sliding_window(
    items: Sequence[Item], ask: Ask, *, window: int = 20, stride: int = 10, passes: int = 1
) -> list[Item]:
    """Reorders windows in place from the bottom of the list to its top.

    ceil((n-window)/stride)+1 calls a pass, each waiting for the one before. With a perfect judge everything is in
    place for n <= window, else the top passes x (window - stride).
    """
    return await window_loop(items, window, stride, passes, _ordered(ask))


@method(
    question="order",
    source="FIRST 2406.15657",
    template="listwise/first-token",
    needs=("text", "logprobs"),
    calls=lambda n, window, stride, passes: window_count(n, window, stride, passes),
    rounds=lambda n, window, stride, passes: window_count(n, window, stride, passes),
    formula=("passes x (ceil((n-window)/stride)+1)", "as calls"),
    shown=lambda n, window, **options: min(n, window),
)
async def first_token(
    items: Sequence[Item], ask: Ask, *, window: int = 20, stride: int = 10, passes: int = 1
) -> list[Item]:
    """Reorders windows as `sliding-window` does, each by the probabilities of the letters as its reply's first token.

    ceil((n-window)/stride)+1 calls a pass, one token each, each waiting for the one before. With a perfect judge as
    `sliding-window`, as far as the backend returns the log-probabilities of that many letters: of 20, on any.
    """
    return await window_loop(items, window, stride, passes, _ordered(ask))


async def window_loop(
    items: Sequence[Item],
    window: int,
    stride: int,
    passes: int,
    arranged: Callable[[list[Item]], Awaitable[list[Item]]],
) -> list[Item]:
    """The items after `passes` passes of windows from the bottom up, each put in the order that `arranged` gives it."""
    ranking = list(items)
    for start in starts(len(ranking), window, stride) * passes:
        ranking[start : start + window] = await arranged(ranking[start : start + window])
    return ranking


def _ordered(ask: Ask) -> Callable[[list[Item]], Awaitable[list[Item]]]:
    async def ordered(shown: list[Item]) -> list[Item]:
        return (await ask.order(shown)).apply(shown) if len(shown) > 1 else shown

    return ordered


@method(
    question="order",
    source="2412.14574",
    template="listwise/rank",
    calls=lambda n: int(n > 1),
    rounds=lambda n: int(n > 1),
    formula=("1", "1"),
    whole=True,
)
async def full_list(items: Sequence[Item], ask: Ask) -> list[Item]:
    """Orders everything with one prompt; what does not fit the context is refused before any call.

    One call, one round; with a perfect judge the whole order.
    """
    return (await ask.order(items)).apply(items) if len(items) > 1 else list(items)


def _top_down(n: int, k: int, window: int) -> tuple[Count, Count]:
    """Calls and rounds: the least where nothing beats the pivot, the most where everything in other windows does."""
    if n <= window:
        return int(n > 1), int(n > 1)
    k = min(k, window - 1)

    def others(size: int) -> int:
        return -(-(size - window) // (window - 1))

    pool, calls, rounds = n, 0, 0
    while pool > window:
        calls += 1 + others(pool)
        rounds += 2
        pool -= window - k + 1
    return between(1 + others(n), calls + (pool > 1)), between(2, rounds + (pool > 1))


@method(
    question="order",
    source="TDPart 2405.14589",
    template="listwise/rank",
    calls=lambda n, k, window: _top_down(n, k, window)[0],
    rounds=lambda n, k, window: _top_down(n, k, window)[1],
    formula=("about 7 to 14 at n=100", "about 3 to 8 at n=100"),
    shown=lambda n, window, **options: min(n, window),
)
async def top_down(items: Sequence[Item], ask: Ask, *, k: int = 10, window: int = 20) -> list[Item]:
    """Orders the first window, holds all others at once against its k-th, and goes on with what beats it.

    The pivot is shown first in every other window. Calls and rounds depend on the answers: 7 to 14 and 3 to 8 at
    n=100 from a random start, fewer from a good one, 21 and 11 from the reverse order. With a perfect judge everything
    for n <= window, else the top k for k < window (a greater k is taken for window - 1), however many survive; the
    rest keeps first-stage order.
    """
    ordered = _ordered(ask)
    pool = list(items)
    if len(pool) <= window:
        return await ordered(pool)
    k = min(k, window - 1)
    while len(pool) > window:
        head, rest = await ordered(pool[:window]), pool[window:]
        pivot = head[k - 1]
        windows = [[pivot, *rest[i : i + window - 1]] for i in range(0, len(rest), window - 1)]
        told = await asyncio.gather(*map(ordered, windows))
        above = [item for shown in told for item in shown[: shown.index(pivot)]]
        if not above:
            return top_first(items, head[:k])
        pool = [*head[: k - 1], *above]
    return top_first(items, (await ordered(pool))[:k])
