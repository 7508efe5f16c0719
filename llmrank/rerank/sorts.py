"""Pairwise sorts that split: quicksort, whose comparisons with a pivot are all asked at once, and mergesort."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Generic, NamedTuple

from llmrank.ask.base import Ask
from llmrank.rerank.methods import Count, Item, between, method, top_first
from llmrank.rerank.pairwise import decider, doubled, put_off

NEAR = 0.1
"""P(left) nearer to one half than this leaves it open which of two heads goes first."""


@method(
    question="compare",
    source="2505.24643",
    template="pairwise/prefer",
    calls=lambda n, k, swap, lazy: put_off(between(max(n - 1, 0), n * (n - 1) // 2), swap, swap and lazy),
    rounds=lambda n, k, swap, lazy: put_off(between(min(1, max(n - 1, 0)), max(n - 1, 0)), False, swap and lazy),
    formula=("about 2n pairs, twice with swap", "about log_2 n"),
    shown=lambda n, **options: 2,
)
async def quicksort(
    items: Sequence[Item], ask: Ask, *, k: int = 10, swap: bool = True, lazy: bool = False
) -> list[Item]:
    """Compares one item with all others at once, then goes on with the part or parts that hold the top k.

    The pivot is the item after the first k, where these are not more than half, else the middle one: a good start then
    leaves little more than k. About 2n pairs and 8 rounds at n=100; at worst every pair, and n-1 rounds. With a perfect
    judge the top k are exact; the rest keeps first-stage order. A tie or a failed pair is decided by first-stage order.
    `lazy` as for `heapsort`.
    """
    better = decider(items, ask)

    async def best(part: list[Item], wanted: int) -> list[Item]:
        while len(part) > 1 and wanted > 0:
            pivot = part[min(len(part) // 2, wanted)]
            others = [item for item in part if item != pivot]
            winners = await asyncio.gather(*(better(pivot, item) for item in others))
            above = [item for item, winner in zip(others, winners, strict=True) if winner != pivot]
            if len(above) < wanted:
                below = [item for item, winner in zip(others, winners, strict=True) if winner == pivot]
                first, last = await asyncio.gather(best(above, len(above)), best(below, wanted - len(above) - 1))
                return [*first, pivot, *last]
            part = above
        return part[:wanted]

    return top_first(items, await best(list(items), k))


@lru_cache(maxsize=4096)
def _merge_pairs(n: int, beam: int) -> Count:
    """The least and the most pairs: all of the shorter half's items, and all states that the beam may hold."""
    if n < 2:
        return 0
    a, b = (n + 1) // 2, n // 2
    heads = (min(depth, a - 1) - max(0, depth - b + 1) + 1 for depth in range(a + b - 1))
    halves = [_ends(_merge_pairs(size, beam)) for size in (a, b)]
    most = sum(min(beam, states) for states in heads)
    return between(b + sum(least for least, _ in halves), most + sum(most for _, most in halves))


@lru_cache(maxsize=4096)
def _merge_rounds(n: int) -> Count:
    if n < 2:
        return 0
    a, b = (n + 1) // 2, n // 2
    halves = [_ends(_merge_rounds(size)) for size in (a, b)]
    return between(b + max(least for least, _ in halves), a + b - 1 + max(most for _, most in halves))


def _ends(count: Count) -> tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


@method(
    question="compare",
    source="PairS 2403.16950",
    template="pairwise/prefer",
    calls=lambda n, beam, swap: doubled(_merge_pairs(n, beam), swap),
    rounds=lambda n, beam, swap: _merge_rounds(n),
    formula=("about n log_2 n pairs at beam=1, twice with swap", "up to about 2n"),
    shown=lambda n, **options: 2,
)
async def mergesort(items: Sequence[Item], ask: Ask, *, beam: int = 1, swap: bool = True) -> list[Item]:
    """Sorts both halves at once and merges them by comparing heads; with `beam`, in the likeliest of several ways.

    About n log2(n) pairs, and at most about 2n rounds, since each comparison of a merge waits for the one before. With
    a perfect judge the whole order. The head that P(left) favours goes first, or where P(left) is unknown the winner;
    a tie or a failed pair is decided by first-stage order. Where P(left) is near one half and `beam` is above 1 both
    ways are followed, and the likeliest `beam` of them (by the mean log-likelihood of their comparisons) are kept; of
    two that have taken the same items, only the likelier one.
    """

    async def ordered(part: list[Item]) -> list[Item]:
        if len(part) < 2:
            return part
        middle = (len(part) + 1) // 2
        left, right = await asyncio.gather(ordered(part[:middle]), ordered(part[middle:]))
        return await _merged(left, right, ask, beam)

    return await ordered(list(items))


class _Way(NamedTuple, Generic[Item]):
    """A merge under way."""

    merged: tuple[Item, ...]
    from_left: int
    from_right: int
    told: int = 0
    bits: float = 0.0
    """Log-likelihood of its comparisons, to base 2, in which that of a tie is a whole number and sums are exact."""

    @property
    def likelihood(self) -> float:
        return self.bits / self.told if self.told else 0.0


async def _merged(left: list[Item], right: list[Item], ask: Ask, beam: int) -> list[Item]:
    ways: list[_Way[Item]] = [_Way((), 0, 0)]
    while unfinished := [way for way in ways if way.from_left < len(left) and way.from_right < len(right)]:
        told = await asyncio.gather(*(ask.compare(left[w.from_left], right[w.from_right]) for w in unfinished))
        chances = {
            (way.from_left, way.from_right): answer.share if answer.p_left is None else answer.p_left
            for way, answer in zip(unfinished, told, strict=True)
        }
        grown: dict[tuple[int, int], _Way[Item]] = {}
        for way in ways:
            heads = way.from_left, way.from_right
            for longer in _longer(way, left, right, chances[heads]) if heads in chances else (way,):
                known = grown.get((longer.from_left, longer.from_right))
                if known is None or longer.likelihood > known.likelihood:
                    grown[longer.from_left, longer.from_right] = longer
        ways = sorted(grown.values(), key=lambda way: -way.likelihood)[:beam]  # stable: equals as they stood
    best = ways[0]
    return [*best.merged, *left[best.from_left :], *right[best.from_right :]]


def _longer(way: _Way[Item], left: list[Item], right: list[Item], chance: float | None) -> list[_Way[Item]]:
    """The ways on, the likelier first. All of `left` stood above all of `right`, so that a tie goes to it."""
    taken = [way._replace(merged=(*way.merged, left[way.from_left]), from_left=way.from_left + 1)]
    if chance is None:
        return taken
    chance = round(chance, 9)
    taken.append(way._replace(merged=(*way.merged, right[way.from_right]), from_right=way.from_right + 1))
    chances = [chance, 1 - chance]
    order = [0, 1] if chance >= 0.5 else [1, 0]
    if abs(chance - 0.5) >= NEAR:
        order = order[:1]
    return [taken[i]._replace(told=way.told + 1, bits=way.bits + math.log2(chances[i])) for i in order]
