"""Elo ratings: one pass over the comparisons in their order, or the mean over seeded orders."""

from __future__ import annotations

import numpy as np

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.diagnosis import limits
from llmrank.aggregate.resample import check_level, percentiles
from llmrank.aggregate.results import Floats, Ints, Scores, sentence
from llmrank.aggregate.tally import Rows
from llmrank.errors import InputError


def elo(
    comparisons: Comparisons,
    initial: float = 1000.0,
    k: float = 4.0,
    scale: float = 400.0,
    orders: int = 1,
    bootstrap: int = 0,
    seed: int = 0,
    level: float = 0.95,
) -> Scores:
    """Elo ratings: after each comparison the winner gains what the loser loses.

    r_i += k w (s - 1 / (1 + 10^((r_j - r_i) / scale))), s the share of the win of i (a tie one half), w the weight.
    Ratings depend on the order of the comparisons: `orders=1` takes the rows as they stand; `orders=N` gives the mean
    over N seeded orders, in `spread` their standard deviation and in `low` and `high` the quantiles of the orders at
    `level`. `bootstrap` resamples the comparisons instead, each resample in an order of its own. Elo (1978).
    """
    check_level(level)
    if orders < 1 or bootstrap < 0:
        raise InputError(f"orders is {orders} and bootstrap {bootstrap}: orders is 1 or more, bootstrap 0 or more")
    rows, said = comparisons.rows, limits(comparisons)
    if not comparisons.n:
        return Scores("elo", (), np.zeros(0), None, None, 0, sentence(*said), comparisons=comparisons)
    rng = np.random.default_rng(seed)
    canonical = _canonical(rows)
    count = len(canonical)
    settings = (initial, k, scale)
    if orders == 1:
        value = _rate(rows, np.arange(count), *settings)
    else:
        shuffled = np.array([_rate(rows, rng.permutation(canonical), *settings) for _ in range(orders)])
        value = np.asarray(shuffled.mean(axis=0))
        said.append(f"Ratings are means over {orders} random orders of the comparisons.")
    sample = shuffled if orders > 1 else None
    if bootstrap:
        draws = (_drawn(rows, canonical, rng) for _ in range(bootstrap))
        sample = np.array([_rate(rows, order, *settings) for order in draws])
    low, high = (None, None) if sample is None else percentiles(sample, level)
    spread = None if sample is None else np.asarray(sample.std(axis=0))
    return Scores("elo", comparisons.items, value, low, high, comparisons.n, sentence(*said), spread, comparisons)


def _canonical(rows: Rows) -> Ints:
    """The rows in an order that does not depend on the order in which they came."""
    weight = np.zeros(len(rows.left)) if rows.weight is None else rows.weight
    cluster = np.zeros(len(rows.left)) if rows.cluster is None else rows.cluster
    low, high = np.minimum(rows.left, rows.right), np.maximum(rows.left, rows.right)
    return np.lexsort((weight, rows.first_share, high, low, cluster))


def _drawn(rows: Rows, canonical: Ints, rng: np.random.Generator) -> Ints:
    """Rows drawn with replacement, clusters whole where there are any, in random order."""
    if rows.cluster is None:
        return canonical[rng.integers(len(canonical), size=len(canonical))]
    groups = np.split(canonical, np.flatnonzero(np.diff(rows.cluster[canonical])) + 1)
    chosen = rng.integers(len(groups), size=len(groups))
    return rng.permutation(np.concatenate([groups[i] for i in chosen]))


def _rate(rows: Rows, order: Ints, initial: float, k: float, scale: float) -> Floats:
    rating = [initial] * len(rows.items)
    gain = [k] * len(order) if rows.weight is None else (k * rows.weight[order]).tolist()
    played = zip(rows.left[order].tolist(), rows.right[order].tolist(), rows.share[order].tolist(), gain, strict=True)
    for i, j, share, step in played:
        change = step * (share - 1.0 / (1.0 + 10.0 ** min((rating[j] - rating[i]) / scale, 300.0)))
        rating[i] += change
        rating[j] -= change
    return np.array(rating)
