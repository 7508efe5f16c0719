"""Scores of comparisons against published values and independent libraries."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import choix
import evalica
import networkx
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from llmrank.aggregate import (
    METHODS,
    Comparisons,
    average_win_rate,
    bradley_terry,
    copeland,
    counting,
    eigenvector,
    elo,
    newman,
    pagerank,
    rank_centrality,
    scores,
    win_rate,
)
from llmrank.errors import InputError

GOLDEN = {"simple": "simple.csv", "food": "food.csv", "llmfao": "crowd-comparisons.csv"}


def centred(strengths):
    logs = np.log(np.asarray(strengths))
    return logs - logs.mean()


@pytest.fixture(scope="module", params=GOLDEN)
def golden(request, shared_data: Path):
    """Comparisons of a published data set, and each algorithm's published scores by item."""
    folder = shared_data / "preferences"
    published: dict[str, dict[str, float]] = defaultdict(dict)
    with (folder / f"{request.param}-golden.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            published[row["algorithm"]][row["item"]] = float(row["score"])
    return Comparisons.read(str(folder / GOLDEN[request.param])), published


@pytest.mark.parametrize(
    ("algorithm", "method"),
    [
        ("counting", counting),
        ("average_win_rate", average_win_rate),
        ("elo", elo),
        ("pagerank", pagerank),
        ("eigen", lambda c: eigenvector(c.swapped())),
    ],
)
def test_published_scores_are_reproduced(golden, algorithm, method):
    comparisons, published = golden
    result = method(comparisons)
    assert set(result.items) == set(published[algorithm])
    expected = [published[algorithm][item] for item in result.items]
    np.testing.assert_allclose(result.value, expected, rtol=1e-6, atol=1e-9)
    assert result.note is None


@pytest.mark.parametrize(
    ("algorithm", "method"),
    [
        ("bradley_terry", bradley_terry),
        ("newman", newman),
        ("newman", lambda c: bradley_terry(c, ties="davidson")),
    ],
)
def test_published_strengths_are_reproduced_up_to_scale(golden, algorithm, method):
    comparisons, published = golden
    result = method(comparisons)
    expected = [published[algorithm][item] for item in result.items]
    np.testing.assert_allclose(centred(result.value), centred(expected), atol=1e-6)
    assert result.value.sum() == pytest.approx(1)


def random_comparisons(seed: int, size: int = 8, count: int = 300, tie: float = 0.0):
    rng = np.random.default_rng(seed)
    strength = rng.normal(size=size)
    left = rng.integers(0, size, count)
    right = (left + rng.integers(1, size, count)) % size
    share = (rng.random(count) < 1 / (1 + np.exp(strength[right] - strength[left]))).astype(float)
    share[rng.random(count) < tie] = 0.5
    return left, right, share


@pytest.mark.parametrize("seed", range(3))
def test_bradley_terry_equals_choix_and_logistic_regression(seed):
    left, right, share = random_comparisons(seed)
    value = bradley_terry(Comparisons(left, right, share)).value
    data = [(a, b) if s else (b, a) for a, b, s in zip(left.tolist(), right.tolist(), share, strict=True)]
    np.testing.assert_allclose(centred(value), choix.mm_pairwise(8, data, tol=1e-11), atol=1e-6)

    design = np.zeros((len(left), 8))
    design[np.arange(len(left)), left], design[np.arange(len(left)), right] = 1, -1
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000, solver="newton-cg")
    coefficients = fitted.fit(design, share).coef_[0]
    np.testing.assert_allclose(centred(value), coefficients - coefficients.mean(), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_evalica(seed):
    left, right, share = random_comparisons(seed, tie=0.3)
    comparisons = Comparisons(left, right, share)
    words = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    winners = [words[s] for s in share]
    tight = {"tolerance": 1e-13, "limit": 100_000}
    for ours, theirs, logs in [
        (bradley_terry, evalica.bradley_terry(left.tolist(), right.tolist(), winners, **tight), True),
        (newman, evalica.newman(left.tolist(), right.tolist(), winners, **tight), True),
        (pagerank, evalica.pagerank(left.tolist(), right.tolist(), winners, **tight), False),
        (counting, evalica.counting(left.tolist(), right.tolist(), winners), False),
        (average_win_rate, evalica.average_win_rate(left.tolist(), right.tolist(), winners), False),
        (elo, evalica.elo(left.tolist(), right.tolist(), winners, k=4.0), False),
    ]:
        result = ours(comparisons)
        expected = theirs.scores[list(result.items)].to_numpy()
        value = result.value
        if logs:
            value, expected = centred(value), centred(expected)
        np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=ours.__name__)


def test_pagerank_equals_networkx():
    left, right, share = random_comparisons(5, size=30, count=60, tie=0.2)
    result = pagerank(Comparisons(left, right, share), damping=0.7)
    graph = networkx.DiGraph()
    graph.add_nodes_from(result.items)
    for a, b, s in zip(left.tolist(), right.tolist(), share, strict=True):
        for loser, winner, amount in ((b, a, s), (a, b, 1 - s)):
            if amount:
                before = graph.get_edge_data(loser, winner, {"weight": 0.0})["weight"]
                graph.add_edge(loser, winner, weight=before + amount)
    expected = networkx.pagerank(graph, alpha=0.7, tol=1e-15, max_iter=10_000)
    np.testing.assert_allclose(result.value, [expected[item] for item in result.items], atol=1e-10)


def test_rank_centrality_equals_choix():
    left, right, share = random_comparisons(3)
    data = [(a, b) if s else (b, a) for a, b, s in zip(left.tolist(), right.tolist(), share, strict=True)]
    expected = np.exp(choix.rank_centrality(8, data))
    np.testing.assert_allclose(
        rank_centrality(Comparisons(left, right, share)).value, expected / expected.sum(), atol=1e-9
    )


