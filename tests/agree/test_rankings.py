"""Rank correlations equal scipy's and trectools', and rank-biased overlap its definition, ties and all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from trectools import misc

from llmrank.agree import rankings

# Few values, so that ties are common; sevenths, so that sums are not exact.
SCORES = st.integers(0, 6).map(lambda seventh: seventh / 7)
PAIRS = st.lists(st.tuples(SCORES, SCORES), min_size=2, max_size=15)


@given(PAIRS)
def test_tau_b_and_rho_are_scipys(pairs: list[tuple[float, float]]) -> None:
    truth, said = np.array(pairs).T
    for function, oracle in ((rankings.tau_b, stats.kendalltau), (rankings.spearman, stats.spearmanr)):
        found = float(function(truth, said))
        if np.ptp(truth) == 0 or np.ptp(said) == 0:
            assert math.isnan(found)
        else:
            assert found == pytest.approx(oracle(truth, said).statistic)


@given(st.integers(2, 12), st.randoms())
def test_tau_ap_is_trectools(n: int, shuffler: object) -> None:
    truth, said = (shuffler.sample(range(n), n) for _ in "ab")  # type: ignore[attr-defined]
    lists = [sorted(((score, name) for name, score in enumerate(side)), reverse=True) for side in (truth, said)]
    expected = misc.get_correlation(lists[0], lists[1], "tauap")[0]
    assert float(rankings.tau_ap(np.array(truth), np.array(said))) == pytest.approx(expected)


@given(PAIRS)
def test_tau_ap_takes_ties_in_the_given_order(pairs: list[tuple[float, float]]) -> None:
    truth, said = np.array(pairs).T
    untied = [stats.rankdata([-score for score in side], method="ordinal") for side in (truth, said)]
    expected = rankings.tau_ap(-untied[0].astype(float), -untied[1].astype(float))
    assert rankings.tau_ap(truth, said) == pytest.approx(expected)


def test_errors_at_the_top_weigh_more() -> None:
    truth = np.array([5.0, 4, 3, 2, 1])
    top, bottom = np.array([4.0, 5, 3, 2, 1]), np.array([5.0, 4, 3, 1, 2])
    assert rankings.tau_b(truth, top) == rankings.tau_b(truth, bottom)
    assert rankings.tau_ap(truth, top) < rankings.tau_ap(truth, bottom) < 1
    assert rankings.rbo_of_scores(truth, top) < rankings.rbo_of_scores(truth, bottom) < 1


@given(st.lists(PAIRS.filter(lambda pairs: len(pairs) > 3).map(lambda pairs: pairs[:4]), min_size=1, max_size=5))
def test_many_at_once_are_as_one_by_one(many: list[list[tuple[float, float]]]) -> None:
    truth, said = np.moveaxis(np.array(many), -1, 0)
    for function in (
        rankings.tau_b,
        rankings.spearman,
        rankings.tau_ap,
        rankings.rbo_of_scores,
        rankings.top_tau_b,
        rankings.decision_accuracy,
    ):
        expected = [function(one, two) for one, two in zip(truth, said, strict=True)]
        np.testing.assert_allclose(function(truth, said), expected, atol=1e-12)


def by_definition(left: Sequence[Hashable], right: Sequence[Hashable], p: float) -> float:
    """Webber's equation 32, term by term, over sets."""
    short, long = sorted((left, right), key=len)
    s, l = len(short), len(long)  # noqa: E741

    def overlap(d: int) -> int:
        return len(set(short[:d]) & set(long[:d]))

    total = sum(overlap(d) / d * p**d for d in range(1, l + 1))
    total += sum(overlap(s) * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    return (1 - p) / p * total + ((overlap(l) - overlap(s)) / l + overlap(s) / s) * p**l


LISTS = st.lists(st.integers(0, 9), min_size=1, max_size=10, unique=True)


@given(LISTS, LISTS, st.sampled_from([0.5, 0.9, 0.98]))
def test_rbo_is_its_definition(left: list[int], right: list[int], p: float) -> None:
    assert rankings.rbo(left, right, p) == pytest.approx(by_definition(left, right, p))
    assert rankings.rbo(left, right, p) == pytest.approx(rankings.rbo(right, left, p))
    assert rankings.rbo(left, left, p) == pytest.approx(1)


@given(LISTS.filter(lambda items: len(items) < 6), LISTS, st.lists(st.booleans(), min_size=20, max_size=20))
def test_rbo_with_ties_is_the_mean_over_orders(left: list[int], right: list[int], joined: list[bool]) -> None:
    tied_left, tied_right = grouped(left, joined[:10]), grouped(right[:5], joined[10:])
    orders = itertools.product(broken(tied_left), broken(tied_right))
    expected = np.mean([by_definition(one, two, 0.9) for one, two in orders])
    assert rankings.rbo(tied_left, tied_right) == pytest.approx(expected)


def grouped(items: list[int], joined: list[bool]) -> list[list[int]]:
    groups: list[list[int]] = []
    for item, join in zip(items, joined, strict=False):
        if join and groups:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def broken(groups: list[list[int]]) -> list[list[int]]:
    ways = itertools.product(*(itertools.permutations(group) for group in groups))
    return [[item for group in way for item in group] for way in ways]


@given(PAIRS)
def test_rbo_of_scores_is_rbo_of_the_orders(pairs: list[tuple[float, float]]) -> None:
    truth, said = np.array(pairs).T
    orders = [sorted(range(len(side)), key=lambda item, side=side: -side[item]) for side in (truth, said)]  # type: ignore[misc]
    assert float(rankings.rbo_of_scores(truth, said)) == pytest.approx(rankings.rbo(*orders))


def test_rbo_at_its_edges() -> None:
    assert rankings.rbo([], []) == 1
    assert rankings.rbo([], ["a"]) == 0
    assert rankings.rbo(["a"], ["b"]) == 0
    with pytest.raises(ValueError, match="twice"):
        rankings.rbo(["a", "a"], ["b"])
    with pytest.raises(ValueError, match="between"):
        rankings.rbo(["a"], ["b"], p=1)


def test_systems_that_differ_by_rounding_tie() -> None:
    scores = np.array([0.1 + 0.2, 0.3, 0.5])
    assert rankings.tied(scores) == 2
    assert float(rankings.tau_b(scores, np.array([0.3, 0.3, 0.5]))) == 1
