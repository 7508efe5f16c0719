"""Labels of several judges, tables of scores, and judges that judge each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.aggregate import (
    dawid_skene,
    equilibrium_ranking,
    glad,
    majority,
    mean_label,
    median_label,
    most_disputed,
    peer_rank,
    table_consensus,
    table_rankings,
    table_strengths,
    triplet_ranking,
)
from llmrank.errors import InputError

NAN = float("nan")


def noisy(seed: int, accuracy: list[float], items: int = 300, classes: int = 3):
    """True labels, and the labels of judges who are right with the given probabilities."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, items)
    right = rng.random((items, len(accuracy))) < accuracy
    wrong = (truth[:, None] + rng.integers(1, classes, right.shape)) % classes
    return truth, np.where(right, truth[:, None], wrong)


def test_majority_by_hand():
    table = [["x", "x", "y"], ["x", "y", None], [None, None, None], ["y", None, None], ["x", "y", "z"]]
    result = majority(table)
    assert result.label == ("x", None, None, "y", None)
    assert "2 items have no majority" in result.note
    assert "1 items have no votes" in result.note
    assert result.classes == ("x", "y", "z")
    assert result.confidence[0] == pytest.approx(2 / 3)
    assert majority(table, weight=[1, 1, 3]).label[0] == "y"
    assert majority([["x", "x", "y", "z"]], strict=True).label == (None,)
    assert majority([["x", "x", "x", "z"]], strict=True).label == ("x",)
    assert majority([]).label == ()
    assert majority(np.array([[1, 1, NAN]])).label == (1,)


def test_mean_and_median():
    table = [[0, 3, 3], [1, None, 2], [NAN, NAN, NAN]]
    assert mean_label(table).label == (2.0, 1.5, None)
    assert median_label(table).label == (3.0, 1.5, None)
    assert mean_label(table).confidence[0] == pytest.approx(1.0)
    with pytest.raises(InputError, match="numbers"):
        mean_label([["a"]])
    with pytest.raises(InputError, match="item 2 has 1 labels"):
        majority([[1, 2], [1]])


def test_models_of_errors_beat_the_vote_where_judges_differ():
    truth, table = noisy(0, [0.95, 0.9, 0.4, 0.4, 0.4, 0.4, 0.4])
    vote = np.mean([a == b for a, b in zip(majority(table).label, truth, strict=True)])
    for method in (dawid_skene, glad):
        result = method(table)
        found = np.mean(np.array(result.label) == truth)
        assert found > 0.9 > vote, method.__name__
        assert set(np.argsort(-result.reliability)[:2]) == {0, 1}
        np.testing.assert_allclose(result.distribution.sum(axis=1), 1)


def test_dawid_skene_finds_the_confusion_of_each_judge():
    truth, table = noisy(1, [0.9, 0.7, 0.8, 0.75], items=3000, classes=2)
    result = dawid_skene(table)
    np.testing.assert_allclose(result.reliability, [0.9, 0.7, 0.8, 0.75], atol=0.04)
    np.testing.assert_allclose(result.confusion.sum(axis=2), 1)
    always_wrong = np.column_stack([table, 1 - truth])
    assert dawid_skene(always_wrong).reliability[-1] < 0.15


def test_glad_tells_hard_items_from_easy_ones():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, 200)
    hard = np.arange(200) < 100
    right = rng.random((200, 9)) < np.where(hard, 0.6, 0.98)[:, None]
    result = glad(np.where(right, truth[:, None], 1 - truth[:, None]))
    assert np.median(result.difficulty[hard]) > 1.5 * np.median(result.difficulty[~hard])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from([0, 1, 2, None]), min_size=3, max_size=3), max_size=6))
def test_any_labels_give_a_result(table):
    for method in (majority, mean_label, median_label, dawid_skene, glad):
        result = method(table)
        assert len(result.label) == len(table)
        assert np.isfinite(result.confidence).all()
        for row, label in zip(table, result.label, strict=True):
            assert label is None or any(x is not None for x in row)
        if all(x is None for row in table for x in row):
            assert "no labels" in result.note


