"""Label agreement: equal to scikit-learn's and krippendorff's, defined everywhere, the same in every order."""

from __future__ import annotations

import gzip
import math
import random
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from llmrank.agree.confusion import Confusion
from llmrank.agree.label_agreement import (
    binarized_figures,
    compare_judges,
    counted,
    kappa,
    label_figures,
    polarity,
)
from llmrank.agree.labels import STATISTICS, hit_rates
from llmrank.agree.resampling import Resampling

SCALE = [0, 1, 2, 3]
NO_INTERVAL = Resampling(replicates=0)


def judges(shared_data: Path) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    with gzip.open(shared_data / "judge_labels" / "llmjudge.shared.tsv.gz", "rt") as stream:
        header, *rows = [line.rstrip("\n").split("\t") for line in stream]
    labels = {name: np.array([int(row[i]) for row in rows]) for i, name in enumerate(header) if i > 2}
    return [row[0] for row in rows], np.array([int(row[2]) for row in rows]), labels


def test_every_real_judge_equals_the_oracles(shared_data: Path) -> None:
    topics, truth, labels = judges(shared_data)
    assert len(labels) == 33
    for raw in labels.values():
        said = np.clip(raw, 0, 3)
        confusion, missing = counted(truth, said, topics, SCALE)
        found = {name: figure.value for name, figure in label_figures(confusion, NO_INTERVAL).items()}
        expected = {
            "kappa": metrics.cohen_kappa_score(truth, said),
            "kappa_linear": metrics.cohen_kappa_score(truth, said, weights="linear", labels=SCALE),
            "kappa_quadratic": metrics.cohen_kappa_score(truth, said, weights="quadratic", labels=SCALE),
            "accuracy": metrics.accuracy_score(truth, said),
            "mae": metrics.mean_absolute_error(truth, said),
            "bias": np.mean(said - truth),
        }
        for level in ("nominal", "ordinal", "interval"):
            expected[f"alpha_{level}"] = krippendorff.alpha(
                [truth, said], value_domain=SCALE, level_of_measurement=level
            )
        assert missing == 0
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
        np.testing.assert_array_equal(confusion.pooled().counts, metrics.confusion_matrix(truth, said, labels=SCALE))
        rates = metrics.recall_score(truth, said, labels=SCALE, average=None)
        np.testing.assert_allclose(hit_rates(confusion.pooled()), rates)
        for cut, figures in binarized_figures(confusion, [1, 2, 3], NO_INTERVAL).items():
            true, positive = truth >= cut, said >= cut
            expected = {
                "kappa": metrics.cohen_kappa_score(true, positive),
                "alpha_nominal": krippendorff.alpha([true * 1, positive * 1], level_of_measurement="nominal"),
                "accuracy": metrics.accuracy_score(true, positive),
                "precision": metrics.precision_score(true, positive) if positive.any() else None,
                "recall": metrics.recall_score(true, positive),
            }
            assert {name: figures[name].value for name in expected} == pytest.approx(expected, abs=1e-9)


def test_chance_corrections_by_hand() -> None:
    """40 pairs both say 0, 10 both say 1, 30 and 20 disagree; figures worked out on paper from the formulas."""
    truth = [0] * 40 + [0] * 30 + [1] * 20 + [1] * 10
    said = [0] * 40 + [1] * 30 + [0] * 20 + [1] * 10
    found = label_figures(counted(truth, said, labels=[0, 1, 2])[0], NO_INTERVAL)
    assert found["scott_pi"].value == pytest.approx((0.5 - (0.65**2 + 0.35**2)) / (1 - (0.65**2 + 0.35**2)))
    chance = (0.65 * 0.35 * 2) / 2
    assert found["ac1"].value == pytest.approx((0.5 - chance) / (1 - chance))
    # Weights 1 on the diagonal, 3/4 beside it, 0 in the corners: they sum to 6.
    chance = 6 / 6 * (0.65 * 0.35 * 2)
    assert found["ac2"].value == pytest.approx((0.5 + 0.5 * 0.75 - chance) / (1 - chance))
    assert found["brennan_prediger"].value == pytest.approx((0.5 - 1 / 3) / (1 - 1 / 3))


