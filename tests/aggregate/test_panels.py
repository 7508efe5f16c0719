"""Panels: votes with ties, weights from exams and peers, what each judge adds; against plain code and libraries."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from llmrank.aggregate.labels import dawid_skene, majority
from llmrank.aggregate.panels import (
    cohen_kappa,
    effective_judges,
    exam_weights,
    leave_one_out,
    peer_weights,
    separability,
)

TABLES = st.integers(1, 4).flatmap(
    lambda judges: st.lists(
        st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=judges, max_size=judges), min_size=1, max_size=12
    )
)


def array(table: list[list[int | None]]) -> np.ndarray:
    return np.array([[np.nan if x is None else x for x in row] for row in table], dtype=np.float64)


@settings(deadline=None)
@given(TABLES)
def test_majority_takes_the_lower_of_a_tie_and_marks_it(table: list[list[int | None]]) -> None:
    found = majority(array(table), ties="lower")
    assert found.tied is not None
    for row, label, tied in zip(table, found.label, found.tied, strict=True):
        votes = Counter(x for x in row if x is not None)
        best = [x for x, n in votes.items() if n == max(votes.values())]
        assert label == (min(best) if best else None)
        assert tied == (len(best) > 1)
    strict = majority(array(table), strict=True)
    for row, label in zip(table, strict.label, strict=True):
        votes = Counter(x for x in row if x is not None)
        assert label == next((x for x, n in votes.items() if 2 * n > votes.total()), None)


@settings(max_examples=30, deadline=None)
@given(TABLES)
def test_arrays_and_lists_say_the_same(table: list[list[int | None]]) -> None:
    for estimate in (majority, dawid_skene):
        one, other = estimate(table), estimate(array(table))
        assert one.label == other.label
        assert one.n == other.n
        if one.distribution is not None and one.n:
            np.testing.assert_allclose(one.distribution, other.distribution)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_kappa_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    one, other = zip(*pairs, strict=True)
    if len({*one, *other}) == 1:
        assert math.isnan(cohen_kappa(one, other))
    else:
        assert cohen_kappa(one, other) == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)


def noisy(truth: np.ndarray, rate: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    other = (truth + draw.integers(1, 4, len(truth))) % 4
    return np.where(draw.random(len(truth)) < rate, other, truth).astype(float)


TRUTH = np.random.default_rng(0).integers(0, 4, 2000)


def test_an_exam_weighs_by_the_log_odds_of_a_right_answer() -> None:
    table = np.stack([noisy(TRUTH, rate, 1) for rate in (0.1, 0.4, 0.75, 0.95)], axis=1)
    found = exam_weights(TRUTH, table, grades=4)
    right = (table == TRUTH[:, None]).sum(axis=0)
    for j in range(4):
        p = (right[j] + 1) / (2000 + 4)
        assert found.weight[j] == pytest.approx(max(0.0, math.log(3 * p / (1 - p))))
    np.testing.assert_allclose(found.score, right / 2000)
    assert found.weight[0] > found.weight[1] > 0.5
    assert found.weight[3] == 0
    assert "did not pass" in (found.note or "")
    strict = exam_weights(TRUTH, table, grades=4, pass_mark=0.7)
    assert (strict.weight > 0).tolist() == [True, False, False, False]
    assert exam_weights([1], [[np.nan, 1.0]], grades=4).score.tolist() == [0.0, 1.0]  # no answer is a wrong one
    assert "empty" in (exam_weights([], np.zeros((0, 2))).note or "")


def test_weighted_votes_beat_plain_ones_where_judges_differ() -> None:
    table = np.stack([noisy(TRUTH, rate, i) for i, rate in enumerate((0.1, 0.55, 0.6, 0.65, 0.65))], axis=1)
    plain = majority(table, ties="lower")
    weighed = majority(table, exam_weights(TRUTH[:200], table[:200], grades=4).weight.tolist(), ties="lower")
    peers = majority(table, peer_weights(table).weight.tolist(), ties="lower")

    def right(labels: tuple[object, ...]) -> float:
        return float(np.mean([label == truth for label, truth in zip(labels, TRUTH, strict=True)]))

    assert right(weighed.label) > right(plain.label) + 0.05
    assert right(peers.label) > right(plain.label) + 0.02


def test_peers_weigh_most_whom_the_others_agree_with() -> None:
    table = np.stack([noisy(TRUTH, rate, i) for i, rate in enumerate((0.05, 0.2, 0.4, 0.75))], axis=1)
    weight = peer_weights(table).weight
    assert sorted(weight, reverse=True) == weight.tolist()
    assert weight[3] < 0.15 * weight[0]
    alone = peer_weights(np.stack([noisy(TRUTH, 0.75, 1), noisy(TRUTH, 0.75, 2)], axis=1)[:3] * np.nan)
    assert "all votes weigh the same" in (alone.note or "")


def test_the_effective_number_of_judges_follows_from_what_their_errors_share() -> None:
    draw = np.random.default_rng(3)
    truth, m = np.zeros(20_000), 5
    for share in (0.0, 0.25, 1.0):
        common = draw.normal(size=(20_000, 1)) * math.sqrt(share)
        errors = common + draw.normal(size=(20_000, m)) * math.sqrt(1 - share)
        found = effective_judges(errors, truth)
        expected = m / (1 + (m - 1) * share)
        assert found.value == pytest.approx(expected, rel=0.06)
        # That many independent judges have a mean that errs as much.
        assert 1 / found.value == pytest.approx(errors.mean(axis=1).var(), rel=0.08)
    assert effective_judges(np.zeros((5, 2)), np.zeros(5)).value is None


@settings(max_examples=30, deadline=None)
@given(TABLES.filter(lambda table: len(table[0]) > 2))
def test_leaving_one_out_is_deciding_without_it(table: list[list[int | None]]) -> None:
    given_labels = array(table)
    found = leave_one_out(given_labels, lambda t: majority(t, ties="lower"))
    full = majority(given_labels, ties="lower").label
    for j in range(given_labels.shape[1]):
        rest = majority([[x for i, x in enumerate(row) if i != j] for row in table], ties="lower").label
        assert found.changed[j] == pytest.approx(np.mean([a != b for a, b in zip(full, rest, strict=True)]))


def test_separability_counts_the_pairs_with_intervals_apart() -> None:
    draw = np.random.default_rng(5)
    scores = draw.normal(size=(60, 4)) * 0.1 + np.array([0.0, 0.01, 1.0, 2.0])
    found = separability(scores, seed=1)
    assert found.value == pytest.approx(5 / 6)
    assert found.pairs == 6
    assert (found.low < scores.mean(axis=0)).all()
    assert (found.high > scores.mean(axis=0)).all()
    assert separability(scores[:1]).value is None
