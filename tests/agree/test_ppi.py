"""Prediction-powered means: right in value, covering as they say, falling back in words where there is no gain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmrank.agree.ppi import leaderboard, ppi_mean, ppi_mean_of_pairs
from llmrank.agree.significance import mean

SHARES = st.floats(0, 1, allow_subnormal=False)


def sample(n: int, rho: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A measure in [0, 1] under human labels and under those of a lenient judge; their means are .358 and .5."""
    both = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n).T
    return 1 / (1 + np.exp(-1.5 * both[0] + 0.8)), 1 / (1 + np.exp(-1.5 * both[1]))


def test_the_value_is_the_formulas() -> None:
    generator = np.random.default_rng(0)
    y, f = sample(25, 0.9, generator)
    other = sample(400, 0.9, generator)[1]
    plain = ppi_mean(y, f, other, weight=1.0)
    assert plain.value == pytest.approx(other.mean() + (y - f).mean())
    trust = np.cov(y, f)[0, 1] / f.var(ddof=1) * 400 / 425
    tuned = ppi_mean(y, f, other)
    assert tuned.value == pytest.approx(y.mean() + trust * (other.mean() - f.mean()))
    assert (tuned.n, tuned.note) == (25, None)
    human = mean(y)
    assert tuned.high - tuned.low < 0.7 * (human.high - human.low)


@given(st.lists(st.tuples(SHARES, SHARES), max_size=12), st.lists(SHARES, max_size=6))
def test_gain_or_the_human_mean_and_why(pairs: list[tuple[float, float]], other: list[float]) -> None:
    y, f = np.array(pairs).reshape(-1, 2).T
    figure = ppi_mean(y, f, other)
    assert figure.n == len(pairs)
    gain = bool(other) and len(pairs) > 2
    if gain:
        if np.std(y) * np.std(f) < 1e-6:
            return  # so nearly alike that rounding decides
        test = stats.pearsonr(y, f, alternative="greater")
        if abs(test.pvalue - 0.05) < 1e-6:
            return
        gain = test.pvalue < 0.05
    assert (figure.note is None) == gain
    if not gain:
        human = mean(y)
        assert (figure.value, figure.low, figure.high) == (human.value, human.low, human.high)
        assert "no gain" in str(figure.note)


def test_predictions_of_no_use_are_left_aside() -> None:
    generator = np.random.default_rng(1)
    y, other = sample(20, 0, generator)[0], sample(200, 0, generator)[1]
    turned = ppi_mean(y, 1 - y, other)
    assert turned.value == pytest.approx(y.mean())
    assert "correlation of -1.00 is not above 0" in str(turned.note)
    assert "LLM labels only" in str(ppi_mean(y, y, []).note)
    assert "all alike" in str(ppi_mean(y, np.full(20, 0.5), other).note)
    assert ppi_mean([], [], other).value is None
    with pytest.raises(ValueError):
        ppi_mean([0.1, 0.2], [0.1], other)
    with pytest.raises(ValueError):
        ppi_mean([0.1, np.nan], [0.1, 0.2], other)


@pytest.mark.parametrize(("n", "floor", "ceiling"), [(10, 0.90, 0.99), (20, 0.92, 0.98)])
def test_intervals_cover(n: int, floor: float, ceiling: float) -> None:
    """A small version of `experiments/coverage`, with room for the luck of 500 data sets."""
    generator = np.random.default_rng(n)
    truth = sample(1_000_000, 0.8, generator)[0].mean()
    hits = 0
    for _ in range(500):
        y, f = sample(n, 0.8, generator)
        figure = ppi_mean(y, f, sample(100, 0.8, generator)[1])
        hits += figure.low <= truth <= figure.high
    assert floor <= hits / 500 <= ceiling


def test_a_leaderboard_is_one_estimate_a_system() -> None:
    generator = np.random.default_rng(2)
    y, f = (np.array(part) for part in zip(*(sample(15, 0.9, generator) for _ in range(3)), strict=True))
    other = np.array([sample(50, 0.9, generator)[1] for _ in range(3)])
    assert leaderboard(y, f, other) == [ppi_mean(*rows) for rows in zip(y, f, other, strict=True)]


def test_pairs_within_topics() -> None:
    """Few human labels in each topic and a lenient judge: nearer to the truth than either alone."""
    generator = np.random.default_rng(3)
    errors: dict[str, list[float]] = {"ppi": [], "human": [], "judge": []}
    for _ in range(60):
        topics = np.repeat(np.arange(20), 40)
        true = generator.normal(generator.normal(0, 1, 20)[topics], 1)
        said = true + 0.5 + generator.normal(0, 0.3, len(true))
        human = np.where(generator.permuted(np.tile(np.arange(40), (20, 1)), axis=1).ravel() < 4, true, np.nan)
        figure = ppi_mean_of_pairs(human, said, topics.tolist())
        assert (figure.n, figure.note) == (20, None)
        errors["ppi"].append(figure.value - true.mean())
        errors["human"].append(np.nanmean(human) - true.mean())
        errors["judge"].append(said.mean() - true.mean())
    spread = {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in errors.items()}
    assert spread["ppi"] < 0.6 * spread["human"]
    assert spread["ppi"] < 0.2 * spread["judge"]
    assert ppi_mean_of_pairs([], [], []).value is None
    assert "no gain" in str(ppi_mean_of_pairs([1, np.nan, 0], [0.2, 0.3, 0.1], ["a", "a", "b"]).note)
