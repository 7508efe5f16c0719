"""Many fits at once: every resampled tally fitted from the full sample's estimate, honestly to convergence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.fit import Fit, exists, fit, information
from llmrank.aggregate.resample import Resampled, resampled
from llmrank.aggregate.results import Floats
from llmrank.aggregate.tally import Tally

TOLERANCE = 1e-7
"""A replicate has converged when no log-strength moves by more."""


class Refits(NamedTuple):
    """The log-strengths of each replicate, and how many replicates needed the weak prior."""

    theta: Floats
    with_prior: int


def refits(comparisons: Comparisons, at: Fit, prior: float, weak: float, replicates: int, seed: int) -> Refits:
    """Fit every resampled tally, starting from the estimate `at` of the full sample.

    All replicates of a block take chord steps at once: Newton's with the full sample's information, which is inverted
    once. Those that have not converged after a few are fitted one by one by Newton's method; where the resample has no
    maximum, with the prior `weak`.
    """
    ties = at.v > 0
    many = _Many(comparisons.tally, at, ties, prior)
    thetas, with_prior = [], 0
    for block in resampled(comparisons, replicates, seed):
        theta, done = many.chord(block)
        for r in np.flatnonzero(~done):
            tally = comparisons.tally.counts(block.won[r], block.lost[r], block.tied[r])
            needs = not prior and not exists(_without_unmet(tally), ties)
            theta[r] = fit(tally, ties, weak if needs else prior, at).theta
            with_prior += needs
        thetas.append(theta)
    return Refits(np.concatenate(thetas), with_prior)


def _without_unmet(tally: Tally) -> Tally:
    """The tally without the pairs that a resample has no comparison of; the items stay."""
    met = tally.met > 0
    counts = (tally.won[met], tally.lost[met], tally.tied[met])
    return Tally(tally.size, tally.first[met], tally.second[met], *counts)


class _Many:
    """Chord iteration for many tallies over the same pairs."""

    def __init__(self, tally: Tally, at: Fit, ties: bool, prior: float) -> None:
        self.tally, self.at, self.ties, self.prior = tally, at, ties, prior
        pairs = np.arange(len(tally.first))
        ones = np.ones(len(pairs))
        signs = (np.concatenate([pairs, pairs]), np.concatenate([tally.first, tally.second]))
        self.spread = sparse.csr_array((np.concatenate([ones, -ones]), signs), shape=(len(pairs), tally.size))
        self.inverse = np.linalg.inv(information(tally, at, prior))

    def chord(self, block: Resampled) -> tuple[Floats, np.ndarray]:
        """Log-strengths of each replicate of the block, and which of them have converged."""
        size = self.tally.size
        point = np.tile(np.append(self.at.theta, np.log(self.at.v) if self.ties else []), (len(block.won), 1))
        lead = (block.won - block.lost) / 2
        met = block.won + block.lost + block.tied
        tied = block.tied.sum(axis=1)
        moving = np.arange(len(point))
        last = np.full(len(point), np.inf)
        done = np.zeros(len(point), dtype=bool)
        for _ in range(100):
            step = self._slope(point[moving], lead[moving], met[moving], tied[moving]) @ self.inverse
            if not self.prior:
                step[:, :size] -= step[:, :size].mean(axis=1, keepdims=True)
            point[moving] += step
            change = np.abs(step).max(axis=1, initial=0.0)
            done[moving[change < TOLERANCE]] = True
            # Steps that shrink no faster than this cost more than a fit of their own.
            going = (change >= TOLERANCE) & (change < 0.9 * last[moving])
            last[moving] = change
            moving = moving[going]
            if not moving.size:
                break
        return point[:, :size], done

    def _slope(self, point: Floats, lead: Floats, met: Floats, tied: Floats) -> Floats:
        theta = point[:, : self.tally.size]
        root = np.exp(theta / 2)
        a = root[:, self.tally.first] / root[:, self.tally.second]
        b = 1 / a
        double_v = 2 * np.exp(point[:, -1:]) if self.ties else 0.0
        z = a + b + double_v
        slope = np.asarray((lead - met * (a - b) / (2 * z)) @ self.spread)
        if self.prior:
            slope -= self.prior * np.tanh(theta / 2)
        if not self.ties:
            return slope
        return np.column_stack([slope, tied - (met * double_v / z).sum(axis=1)])
