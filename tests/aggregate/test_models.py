"""Plackett-Luce, the TrueSkill-like posterior and the regression against independent libraries."""

from __future__ import annotations

import choix
import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.aggregate import Comparisons, bradley_terry, bradley_terry_regression, plackett_luce, trueskill
from llmrank.errors import InputError


def centred(strengths):
    logs = np.log(strengths)
    return logs - logs.mean()


def rankings(seed: int, size: int = 9, count: int = 60) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=size)
    ranked = []
    for _ in range(count):
        shown = rng.choice(size, rng.integers(2, 6), replace=False)
        ranked.append(shown[np.argsort(-(theta[shown] + rng.gumbel(size=len(shown))))].tolist())
    return ranked


@pytest.mark.parametrize("seed", range(3))
def test_plackett_luce_equals_choix_on_partial_rankings(seed):
    ranked = rankings(seed)
    result = plackett_luce(ranked)
    assert result.note is None
    np.testing.assert_allclose(centred(result.value), choix.mm_rankings(9, ranked, tol=1e-11), atol=1e-6)


def test_rankings_of_two_with_ties_are_bradley_terry():
    rng = np.random.default_rng(0)
    pairs = [rng.choice(5, 2, replace=False).tolist() for _ in range(60)]
    ranked = [[tuple(pair)] if rng.random() < 0.3 else pair for pair in pairs]
    expected = bradley_terry(Comparisons.from_rankings(ranked))
    np.testing.assert_allclose(plackett_luce(ranked).value, expected.value, rtol=1e-6)


def test_ties_of_rankings_pull_together_and_say_nothing_of_the_absent():
    apart = [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]
    tied = plackett_luce([*apart, *[[("a", "b", "c")]] * 5])
    plain = plackett_luce(apart)
    assert np.ptp(tied.value) < np.ptp(plain.value)
    np.testing.assert_allclose(plackett_luce([*apart, ["a"], [], [("c",)]]).value, plain.value)
    np.testing.assert_allclose(
        plackett_luce(apart, weight=[2, 1, 1, 0]).value, plackett_luce([apart[0], *apart[:3]]).value
    )


@pytest.mark.parametrize(
    ("ranked", "word"),
    [
        ([], "no rankings"),
        ([["a"]], "no rankings"),
        ([["a", "b"]], "MAP"),
        ([["a", "b"], ["b", "a"], ["c", "d"]], "disconnected"),
    ],
)
def test_plackett_luce_says_where_it_has_no_maximum(ranked, word):
    result = plackett_luce(ranked, bootstrap=5)
    assert word in result.note
    assert np.isfinite(result.value).all()


def test_an_item_twice_in_one_ranking_is_an_error():
    with pytest.raises(InputError, match="'a' stands twice"):
        plackett_luce([["a", "b", "a"]])


def test_the_posterior_equals_choix_ep():
    rng = np.random.default_rng(0)
    theta = rng.normal(size=7)
    left = rng.integers(0, 7, 70)
    right = (left + rng.integers(1, 7, 70)) % 7
    share = (rng.random(70) < 1 / (1 + np.exp(theta[right] - theta[left]))).astype(float)
    data = [(a, b) if s else (b, a) for a, b, s in zip(left.tolist(), right.tolist(), share, strict=True)]
    mean, covariance = choix.ep_pairwise(7, data, alpha=0.5, model="probit")
    result = trueskill(Comparisons(left, right, share))
    np.testing.assert_allclose(result.value, mean, atol=1e-4)
    np.testing.assert_allclose(result.covariance, covariance, atol=1e-4)


def test_the_posterior_with_a_tie_is_the_integral():
    """Two items, one win and one tie: the moments of the difference by brute force."""
    result = trueskill(Comparisons(["a", "a"], ["b", "b"], ["left", "tie"]))
    d = np.linspace(-15, 15, 200_001)
    from scipy.stats import norm

    margin = norm.ppf(0.75)
    win, tie = norm.cdf(d - margin), norm.cdf(margin - d) - norm.cdf(-margin - d)
    weight = norm.pdf(d, scale=2) * win * tie
    weight /= weight.sum()
    mean = (weight * d).sum()
    variance = (weight * (d - mean) ** 2).sum()
    assert result.value[0] - result.value[1] == pytest.approx(mean, abs=0.01)
    spread = result.covariance[0, 0] + result.covariance[1, 1] - 2 * result.covariance[0, 1]
    assert spread == pytest.approx(variance, rel=0.01)


def _mode(left, right, share, weight, n, spread=2**0.5):
    """Mode and inverse Hessian of the posterior, which heavy weights make its mean and its covariance."""
    from scipy.optimize import minimize
    from scipy.special import log_ndtr, ndtri

    margin = ndtri((1 + weight[share == 0.5].sum() / weight.sum()) / 2)

    def outcome(d, s):
        if s == 0.5:  # the difference of two logs, at the side where both are small
            high, low = log_ndtr(margin - abs(d)), log_ndtr(-margin - abs(d))
            return high + np.log1p(-np.exp(low - high))
        return log_ndtr((d if s else -d) - margin)

    def lost(theta):
        told = sum(w * outcome(theta[a] - theta[b], s) for a, b, s, w in zip(left, right, share, weight, strict=True))
        return (theta @ theta / (2 * spread**2) - told) / weight.sum()

    return minimize(lost, np.zeros(n), method="BFGS", options={"gtol": 1e-11}).x


