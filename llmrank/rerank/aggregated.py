"""From matches of two items to a ranking: by wins, or by any method of `llmrank.aggregate`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmrank.rerank.methods import Item, Ranked, by_score

Match = tuple[int, int, float | None]
"""Positions of two items, and the first one's share of the win; None where the question failed."""

SCORE_KINDS = {"bradley-terry": "strength", "newman": "strength", "trueskill": "skill", "counting": "wins"}
"""What the scores of a method are, where it is not its own name that says it."""


def aggregated(items: Sequence[Item], matches: Iterable[Match], method: str) -> Ranked:
    """The items by their scores over the matches that were told; an item without one keeps its place."""
    told = [(a, b, share) for a, b, share in matches if share is not None]
    scores = _wins(len(items), told) if method == "wins" else _scores(len(items), told, method)
    return by_score(items, scores, SCORE_KINDS.get(method, method))


def _wins(n: int, told: Iterable[tuple[int, int, float]]) -> list[float | None]:
    """The share of its matches that each item won, a tie half, as wins over all others."""
    won, met = [0.0] * n, [0] * n
    for a, b, share in told:
        won[a] += share
        won[b] += 1 - share
        met[a] += 1
        met[b] += 1
    return [wins * (n - 1) / times if times else None for wins, times in zip(won, met, strict=True)]


def _scores(n: int, told: Sequence[tuple[int, int, float]], method: str) -> list[float | None]:
    if not told:
        return [None] * n
    # Not at the top: scipy takes longer to load than all else, and most methods do without.
    import numpy as np

    from llmrank.aggregate.comparisons import Comparisons
    from llmrank.aggregate.methods import scores
    from llmrank.aggregate.results import rounded

    left, right, shares = zip(*told, strict=True)
    result = scores(method, Comparisons(np.array(left), np.array(right), np.array(shares)))
    if result.value is None:
        return [None] * n
    # Rounded, so that what is equal but for the last digits stands in first-stage order.
    values = rounded(result.value) * np.abs(result.value).max()
    known = dict(zip(result.items, values.tolist(), strict=True))
    return [known.get(i) for i in range(n)]
