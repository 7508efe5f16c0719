"""Uncertain labels: expected nDCG by enumeration, and labels bought where they settle the order of systems."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import pytrec_eval
from scipy import stats

from llmrank.agree.uncertain_labels import expected_ndcg, largest_disagreement, next_pairs


def ndcg(labels: tuple[int, ...], ranking: list[int]) -> float:
    grades = {f"d{i}": label for i, label in enumerate(labels)}
    run = {f"d{i}" if i >= 0 else "other": -float(place) for place, i in enumerate(ranking)}
    return float(pytrec_eval.RelevanceEvaluator({"q": grades}, {"ndcg_cut.3"}).evaluate({"q": run})["q"]["ndcg_cut_3"])


def test_expected_ndcg_is_the_mean_over_all_labellings() -> None:
    soft = np.array([[0.2, 0.5, 0.3], [0.7, 0.3, 0.0], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])
    ranking = [1, -1, 2, 0]
    expected = sum(
        float(np.prod(soft[range(4), labels])) * ndcg(labels, ranking)
        for labels in itertools.product(range(3), repeat=4)
    )
    figure = expected_ndcg([soft, soft], [ranking, ranking], k=3, draws=20_000)
    assert figure.value == pytest.approx(expected, abs=0.005)
    assert figure.low < figure.value < figure.high
    certain = expected_ndcg([np.eye(3)[[2, 0, 1, 1]]], [ranking], k=3)
    assert [certain.value, certain.low, certain.high] == pytest.approx([ndcg((2, 0, 1, 1), ranking)] * 3)
    assert expected_ndcg([], []).value is None


def pool(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Six systems over 400 pairs: weights, true labels, predicted labels and their variances."""
    generator = np.random.default_rng(seed)
    weights = np.where(generator.random((6, 400)) < 0.15, 1 / np.log2(generator.integers(2, 12, (6, 400))), 0.0)
    variance = generator.choice([0.05, 1.0], 400)
    mean = generator.uniform(0, 3, 400)
    return weights, mean + generator.normal(0, np.sqrt(variance)), mean, variance


def test_named_pairs_settle_more_than_others() -> None:
    gained = {"named": 0.0, "most uncertain": 0.0, "none": 0.0}
    for seed in range(40):
        weights, truth, mean, variance = pool(seed)
        named = next_pairs(weights, mean, variance, 60)
        assert len(set(named.pairs.tolist())) == 60
        assert named.doubt[1] < named.doubt[0]
        for name, chosen in (
            ("named", named.pairs),
            ("most uncertain", np.argsort(-variance, kind="stable")[:60]),
            ("none", np.zeros(0, dtype=int)),
        ):
            known = mean.copy()
            known[chosen] = truth[chosen]
            gained[name] += stats.kendalltau(weights @ truth, weights @ known).statistic / 40
    assert gained["named"] > gained["most uncertain"] > gained["none"]


def test_nothing_is_named_that_changes_nothing() -> None:
    weights = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert next_pairs(weights, [1, 1, 1], [1, 1, 1], 3).pairs.tolist() == [1]
    assert next_pairs(weights, [1, 1, 1], [0, 0, 0], 3).pairs.tolist() == []
    assert next_pairs(weights, [1, 1, 1], [1, 1, 1], 0).doubt[0] == pytest.approx(stats.norm.cdf(-1))


def test_where_judges_differ_most() -> None:
    labels = np.array([[0, 3, 1, np.nan], [0, 0, 2, 3], [0, 3, 1, np.nan]])
    assert largest_disagreement(labels, 2).tolist() == [1, 2]
