"""The bootstrap over comparisons or clusters: counts are resampled, never rows, and intervals are read off."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.results import Floats, Ints
from llmrank.aggregate.tally import Cells, Tally
from llmrank.errors import InputError

BLOCK = 200_000
"""How many resampled counts are worked on at once: few enough to stay in the processor's cache."""


class Resampled(NamedTuple):
    """A block of resampled tallies: one row a replicate, one column a pair of the original tally."""

    won: Floats
    lost: Floats
    tied: Floats


def resampled(comparisons: Comparisons, replicates: int, seed: int) -> Iterator[Resampled]:
    """Tallies of resampled comparisons, in blocks of replicates.

    Drawing n of n rows with replacement is one multinomial draw over the cells of alike rows, so a replicate costs as
    much as there are cells. Where the comparisons have clusters, those are drawn with replacement, each with all its
    rows. A row keeps its weight.
    """
    if replicates < 0:
        raise InputError(f"bootstrap is {replicates}: the number of resamples is 0 or more")
    cell = comparisons.cells
    starts = np.flatnonzero(np.diff(cell.pair, prepend=-1))
    tie = cell.share == 0.5
    parts = [
        np.where(tie, 0.0, cell.weight * cell.share),
        np.where(tie, 0.0, cell.weight * (1.0 - cell.share)),
        np.where(tie, cell.weight, 0.0),
    ]
    rng = np.random.default_rng(seed)
    draw = _rows_drawn(cell) if cell.by_cluster is None else _clusters_drawn(cell.by_cluster)
    step = max(1, BLOCK // max(1, len(cell.count)))
    for begin in range(0, replicates, step):
        counts = draw(rng, min(step, replicates - begin))
        yield Resampled(*(_per_pair(counts, part, starts) for part in parts))


def _per_pair(counts: Counts, part: Floats, starts: Ints) -> Floats:
    if not part.any():
        return np.zeros((len(counts), len(starts)))
    return np.asarray(np.add.reduceat(counts * part, starts, axis=1), dtype=np.float64)


Counts = NDArray[Any]
Draw = Callable[[np.random.Generator, int], Counts]


def _rows_drawn(cell: Cells) -> Draw:
    total = int(cell.count.sum())
    chance = cell.count / total
    if total < 20 * len(chance):
        return lambda rng, size: rng.multinomial(total, chance, size=size)
    of_row = np.repeat(np.arange(len(chance)), cell.count)
    # A little fewer than wanted, so that what is missing can be drawn row by row.
    expected = (total - 8 * math.sqrt(total)) * chance

    def draw(rng: np.random.Generator, size: int) -> Counts:
        """Independent Poisson counts given their sum are multinomial, and cost half as much to draw."""
        counts = rng.poisson(expected, size=(size, len(expected)))
        for row in counts:
            while (missing := total - int(row.sum())) < 0:
                row[:] = rng.poisson(expected)
            row += np.bincount(of_row[rng.integers(total, size=missing)], minlength=len(row))
        return counts

    return draw


def _clusters_drawn(by_cluster: sparse.csr_array) -> Draw:
    groups = by_cluster.shape[0]
    chance = np.full(groups, 1.0 / groups)
    return lambda rng, size: rng.multinomial(groups, chance, size=size) @ by_cluster


def replicate(comparisons: Comparisons, replicates: int, seed: int, estimate: Callable[[Tally], Floats]) -> Floats:
    """The estimate on every resampled tally: one row a replicate, one column an item."""
    values = [
        estimate(comparisons.tally.counts(*counts))
        for block in resampled(comparisons, replicates, seed)
        for counts in zip(*block, strict=True)
    ]
    return np.array(values, dtype=np.float64).reshape(len(values), comparisons.tally.size)


def percentiles(values: Floats, level: float) -> tuple[Floats, Floats]:
    """The interval between the (1 - level) / 2 and (1 + level) / 2 quantiles of each column; NaN rows are left out."""
    check_level(level)
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level is {level}: the level of an interval lies between 0 and 1, e.g. 0.95")
