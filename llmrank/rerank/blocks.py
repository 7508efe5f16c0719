"""Methods that put blocks of candidates in order, all at once, and join what was said about each."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from llmrank.ask.base import Ask
from llmrank.questions import Order
from llmrank.rerank.aggregated import Match, aggregated
from llmrank.rerank.designs import Blocks, design, design_problem
from llmrank.rerank.methods import Item, Ranked, by_score, method


def _shown(n: int, block_size: int, design: str, **options: Any) -> int:
    return min(n, block_size) if design == "equireplicate" else n


@method(
    question="order",
    source="JointRank 2506.22262",
    template="listwise/rank",
    calls=lambda n, block_size, repeats, design, aggregate: len(_blocks(design, n, block_size, repeats)),
    rounds=lambda n, **options: int(n > 1),
    formula=("ceil(n x repeats / block_size)", "1"),
    shown=_shown,
    problem=lambda n, repeats, design, **options: design_problem(design, n, repeats),
)
async def blocks(
    items: Sequence[Item],
    ask: Ask,
    *,
    block_size: int = 20,
    repeats: int = 2,
    design: str = "equireplicate",
    aggregate: str = "pagerank",
    seed: int = 0,
) -> Ranked:
    """Orders overlapping blocks all at once; who stands above whom in a block counts as a win, and wins make scores.

    ceil(n r / b) calls in one round: 10 at n=100, r=2 and 20 at r=4. `design`: `equireplicate` draws blocks in which
    everybody stands `repeats` times; `latin-square` (n = b^2) and `triangular` (n = b(b+1)/2, two repeats) set the size
    from n, and let two candidates meet at most once. `aggregate` is any method of `llmrank aggregate`. n <= block_size
    is one block. Guarantees nothing. Blocks are shown in first-stage order; a block whose question failed counts for
    nobody, and who has no score keeps the place that the first stage gave.
    """
    shown = _drawn(_blocks(design, len(items), block_size, repeats), len(items), seed)
    return await _joined(items, ask, shown, aggregate)


@method(
    question="order",
    source="JointRank 2506.22262 with a second look at the top",
    template="listwise/rank",
    calls=lambda n, block_size, repeats, design, aggregate: _refined(len(_blocks(design, n, block_size, repeats))),
    rounds=lambda n, block_size, repeats, design, aggregate: min(2, len(_blocks(design, n, block_size, repeats))),
    formula=("ceil(n x repeats / block_size) + 1", "2"),
    shown=_shown,
    problem=lambda n, repeats, design, **options: design_problem(design, n, repeats),
)
async def blocks_refine(
    items: Sequence[Item],
    ask: Ask,
    *,
    block_size: int = 20,
    repeats: int = 2,
    design: str = "equireplicate",
    aggregate: str = "pagerank",
    seed: int = 0,
) -> list[Item]:
    """`blocks`, then the top block is put in order by one more question.

    ceil(n r / b) + 1 calls in two rounds: 11 at n=100; one call where there is one block. With a perfect judge the
    top k are exact if all of them reach the refined block. If that question failed, the order of `blocks` stays.
    """
    shown = _drawn(_blocks(design, len(items), block_size, repeats), len(items), seed)
    ranking = (await _joined(items, ask, shown, aggregate)).items
    if len(shown) < 2:
        return ranking
    top = ranking[: block_size if design == "equireplicate" else len(shown[0])]
    # A block that was shown just so is shown from its other end: the same question would be no second look.
    again = top[::-1] if any(top == [items[i] for i in block] for block in shown) else top
    answer = await ask.order(again)
    return [*(answer.apply(again) if answer.usable else top), *ranking[len(top) :]]


@method(
    question="order",
    source="GroupRank 2511.11653",
    template="listwise/group-scores",
    calls=lambda n, group_size: -(-n // group_size),
    rounds=lambda n, group_size: min(n, 1),
    formula=("ceil(n / group_size)", "1"),
    shown=lambda n, group_size, **options: min(n, group_size),
)
async def groupwise(items: Sequence[Item], ask: Ask, *, group_size: int = 10) -> Ranked:
    """Scores the members of all groups at once, each with a score of its own, and merges the groups by score.

    ceil(n / group_size) calls in one round. Exact up to ties of score; equal scores keep first-stage order, and who has
    no score keeps its place. Groups are dealt round by first-stage order, so that each has its share of what stands
    high. Where a template's answers hold no scores, places within the group stand in for them.
    """
    count = -(-len(items) // group_size)
    groups = [range(i, len(items), count) for i in range(count)]
    told = await ask.orders([[items[i] for i in group] for group in groups])
    scores: list[float | None] = [None] * len(items)
    for group, answer in zip(groups, told, strict=True):
        for place, score in zip(group, _group_scores(answer, len(group)), strict=True):
            scores[place] = score
    return by_score(items, scores, "group-score")


def _group_scores(answer: Order, size: int) -> Sequence[float | None]:
    if answer.permutation is None:
        return [None] * size
    return answer.scores or [1 - answer.permutation.index(i) / size for i in range(size)]


def _blocks(name: str, n: int, block_size: int, repeats: int) -> Blocks:
    return design(name, n, block_size, repeats)  # as itself where an option has its name


def _refined(blocks: int) -> int:
    return blocks + (blocks > 1)


def _drawn(blocks: Blocks, n: int, seed: int) -> list[list[int]]:
    """The blocks with items drawn for their positions, each in first-stage order."""
    who = random.Random(seed).sample(range(n), n)
    return [sorted(who[i] for i in block) for block in blocks]


async def _joined(items: Sequence[Item], ask: Ask, blocks: list[list[int]], aggregate: str) -> Ranked:
    told = await ask.orders([[items[i] for i in block] for block in blocks])
    matches = [match for block, answer in zip(blocks, told, strict=True) for match in _wins(block, answer)]
    return aggregated(items, matches, aggregate)


def _wins(block: list[int], answer: Order) -> Iterator[Match]:
    """Every pair of a block as a win of the one above; members of a tie group tie."""
    tied = {i: group for group in answer.ties or () for i in group}
    for above, below in combinations(answer.permutation or (), 2):
        yield block[above], block[below], 0.5 if below in tied.get(above, ()) else 1.0
