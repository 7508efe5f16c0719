"""A Gaussian posterior of the items' skills, as TrueSkill has, and what to compare next to settle the top k."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.special import log_ndtr, ndtr, ndtri

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.counts import estimated
from llmrank.aggregate.diagnosis import limits
from llmrank.aggregate.results import Floats, Ints, Scores, sentence
from llmrank.aggregate.tally import Flags, Tally
from llmrank.errors import InputError

LARGEST_TIE_SHARE = 0.99


@dataclass(frozen=True, eq=False)
class Posterior(Scores):
    """Skills with their uncertainty: `value` holds the means, `low` and `high` the central intervals."""

    covariance: Floats | None = None
    """Covariance of the skills, items x items."""

    def beats(self, item: Hashable, other: Hashable) -> float:
        """The probability that the item's skill is above the other's."""
        i, j = self.items.index(item), self.items.index(other)
        mean, variance = self._moments()
        return float(ndtr((mean[i] - mean[j]) / np.sqrt(variance[i, i] + variance[j, j] - 2 * variance[i, j])))

    def in_top(self, k: int, draws: int = 2000, seed: int = 0) -> Floats:
        """For each item the probability that it is among the k best, from seeded draws of all skills."""
        return np.asarray(self._tops(k, draws, seed).mean(axis=0))

    def next_pairs(self, k: int, count: int = 1, draws: int = 2000, seed: int = 0) -> list[tuple[Hashable, Hashable]]:
        """The pairs whose comparison says most about who is among the k best, each item in at most one of them.

        A pair matters as far as either may be in the top k without the other: the smaller of the two probabilities,
        from seeded draws; between equals the pair whose difference is least known.
        """
        top = self._tops(k, draws, seed)
        only = (top.T @ (1.0 - top)) / draws
        variance = self._moments()[1]
        spread = variance.diagonal()[:, None] + variance.diagonal()[None, :] - 2 * variance
        first, second = np.triu_indices(len(self.items), 1)
        worth = np.minimum(only, only.T)[first, second]
        chosen: list[tuple[Hashable, Hashable]] = []
        used: set[int] = set()
        for pair in np.lexsort((-spread[first, second], -worth)):
            i, j = int(first[pair]), int(second[pair])
            if len(chosen) == count:
                break
            if not used & {i, j}:
                used |= {i, j}
                chosen.append((self.items[i], self.items[j]))
        return chosen

    def _moments(self) -> tuple[Floats, Floats]:
        if self.value is None or self.covariance is None:
            raise InputError("there is no posterior: it needs comparisons of at least two items")
        return self.value, self.covariance

    def _tops(self, k: int, draws: int, seed: int) -> Floats:
        """One row a draw: 1 for the k best items, 0 for the others."""
        mean, covariance = self._moments()
        root = np.linalg.cholesky(covariance + 1e-12 * np.trace(covariance) / len(mean) * np.eye(len(mean)))
        skills = mean + np.random.default_rng(seed).standard_normal((draws, len(mean))) @ root.T
        return tops(skills, k).astype(np.float64)


def tops(skills: NDArray[np.floating], k: int) -> Flags:
    """Which are the k largest of their row; equal ones, which drawn skills hardly are, count together."""
    n = skills.shape[1]
    if not 0 < k < n:
        return np.full(skills.shape, k > 0)
    return skills >= np.partition(skills, n - k, axis=1)[:, n - k, None]


def trueskill(
    comparisons: Comparisons, spread: float = 2**0.5, bootstrap: int = 0, seed: int = 0, level: float = 0.95
) -> Posterior:
    """Skills with a Gaussian posterior, by expectation propagation, as in TrueSkill.

    Skills are independent N(0, spread^2) before; i beats j where their difference plus standard normal noise exceeds
    a margin e, and they tie where it lies within e: P(i beats j) = Phi(d - e). The margin is that with which equal
    items tie as often as the data do, Phi^-1((1 + ties / n) / 2); 0 without ties. The default spread is TrueSkill's
    ratio of 2 between the spread of skills and that of performances. All comparisons count at once, so their order is
    of no consequence. `value` is the posterior mean, `low` and `high` the central interval at `level`; with
    `bootstrap` percentiles of the means over resamples instead. Always proper: skills of items without a link keep the
    prior's spread, and a disconnected graph is noted. Herbrich, Minka and Graepel (2007); Minka (2001).
    """
    if not spread > 0:
        raise InputError(f"spread is {spread}: the prior's standard deviation is above 0")
    if not comparisons.n:
        note = sentence(*limits(comparisons))
        return Posterior("trueskill", (), np.zeros(0), None, None, 0, note, comparisons=comparisons)
    mean, covariance = _propagated(comparisons.tally, spread)
    deviation = np.sqrt(covariance.diagonal())
    if bootstrap:
        plain = estimated("trueskill", comparisons, lambda tally: _propagated(tally, spread)[0], bootstrap, seed, level)
        low, high, deviation = plain.low, plain.high, plain.spread if plain.spread is not None else deviation
    else:
        half = float(ndtri((1 + level) / 2)) * deviation
        low, high = mean - half, mean + half
    note = sentence(*limits(comparisons))
    items, n = comparisons.items, comparisons.n
    return Posterior("trueskill", items, mean, low, high, n, note, deviation, comparisons, covariance)


def _propagated(tally: Tally, spread: float) -> tuple[Floats, Floats]:
    """Mean and covariance after expectation propagation; all sites move at once.

    A site stands for all comparisons of one pair with one outcome: `weight` equal factors, of which one is taken out
    to form the cavity. They take the whole step, which needs a third of the sweeps that half of it would; where that
    does not make them settle quickly (weights far from 1 can swing to and fro), half or a quarter of it.
    """
    counts = np.concatenate([tally.won, tally.lost, tally.tied])
    outcome = np.repeat([1, -1, 0], len(tally.first))[counts > 0]
    pair = np.tile(np.arange(len(tally.first)), 3)[counts > 0]
    weight = counts[counts > 0]
    tie_share = float(tally.tied.sum() / weight.sum())
    margin = float(ndtri((1 + min(tie_share, LARGEST_TIE_SHARE)) / 2))
    first, second = tally.first[pair], tally.second[pair]
    taken = np.minimum(weight, 1.0)
    precision, shift = np.zeros(len(pair)), np.zeros(len(pair))
    mean, covariance = np.zeros(tally.size), spread**2 * np.eye(tally.size)
    step, before = 1.0, np.inf
    for sweep in range(500):
        d = mean[first] - mean[second]
        variance = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
        cavity = 1 / (1 / variance - taken * precision)
        centre = cavity * (d / variance - taken * shift)
        new_precision, new_shift = _site(centre, cavity, outcome, margin)
        moved = max(np.abs(new_precision - precision).max(), np.abs(new_shift - shift).max())
        if sweep > 1 and moved > 0.9 * before:
            step = max(step / 2, 0.25)
        before = moved
        precision = precision + step * (new_precision - precision)
        shift = shift + step * (new_shift - shift)
        mean, covariance = _joint(tally.size, first, second, weight * precision, weight * shift, spread)
        if moved < 1e-10:
            break
    return mean, covariance


def _joint(
    size: int, first: Ints, second: Ints, precision: Floats, shift: Floats, spread: float
) -> tuple[Floats, Floats]:
    matrix = np.eye(size) / spread**2
    np.add.at(matrix, (first, first), precision)
    np.add.at(matrix, (second, second), precision)
    np.add.at(matrix, (first, second), -precision)
    np.add.at(matrix, (second, first), -precision)
    # The inverse of a positive definite matrix by its Cholesky factor, in half the time of a general one.
    lower = dpotri(dpotrf(matrix, lower=1)[0], lower=1)[0]
    covariance = np.asarray(lower + lower.T - np.diag(lower.diagonal()), dtype=np.float64)
    pull = np.bincount(first, weights=shift, minlength=size) - np.bincount(second, weights=shift, minlength=size)
    return np.asarray(covariance @ pull), covariance


def _site(centre: Floats, cavity: Floats, outcome: Ints, margin: float) -> tuple[Floats, Floats]:
    """Precision and shift of the Gaussian factor that gives the cavity the moments of its product with the outcome."""
    scale = np.sqrt(1 + cavity)
    sign = np.where(outcome < 0, -1.0, 1.0)
    z = (sign * centre - margin) / scale
    ratio = np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(z))
    first = sign * ratio / scale
    second = -ratio * (ratio + z) / scale**2
    tied = outcome == 0
    if tied.any():
        low, high = (-margin - centre[tied]) / scale[tied], (margin - centre[tied]) / scale[tied]
        mass = np.maximum(ndtr(high) - ndtr(low), 1e-300)
        dense = [np.exp(-0.5 * end**2) / np.sqrt(2 * np.pi) for end in (low, high)]
        slope = (dense[0] - dense[1]) / mass
        first[tied] = slope / scale[tied]
        second[tied] = ((low * dense[0] - high * dense[1]) / mass - slope**2) / scale[tied] ** 2
    # first and second are the derivatives of the log of the outcome's probability in the cavity's mean.
    precision = -second / (1 + cavity * second)
    return precision, (first - centre * second) / (1 + cavity * second)
