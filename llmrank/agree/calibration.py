"""Whether a judge's probabilities mean what they say: reliability curve, ECE, Brier score and soft kappa."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from llmrank.agree.confusion import Array, Confusion
from llmrank.agree.labels import cohen_kappa
from llmrank.agree.resampling import Resampling, Sample
from llmrank.agree.results import Figure

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """The pairs whose predicted probability lies in one range."""

    low: float
    high: float
    predicted: float | None
    """Mean predicted probability; None in an empty bin."""
    observed: Figure
    """The share that is relevant, with Wilson's interval; n is the number of pairs."""


def reliability_curve(relevant: ArrayLike, probability: ArrayLike, bins: int = BINS, level: float = 0.95) -> list[Bin]:
    """How often what is called relevant with some probability is relevant, in bins of equal width.

    relevant : shape (pairs,), 0 or 1. probability : shape (pairs,), in [0, 1]; 1 belongs to the last bin.
    Interval: Wilson 1927, J. Am. Stat. Assoc. 22.
    """
    truth, said, place = _binned(relevant, probability, bins)
    found = []
    for number in range(bins):
        inside = place == number
        n = int(inside.sum())
        centre = float(said[inside].mean()) if n else None
        observed = _wilson(int(truth[inside].sum()), n, level)
        found.append(Bin(number / bins, (number + 1) / bins, centre, observed))
    return found


def expected_calibration_error(
    relevant: ArrayLike,
    probability: ArrayLike,
    topics: Sequence[Hashable] | None = None,
    bins: int = BINS,
    settings: Resampling = Resampling(),
) -> Figure:
    """ECE: sum over bins of (share of the pairs) |mean probability - share relevant|.

    Arguments as in `reliability_curve`; topics : the topic of each pair, which are then resampled, else pairs are.
    Never below 0, and above it by chance for few pairs. Naeini, Cooper & Hauskrecht 2015, AAAI.
    """
    truth, said, place = _binned(relevant, probability, bins)
    gaps = np.zeros((len(truth), bins + 1))
    gaps[np.arange(len(truth)), place] = said - truth
    gaps[:, -1] = 1
    return _summed(gaps, topics, settings, lambda sums: np.abs(sums[..., :-1]).sum(-1) / sums[..., -1])


def brier_score(
    truth: ArrayLike,
    distribution: ArrayLike,
    topics: Sequence[Hashable] | None = None,
    settings: Resampling = Resampling(),
) -> Figure:
    """Brier's score of soft labels: the mean over pairs of sum_j (p_j - [label is j])^2; 0 is perfect, 2 the worst.

    truth : shape (pairs,), labels 0..k-1. distribution : shape (pairs, k), probabilities of the labels. For two labels
    this is twice the squared error of one probability. Brier 1950, Monthly Weather Review 78.
    """
    labels, soft = _soft(truth, distribution)
    errors = np.square(soft - np.eye(soft.shape[1])[labels]).sum(1)
    rows = np.stack([errors, np.ones(len(errors))], axis=1)
    return _summed(rows, topics, settings, lambda sums: sums[..., 0] / sums[..., 1])


def soft_kappa(
    truth: ArrayLike,
    distribution: ArrayLike,
    topics: Sequence[Hashable] | None = None,
    weights: str | None = None,
    settings: Resampling = Resampling(),
) -> Figure:
    """Cohen's kappa against soft labels: a pair adds its probabilities to the table of counts in place of one label.

    Arguments as in `brier_score`; weights : None, `linear` or `quadratic`. It is the kappa to expect, with many pairs,
    of a judge that draws its label from its distribution; with certain labels it is kappa itself.
    """
    labels, soft = _soft(truth, distribution)
    k = soft.shape[1]
    rows = np.zeros((len(labels), k, k))
    rows[np.arange(len(labels)), labels] = soft
    grades = np.arange(float(k))

    def function(sums: Array) -> Array:
        return cohen_kappa(Confusion(sums.reshape(*sums.shape[:-1], k, k), grades), weights)

    return _summed(rows.reshape(len(labels), k * k), topics, settings, function)


def _summed(
    rows: Array, topics: Sequence[Hashable] | None, settings: Resampling, function: Callable[[Array], Array]
) -> Figure:
    """A function of sums over pairs, with its interval over topics or pairs."""
    n = len(rows)
    if n == 0:
        return Figure(None, None, None, 0, "there are no pairs")
    by = "pairs"
    if topics is not None:
        numbers: dict[Hashable, int] = {}
        place = [numbers.setdefault(topic, len(numbers)) for topic in topics]
        by, pairs = "topics", rows
        rows = np.zeros((len(numbers), pairs.shape[1]))
        np.add.at(rows, np.array(place), pairs)
    sample = Sample.of_units(rows, settings, by, size=lambda units: np.ones(len(units)))
    return sample.figure(function, n, "truth and prediction use one label only")


def _binned(relevant: ArrayLike, probability: ArrayLike, bins: int) -> tuple[Array, Array, NDArray[np.int64]]:
    truth, said = np.asarray(relevant, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    if truth.shape != said.shape or truth.ndim != 1:
        raise ValueError("relevant and probability must be equally long")
    if not (np.isin(truth, (0, 1)).all() and ((said >= 0) & (said <= 1)).all()):
        raise ValueError("relevant must be 0 or 1, and probability in [0, 1]")
    return truth, said, np.minimum((said * bins).astype(np.int64), bins - 1)


def _soft(truth: ArrayLike, distribution: ArrayLike) -> tuple[NDArray[np.int64], Array]:
    labels, soft = np.asarray(truth, dtype=np.int64), np.asarray(distribution, dtype=np.float64)
    if not len(labels):
        return np.zeros(0, dtype=np.int64), np.zeros((0, max(1, soft.shape[-1] if soft.ndim == 2 else 1)))
    if soft.ndim != 2 or len(soft) != len(labels) or not np.allclose(soft.sum(1), 1, atol=1e-6) or (soft < 0).any():
        raise ValueError("distribution must have a row of probabilities for each label, each adding up to 1")
    return labels, soft


def _wilson(hits: int, n: int, level: float) -> Figure:
    if n == 0:
        return Figure(None, None, None, 0, "no pair is in this bin")
    z = float(ndtri((1 + level) / 2))
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    return Figure(share, max(0.0, centre - half), min(1.0, centre + half), n)
