"""Means over topics with Student's t intervals, two paired tests of a difference, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from llmrank.agree.results import Figure

REPLICATES = 10_000
LEVEL = 0.95

# Numbers nearer than this share of the largest count as equal: measures are sums of rounded terms, so that
# differences that are equal on paper are not in the last digits.
ROUNDING = 1e-12
SIGNS_AT_ONCE = 4_000_000


def mean(values: ArrayLike, level: float = LEVEL) -> Figure:
    """The mean over topics, with its interval by Student's t.

    values : one value a topic.
    level : coverage of the interval, as 0.95.
    """
    sample = _sample(values)
    n = len(sample)
    if n == 0:
        return Figure(None, None, None, 0, "there are no topics to take a mean over")
    if n == 1:
        return Figure(float(sample[0]), None, None, 1, "one topic has no interval")
    centre = float(sample.mean())
    if _alike(sample):
        return Figure(centre, centre, centre, n, f"all {n} values are equal, so the interval has no width")
    half = float(stdtrit(n - 1, (1 + level) / 2)) * _standard_error(sample)
    return Figure(centre, centre - half, centre + half, n)


def paired_t(differences: ArrayLike) -> float | None:
    """Two-sided p of the paired t test that the differences have mean 0.

    differences : a topic's value in one run minus that in the other.

    None where there is no such test: fewer than two topics, or differences that are all alike.
    """
    sample = _sample(differences)
    if len(sample) < 2 or _alike(sample):
        return None
    t = float(sample.mean()) / _standard_error(sample)
    return float(2 * stdtr(len(sample) - 1, -abs(t)))


def randomization(differences: ArrayLike, replicates: int = REPLICATES, seed: int = 0) -> float | None:
    """Two-sided p of the paired randomisation test (Fisher's sign flips) that run and baseline are exchangeable.

    differences : a topic's value in one run minus that in the other.
    replicates : random assignments of signs, m. With b of them at least as far from 0 as what was seen, p is
        (b + 1) / (m + 1). Where all the 2^k assignments of signs to the k differences other than 0 are not more
        than m, each is tried once and p is exact, b / 2^k.
    seed : of the random signs. The order of the topics changes nothing, and neither does swapping the runs.

    None where there is no topic. Differences that are all 0 have p = 1.
    """
    sample = _sample(differences)
    if len(sample) == 0:
        return None
    # A flip of 0 changes nothing, and the flips of d and of -d are the same two numbers.
    sizes = np.sort(np.abs(sample[sample != 0]))
    seen = abs(float(sample.sum())) - ROUNDING * float(sizes.sum())
    k = len(sizes)
    if 2**k <= replicates:
        return _count_extreme(_all_signs(k), sizes, seen) / float(2**k)
    generator = np.random.default_rng(seed)
    at_once = max(1, SIGNS_AT_ONCE // k)
    extreme = 0
    for start in range(0, replicates, at_once):
        shape = (min(at_once, replicates - start), k)
        extreme += _count_extreme(generator.integers(2, size=shape, dtype=np.int8), sizes, seen)
    return (extreme + 1) / (replicates + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of a family of p values, in their order.

    None is a test that could not be made: it stays None and is no member of the family.
    """
    made = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for step, (p, place) in enumerate(made):
        highest = max(highest, min(1.0, p * (len(made) - step)))
        corrected[place] = highest
    return corrected


def _sample(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not np.isfinite(sample).all():
        raise ValueError("one finite number a topic is wanted")
    return sample


def _alike(sample: NDArray[np.float64]) -> bool:
    return bool(np.ptp(sample) <= ROUNDING * np.abs(sample).max())


def _standard_error(sample: NDArray[np.float64]) -> float:
    return float(sample.std(ddof=1)) / float(np.sqrt(len(sample)))


def _all_signs(k: int) -> NDArray[np.int8]:
    """Every row of k zeros and ones, once."""
    return ((np.arange(2**k)[:, None] >> np.arange(k)) & 1).astype(np.int8)


def _count_extreme(positive: NDArray[np.int8], sizes: NDArray[np.float64], seen: float) -> int:
    """How many rows of signs (1 is plus, 0 is minus) give a sum at least as far from 0 as `seen`."""
    sums = 2 * (positive @ sizes) - sizes.sum()
    return int(np.count_nonzero(np.abs(sums) >= seen))