def test_davidson_is_at_the_maximum_that_scipy_finds():
    left, right, share = random_comparisons(4, size=6, count=250, tie=0.25)

    def loss(x):
        theta, log_nu = x[:6], x[6]
        a, b = theta[left], theta[right]
        tie = log_nu + (a + b) / 2
        said = np.where(share == 1, a, np.where(share == 0, b, tie))
        return (logsumexp([a, b, tie], axis=0) - said).sum() + theta.sum() ** 2

    best = minimize(loss, np.zeros(7), method="BFGS", options={"gtol": 1e-9})
    value = bradley_terry(Comparisons(left, right, share), ties="davidson").value
    np.testing.assert_allclose(centred(value), best.x[:6] - best.x[:6].mean(), atol=1e-5)


def test_a_large_sparse_chain_is_fitted_to_convergence():
    """Neighbours only: the slowest graph for fixed-point iterations, and more items than fit a full matrix cheaply."""
    size = 1500
    low = np.repeat(np.arange(size - 1), 3)
    share = np.tile([1.0, 1.0, 0.0, 0.0, 0.0, 1.0], size // 2)[: len(low)]
    value = bradley_terry(Comparisons(low, low + 1, share)).value
    expected = np.where(np.arange(size - 1) % 2, np.log(2), -np.log(2))
    np.testing.assert_allclose(np.diff(np.log(value)), expected, atol=1e-6)


def test_without_ties_a_tie_model_is_bradley_terry():
    comparisons = Comparisons(*random_comparisons(7))
    np.testing.assert_allclose(newman(comparisons).value, bradley_terry(comparisons).value, rtol=1e-9)


def test_a_share_of_the_win_counts_as_part_win_part_loss():
    soft = Comparisons(["a", "b", "a"], ["b", "c", "c"], [0.7, 0.8, 0.4])
    hard = Comparisons(list("aabbaa"), list("bbcccc"), [1, 0, 1, 0, 1, 0], [0.7, 0.3, 0.8, 0.2, 0.4, 0.6])
    for method in (counting, win_rate, bradley_terry, newman, pagerank, eigenvector):
        np.testing.assert_allclose(method(soft).value, method(hard).value, rtol=1e-9)


def test_small_cases_by_hand():
    comparisons = Comparisons(["a", "b", "a", "a"], ["b", "c", "c", "b"], ["left", "left", "tie", "right"])
    assert counting(comparisons).as_dict() == {"a": 1.5, "b": 2.0, "c": 0.5}
    assert win_rate(comparisons).as_dict() == pytest.approx({"a": 0.5, "b": 2 / 3, "c": 0.25})
    assert average_win_rate(comparisons).as_dict() == pytest.approx({"a": 0.5, "b": 0.75, "c": 0.25})
    assert copeland(comparisons).as_dict() == {"a": 0.0, "b": 1.0, "c": -1.0}
    result = counting(comparisons)
    assert result.ranking == ["b", "a", "c"]
    assert result.ranks.tolist() == [2, 1, 3]
    assert copeland(Comparisons([1, 2], [2, 1], [1, 1])).ranks.tolist() == [1, 1]


def test_elo_over_several_orders_shows_the_mean_and_its_spread():
    left, right, share = random_comparisons(2)
    result = elo(Comparisons(left, right, share), orders=50, seed=3)
    again = elo(Comparisons(left[::-1], right[::-1], share[::-1]), orders=50, seed=3)
    np.testing.assert_allclose(result.value, again.value, rtol=1e-12)
    assert (result.spread > 0).all()
    assert (result.low < result.value).all()
    assert (result.value < result.high).all()
    assert result.value.mean() == pytest.approx(1000)
    assert elo(Comparisons(["a"], ["b"], ["left"]), k=1e9).value is not None


def test_the_table_of_methods_gives_scores_by_name():
    comparisons = Comparisons(*random_comparisons(1))
    for name in METHODS:
        result = scores(name, comparisons)
        assert result.method == name
        assert np.isfinite(result.value).all()
        assert sorted(result.ranking) == list(result.items)
    with pytest.raises(InputError, match="did you mean bradley-terry"):
        scores("bradly-terry", comparisons)


def test_ids_are_numbers_or_text_in_lists_or_arrays():
    words = np.array(["left", "tie", "right"])
    by_array = Comparisons(np.array([7, 5, 900]), np.array([5, 900, 7]), words)
    assert by_array.items == (5, 7, 900)
    assert Comparisons([7, 5, 900], [5, 900, 7], words.tolist()).items == (5, 7, 900)
    assert Comparisons(["10", "9"], ["9", "8"], ["left", 0.25]).items == ("10", "8", "9")
    assert Comparisons([3, "x"], ["x", 20], ["left", "tie"]).items == (3, 20, "x")
    np.testing.assert_array_equal(counting(by_array).value, [0.5, 2.0, 0.5])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((["a"], ["b"], ["won"]), "comparison 1 has the winner 'won'"),
        ((["a", "a"], ["b", "b"], ["left", 1.5]), "comparison 2 has the winner 1.5"),
        ((["a"], ["b"], [float("nan")]), "winner nan"),
        ((["a"], ["b", "c"], ["left"]), "right has 2"),
        ((["a"], ["b"], ["left"], [-1.0]), "weight -1.0"),
        ((["a"], ["b"], [None]), "winner None"),
    ],
)
def test_bad_columns_are_one_sentence(columns, said):
    with pytest.raises(InputError, match=said):
        Comparisons(*columns)