def test_peers_weigh_what_they_are_worth():
    honest = {"good": 0.9, "fair": 0.6, "poor": 0.1}
    scores = {"good": honest, "fair": honest, "poor": {"good": 0.1, "fair": 0.9, "poor": 1.0}}
    result = peer_rank(scores)
    assert result.ranking == ["good", "fair", "poor"]
    plain = {"good": 0.5, "fair": 0.75, "poor": 0.1}
    assert result.as_dict()["good"] > plain["good"]
    value = result.as_dict()
    weight = {judge: value[judge] for judge in scores}
    expected = (weight["fair"] * 0.9 + weight["poor"] * 0.1) / (weight["fair"] + weight["poor"])
    assert value["good"] == pytest.approx(expected)
    assert "Nobody else judged b" in peer_rank({"b": {"a": 1.0}}).note
    assert peer_rank({}).items == ()


def test_columns_become_rankings_with_ties_and_directions():
    table = [[0.9, 10, NAN], [0.8, 10, 1], [0.9, 30, NAN]]
    rankings = table_rankings(table, ["a", "b", "c"], [True, False, True])
    assert rankings == [[["a", "c"], ["b"]], [["a", "b"], ["c"]]]
    for method in ("borda", "kemeny"):
        assert table_consensus(table, ["a", "b", "c"], [True, False, True], method=method).ranking[0] == "a"
    with pytest.raises(InputError, match="one for each of 2 systems"):
        table_rankings(table, ["a", "b"])


def test_two_levels_count_groups_alike():
    table = [[1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0.5, 0.5, 0.5, 0.6, 0.6]]
    assert table_consensus(table, ["a", "b", "c"]).ranking[0] == "a"
    two = table_consensus(table, ["a", "b", "c"], groups=["x", "x", "x", "y", "y"])
    assert two.as_dict()["a"] == two.as_dict()["b"]


def test_strengths_are_sound_with_nearly_everything_missing():
    rng = np.random.default_rng(3)
    skill = np.linspace(-2, 2, 40)
    table = skill[:, None] + rng.gumbel(size=(40, 2000))
    table[rng.random(table.shape) < 0.95] = NAN
    result = table_strengths(table, [f"s{i:02}" for i in range(40)])
    assert result.note is None
    logs = np.log(result.value)
    assert np.abs(logs - logs.mean() - skill).max() < 0.8
    assert np.corrcoef(logs, skill)[0, 1] > 0.97


@pytest.mark.parametrize("method", ["full", "greedy"])
def test_triplets_rank_models_without_truth(method):
    """Better models judge better: the chance to name the better of two rises with the judge's own quality."""
    quality = np.array([0.9, 0.2, 0.6, 0.4, 0.75])
    share = np.full((5, 5, 5), NAN)
    for judge in range(5):
        for a in range(5):
            for b in range(5):
                if len({judge, a, b}) == 3:
                    share[judge, a, b] = 0.5 + quality[judge] * np.clip(quality[a] - quality[b], -0.5, 0.5)
    result = triplet_ranking(share, list("abcde"), method)
    assert result.ranking == ["a", "e", "c", "d", "b"]
    assert triplet_ranking(np.full((2, 2, 2), NAN), ["a", "b"], method).note


def test_equilibrium_prefers_what_both_scorings_hold_for_right():
    generator = np.log([[0.45, 0.2], [0.45, 0.2], [0.1, 0.6]])
    discriminator = np.log([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    result = equilibrium_ranking(generator, discriminator)
    assert result.ranking[0] == 0
    assert result.ranking[-1] == 2
    swapped = equilibrium_ranking(generator[::-1], discriminator[::-1])
    np.testing.assert_allclose(swapped.value[::-1], result.value, rtol=1e-9)
    assert equilibrium_ranking(np.zeros((0, 2)), np.zeros((0, 2))).items == ()
    held = equilibrium_ranking(generator, discriminator, pull=1e6)
    np.testing.assert_allclose(held.value, np.exp(generator[:, 0] + discriminator[:, 0]), rtol=1e-4)


def test_the_most_disputed_pair_comes_first():
    shares = [[1.0, 0.9, 0.5, NAN], [0.0, 0.8, 0.5, 1.0], [1.0, 0.9, 0.5, NAN]]
    assert most_disputed(shares) == [0, 1, 2, 3]
    assert most_disputed(shares, 1) == [0]
