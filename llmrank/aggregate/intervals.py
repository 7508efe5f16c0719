"""Intervals of fitted strengths: from the information, and by the bootstrap with bias and skewness corrected (BCa)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import ndtr, ndtri

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.fit import Fit, bordered, information
from llmrank.aggregate.results import Floats
from llmrank.aggregate.tally import Cells

INFLUENCE_BLOCK = 2_000_000
"""How many (item, cell) influences are held at once."""


def analytic_interval(comparisons: Comparisons, at: Fit, prior: float, level: float) -> tuple[Floats, Floats]:
    """Intervals of the strengths from the observed information, by the delta method on their logits.

    logit p_i = theta_i - log sum_{k != i} exp theta_k has the gradient (e_i - p) / (1 - p_i) in theta. Where outcomes
    are not plain draws of the model, the covariance is the sandwich of the inverse information and the scores' own.
    """
    size = comparisons.tally.size
    covariance = np.linalg.inv(information(comparisons.tally, at, prior))
    if not _plain(comparisons, at):
        covariance = covariance @ _score_products(comparisons, at) @ covariance
    covariance = covariance[:size, :size]
    p = at.strengths
    along = covariance @ p
    variance = np.clip(np.diag(covariance) - 2 * along + p @ along, 0.0, None) / (1 - p) ** 2
    half = float(ndtri((1 + level) / 2)) * np.sqrt(variance)
    logit = np.log(p) - np.log1p(-p)
    return 1 / (1 + np.exp(half - logit)), 1 / (1 + np.exp(-half - logit))


def bca_interval(
    comparisons: Comparisons, at: Fit, prior: float, strengths: Floats, level: float
) -> tuple[Floats, Floats]:
    """BCa intervals (Efron 1987) from resampled strengths, one row a replicate.

    The bias is the normal quantile of the share of replicates below the estimate, the acceleration a sixth of the
    skewness of the influences of the comparisons (or clusters) on it.
    """
    estimate = at.strengths
    count = len(strengths)
    below = ((strengths < estimate).sum(axis=0) + (strengths == estimate).sum(axis=0) / 2) / count
    bias = ndtri(np.clip(below, 0.5 / count, 1 - 0.5 / count))
    acceleration = np.clip(_skewness(comparisons, at, prior) / 6, -0.2, 0.2)
    ordered = np.sort(strengths, axis=0)
    ends = []
    for z in ndtri([(1 - level) / 2, (1 + level) / 2]):
        share = ndtr(bias + (bias + z) / np.maximum(1 - acceleration * (bias + z), 0.1))
        place = np.clip(share * (count + 1) - 1, 0, count - 1)
        low = np.floor(place).astype(np.int64)
        columns = np.arange(len(estimate))
        first, second = ordered[low, columns], ordered[np.minimum(low + 1, count - 1), columns]
        ends.append(first + (place - low) * (second - first))
    return ends[0], ends[1]


class _CellScores(NamedTuple):
    """Gradients of the cells' log-likelihoods: `theta` for the first item (less it for the second), `v` for log v."""

    cell: Cells
    theta: Floats
    v: Floats


def _cell_scores(comparisons: Comparisons, at: Fit) -> _CellScores:
    tally, cell = comparisons.tally, comparisons.cells
    d = (at.theta[tally.first] - at.theta[tally.second])[cell.pair]
    z = 2 * np.cosh(d / 2) + 2 * at.v
    of_theta = cell.weight * (cell.share - 0.5 - np.sinh(d / 2) / z)
    return _CellScores(cell, of_theta, cell.weight * ((cell.share == 0.5) - 2 * at.v / z))


def _plain(comparisons: Comparisons, at: Fit) -> bool:
    """Whether comparisons are independent draws of outcomes that the model gives a probability."""
    rows, tally = comparisons.rows, comparisons.tally
    return rows.cluster is None and rows.plain and (at.v > 0 or not tally.tied.any())


def _score_products(comparisons: Comparisons, at: Fit) -> Floats:
    """The sum over comparisons (over clusters, where there are any) of the outer product of their scores."""
    tally = comparisons.tally
    cell, theta, v = _cell_scores(comparisons, at)
    clusters = cell.by_cluster
    if clusters is None:
        products = (theta * theta, theta * v, v * v)
        sums = [np.asarray(np.bincount(cell.pair, weights=cell.count * part), dtype=np.float64) for part in products]
        return bordered(tally, sums[0], sums[1], float(sums[2].sum()) if at.v else None)
    columns = np.concatenate([tally.first[cell.pair], tally.second[cell.pair], np.full(len(v), tally.size)])
    places = np.tile(np.arange(len(v)), 3)
    scores = clusters @ sparse.csr_array((np.concatenate([theta, -theta, v]), (places, columns)))
    used = tally.size + bool(at.v)
    return np.asarray((scores.T @ scores).toarray())[:used, :used]


def _skewness(comparisons: Comparisons, at: Fit, prior: float) -> Floats:
    """sum u^3 / (sum u^2)^(3/2) of each strength's influences u: its gradient, the inverse information, the score."""
    tally, p = comparisons.tally, at.strengths
    cell, theta, v = _cell_scores(comparisons, at)
    clusters = cell.by_cluster
    lever = np.eye(tally.size, tally.size + bool(at.v))
    lever[:, : tally.size] -= p
    lever = lever @ np.linalg.inv(information(tally, at, prior))
    first, second = tally.first[cell.pair], tally.second[cell.pair]
    skewness = np.zeros(tally.size)
    step = max(1, INFLUENCE_BLOCK // max(1, len(theta)))
    for start in range(0, tally.size, step):
        rows = lever[start : start + step]
        influence = (rows[:, first] - rows[:, second]) * theta
        if at.v:
            influence += rows[:, -1:] * v
        count = cell.count
        if clusters is not None:
            influence, count = (clusters @ influence.T).T, np.ones(1, dtype=np.int64)
        squared = count * influence * influence
        second_moment, third_moment = squared.sum(axis=1), (squared * influence).sum(axis=1)
        scale = np.where(second_moment > 0, second_moment, 1.0) ** 1.5
        skewness[start : start + step] = third_moment / scale
    return skewness
