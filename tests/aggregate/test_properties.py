"""What must hold for any comparisons: invariance, weights, reversal, and sentences in place of NaN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.aggregate import METHODS, Comparisons, bradley_terry, diagnose, newman

REVERSING = ("counting", "win-rate", "average-win-rate", "copeland", "bradley-terry", "newman")
MODELS = ("bradley-terry", "newman", "pagerank", "eigenvector", "rank-centrality", "elo")

items = st.integers(0, 5)
winners = st.sampled_from(["left", "right", "tie"])
rows = st.lists(st.tuples(items, items, winners, st.integers(1, 3)), min_size=1, max_size=25)


def columns(table):
    return [list(column) for column in zip(*table, strict=True)]


def by_item(result):
    return {item: result.value[i] for i, item in enumerate(result.items)}


@settings(max_examples=60, deadline=None)
@given(rows, st.randoms(use_true_random=False), st.sampled_from(sorted(set(METHODS) - {"elo"})))
def test_the_order_of_rows_changes_no_value_and_no_interval(table, random, method):
    shuffled = random.sample(table, len(table))
    one = METHODS[method](Comparisons(*columns(table)), bootstrap=20, seed=4)
    other = METHODS[method](Comparisons(*columns(shuffled)), bootstrap=20, seed=4)
    assert one.items == other.items
    for a, b in ((one.value, other.value), (one.low, other.low), (one.high, other.high)):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(rows, st.permutations(range(6)), st.sampled_from(sorted(METHODS)))
def test_renaming_items_changes_no_value(table, names, method):
    left, right, winner, weight = columns(table)
    renamed = Comparisons([names[i] for i in left], [names[i] for i in right], winner, weight)
    one, other = METHODS[method](Comparisons(left, right, winner, weight)), METHODS[method](renamed)
    expected = {names[item]: value for item, value in by_item(one).items()}
    assert by_item(other) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from(sorted(set(METHODS) - {"elo"})))
def test_a_weight_of_two_is_two_rows(table, method):
    left, right, winner, weight = columns(table)
    repeated = [row[:3] for row in table for _ in range(row[3])]
    one = METHODS[method](Comparisons(left, right, winner, weight))
    other = METHODS[method](Comparisons(*columns(repeated)))
    np.testing.assert_allclose(one.value, other.value, rtol=1e-6, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(winners, min_size=10, max_size=10), st.lists(winners, min_size=10, max_size=10))
def test_reversing_the_winners_reverses_the_ranking(first, second):
    """In a balanced design, as counting needs: every pair meets twice."""
    pairs = [(a, b) for a in range(5) for b in range(a)]
    left, right = ([pair[side] for pair in pairs * 2] for side in (0, 1))
    forward = Comparisons(left, right, first + second)
    for method in REVERSING:
        ranks, reverse = (METHODS[method](c).ranks for c in (forward, forward.swapped()))
        order = np.sign(ranks[:, None] - ranks[None, :])
        assert (order == -np.sign(reverse[:, None] - reverse[None, :])).all(), method


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(items, items, winners), max_size=8), st.sampled_from(sorted(METHODS)), st.integers(0, 1))
def test_every_result_is_finite_or_none_and_degenerate_input_is_noted(table, method, bootstrap):
    comparisons = Comparisons(*(columns(table) if table else ([], [], [])))
    result = METHODS[method](comparisons, bootstrap=10 * bootstrap)
    for array in (result.value, result.low, result.high):
        assert array is None or np.isfinite(array).all()
    if any(a == b for a, b, _ in table):
        assert "with itself" in result.note
    if not comparisons.n:
        assert result.items == ()
        assert "no comparisons" in result.note
    said = diagnose(comparisons)
    if method in MODELS and (said.strong_components != 1 or said.all_ties):
        assert result.note
    assert all(isinstance(sentence, str) for sentence in said.sentences)


@pytest.mark.parametrize("method", MODELS)
@pytest.mark.parametrize(
    ("table", "word"),
    [
        ([("a", "b", "left"), ("c", "d", "left"), ("b", "a", "left"), ("d", "c", "left")], "disconnected"),
        ([("a", "b", "left"), ("a", "c", "left"), ("b", "c", "left"), ("c", "b", "left")], "a only wins"),
        ([("a", "b", "tie"), ("b", "c", "tie")], "is a tie"),
        ([("a", "a", "left")], "no comparisons"),
        ([], "no comparisons"),
    ],
)
def test_where_scores_do_not_exist_a_sentence_says_so(method, table, word):
    result = METHODS[method](Comparisons(*(columns(table) if table else ([], [], []))), bootstrap=10)
    assert word in result.note
    assert result.value is None or np.isfinite(result.value).all()


def test_davidson_notices_ties_that_grow_with_the_differences():
    """a beats b and they tie: the likelihood rises for ever, although wins and ties link all items both ways."""
    for table in (
        [("a", "b", "left"), ("a", "b", "tie")],
        [("a", "b", "left"), ("b", "c", "tie"), ("c", "a", "tie")],
    ):
        result = newman(Comparisons(*columns(table)))
        assert "MAP" in result.note
        assert result.ranking[0] == "a"
    assert newman(Comparisons(*columns([*table, ("c", "a", "left"), ("b", "c", "left")]))).note is None


def test_a_prior_is_said_and_pulls_together():
    comparisons = Comparisons(["a", "a", "b"], ["b", "b", "a"], ["left", "left", "left"])
    plain, prior = bradley_terry(comparisons), bradley_terry(comparisons, prior=1.0)
    assert plain.note is None
    assert plain.value[0] == pytest.approx(2 / 3)
    assert "MAP" in prior.note
    assert 0.5 < prior.value[0] < 2 / 3


def test_the_diagnosis_names_what_limits_the_scores():
    votes = [("a", "b", "left"), ("b", "c", "left"), ("c", "a", "left"), ("b", "a", "left"), ("x", "y", "left")]
    said = diagnose(Comparisons(*columns(votes + [("x", "x", "tie")])))
    assert said.components == (("a", "b", "c"), ("x", "y"))
    assert (said.cyclic_triads, said.triads) == (0, 0)
    assert (said.order_pairs, said.order_inconsistent) == (1, 1)
    assert (said.only_win, said.only_lose) == (("x",), ("y",))
    assert said.comparisons_per_item == (1, 2.0, 3)
    assert said.self_comparisons == 1
    text = " ".join(said.sentences)
    for words in ("disconnected", "x won every comparison", "1 of 1 pairs asked in both orders"):
        assert words in text
    circle = diagnose(Comparisons(*columns(votes[:3])))
    assert (circle.cyclic_triads, circle.triads, circle.cyclic_share) == (1, 1, 1.0)


def test_cyclic_triads_agree_with_counting_them():
    rng = np.random.default_rng(0)
    beats = np.triu(rng.random((9, 9)) < 0.5, 1)
    pairs = [(a, b) for a in range(9) for b in range(a + 1, 9)]
    said = diagnose(Comparisons(*columns([(a, b, float(beats[a, b])) for a, b in pairs])))
    wins = {(a, b) if beats[a, b] else (b, a) for a, b in pairs}
    triples = [(a, b, c) for a in range(9) for b in range(a) for c in range(b)]
    cyclic = sum({(a, b), (b, c), (c, a)} <= wins or {(b, a), (c, b), (a, c)} <= wins for a, b, c in triples)
    assert (said.cyclic_triads, said.triads) == (cyclic, 84)
