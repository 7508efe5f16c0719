"""Rankings to a consensus: by hand, by brute force, and what must hold for any rankings."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.aggregate import (
    Comparisons,
    borda,
    combmnz,
    combsum,
    copeland,
    copeland_consensus,
    disagreement,
    kemeny,
    median_rank,
    rrf,
)
from llmrank.errors import InputError

CONSENSUS = (borda, median_rank, rrf, copeland_consensus, kemeny)
partial = st.lists(
    st.permutations(range(5)).flatmap(lambda p: st.integers(1, 5).map(lambda k: p[:k])), min_size=1, max_size=6
)


def test_by_hand():
    rankings = [["a", "b", "c"], ["b", "a", "c"], ["a", "c", "b"]]
    assert borda(rankings).as_dict() == pytest.approx({"a": 5, "b": 3, "c": 1})
    assert median_rank(rankings).as_dict() == {"a": -1, "b": -2, "c": -3}
    assert copeland_consensus(rankings).as_dict() == {"a": 2, "b": 0, "c": -2}
    assert rrf([["a", "b"], ["b"]], k=60).as_dict() == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 1 / 61})
    assert borda([["a", ("b", "c")]]).as_dict() == {"a": 2, "b": 0.5, "c": 0.5}
    assert borda([["a", "b", "c"], ["c", "b", "a"]], weight=[2, 1]).ranking == ["a", "b", "c"]
    assert rrf([["x", ("y", "z")]]).as_dict()["y"] == pytest.approx(1 / 62.5)
    scores = [{"a": 3.0, "b": 1.0}, {"b": 2.0, "c": 1.0}]
    assert combsum(scores).as_dict() == {"a": 1, "b": 1, "c": 0}
    assert combmnz(scores).as_dict() == {"a": 1, "b": 2, "c": 0}
    assert combsum(scores, "zscore", weight=[3, 1]).as_dict() == {"a": 3, "b": -2, "c": -1}
    assert combsum([{"a": 5, "b": 5}], "sum").as_dict() == {"a": 0.5, "b": 0.5}


def test_an_item_left_out_of_a_ranking_is_not_hurt_by_it():
    rankings = [["a", "b", "c"], ["b", "c"], ["b", "c"]]
    assert borda(rankings).ranking == ["a", "b", "c"]


@pytest.mark.parametrize("method", CONSENSUS)
def test_no_rankings_are_noted(method):
    result = method([])
    assert result.items == ()
    assert "no rankings" in result.note
    assert combsum([]).note


@settings(max_examples=40, deadline=None)
@given(partial, st.randoms(use_true_random=False))
def test_the_order_of_rankings_changes_nothing(rankings, random):
    shuffled = random.sample(rankings, len(rankings))
    for method in CONSENSUS:
        np.testing.assert_allclose(method(rankings).value, method(shuffled).value, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(partial)
def test_reversing_every_ranking_reverses_borda_and_copeland(rankings):
    for method in (borda, copeland_consensus):
        forward, backward = method(rankings), method([ranking[::-1] for ranking in rankings])
        a, b = (np.sign(r.ranks[:, None] - r.ranks[None, :]) for r in (forward, backward))
        assert (a == -b).all()


@settings(max_examples=60, deadline=None)
@given(partial)
def test_kemeny_is_the_best_of_all_orders(rankings):
    result = kemeny(rankings)
    if not result.items:
        return
    best = min(disagreement(order, rankings) for order in itertools.permutations(result.items))
    assert disagreement(result.ranking, rankings) == pytest.approx(best)
    assert result.cost == pytest.approx(best)
    assert result.exact
    assert result.bound == pytest.approx(result.cost)


def test_kemeny_beyond_the_exact_size_says_its_gap_and_finds_planted_orders():
    rng = np.random.default_rng(0)
    noise = kemeny([rng.permutation(40).tolist() for _ in range(9)])
    assert not noise.exact
    assert noise.bound < noise.cost
    assert "local search" in noise.note
    assert noise.cost <= min(disagreement(r, [noise.ranking]) for r in ([*range(40)],)) * 9
    borda_order = borda([noise.ranking]).ranking
    assert borda_order == noise.ranking
    planted = [np.argsort(np.arange(60) + rng.normal(scale=3, size=60)).tolist() for _ in range(15)]
    found = kemeny(planted)
    assert disagreement(found.ranking, planted) <= disagreement(list(range(60)), planted)
    assert disagreement(found.ranking, planted) <= disagreement(borda(planted).ranking, planted)
    np.testing.assert_array_equal(found.value, kemeny(planted).value)


def test_kemeny_takes_comparisons_and_keeps_the_condorcet_order():
    comparisons = Comparisons(list("aab"), list("bcc"), ["left", "left", "left"])
    assert kemeny(comparisons).ranking == ["a", "b", "c"]
    assert copeland(comparisons).ranking == ["a", "b", "c"]


def test_bad_rankings_are_one_sentence():
    with pytest.raises(InputError, match="stands twice"):
        borda([["a", "a"]])
    with pytest.raises(InputError, match="a weight from 0 up"):
        borda([["a", "b"]], weight=[1, 2])
    with pytest.raises(InputError, match="normalization"):
        combsum([{"a": 1}], "max")
    with pytest.raises(InputError, match="finite"):
        combsum([{"a": float("nan")}])
