"""Setwise methods: the best of a few candidates is chosen by one question."""

from __future__ import annotations

from collections.abc import Sequence

from llmrank.ask.base import Ask
from llmrank.rerank.heaps import heap_rounds, heap_steps, heap_top
from llmrank.rerank.methods import Item, method


@method(
    question="choose",
    source="Setwise 2310.09497; Rank-R1 2503.06034 with children=19",
    template="setwise/best",
    calls=lambda n, k, children: heap_steps(n, k, children),
    rounds=lambda n, k, children: heap_rounds(n, k, children),
    formula=("about n/c + k log_c n", "about log_c n + 2k"),
    shown=lambda n, children, **options: min(n, children + 1),
)
async def setwise_heapsort(items: Sequence[Item], ask: Ask, *, k: int = 10, children: int = 2) -> list[Item]:
    """Builds a heap by choosing the best of a parent and its children, and pops the top k.

    The paper's c is `children` + 1, the number of documents shown. With a perfect judge the top k are exact; the
    rest keeps first-stage order. Where a question failed, the candidate that the first stage put first is taken.
    """
    place = {item: i for i, item in enumerate(items)}

    async def best(family: list[Item]) -> Item:
        family = sorted(family, key=place.__getitem__)  # one set is one question, shown in first-stage order
        return (await ask.choose(family)).of(family) or family[0]

    return await heap_top(items, k, children, best)