def test_intervals_are_around_the_value_and_repeatable(shared_data: Path) -> None:
    topics, truth, labels = judges(shared_data)
    said = labels["Olz-gpt4o"]
    confusion, _ = counted(truth, said, topics, SCALE)
    by_topic, by_pair = label_figures(confusion), label_figures(confusion, Resampling(resample="pairs"))
    assert by_topic == label_figures(confusion)
    for name, figure in by_topic.items():
        other = by_pair[name]
        assert figure.value == other.value
        for low, high in ((figure.low, figure.high), (other.low, other.high)):
            assert low is not None
            assert high is not None
            assert low < figure.value < high
    # Pairs of a topic resemble each other, so that taking them for independent is too sure of itself.
    assert by_topic["kappa"].high - by_topic["kappa"].low > 1.5 * (by_pair["kappa"].high - by_pair["kappa"].low)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3)), max_size=60), st.randoms())
def test_order_and_names_change_nothing(rows: list[tuple[int, int, int]], shuffler: random.Random) -> None:
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    names = dict(zip(range(6), shuffler.sample("abcdef", 6), strict=True))
    for weights in (None, "quadratic"):
        first = kappa([r[1] for r in rows], [r[2] for r in rows], [r[0] for r in rows], weights=weights, bootstrap=200)
        second = kappa(
            [r[1] for r in shuffled],
            [r[2] for r in shuffled],
            [names[r[0]] for r in shuffled],
            weights=weights,
            bootstrap=200,
        )
        assert first == second


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), max_size=12),
    st.sampled_from([0, 1, 50]),
    st.sampled_from(["topics", "pairs"]),
)
def test_nothing_is_ever_nan(rows: list[tuple[int, int, int]], replicates: int, resample: str) -> None:
    confusion, _ = counted([r[1] for r in rows], [r[2] for r in rows], [r[0] for r in rows], [0, 1, 2])
    setting = Resampling(replicates, resample)  # type: ignore[arg-type]
    figures = list(label_figures(confusion, setting).values())
    for cut in binarized_figures(confusion, [1, 2], setting).values():
        figures += cut.values()
    for figure in figures:
        assert figure.n == len(rows)
        assert (figure.value is not None) or figure.note
        assert (figure.low is None) == (figure.high is None)
        for number in (figure.value, figure.low, figure.high):
            assert number is None or math.isfinite(number)
        if figure.low is not None:
            assert figure.low <= figure.value <= figure.high


def test_degenerate_inputs_are_said_in_words() -> None:
    assert kappa([], []).value is None
    assert "no pairs" in str(kappa([], []).note)
    assert "one label only" in str(kappa([1, 1, 1], [1, 1, 1], ["a", "b", "c"]).note)
    one_topic = kappa([0, 1, 0, 1], [0, 1, 1, 1], ["a"] * 4)
    assert (one_topic.value, one_topic.low) == (pytest.approx(0.5), None)
    assert "one topic has no interval" in str(one_topic.note)
    perfect = kappa([0, 1] * 12, [0, 1] * 12, list(range(12)) * 2)
    assert (perfect.value, perfect.low, perfect.high) == (1, 1, 1)
    assert "no width" in str(perfect.note)
    assert "only 3 topics" in str(kappa([0, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 0], [1, 1, 2, 2, 3, 3]).note)
    missing = kappa([0, 1, 0, 1], [0, None, 1, math.nan])
    assert (missing.n, missing.value) == (2, 0)
    assert "2 pairs without a grade" in str(missing.note)


@pytest.mark.parametrize(
    "wrong", [{"weights": "cubic"}, {"level": 1.0}, {"bootstrap": -1}, {"topics": ["a"]}], ids=lambda w: next(iter(w))
)
def test_wrong_arguments_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        kappa([0, 1], [0, 1], **wrong)  # type: ignore[arg-type]


