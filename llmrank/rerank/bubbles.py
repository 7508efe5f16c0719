"""Bubble passes that run one behind the other: what setwise and pairwise bubblesort share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llmrank.rerank.heaps import Best
from llmrank.rerank.methods import Count, Item, between, top_first


async def bubble_top(items: Sequence[Item], k: int, children: int, best: Best[Item]) -> list[Item]:
    """The k best items, best first, then all others in first-stage order.

    A pass goes up from the bottom in windows of `children` + 1 that overlap by one, and brings the best of each to its
    top; the next pass ends one place lower. A pass follows the one before at two windows' distance, which is where
    that one has left the places that it looks at. All passes take their steps in lockstep, so the result is the same
    in whatever order answers arrive.
    """
    ranking, n = list(items), len(items)
    sizes = pass_sizes(n, k, children)
    done = [0] * len(sizes)

    def is_ready(top: int) -> bool:
        return done[top] < sizes[top] and (top == 0 or done[top - 1] >= min(done[top] + 2, sizes[top - 1]))

    while ready := [top for top in range(len(sizes)) if is_ready(top)]:
        ends = [n - done[top] * children for top in ready]
        starts = [max(top, end - children - 1) for top, end in zip(ready, ends, strict=True)]
        families = [ranking[start:end] for start, end in zip(starts, ends, strict=True)]
        winners = await asyncio.gather(*map(best, families))
        for top, start, family, winner in zip(ready, starts, families, winners, strict=True):
            place = start + family.index(winner)
            ranking[start], ranking[place] = ranking[place], ranking[start]
            done[top] += 1
    return top_first(items, ranking[:k])


def pass_sizes(n: int, k: int, children: int) -> list[int]:
    """How many windows each pass has."""
    return [-(-(n - 1 - top) // children) for top in range(min(k, n - 1))]


def bubble_steps(n: int, k: int, children: int) -> Count:
    """The least and the most steps: all of the first pass, and those of later ones that have not been asked before."""
    sizes = pass_sizes(n, k, children)
    return between(sizes[0], sum(sizes)) if sizes else 0


def bubble_rounds(n: int, k: int, children: int) -> Count:
    """The least and the most rounds: those of the first pass, and of the last to end."""
    sizes = pass_sizes(n, k, children)
    return between(sizes[0], max(2 * top + size for top, size in enumerate(sizes))) if sizes else 0