@pytest.mark.parametrize("heavy", [1e3, 1e5])
@pytest.mark.parametrize("seed", range(4))
def test_with_heavy_weights_and_ties_the_posterior_is_its_mode(seed, heavy):
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for a in range(4) for b in range(a)]
    left, right = (np.array(side) for side in zip(*pairs * 3, strict=True))
    share = np.repeat([0.0, 0.5, 1.0], len(pairs))
    weight = heavy * 10 ** rng.uniform(-1, 0, len(left))
    result = trueskill(Comparisons(left, right, share, weight))
    np.testing.assert_allclose(result.value, _mode(left, right, share, weight, 4), atol=30 / heavy)


def test_a_light_tie_far_from_what_heavy_wins_say_leaves_a_number():
    """Its margin is narrow and lies many deviations out, where differences of tail probabilities have no digits."""
    wins = Comparisons(["a", "b"], ["b", "c"], ["left", "left"], [2e5, 2e5])
    tied = Comparisons(["a", "b", "a"], ["b", "c", "c"], ["left", "left", "tie"], [2e5, 2e5, 0.01])
    np.testing.assert_allclose(trueskill(tied).value, trueskill(wins).value, atol=0.05)


rows_of_any_weight = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0]), st.floats(-3, 8).map(lambda e: 10**e)
    ).filter(lambda row: row[0] != row[1]),
    min_size=1,
    max_size=25,
)


@given(rows_of_any_weight)
@settings(max_examples=20, deadline=None)
def test_the_posterior_is_finite_and_symmetric_whatever_the_weights(rows):
    comparisons = Comparisons(*zip(*rows, strict=True))
    result, mirrored = trueskill(comparisons), trueskill(comparisons.swapped())
    assert np.isfinite(result.value).all()
    assert (np.linalg.eigvalsh(result.covariance) > 0).all()
    assert (result.covariance.diagonal() <= 2 + 1e-9).all()  # the prior's: comparisons add what is known
    np.testing.assert_allclose(result.value, -mirrored.value, atol=1e-5)


def test_the_next_pair_lies_at_the_boundary():
    rng = np.random.default_rng(1)
    theta = np.array([4.0, 3.9, 1.0, 0.9, -3.0, -3.1])
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b] * 5
    left, right = (np.array(side) for side in zip(*pairs, strict=True))
    share = (rng.random(len(left)) < 1 / (1 + np.exp(theta[right] - theta[left]))).astype(float)
    result = trueskill(Comparisons(left, right, share))
    assert set(result.next_pairs(3)[0]) == {2, 3}
    assert set(result.next_pairs(1)[0]) == {0, 1}
    chance = result.in_top(3)
    assert chance.sum() == pytest.approx(3)
    assert chance[0] > 0.99 > chance[2] > 0.01 > chance[5]
    assert result.beats(0, 5) > 0.99
    assert len(result.next_pairs(3, count=10)) == 3


def test_the_regression_equals_statsmodels():
    rng = np.random.default_rng(2)
    size, count = 5, 1500
    theta = rng.normal(size=size)
    left = rng.integers(0, size, count)
    right = (left + rng.integers(1, size, count)) % size
    longer = rng.normal(size=count)
    odds = theta[left] - theta[right] + 0.4 + 0.3 * longer
    share = (rng.random(count) < 1 / (1 + np.exp(-odds))).astype(float)
    result = bradley_terry_regression(Comparisons(left, right, share), {"length": longer})
    design = np.zeros((count, size))
    design[np.arange(count), left] += 1
    design[np.arange(count), right] -= 1
    fitted = sm.Logit(share, np.column_stack([design[:, 1:], np.ones(count), longer])).fit(disp=0)
    np.testing.assert_allclose(np.log(result.value[1:] / result.value[0]), fitted.params[:4], atol=1e-6)
    for name, estimate, interval in zip(("position", "length"), fitted.params[4:], fitted.conf_int()[4:], strict=True):
        effect = result.effects[name]
        np.testing.assert_allclose([effect.value, effect.low, effect.high], [estimate, *interval], atol=1e-6)
    without = bradley_terry_regression(Comparisons(left, right, share), position=False)
    np.testing.assert_allclose(without.value, bradley_terry(Comparisons(left, right, share)).value, rtol=1e-6)


def test_the_regression_says_where_it_has_no_maximum():
    result = bradley_terry_regression(Comparisons([1, 1, 2], [2, 2, 3], ["left"] * 3))
    assert "MAP" in result.note
    assert np.isfinite(result.value).all()
    assert bradley_terry_regression(Comparisons([], [], [])).items == ()
    with pytest.raises(InputError, match="covariate length"):
        bradley_terry_regression(Comparisons([1], [2], [1]), {"length": [1.0, 2.0]})
