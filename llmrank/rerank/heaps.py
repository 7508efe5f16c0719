"""A heap whose sifts run side by side: what setwise and pairwise heapsort share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from llmrank.rerank.methods import Count, Item

Best = Callable[[list[Item]], Awaitable[Item]]
"""The best of a parent and its children."""


async def heap_top(items: Sequence[Item], k: int, children: int, best: Best[Item]) -> list[Item]:
    """The k best items, best first, then all others in first-stage order.

    All sifts take their steps in lockstep: a sift may take one as soon as no other is at work among its children.
    So sibling subtrees are built at once, a parent follows its children by one step, and the next pop starts as
    soon as the root is settled. Lockstep makes the result the same in whatever order answers arrive.
    """
    heap, size, top = list(items), len(items), list[Item]()

    def below(node: int) -> range:
        return range(node * children + 1, min(node * children + children + 1, size))

    sifting = set(range(size))
    while len(top) < min(k, len(items)):
        sifting = {node for node in sifting if below(node)}
        if 0 not in sifting:  # the root is settled
            size -= 1
            top.append(heap[0])
            heap[0] = heap[size]
            sifting.add(0)
            continue
        ready = sorted(node for node in sifting if sifting.isdisjoint(below(node)))
        nodes = [[node, *below(node)] for node in ready]
        winners = await asyncio.gather(*(best([heap[i] for i in family]) for family in nodes))
        for family, winner in zip(nodes, winners, strict=True):
            place = next(i for i in family if heap[i] == winner)
            sifting.discard(family[0])
            if place != family[0]:
                heap[family[0]], heap[place] = heap[place], heap[family[0]]
                sifting.add(place)
    chosen = set(top)
    return top + [item for item in items if item not in chosen]


def heap_steps(n: int, k: int, children: int) -> Count:
    """The least and the most steps of all sifts."""
    heights = [_height(node, n, children) for node in range(n)]
    pops = sum(_height(0, n - popped, children) for popped in range(1, min(k, n)))
    return sum(height > 0 for height in heights), sum(heights) + pops


def heap_rounds(n: int, k: int, children: int) -> Count:
    """The least and the most rounds of steps: the build, then two for each further pop."""
    height = _height(0, n, children)
    return height, height + 2 * max(0, min(k, n) - 1)


def _height(node: int, size: int, children: int) -> int:
    height = 0
    while (node := node * children + 1) < size:
        height += 1
    return height