def test_a_label_outside_the_given_ones_is_refused() -> None:
    with pytest.raises(ValueError, match="one of the labels"):
        counted([0, 1], [0, 7], labels=SCALE)


def test_weights_go_by_the_grades_own_distances() -> None:
    """A scale of which a grade is not used is no shorter for it."""
    truth, said = [0, 0, 3, 3, 2, 2], [0, 2, 3, 2, 2, 0]
    expected = metrics.cohen_kappa_score(truth, said, weights="quadratic", labels=SCALE)
    assert kappa(truth, said, weights="quadratic").value == pytest.approx(expected)


def test_reversed_polarity_is_named(shared_data: Path) -> None:
    topics, truth, labels = judges(shared_data)
    said = labels["Olz-gpt4o"]
    backwards, _ = counted(truth, 3 - said, topics, SCALE)
    assert "reversed polarity" in str(polarity(backwards))
    assert polarity(counted(truth, said, topics, SCALE)[0]) is None
    assert polarity(Confusion(np.zeros((0, 4, 4)), np.arange(4.0))) is None


def test_judge_against_judge(shared_data: Path) -> None:
    topics, truth, labels = judges(shared_data)
    good, bad = labels["Olz-gpt4o"].astype(float), labels["TREMA-other"].astype(float)
    test = compare_judges(truth, good, bad, topics, "kappa_quadratic")
    back = compare_judges(truth, bad, good, topics, "kappa_quadratic")
    assert test.difference.low > 0
    assert test.p < 0.01
    assert (back.difference.value, back.p) == (pytest.approx(-test.difference.value), pytest.approx(test.p, abs=0.01))
    assert test.difference.value == pytest.approx(
        kappa(truth, good, topics, "quadratic").value - kappa(truth, bad, topics, "quadratic").value
    )
    same = compare_judges(truth, good, good, topics)
    assert (same.difference.value, same.p) == (0, 1)
    assert compare_judges([], [], []).difference.value is None


def test_judge_tests_hold_their_level() -> None:
    """Of two judges equally good, about one in twenty pairs is told apart at 5%."""
    generator = np.random.default_rng(0)
    found = []
    for seed in range(300):
        truth = generator.integers(0, 3, 400)
        one, two = (np.where(generator.random(400) < 0.6, truth, generator.integers(0, 3, 400)) for _ in "ab")
        found.append(compare_judges(truth, one, two, np.repeat(np.arange(20), 20).tolist(), bootstrap=300, seed=seed))
    rejected = sum(test.p < 0.05 for test in found)
    covered = sum(test.difference.low <= 0 <= test.difference.high for test in found)
    assert 3 <= rejected <= 30
    assert 270 <= covered <= 297


def test_the_interval_is_what_resampling_row_by_row_gives() -> None:
    """Counts resampled as a matrix product have the same distribution as topics drawn and pooled one by one."""
    generator = np.random.default_rng(1)
    topics = np.repeat(np.arange(15), 12)
    truth = generator.integers(0, 3, len(topics))
    said = np.where(generator.random(len(topics)) < 0.6, truth, generator.integers(0, 3, len(topics)))
    rows = {t: np.flatnonzero(topics == t) for t in range(15)}
    slow = []
    for _ in range(1000):
        drawn = np.concatenate([rows[t] for t in generator.integers(0, 15, 15)])
        slow.append(metrics.cohen_kappa_score(truth[drawn], said[drawn]))
    figure = kappa(truth, said, topics.tolist())
    plain_low, plain_high = np.quantile(slow, [0.025, 0.975])
    assert figure.low < plain_low < plain_high < figure.high
    assert figure.high - figure.low < 1.3 * (plain_high - plain_low)
    assert set(STATISTICS) >= {"kappa", "scott_pi", "alpha_ordinal", "ac2"}
