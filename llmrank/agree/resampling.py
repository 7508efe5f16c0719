"""Intervals of statistics of sums: topics or pairs drawn again, with a correction for small samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from llmrank.agree.confusion import Array
from llmrank.agree.results import Figure

Resample = Literal["topics", "pairs"]

REPLICATES = 10_000
FEW = 10
CELLS_AT_ONCE = 4_000_000
FEW_TIMES = 8


@dataclass(frozen=True)
class Resampling:
    """How intervals are made."""

    replicates: int = REPLICATES
    """How often the units are drawn again; 0 for no intervals."""
    resample: Resample = "topics"
    """What is drawn again: whole topics, or single pairs."""
    seed: int = 0
    level: float = 0.95
    """Coverage of the intervals."""


Size = Callable[[Array], Array]


def _all_cells(units: Array) -> Array:
    return np.asarray(units.sum(1))


class Sample:
    """A sample of units (topics or pairs), each a row of numbers to be added up, with its resamples.

    Every statistic here is a function of sums over units. Resample b draws n units with replacement from the n there
    are; the sums of all resamples at once are the product of the numbers drawn (B, U) and the units' rows (U, cells).
    Units with equal rows are one row with a multiplicity, and rows are sorted by their contents: neither the order of
    the input nor the names in it can change an interval.
    """

    def __init__(
        self, units: Array, times: NDArray[np.int64], by: str, settings: Resampling, size: Size = _all_cells
    ) -> None:
        """units : shape (U, cells); times : shape (U,), how many units each row stands for; by : what they are.

        size : how much each unit weighs in the statistics, (U, cells) to (U,).
        """
        self.units, self.times, self.by, self.settings = units, times, by, settings
        self.n = int(times.sum())
        self.total = times @ units
        self.drawn = draw(units, times, settings.replicates, settings.seed)
        self.without = self.total - units
        sizes = size(units)
        self.effective = float((times @ sizes) ** 2 / (times @ np.square(sizes))) if self.n else 0.0

    @classmethod
    def of_units(cls, rows: Array, settings: Resampling, by: str = "topics", size: Size = _all_cells) -> Sample:
        """One row for each unit, shape (n, cells); rows that are all 0 are no units."""
        units, times = np.unique(rows[rows.any(axis=1)], axis=0, return_counts=True)
        return cls(units, times.astype(np.int64), by, settings, size)

    @classmethod
    def of_pairs(cls, counts: Array, settings: Resampling) -> Sample:
        """Counts of pairs in each cell, shape (cells,), of which each pair is a unit."""
        cells = np.flatnonzero(counts)
        return cls(np.eye(len(counts))[cells], counts[cells].astype(np.int64), "pairs", settings)

    def figure(self, function: Callable[[Array], Array], n: int, missing: str, smooth: bool = True) -> Figure:
        """A function of sums, (..., cells) to (...), with its interval.

        n : what was counted. missing : what is said where the value does not exist. smooth : False where the function
        jumps, as those of ranks do: the jackknife is no measure of their spread.
        """
        value = float(function(self.total))
        if not np.isfinite(value):
            return Figure(None, None, None, n, missing)
        if self.settings.replicates == 0:
            return Figure(value, None, None, n)
        low, high, note = self.interval(value, function(self.drawn), function(self.without) if smooth else None)
        return Figure(value, low, high, n, note)

    def interval(self, value: float, drawn: Array, without: Array | None) -> Interval:
        """The interval of a statistic from its values on the whole sample, on resamples and without each unit."""
        if self.n < 2:
            return Interval(None, None, f"one {self.by[:-1]} has no interval, with {self.by} resampled")
        low, high = expanded_percentile(value, drawn, self.times, without, self.effective, self.settings.level)
        if low is None:
            return Interval(None, None, "too few of the resamples have such a value for an interval")
        return Interval(low, high, _remark(drawn, self.n, self.by, low == high))


class Interval(NamedTuple):
    """An interval, and what has to be said about it."""

    low: float | None
    high: float | None
    note: str | None


def draw(tables: Array, times: NDArray[np.int64], replicates: int, seed: int) -> Array:
    """Shape (B, cells): sums of as many units, drawn with replacement, as there are.

    tables : shape (U, cells), a unit's counts; `times`, shape (U,), how many units each row stands for.
    """
    n = int(times.sum())
    if n < 2:
        return np.zeros((0, tables.shape[1]))
    generator = np.random.default_rng(seed)
    kinds = len(times)
    at_once = max(1, CELLS_AT_ONCE // max(kinds, min(n, FEW_TIMES * kinds)))
    sums = np.empty((replicates, tables.shape[1]))
    for start in range(0, replicates, at_once):
        size = min(at_once, replicates - start)
        if n <= FEW_TIMES * kinds:
            # Units drawn one by one are faster than multinomial numbers as long as there are few of a kind.
            kind = np.repeat(np.arange(kinds), times)[generator.integers(n, size=(size, n))]
            kind += np.arange(size)[:, None] * kinds
            drawn = np.bincount(kind.ravel(), minlength=size * kinds).reshape(size, kinds)
        else:
            drawn = generator.multinomial(n, times / n, size=size)
        sums[start : start + size] = drawn.astype(np.float64) @ tables
    return sums


def expanded_percentile(
    value: float,
    replicates: Array,
    times: NDArray[np.int64],
    without: Array | None,
    effective: float,
    level: float = 0.95,
) -> tuple[float | None, float | None]:
    """An interval of a statistic from its bootstrap distribution, widened for small samples.

    value : the statistic of the whole sample of n units.
    replicates : shape (B,), its values on resamples; those that are not finite do not count.
    times : shape (U,), how many units of each kind there are, n in all.
    without : shape (U,), the statistic's values without one unit of each kind; None where it is not smooth.
    effective : how many units of equal size the sample is worth, (sum m)^2 / sum m^2 for units of size m.

    The percentile interval is too short for few units: the bootstrap spreads by sqrt((n - 1) / n) too little, takes
    the normal's quantile where Student's t is due, and misses part of the variance of a ratio. So the percentiles
    taken are those of the normal distribution at -/+ t s, t the quantile of Student's t with effective - 1 degrees
    of freedom and s the larger of sqrt(n / (n - 1)) and (jackknife standard error) / (bootstrap standard error).
    It stays within the statistic's range. None where fewer than half of the resamples have a value.
    Hesterberg 2015, Am. Stat. 69 (the expanded percentile interval); Efron & Stein 1981 (the jackknife's variance is
    biased upward); Kish 1965 (effective sample size). `experiments/coverage` shows what it covers.
    """
    n = float(times.sum())
    kept = replicates[np.isfinite(replicates)]
    if n < 2 or len(kept) == 0 or 2 * len(kept) < len(replicates):
        return None, None
    spread = float(kept.std())
    if spread <= 1e-12 * max(1.0, abs(value)):
        return value, value
    widening = max(float(np.sqrt(n / (n - 1))), _jackknife(without, times) / spread if without is not None else 0.0)
    freedom = max(1.0, effective - 1)
    tail = float(ndtr(-stdtrit(freedom, (1 + level) / 2) * widening))
    low, high = np.quantile(kept, [tail, 1 - tail])
    # A sample's value can lie outside the percentiles of a skewed distribution; an interval without it helps nobody.
    return min(float(low), value), max(float(high), value)


def _jackknife(without: Array, times: NDArray[np.int64]) -> float:
    """The jackknife's standard error, from the values without one unit of each kind."""
    usable = np.isfinite(without)
    values, m = without[usable], times[usable].astype(np.float64)
    if not len(values):
        return 0.0
    n = m.sum()
    return float(np.sqrt((n - 1) / n * (m @ np.square(values - (m @ values) / n))))


def _remark(found: Array, n: int, by: str, flat: bool) -> str | None:
    said = []
    undefined = int(np.count_nonzero(~np.isfinite(found)))
    if flat:
        said.append("all resamples have the same value, so the interval has no width")
    if undefined:
        said.append(f"{undefined} of {len(found)} resamples have no such value and are left out of the interval")
    if n < FEW:
        said.append(f"only {n} {by} to resample, so the interval is rough")
    return "; ".join(said) or None
