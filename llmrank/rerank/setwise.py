"""Setwise methods: the best of a few candidates is chosen by one question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from llmrank.ask.base import Ask
from llmrank.rerank.bubbles import bubble_rounds, bubble_steps, bubble_top
from llmrank.rerank.heaps import heap_rounds, heap_steps, heap_top
from llmrank.rerank.listwise import window_count, window_loop
from llmrank.rerank.methods import Count, Item, between, method, top_first


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
    return await heap_top(items, k, children, chooser(items, ask))


@method(
    question="choose",
    source="Setwise 2310.09497",
    template="setwise/best",
    calls=lambda n, k, children: bubble_steps(n, k, children),
    rounds=lambda n, k, children: bubble_rounds(n, k, children),
    formula=("(n-1)/c to about nk/c", "up to about n/c + 2k"),
    shown=lambda n, children, **options: min(n, children + 1),
)
async def setwise_bubblesort(items: Sequence[Item], ask: Ask, *, k: int = 10, children: int = 2) -> list[Item]:
    """Passes from the bottom to the top bring the best of each set of `children` + 1 to its head, k times.

    Sets overlap by one; a pass ends one place below the one before and follows it at two steps' distance. At most 475
    calls and 63 rounds at n=100, k=10, c=2, and fewer since a set is asked once. The paper's c is `children` + 1. With
    a perfect judge the top k are exact; the rest keeps first-stage order. Where a question failed, the candidate that
    the first stage put first is taken.
    """
    return await bubble_top(items, k, children, chooser(items, ask))


def _inserted_steps(n: int, k: int, children: int) -> Count:
    """The least where nothing moves up, the most where everything does."""
    top = min(k, n)
    least = max(0, top - 1) + -(-(n - top) // children)
    sorting = sum(1 + (place - 1).bit_length() for place in range(1, top))
    return between(least, sorting + (n - top) * (1 + (top - 1).bit_length())) if n > 1 else 0


@method(
    question="choose",
    source="2504.10509",
    template="setwise/best",
    calls=lambda n, k, children: _inserted_steps(n, k, children),
    rounds=lambda n, k, children: _inserted_steps(n, k, children),
    formula=("k + n/c, and about log_2 k + 1 for each that moves up", "as calls"),
    shown=lambda n, children, **options: min(n, children + 1),
)
async def setwise_insertion(items: Sequence[Item], ask: Ask, *, k: int = 10, children: int = 2) -> list[Item]:
    """Takes first-stage order for right where nothing speaks against it, and inserts into the top k what does.

    The first k are sorted by insertion from their end; then the last of them is held against the next `children`
    candidates, which are passed over if it is the best of the set; else the best is inserted by halving, and the last
    drops out. k-1 + (n-k)/c calls on a perfect start, about log2(k)+1 more for each candidate that moves up, each
    waiting for the one before. The paper's c is `children` + 1. With a perfect judge the top k are exact; the rest
    keeps first-stage order. Where a question failed, the candidate that the first stage put first is taken.
    """
    best = chooser(items, ask)

    async def insert(item: Item, ranking: list[Item]) -> None:
        low, high = 0, len(ranking)
        while low < high:
            middle = (low + high) // 2
            if await best([ranking[middle], item]) == item:
                high = middle
            else:
                low = middle + 1
        ranking.insert(low, item)

    top, rest = list(items[:1]), list(items[1:])
    while rest and len(top) < k:
        item, last = rest.pop(0), top.pop()
        if await best([last, item]) == item:
            await insert(item, top)
            top.append(last)
        else:
            top += [last, item]
    while rest:
        group = rest[:children]
        winner = await best([top[-1], *group])
        if winner == top[-1]:
            del rest[:children]
        else:
            rest.remove(winner)
            top.pop()
            await insert(winner, top)
    return top_first(items, top)


@method(
    question="choose",
    source="Setwise 2310.09497",
    template="setwise/best",
    needs=("text", "logprobs"),
    calls=lambda n, window, stride, passes: window_count(n, window, stride, passes),
    rounds=lambda n, window, stride, passes: window_count(n, window, stride, passes),
    formula=("passes x (ceil((n-window)/stride)+1)", "as calls"),
    shown=lambda n, window, **options: min(n, window),
)
async def setwise_likelihood(
    items: Sequence[Item], ask: Ask, *, window: int = 20, stride: int = 10, passes: int = 1
) -> list[Item]:
    """Reorders windows as `sliding-window` does, each by the probabilities with which its members are the best.

    ceil((n-window)/stride)+1 calls a pass, each waiting for the one before. With a perfect judge as `sliding-window`,
    as far as the backend returns the log-probabilities of that many labels: of 20, on any. Where an answer has no
    probabilities the chosen candidate moves to the head of its window.
    """

    async def arranged(shown: list[Item]) -> list[Item]:
        answer = await ask.choose(shown)
        if answer.index is None:
            return shown
        likely = answer.distribution or [float(i == answer.index) for i in range(len(shown))]
        return [shown[i] for i in sorted(range(len(shown)), key=lambda i: -likely[i])]

    return await window_loop(items, window, stride, passes, arranged)


@method(
    question="choose",
    source="IRanker 2506.21638",
    template="setwise/worst",
    calls=lambda n, pool: max(0, n - 1),
    rounds=lambda n, pool: max(0, n - 1),
    formula=("n-1", "n-1"),
    shown=lambda n, pool, **options: min(n, pool),
    worst=True,
)
async def elimination(items: Sequence[Item], ask: Ask, *, pool: int = 20) -> list[Item]:
    """Removes the worst of the bottom `pool` again and again, while the next ones up come in; the last out is the best.

    n-1 calls, each waiting for the one before. With a perfect judge everything for n <= pool, else the top pool - 1.
    Where a question failed, the candidate that the first stage put last is removed.
    """
    left, removed = list(items), list[Item]()
    while len(left) > 1:
        shown = left[-pool:]
        index = (await ask.choose(shown, worst=True)).index
        removed.append(left.pop(len(left) - len(shown) + (len(shown) - 1 if index is None else index)))
    return left + removed[::-1]


def chooser(items: Sequence[Item], ask: Ask) -> Callable[[list[Item]], Awaitable[Item]]:
    """Tells the best of a set; where the question failed, what the first stage put first."""
    place = {item: i for i, item in enumerate(items)}

    async def best(family: list[Item]) -> Item:
        family = sorted(family, key=place.__getitem__)  # one set is one question, shown in first-stage order
        index = (await ask.choose(family)).index
        return family[index or 0]

    return best
