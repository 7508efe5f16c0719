"""Measures under uncertain labels: expected nDCG with an interval, and which pairs a human should label next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from llmrank.agree.confusion import Array
from llmrank.agree.results import Figure

DRAWS = 2_000


def expected_ndcg(
    distributions: Sequence[ArrayLike],
    rankings: Sequence[Sequence[int]],
    k: int = 10,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Figure:
    """The mean nDCG@k to expect when labels are only known up to a distribution.

    distributions : for each topic, shape (documents, labels), the probability of each label 0, 1, ... of each judged
        document. rankings : for each topic, the ranked documents by their row in it, best first; -1 is a document that
        is not judged, and counts 0.
    draws : label sets drawn, each label for itself. The interval holds `level` of the mean nDCGs of the draws: it is
        about the labels of these topics, and says nothing of other topics. n counts topics.

    Linear gains, log2 discounts, the ideal of each draw over all its labels: trec_eval's `ndcg_cut`.
    """
    if len(distributions) != len(rankings):
        raise ValueError("distributions and rankings must be equally long")
    if not len(rankings):
        return Figure(None, None, None, 0, "there are no topics")
    generator = np.random.default_rng(seed)
    discount = 1 / np.log2(np.arange(2, k + 2))
    total = np.zeros(draws)
    for distribution, ranking in zip(distributions, rankings, strict=True):
        soft = np.asarray(distribution, dtype=np.float64).reshape(len(np.asarray(distribution)), -1)
        edges = np.cumsum(soft, axis=1)[:, :-1]
        labels = (generator.random((draws, len(soft), 1)) >= edges).sum(-1).astype(np.float64)
        padded = np.concatenate([labels, np.zeros((draws, 1))], axis=1)
        top = np.asarray(ranking, dtype=np.int64)[:k]
        gained = padded[:, top] @ discount[: len(top)]
        ideal = -np.sort(-labels, axis=1)[:, :k]
        best = ideal @ discount[: ideal.shape[1]]
        total += np.divide(gained, best, out=np.zeros(draws), where=best > 0)
    means = total / len(rankings)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    value = float(means.mean())
    return Figure(value, min(float(low), value), max(float(high), value), len(rankings))


@dataclass(frozen=True, slots=True)
class NextPairs:
    """The pairs to label next, most useful first."""

    pairs: NDArray[np.int64]
    """Their numbers."""
    doubt: tuple[float, float]
    """The expected number of pairs of systems in the wrong order, before and after."""


def next_pairs(weights: ArrayLike, mean: ArrayLike, variance: ArrayLike, budget: int) -> NextPairs:
    """Which pairs to give a human, for the most certainty on the order of the systems.

    weights : shape (S, P), what the label of each (topic, document) pair is worth to each system's mean: for DCG@k
        1 / log2(rank + 1) over the number of topics (for nDCG over the topic's ideal too), 0 where not retrieved.
    mean, variance : shape (P,), of the label as predicted. budget : how many pairs to name.

    A difference of two systems is taken as normal, with the variances of labels that are not known yet added up. The
    doubt of two systems is the probability that their order is wrong, D = Phi(-|difference| / sigma). Greedily, the
    pair is taken that takes away most of the systems' variance where it matters: what it adds to the variance of each
    two systems weighs D (1 - D) / sigma^2. Only pairs that change something are named, so there may be fewer than the
    budget. (Ours; in the spirit of Carterette, Allan & Sitaraman 2006, SIGIR, minimal test collections.)
    """
    worth, expected, spread = (np.asarray(values, dtype=np.float64) for values in (weights, mean, variance))
    first, second = np.triu_indices(len(worth), 1)
    apart = worth[first] - worth[second]
    difference = np.abs(apart @ expected)
    parts = np.square(apart) * spread
    left = parts.sum(1)
    before = float(_doubt(difference, left).sum())
    open_pairs = np.ones(len(spread), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < budget and open_pairs.any():
        doubt = _doubt(difference, left)
        use = np.divide(doubt * (1 - doubt), left, out=np.zeros(len(left)), where=left > 1e-15) @ parts
        best = int(np.argmax(np.where(open_pairs, use, -1.0)))
        if use[best] <= 0:
            break
        chosen.append(best)
        open_pairs[best] = False
        left = np.maximum(left - parts[:, best], 0.0)
    return NextPairs(np.array(chosen, dtype=np.int64), (before, float(_doubt(difference, left).sum())))


def largest_disagreement(labels: ArrayLike, budget: int) -> NDArray[np.int64]:
    """The pairs on which judges differ most, by the variance of their labels, most first; equal ones in their order.

    labels : shape (judges, pairs), NaN where a judge gave none; a pair with fewer than two labels has no variance.
    """
    table = np.asarray(labels, dtype=np.float64)
    known = np.isfinite(table)
    count = known.sum(0)
    centre = np.where(known, table, 0).sum(0) / np.maximum(count, 1)
    spread = np.square(np.where(known, table - centre, 0)).sum(0) / np.maximum(count, 1)
    return np.argsort(-np.round(spread, 12), kind="stable")[:budget].astype(np.int64)


def _doubt(difference: Array, variance: Array) -> Array:
    """The probability of the wrong order; one half where nothing is known, 0 where all is and they differ."""
    z = np.divide(difference, np.sqrt(variance), out=np.full(len(variance), np.inf), where=variance > 1e-15)
    return np.asarray(np.where((variance <= 1e-15) & (difference <= 1e-12), 0.5, ndtr(-z)))
