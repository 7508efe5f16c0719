"""Many raters: Fleiss' kappa is statsmodels', alpha with missing labels is krippendorff's, and the human ceiling."""

from __future__ import annotations

import csv
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats import inter_rater

from llmrank.agree.label_agreement import kappa
from llmrank.agree.raters import fleiss_kappa, human_ceiling, krippendorff_alpha
from llmrank.agree.resampling import Resampling

FEW = Resampling(replicates=100)
LABELS = st.integers(0, 3)


@given(st.integers(2, 4).flatmap(lambda m: st.lists(st.lists(LABELS, min_size=m, max_size=m), min_size=1, max_size=12)))
def test_fleiss_is_statsmodels(units: list[list[int]]) -> None:
    labels = np.array(units).T
    figure = fleiss_kappa(labels, FEW)
    assert figure.n == len(units)
    if len(np.unique(labels)) == 1:
        assert figure.value is None
        return
    assert figure.value == pytest.approx(inter_rater.fleiss_kappa(inter_rater.aggregate_raters(labels.T)[0]), abs=1e-9)


@given(
    st.integers(2, 4).flatmap(
        lambda m: st.lists(st.lists(st.none() | LABELS, min_size=m, max_size=m), min_size=1, max_size=12)
    ),
    st.sampled_from(["nominal", "ordinal", "interval"]),
)
def test_alpha_is_krippendorffs(units: list[list[int | None]], level: str) -> None:
    labels = np.array(units, dtype=float).T
    figure = krippendorff_alpha(labels, level, FEW)
    usable = labels[:, np.isfinite(labels).sum(0) > 1]
    if len(np.unique(usable[np.isfinite(usable)])) < 2:
        assert figure.value is None
        assert figure.note
        return
    expected = krippendorff.alpha(usable, level_of_measurement=level, value_domain=[0, 1, 2, 3])
    assert figure.value == pytest.approx(expected, abs=1e-9)
    assert figure.n == usable.shape[1]


def test_the_textbook_example(shared_data: Path) -> None:
    """Krippendorff's own example, 3 coders and 15 units: nominal .691 and interval .811 for these."""
    with (shared_data / "preferences" / "codings.csv").open() as stream:
        rows = [[float(cell) if cell else np.nan for cell in row] for row in csv.reader(stream)]
    for level in ("nominal", "ordinal", "interval"):
        figure = krippendorff_alpha(rows, level)
        assert figure.value == pytest.approx(krippendorff.alpha(rows, level_of_measurement=level))
        assert figure.low < figure.value <= figure.high


def test_two_raters_are_the_two_labeller_forms() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, (2, 50))
    expected = krippendorff.alpha(labels, level_of_measurement="nominal")
    assert krippendorff_alpha(labels).value == pytest.approx(expected)


def test_wrong_or_empty_input() -> None:
    with pytest.raises(ValueError, match="none missing"):
        fleiss_kappa([[1, np.nan], [1, 2]])
    with pytest.raises(ValueError, match="neither"):
        krippendorff_alpha([[1, 2]], "cardinal")
    assert fleiss_kappa(np.zeros((3, 0))).value is None
    assert krippendorff_alpha(np.full((2, 3), np.nan)).value is None


def test_a_judge_below_the_human_ceiling() -> None:
    generator = np.random.default_rng(1)
    topics = np.repeat(np.arange(15), 20).tolist()
    truth = generator.integers(0, 4, 300).astype(float)
    second = np.where(generator.random(300) < 0.85, truth, generator.integers(0, 4, 300))
    judge = np.where(generator.random(300) < 0.5, truth, generator.integers(0, 4, 300))
    second[:10] = np.nan
    found = human_ceiling(truth, judge, second, topics, "quadratic", bootstrap=500)
    assert found.human.value > found.judge.value
    assert found.test.difference.high < 0
    assert found.human.n == found.judge.n == found.test.difference.n == 290
    assert found.judge.value == pytest.approx(kappa(truth[10:], judge[10:], weights="quadratic").value)
