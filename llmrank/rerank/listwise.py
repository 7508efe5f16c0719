"""Listwise methods: several candidates are put in order by one question."""

from __future__ import annotations

from collections.abc import Sequence

from llmrank.ask.base import Ask
from llmrank.rerank.methods import Count, Item, method


def starts(n: int, window: int, stride: int) -> list[int]:
    """Where the windows start, from the bottom up; the last one starts at 0 and is full-size. None for n < 2."""
    if n < 2:
        return []
    return [*range(n - window, 0, -stride), 0]


def _windows(n: int, window: int, stride: int, passes: int) -> Count:
    # A later pass may come upon a window that stands as it was asked about before, which is not asked again.
    once = len(starts(n, window, stride))
    return once if passes == 1 else (once, once * passes)


@method(
    question="order",
    source="RankGPT 2304.09542; LRL 2305.02156; RankVicuna 2309.15088; RankZephyr 2312.02724",
    template="listwise/rank",
    calls=lambda n, window, stride, passes: _windows(n, window, stride, passes),
    rounds=lambda n, window, stride, passes: _windows(n, window, stride, passes),
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
    ranking = list(items)
    for start in starts(len(ranking), window, stride) * passes:
        shown = ranking[start : start + window]
        ranking[start : start + window] = (await ask.order(shown)).apply(shown)
    return ranking


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
