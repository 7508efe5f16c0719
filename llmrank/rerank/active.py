"""Active comparison: the next pairs are those that say most about who is in the top k."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING

from llmrank.ask.base import Ask
from llmrank.rerank.aggregated import Match, aggregated
from llmrank.rerank.methods import Count, Item, Ranked, between, method
from llmrank.rerank.pairwise import doubled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmrank.aggregate.tally import Flags

ROUNDS = 12  # after the first: enough to follow the answers, few enough to be quick
DRAWS = 2000  # of all skills at once, from the posterior
SPREAD = 2**0.5  # of a skill before anything is known, as TrueSkill has it


def allowed_pairs(n: int, budget: int | None, swap: bool) -> int:
    """How many pairs the budget pays for; 5n questions where none is given."""
    return min(n * (n - 1) // 2, (5 * n if budget is None else budget) // (1 + swap))


def opening(n: int, pairs: int) -> int:
    """How many pairs are asked before anything is known."""
    return min(pairs, n if n > 2 else n // 2)


def _pairs(n: int, budget: int | None, swap: bool) -> Count:
    most = allowed_pairs(n, budget, swap)
    return between(opening(n, most), most)


def _rounds(n: int, budget: int | None, swap: bool) -> Count:
    most = allowed_pairs(n, budget, swap)
    left = most - opening(n, most)
    return between(min(1, most), min(1, most) + min(ROUNDS, left))


@method(
    question="compare",
    source="AcuRank 2505.18512",
    template="pairwise/prefer",
    calls=lambda n, k, level, budget, swap: doubled(_pairs(n, budget, swap), swap),
    rounds=lambda n, k, level, budget, swap: _rounds(n, budget, swap),
    formula=("at most budget, by default 5n", "at most 13"),
    shown=lambda n, **options: 2,
)
async def active(
    items: Sequence[Item],
    ask: Ask,
    *,
    k: int = 10,
    level: float = 0.95,
    budget: int | None = None,
    swap: bool = True,
    seed: int = 0,
) -> Ranked:
    """Compares where it is least certain who is among the top k, until that is settled or the budget is spent.

    At most `budget` calls (5n where none is given) in at most 13 rounds. The first round compares everybody with two
    others; after each the answers make a Gaussian posterior of all skills (TrueSkill), and the next pairs are those of
    which either may be in the top k without the other. Settled: each of the k that are likeliest to be in the top k is
    so with probability `level`. Guarantees nothing beyond that level. Ranked by the posterior's means. A pair is asked
    once; one that failed says nothing. Its own work grows with n^3: meant for up to some hundred candidates.
    """
    n, most = len(items), allowed_pairs(len(items), budget, swap)
    log: list[Match] = []
    # A circle that goes on by half of the list or a little less, so that it links high places to low ones.
    step = next((step for step in range((n - 1) // 2, 0, -1) if gcd(step, n) == 1), 1)
    circle = {(min(i, (i + step) % n), max(i, (i + step) % n)) for i in range(n)}
    pairs = sorted(circle)[: opening(n, most)]
    for remaining in range(ROUNDS, -1, -1):
        told = await ask.comparisons([(items[a], items[b]) for a, b in pairs])
        log += [(a, b, answer.share) for (a, b), answer in zip(pairs, told, strict=True)]
        wanted = -(-(most - len(log)) // max(1, remaining))
        if not remaining or not wanted:
            break
        pairs = _next_pairs(tuple(log), n, k, level, wanted, seed)
        if not pairs:
            break
    return aggregated(items, log, "trueskill")


@lru_cache(maxsize=512)  # rounds are counted by running the strategy once more over the same answers
def _next_pairs(log: tuple[Match, ...], n: int, k: int, level: float, count: int, seed: int) -> list[tuple[int, int]]:
    """The pairs to ask next, at most `count`; none where the top k is settled, or where nothing was told."""
    import numpy as np

    from llmrank.aggregate.products import together

    told = [(a, b, share) for a, b, share in log if share is not None]
    if not told:
        return []
    top = _drawn_tops(told, n, k, seed).astype(np.float32)  # which counts draws exactly, in half the time
    if np.sort(top.mean(axis=0, dtype=np.float64))[-k:].min() >= level:
        return []
    # How often one is in the top k without the other, and the other without the one.
    both = together(top, top)
    only = both.diagonal()[:, None] - both
    worth = np.minimum(only, only.T)
    for a, b, _ in log:
        worth[a, b] = 0
    first, second = np.triu_indices(n, 1)
    ranked = np.argsort(-worth[first, second], kind="stable")
    candidates = [(int(first[i]), int(second[i])) for i in ranked[: 20 * count + n] if worth[first[i], second[i]] > 0]
    busy: set[int] = set()
    chosen: list[tuple[int, int]] = []
    for pair in candidates:  # everybody once, before anybody twice
        if busy.isdisjoint(pair):
            busy.update(pair)
            chosen.append(pair)
    chosen += [pair for pair in candidates if pair not in set(chosen)]
    return chosen[:count]


def _drawn_tops(told: Sequence[tuple[int, int, float]], n: int, k: int, seed: int) -> Flags:
    """Draws from the posterior of all skills: one row a draw, and who is among the k best."""
    import numpy as np

    from llmrank.aggregate.comparisons import Comparisons
    from llmrank.aggregate.posterior import tops, trueskill
    from llmrank.aggregate.products import product

    left, right, share = (np.array(column) for column in zip(*told, strict=True))
    posterior = trueskill(Comparisons(left, right, share))
    assert posterior.value is not None
    assert posterior.covariance is not None
    known = np.array(posterior.items, dtype=np.int64)
    mean, covariance = np.zeros(n), SPREAD**2 * np.eye(n)
    mean[known] = posterior.value
    covariance[np.ix_(known, known)] = posterior.covariance
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(n))
    return tops(mean.astype(np.float32) + product(_normals(n, seed), root.T.astype(np.float32)), k)


@lru_cache(maxsize=1)  # all rounds share the draws, and so do queries with as many candidates
def _normals(n: int, seed: int) -> NDArray[np.float32]:
    import numpy as np

    return np.random.default_rng(seed).standard_normal((DRAWS, n)).astype(np.float32)
