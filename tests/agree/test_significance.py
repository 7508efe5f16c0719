"""Means, paired tests and Holm's correction agree with scipy, statsmodels and plain enumeration."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from llmrank.agree.results import Figure
from llmrank.agree.significance import holm, mean, paired_t, randomization

# Tenths, so that sums tie on paper but not in their last digits.
TENTHS = st.integers(-10, 10).map(lambda tenth: tenth / 10)
VALUES = st.floats(0, 1, allow_subnormal=False)


@given(st.lists(VALUES, min_size=2, max_size=60), st.sampled_from([0.8, 0.95, 0.99]))
def test_mean_has_the_interval_of_students_t(values: list[float], level: float) -> None:
    figure = mean(values, level)
    assert figure.value == pytest.approx(np.mean(values))
    assert figure.n == len(values)
    if np.ptp(values) < 1e-9:
        return
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert (figure.low, figure.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=60))
def test_paired_t_is_scipys(pairs: list[tuple[float, float]]) -> None:
    left, right = np.array(pairs).T
    if np.ptp(left - right) < 1e-6:
        return
    assert paired_t(left - right) == pytest.approx(stats.ttest_rel(left, right).pvalue, rel=1e-6, abs=1e-12)


@given(st.lists(TENTHS, min_size=1, max_size=9))
def test_randomization_of_few_topics_is_exact(differences: list[float]) -> None:
    seen = abs(sum(round(10 * d) for d in differences))
    flips = list(itertools.product((-1, 1), repeat=len(differences)))
    extreme = sum(
        abs(sum(s * round(10 * d) for s, d in zip(signs, differences, strict=True))) >= seen for signs in flips
    )
    assert randomization(differences) == extreme / len(flips)


def test_randomization_is_scipys_permutation_test() -> None:
    left, right = np.random.default_rng(1).normal(0.1, 1, (2, 12))
    expected = stats.permutation_test(
        (left, right), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert randomization(left - right) == pytest.approx(expected.pvalue)


def test_sampled_flips_come_near_the_exact_p_and_never_to_0() -> None:
    differences = np.random.default_rng(3).normal(0.4, 1, 16)
    exact = randomization(differences, replicates=2**16)
    sampled = randomization(differences, replicates=10_000)
    assert exact is not None
    assert sampled is not None
    assert sampled == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 10_000))
    assert randomization(np.full(40, 0.25) + np.arange(40) / 1000) == 1 / 10_001


def test_sampled_p_is_b_plus_1_over_m_plus_1() -> None:
    p = randomization(np.random.default_rng(5).normal(0.1, 1, 50), replicates=999)
    assert p is not None
    assert p * 1000 == pytest.approx(round(p * 1000))


@given(st.lists(TENTHS, min_size=12, max_size=30), st.randoms(use_true_random=False), st.integers(0, 5))
@settings(max_examples=20)
def test_order_of_topics_and_of_the_runs_changes_no_p(differences: list[float], random: object, seed: int) -> None:
    p = randomization(differences, seed=seed, replicates=500)
    shuffled = list(differences)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert randomization(shuffled, seed=seed, replicates=500) == p
    assert randomization([-d for d in differences], seed=seed, replicates=500) == p


def test_seeds_draw_different_flips() -> None:
    differences = np.random.default_rng(7).normal(0.2, 1, 40)
    assert len({randomization(differences, seed=seed, replicates=500) for seed in range(8)}) > 1


def test_flips_drawn_in_parts_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrank.agree.significance.SIGNS_AT_ONCE", 700)
    differences = np.random.default_rng(3).normal(0.4, 1, 16)
    exact = randomization(differences, replicates=2**16)
    assert randomization(differences, replicates=10_000) == pytest.approx(exact, abs=0.025)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_holm_leaves_out_tests_that_were_not_made() -> None:
    assert holm([0.02, None, 0.01]) == [0.02, None, 0.02]
    assert holm([]) == []


def test_no_topic_and_one_topic_have_a_sentence_in_place_of_numbers() -> None:
    assert mean([]) == Figure(None, None, None, 0, "there are no topics to take a mean over")
    assert mean([0.5]) == Figure(0.5, None, None, 1, "one topic has no interval")
    assert (paired_t([]), randomization([])) == (None, None)
    assert (paired_t([0.5]), randomization([0.5])) == (None, 1.0)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_differences_that_are_all_alike_have_no_t_test(value: float) -> None:
    figure = mean([value] * 5)
    assert (figure.value, figure.low, figure.high) == (pytest.approx(value),) * 3
    assert "no width" in (figure.note or "")
    assert paired_t([value] * 5) is None
    assert randomization([value] * 5) == (1.0 if value == 0 else 2 / 2**5)


def test_differences_that_differ_in_the_last_digit_only_are_alike() -> None:
    assert paired_t([0.3 - 0.2, 0.2 - 0.1, 0.4 - 0.3]) is None


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, 1.0], [[1.0, 2.0]]])
def test_what_is_no_list_of_finite_numbers_is_refused(values: list[float]) -> None:
    for function in (mean, paired_t, randomization):
        with pytest.raises(ValueError, match="finite number"):
            function(values)


def test_a_figure_holds_no_nan_and_says_why() -> None:
    figure = Figure(np.float64("nan"), np.float64("-inf"), np.float64(1.5), np.int64(3))
    assert figure == Figure(None, None, 1.5, 3, "these numbers have no such value")
    assert json.loads(json.dumps(figure.json(), allow_nan=False)) == {
        "value": None,
        "low": None,
        "high": 1.5,
        "n": 3,
        "note": "these numbers have no such value",
    }
