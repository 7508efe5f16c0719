"""Pairwise methods: two candidates are compared by a question, or by two where both orders are asked."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import combinations, pairwise

from llmrank.ask.base import Ask
from llmrank.rerank.aggregated import aggregated
from llmrank.rerank.bubbles import bubble_rounds, bubble_steps, bubble_top
from llmrank.rerank.heaps import heap_rounds, heap_steps, heap_top
from llmrank.rerank.methods import Count, Item, Ranked, between, method


def pair_count(n: int, sample: float) -> int:
    """How many pairs of n items are asked: never fewer than connect them all."""
    every = n * (n - 1) // 2
    return every if sample >= 1 else min(every, max(n - 1, round(sample * every)))


@method(
    question="compare",
    source="PRP 2306.17563; duoT5 2101.05667",
    template="pairwise/prefer",
    calls=lambda n, swap, sample, aggregate: pair_count(n, sample) * (1 + swap),
    rounds=lambda n, swap, sample, aggregate: int(n > 1),
    formula=("n(n-1), half with swap=off, times sample", "1"),
    shown=lambda n, **options: 2,
)
async def all_pairs(
    items: Sequence[Item], ask: Ask, *, swap: bool = True, sample: float = 1.0, aggregate: str = "wins", seed: int = 0
) -> Ranked:
    """Compares every pair, or a connected sample of them, all at once, and counts wins; a tie is half a win.

    n(n-1) calls with both orders, one round; unsampled and with a perfect judge the whole order. A pair whose
    question failed counts for neither, and what wins were counted is taken as a share of the pairs that were told.
    `aggregate` names any method of `llmrank aggregate` that is to score the pairs in place of the count.
    """
    pairs = list(combinations(range(len(items)), 2))
    if sample < 1:
        pairs = connected_sample(len(items), pair_count(len(items), sample), seed)
    told = await ask.comparisons([(items[a], items[b]) for a, b in pairs])
    return aggregated(items, [(a, b, answer.share) for (a, b), answer in zip(pairs, told, strict=True)], aggregate)


def connected_sample(n: int, size: int, seed: int) -> list[tuple[int, int]]:
    """`size` pairs of n items that hang together: a random path through all of them, and random others."""
    draw = random.Random(seed)
    path = list(range(n))
    draw.shuffle(path)
    chosen = {(min(a, b), max(a, b)) for a, b in pairwise(path)}
    others = [pair for pair in combinations(range(n), 2) if pair not in chosen]
    chosen.update(draw.sample(others, max(0, size - len(chosen))))
    return sorted(chosen)


def decider(items: Sequence[Item], ask: Ask) -> Callable[[Item, Item], Awaitable[Item]]:
    """Tells the better of two items; a tie or a failed pair is decided by first-stage order."""
    place = {item: i for i, item in enumerate(items)}

    async def better(a: Item, b: Item) -> Item:
        if place[b] < place[a]:
            a, b = b, a
        share = (await ask.compare(a, b)).share
        return b if share is not None and share < 0.5 else a

    return better


def _pair_steps(n: int, k: int) -> Count:
    least, most = heap_steps(n, k, 2)  # type: ignore[misc]  # a range
    lone = int(n > 1 and n % 2 == 0)  # a last parent with one child needs one comparison, others two
    return 2 * least - lone, 2 * most


def _pair_rounds(n: int, k: int) -> Count:
    least, most = heap_rounds(n, k, 2)  # type: ignore[misc]  # a range
    return min(least, 1), 2 * most


@method(
    question="compare",
    source="PRP 2306.17563",
    template="pairwise/prefer",
    calls=lambda n, k, swap, lazy: put_off(_pair_steps(n, k), swap, swap and lazy),
    rounds=lambda n, k, swap, lazy: put_off(_pair_rounds(n, k), False, swap and lazy),
    formula=("about 2n + 2k log_2 n pairs, twice with swap", "about 2 log_2 n + 4k"),
    shown=lambda n, **options: 2,
)
async def heapsort(
    items: Sequence[Item], ask: Ask, *, k: int = 10, swap: bool = True, lazy: bool = False
) -> list[Item]:
    """Builds a binary heap by comparing siblings, then the better with its parent, and pops the top k.

    With a perfect judge the top k are exact; the rest keeps first-stage order. A tie or a failed pair is decided by
    first-stage order. `lazy` asks the other order of a pair only where it can change that: fewer questions for the same
    ranking, but one after the other.
    """
    better = decider(items, ask)

    async def best(family: list[Item]) -> Item:
        parent, *young = family
        return await better(parent, young[0] if len(young) == 1 else await better(*young))

    return await heap_top(items, k, 2, best)


async def bubblesort(
    items: Sequence[Item], ask: Ask, *, k: int = 10, swap: bool = True, lazy: bool = False
) -> list[Item]:
    """Passes from the bottom to the top compare neighbours and swap them where the lower one is better, k times.

    A pass ends one place below the one before and follows it at two steps' distance: at most n+k-2 rounds, and as
    many calls as k shrinking passes have pairs (1,890 at n=100, k=10), since a pair is asked once. For the same reason
    it stops early: after a pass that changed nothing all others would ask what is known. With a perfect judge the top
    k are exact; the rest keeps first-stage order. A tie or a failed pair is decided by first-stage order. `lazy` as for
    `heapsort`.
    """
    better = decider(items, ask)
    return await bubble_top(items, k, 1, lambda family: better(*family))


for _name in ("bubblesort", "sliding-pairs"):
    method(
        name=_name,
        question="compare",
        source="PRP 2306.17563",
        template="pairwise/prefer",
        calls=lambda n, k, swap, lazy: put_off(bubble_steps(n, k, 1), swap, swap and lazy),
        rounds=lambda n, k, swap, lazy: put_off(bubble_rounds(n, k, 1), False, swap and lazy),
        formula=("n-1 to about nk pairs, twice with swap", "n-1 to n+k-2"),
        shown=lambda n, **options: 2,
    )(bubblesort)


def doubled(pairs: Count, swap: bool) -> Count:
    """Questions for so many pairs."""
    if isinstance(pairs, int):
        return pairs * (1 + swap)
    return between(pairs[0] * (1 + swap), pairs[1] * (1 + swap))


def put_off(count: Count, swap: bool, lazy: bool) -> Count:
    """Questions for so many pairs, of which some or all may be asked in one order only; rounds likewise."""
    if not lazy:
        return doubled(count, swap)
    least, most = (count, count) if isinstance(count, int) else count
    return between(least, 2 * most)
