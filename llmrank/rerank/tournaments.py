"""Listwise tournaments: groups are put in order by one question each, and their best go on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence

from llmrank.ask.base import Ask
from llmrank.rerank.methods import Count, Item, Ranked, between, by_score, method, top_first

STAGES = ((0.5, 20), (0.4, 10), (0.5, 20), (0.5, 20), (0.4, 20))
"""The share that goes on and the size of a group, stage by stage, and again from the start until two are left."""


def stages(n: int) -> Iterator[tuple[int, int, int]]:
    """How many are in each stage, in how many groups, and how many go on."""
    stage = 0
    while n > 2:
        share, size = STAGES[stage % len(STAGES)]
        on = max(2, round(n * share))
        yield n, -(-n // size), on
        n, stage = on, stage + 1


def _tournament_calls(n: int, rounds: int) -> Count:
    once = sum(groups for _, groups, _ in stages(n))
    return between(once, once * rounds)  # runs may come upon the same group in the same order


@method(
    question="order",
    source="TourRank 2406.11678",
    template="listwise/rank",
    calls=lambda n, rounds: _tournament_calls(n, rounds),
    rounds=lambda n, rounds: sum(1 for _ in stages(n)),
    formula=("13 a run at n=100, rounds runs", "5 at n=100"),
    shown=lambda n, **options: min(n, 20),
)
async def tournament(items: Sequence[Item], ask: Ask, *, rounds: int = 1, seed: int = 0) -> Ranked:
    """Groups of 10 to 20 send their best to the next stage until two are left; a stage survived is a point.

    At n=100 the stages have 100, 50, 20, 10 and 5 in 5, 5, 1, 1 and 1 groups: 13 calls and 5 rounds a run. `rounds`
    runs, all at once, are summed; runs after the first show each group in a drawn order. With a perfect judge the two
    best as a set; equal points keep first-stage order. A group whose question failed sends on what the first stage put
    first.
    """
    points = [0] * len(items)

    async def group_order(group: list[int], draw: random.Random | None) -> list[int]:
        shown = group if draw is None else draw.sample(group, len(group))
        answer = await ask.order([items[i] for i in shown])
        return answer.apply(shown) if answer.usable else group

    async def play(draw: random.Random | None) -> None:
        field = list(range(len(items)))
        for _, groups, on in stages(len(items)):
            # Dealt round by first-stage order, so that every group has its share of what stands high.
            told = await asyncio.gather(*(group_order(field[i::groups], draw) for i in range(groups)))
            field = sorted(place for i, order in enumerate(told) for place in order[: on // groups + (i < on % groups)])
            for place in field:
                points[place] += 1

    draws = [random.Random(f"{seed} {run}") if run else None for run in range(rounds)]
    await asyncio.gather(*map(play, draws))
    return by_score(items, [float(won) for won in points], "points")


Slots = list[int | None]
"""The places of a level of the tree, and who stands there."""


def _levels(n: int, m: int, r: int) -> list[int]:
    """How many groups of two or more each level of the tree has."""
    filled = [True] * n
    counts = []
    while len(filled) > 1:
        sizes = [sum(filled[i : i + m]) for i in range(0, len(filled), m)]
        counts.append(sum(size > 1 for size in sizes))
        filled = [size > place for size in sizes for place in range(r)] if len(sizes) > 1 else []
    return counts


def _tree(n: int, k: int, m: int, r: int) -> tuple[Count, Count]:
    """Calls and rounds: a full tree, then for each further pop at most two groups a level above the leaves."""
    counts, pops = _levels(n, m, r), max(0, min(k, n) - 1)
    height = sum(count > 0 for count in counts)
    replayed = sum(min(2, count) for count in counts[1:])
    calls = between(sum(counts), sum(counts) + pops * replayed)
    return calls, between(height, height + pops * max(0, height - 1))


@method(
    question="order",
    source="ListT5 2402.15838",
    template="listwise/rank",
    calls=lambda n, k, m, r: _tree(n, k, m, r)[0],
    rounds=lambda n, k, m, r: _tree(n, k, m, r)[1],
    formula=("about 1.6 n/m, and about log_2 n a pop", "about log_2 n a pop"),
    shown=lambda n, m, **options: min(n, m),
)
async def tournament_sort(items: Sequence[Item], ask: Ask, *, k: int = 10, m: int = 5, r: int = 2) -> list[Item]:
    """A tree of groups of `m` that send their best `r` up; k times the winner is popped and its path played again.

    All groups of a level are asked at once. What was answered about a group is kept: it is asked again only when
    somebody new has come into it, so that the groups at the leaves are asked once. With a perfect judge the top k are
    exact; the rest keeps first-stage order. A group whose question failed keeps its order.
    """
    known: dict[tuple[int, int], list[int]] = {}

    async def order(node: tuple[int, int], slots: Slots) -> list[int]:
        members = [place for place in slots if place is not None]
        before = known.get(node, [])
        if not set(members) <= set(before):
            shown = [items[place] for place in members]
            before = (await ask.order(shown)).apply(members) if len(members) > 1 else members
            known[node] = before
        return [place for place in before if place in members]

    async def winner(slots: Slots) -> int:
        level = 0
        while True:
            groups = [slots[i : i + m] for i in range(0, len(slots), m)]
            told = await asyncio.gather(*(order((level, i), group) for i, group in enumerate(groups)))
            if len(told) == 1:
                return told[0][0]
            slots = [told[i][place] if place < len(told[i]) else None for i in range(len(told)) for place in range(r)]
            level += 1

    standing: Slots = list(range(len(items)))
    top: list[int] = []
    while len(top) < min(k, len(items)):
        best = await winner(standing)
        standing[best] = None
        top.append(best)
    return top_first(items, [items[place] for place in top])
