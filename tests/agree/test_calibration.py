"""Calibration: scikit-learn's curve and Brier score, an ECE that a calibrated judge passes, and soft kappa."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, cohen_kappa_score
from statsmodels.stats.proportion import proportion_confint

from llmrank.agree.calibration import brier_score, expected_calibration_error, reliability_curve, soft_kappa
from llmrank.agree.resampling import Resampling

FEW = Resampling(replicates=200)


def judged(n: int = 600, sharpen: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What is relevant with a probability, and the probability that a judge (over-confident above 1) names."""
    generator = np.random.default_rng(seed)
    logit = generator.normal(0, 1.5, n)
    return (generator.random(n) < 1 / (1 + np.exp(-logit))).astype(float), 1 / (1 + np.exp(-sharpen * logit))


def test_the_curve_is_scikit_learns() -> None:
    truth, said = judged()
    curve = reliability_curve(truth, said, bins=8)
    observed, predicted = calibration_curve(truth, said, n_bins=8)
    kept = [part for part in curve if part.observed.n]
    assert [part.observed.value for part in kept] == pytest.approx(observed.tolist())
    assert [part.predicted for part in kept] == pytest.approx(predicted.tolist())
    assert sum(part.observed.n for part in curve) == 600
    for part in kept:
        hits = round(part.observed.value * part.observed.n)
        expected = proportion_confint(hits, part.observed.n, method="wilson")
        assert (part.observed.low, part.observed.high) == pytest.approx(expected)
    empty = reliability_curve([1.0], [1.0])
    assert empty[-1].observed.value == 1
    assert empty[0].observed.note


def test_ece_tells_the_over_confident() -> None:
    calibrated = expected_calibration_error(*judged(5000), settings=FEW)
    certain = expected_calibration_error(*judged(5000, sharpen=4), settings=FEW)
    assert calibrated.value < 0.03
    assert certain.low > 0.05
    truth, said = judged()
    by_hand = sum(
        part.observed.n / 600 * abs(part.observed.value - part.predicted) for part in reliability_curve(truth, said)
    )
    assert expected_calibration_error(truth, said).value == pytest.approx(by_hand)
    assert expected_calibration_error([], []).value is None


def test_brier_is_scikit_learns() -> None:
    truth, said = judged()
    soft = np.stack([1 - said, said], axis=1)
    figure = brier_score(truth, soft, np.repeat(np.arange(20), 30).tolist(), FEW)
    assert figure.value == pytest.approx(2 * brier_score_loss(truth, said))
    assert figure.low < figure.value < figure.high
    assert brier_score([0, 1], np.eye(2)).value == 0


def test_soft_kappa_is_that_of_drawn_labels() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 300)
    soft = generator.dirichlet([0.5] * 3, 300) + 1.5 * np.eye(3)[truth]
    soft /= soft.sum(1, keepdims=True)
    edges = np.cumsum(soft, axis=1)[:, :-1]
    for weights in (None, "quadratic"):
        drawn = [
            cohen_kappa_score(truth, (generator.random((300, 1)) >= edges).sum(1), weights=weights) for _ in range(300)
        ]
        assert soft_kappa(truth, soft, weights=weights, settings=FEW).value == pytest.approx(np.mean(drawn), abs=0.01)
        hard = soft_kappa(truth, np.eye(3)[soft.argmax(1)], weights=weights, settings=FEW).value
        assert hard == pytest.approx(cohen_kappa_score(truth, soft.argmax(1), weights=weights))
    assert "one label" in str(soft_kappa([0, 0], [[1, 0], [1, 0]]).note)


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        reliability_curve([1], [1.5])
    with pytest.raises(ValueError, match="adding up to 1"):
        brier_score([0], [[0.5, 0.2]])
