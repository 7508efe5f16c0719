"""A Gaussian posterior of the items' skills, as TrueSkill has, and what to compare next to settle the top k."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dtrtri
from scipy.special import erfcx, ndtr, ndtri

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.counts import estimated
from llmrank.aggregate.diagnosis import limits
from llmrank.aggregate.products import product, together
from llmrank.aggregate.results import Floats, Ints, Scores, sentence
from llmrank.aggregate.tally import Flags, Tally
from llmrank.errors import InputError

LARGEST_TIE_SHARE = 0.99
NEGLIGIBLE = 9.0  # standard deviations, beyond which a normal has no mass that a double would show
AT, WEIGHTS = leggauss(48)  # enough for a dozen digits over those at most 18 deviations


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
        only = together(top, 1.0 - top) / draws
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
        skills = mean + product(np.random.default_rng(seed).standard_normal((draws, len(mean))), root.T)
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
    settled = max(1e-10, 1e-15 * float(weight.max()))  # what is left of a variance's digits beside a large weight
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
        if moved < settled:
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
    # The inverse of a positive definite matrix by that of its Cholesky factor; dpotri would do it in many threads.
    root = np.tril(dtrtri(dpotrf(matrix, lower=1)[0], lower=1)[0])
    covariance = together(root, root)
    pull = np.bincount(first, weights=shift, minlength=size) - np.bincount(second, weights=shift, minlength=size)
    return np.asarray(covariance @ pull), covariance


def _site(centre: Floats, cavity: Floats, outcome: Ints, margin: float) -> tuple[Floats, Floats]:
    """Precision and shift of the Gaussian factor that gives the cavity the moments of its product with the outcome."""
    scale = np.sqrt(1 + cavity)
    sign = np.where(outcome < 0, -1.0, 1.0)
    mean, variance = _above((margin - sign * centre) / scale)
    tied = outcome == 0
    if tied.any():
        # A tie is the same seen from either side; from here the interval lies above 0, or around it.
        sign[tied] = np.where(centre[tied] > 0, -1.0, 1.0)
        middle, half = np.abs(centre[tied]) / scale[tied], margin / scale[tied]
        mean[tied], variance[tied] = _between(middle, half)
    left = 1 + cavity * variance  # of the cavity's variance, in units of what the noise adds to it
    return (1 - variance) / left, (sign * scale * mean + centre * (1 - variance)) / left


def _above(low: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of a standard normal where it is above `low`."""
    mean = np.sqrt(2 / np.pi) / erfcx(low / np.sqrt(2))
    return mean, np.clip(1 - mean * (mean - low), 0.0, 1.0)


def _between(middle: Floats, half: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of a standard normal between middle - half and middle + half, for middle from 0 up.

    By Gauss and Legendre over where it has any mass: differences of its distribution function lose all their digits
    where the interval is narrow or far out.
    """
    low, high = middle - half, middle + half
    low = np.maximum(low, -NEGLIGIBLE)
    # Beyond this its density is exp(-NEGLIGIBLE^2 / 2) of what it is at the lower end, or at 0.
    start = np.maximum(low, 0.0)
    high = np.minimum(high, start + NEGLIGIBLE**2 / (start + np.sqrt(start**2 + NEGLIGIBLE**2)))
    beyond = (high - low)[:, None] * (AT + 1) / 2
    offset = (low - start)[:, None] + beyond
    mass = WEIGHTS * np.exp(-offset * (start[:, None] + offset / 2))
    mass /= mass.sum(axis=1, keepdims=True)
    above = (mass * beyond).sum(axis=1)
    # Around 0 itself the mean is 0, not what rounding makes of it: items that always tie are equal.
    return np.where(middle > 0, low + above, 0.0), np.asarray((mass * (beyond - above[:, None]) ** 2).sum(axis=1))
