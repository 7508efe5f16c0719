"""Intervals: they cover, they follow clusters, and the bootstrap is what refitting every resample gives."""

from __future__ import annotations

import numpy as np
import pytest

from llmrank.aggregate import METHODS, Comparisons, bradley_terry, newman, plackett_luce
from llmrank.aggregate.fit import exists, fit
from llmrank.aggregate.refit import refits
from llmrank.aggregate.resample import resampled
from llmrank.errors import InputError


def drawn(seed: int, size: int = 6, count: int = 300, v: float = 0.0):
    """Comparisons drawn from the model with ties, and its true strengths."""
    rng = np.random.default_rng(seed)
    theta = np.linspace(-1, 1, size)
    left = rng.integers(0, size, count)
    right = (left + rng.integers(1, size, count)) % size
    half = (theta[left] - theta[right]) / 2
    z = np.exp(half) + np.exp(-half) + 2 * v
    u = rng.random(count)
    share = np.where(u < np.exp(half) / z, 1.0, np.where(u < (np.exp(half) + 2 * v) / z, 0.5, 0.0))
    return (left, right, share), np.exp(theta) / np.exp(theta).sum()


@pytest.mark.parametrize(("method", "v"), [(bradley_terry, 0.0), (newman, 0.5)])
@pytest.mark.parametrize("how", [{"bootstrap": 200}, {"analytic": True}])
def test_intervals_cover_the_truth_about_as_often_as_they_say(method, v, how):
    """A small version of the study: 120 data sets of 6 strengths; 0.91-0.985 is +-3 standard errors or so."""
    covered = []
    for seed in range(120):
        columns, truth = drawn(seed, v=v)
        result = method(Comparisons(*columns), **how)
        assert result.note is None
        covered.append((result.low <= truth) & (truth <= result.high))
    assert 0.91 < np.mean(covered) < 0.985


@pytest.mark.parametrize("ties", [False, True])
def test_many_fits_at_once_are_the_fits_one_by_one(ties):
    columns, _ = drawn(3, size=8, count=150, v=0.4 if ties else 0.0)
    comparisons = Comparisons(*columns)
    tally = comparisons.tally
    at = fit(tally, ties)
    many = refits(comparisons, at, 0.0, 0.1, 60, seed=5).theta
    one_by_one = [
        fit(again, ties, 0.0 if exists(again, ties) else 0.1).theta
        for block in resampled(comparisons, 60, 5)
        for again in (tally.counts(*counts) for counts in zip(*block, strict=True))
    ]
    for a, b in zip(many, one_by_one, strict=True):
        np.testing.assert_allclose(a - a.mean(), b - b.mean(), atol=1e-5)


def test_resampled_counts_are_those_of_drawing_rows():
    columns, _ = drawn(1, size=4, count=80, v=0.5)
    comparisons = Comparisons(*columns)
    blocks = list(resampled(comparisons, 3000, 0))
    won = np.concatenate([block.won for block in blocks])
    total = sum(np.concatenate([getattr(block, name) for block in blocks]) for name in ("won", "lost", "tied"))
    assert (total.sum(axis=1) == 80).all()
    p = comparisons.tally.won / 80
    np.testing.assert_allclose(won.mean(axis=0), 80 * p, atol=0.3)
    np.testing.assert_allclose(won.var(axis=0), 80 * p * (1 - p), rtol=0.15)


@pytest.mark.parametrize("how", [{"bootstrap": 400}, {"analytic": True}])
def test_copies_within_clusters_make_intervals_no_narrower(how):
    (left, right, share), _ = drawn(2)
    plain = bradley_terry(Comparisons(left, right, share), **how)
    copies = [np.repeat(column, 4) for column in (left, right, share)]
    alone = bradley_terry(Comparisons(*copies), **how)
    together = bradley_terry(Comparisons(*copies, cluster=np.repeat(np.arange(len(left)), 4)), **how)
    width = [np.mean(np.log(r.high / r.low)) for r in (plain, alone, together)]
    assert width[1] == pytest.approx(width[0] / 2, rel=0.15)
    assert width[2] == pytest.approx(width[0], rel=0.15)


def test_analytic_intervals_of_half_ties_use_what_residuals_show():
    """All ties but few decided comparisons: residuals are small, and so are the intervals."""
    left, right = np.tile([0, 1, 2, 0], 100), np.tile([1, 2, 0, 1], 100)
    share = np.full(400, 0.5)
    share[[0, 9, 18, 27]] = [1, 1, 1, 0]
    tied = bradley_terry(Comparisons(left, right, share), analytic=True)
    decided = bradley_terry(Comparisons(left, right, (np.arange(400) // 4 % 2).astype(float)), analytic=True)
    assert (tied.high - tied.low < 0.3 * (decided.high - decided.low)).all()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_seed_decides_the_interval(method):
    columns, _ = drawn(4, size=4, count=60, v=0.3)
    results = [METHODS[method](Comparisons(*columns), bootstrap=30, seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(results[0].low, results[1].low)
    assert (results[0].spread != results[2].spread).any()
    assert (results[0].low <= results[0].high).all()


def test_plackett_luce_resamples_rankings():
    rng = np.random.default_rng(0)
    theta = np.linspace(-1, 1, 5)
    rankings = [np.argsort(-(theta + rng.gumbel(size=5))).tolist() for _ in range(80)]
    result = plackett_luce(rankings, bootstrap=200, seed=2)
    assert (result.low < result.value).all()
    assert (result.value < result.high).all()
    again = plackett_luce(rankings[::-1], bootstrap=200, seed=2)
    np.testing.assert_allclose(result.low, again.low, rtol=1e-6)


@pytest.mark.parametrize("bad", [{"bootstrap": -1}, {"bootstrap": 5, "level": 1.0}])
def test_bad_settings_are_one_sentence(bad):
    columns, _ = drawn(0)
    with pytest.raises(InputError):
        bradley_terry(Comparisons(*columns), **bad)
