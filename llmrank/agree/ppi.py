"""Trustworthy means from few human labels: prediction-powered inference over topics, and over pairs within topics."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from llmrank.agree.confusion import Array
from llmrank.agree.results import Figure
from llmrank.agree.significance import LEVEL, mean

GAIN_LEVEL = 0.95
"""One-sided confidence that truth and prediction go together, without which predictions are not used."""


def ppi_mean(
    human: ArrayLike,
    predicted: ArrayLike,
    predicted_only: ArrayLike,
    level: float = LEVEL,
    weight: float | None = None,
) -> Figure:
    """The mean of a measure under human labels, made more certain by topics that only an LLM has judged.

    human, predicted : shape (n,), the measure on the human-judged topics under human and under LLM labels.
    predicted_only : shape (N,), the measure on the topics with LLM labels only, drawn from where the others come from.
    weight : lambda, the trust in the predictions; 1 is plain PPI. By default (PPI++) it is what makes the variance
        least, cov(y, f) / var(f) * N / (n + N), from the human-judged topics.

    With y under human labels and f under LLM labels: mean(y) + lambda (mean of f without y - mean of f beside y).
    Interval: Student's t with n - 2 degrees of freedom; the variance is the jackknife's over the human-judged topics,
    lambda estimated anew each time (its uncertainty matters for few topics), and lambda^2 var(f) / N.

    There is no gain, and the mean of `human` with its t interval is given and `note` says so, where the correlation of
    `human` and `predicted` is not above 0 at the one-sided 5% level, or there are no other topics. n counts the
    human-judged topics. Angelopoulos et al. 2023, Science 382 (PPI); 2023, arXiv 2311.01453 (PPI++).
    """
    y, f, other = (np.asarray(values, dtype=np.float64) for values in (human, predicted, predicted_only))
    if y.shape != f.shape or y.ndim != 1 or other.ndim != 1:
        raise ValueError("human and predicted must be equally long, and all three one value a topic")
    if not all(np.isfinite(values).all() for values in (y, f, other)):
        raise ValueError("every topic needs a finite value")
    reason = _no_gain(y, f, len(other))
    if reason:
        alone = mean(y, level)
        note = f"no gain from predictions, the mean is that of the human labels alone: {reason}"
        return Figure(alone.value, alone.low, alone.high, alone.n, "; ".join(n for n in (note, alone.note) if n))
    n, share = len(y), len(other) / (len(y) + len(other))
    rows = np.arange(n)
    without = np.array([_estimate(y[rows != i], f[rows != i], other, share, weight)[0] for i in rows])
    value, trust = _estimate(y, f, other, share, weight)
    variance = (n - 1) / n * np.square(without - without.mean()).sum()
    variance += trust**2 * np.concatenate([f, other]).var(ddof=1) / len(other)
    half = float(stdtrit(n - 2, (1 + level) / 2)) * float(np.sqrt(variance))
    return Figure(value, value - half, value + half, n)


def leaderboard(human: Array, predicted: Array, predicted_only: Array, level: float = LEVEL) -> list[Figure]:
    """`ppi_mean` of each system. human, predicted : shape (S, n); predicted_only : shape (S, N)."""
    return [ppi_mean(*values, level) for values in zip(human, predicted, predicted_only, strict=True)]


def ppi_mean_of_pairs(
    human: ArrayLike,
    predicted: ArrayLike,
    topics: Sequence[Hashable],
    level: float = LEVEL,
    weight: float | None = None,
) -> Figure:
    """The mean over topics of the mean over a topic's pairs under human labels, which only some pairs have.

    human : shape (pairs,), NaN where there is no human label: the labelled ones are a random sample of their topic's.
    predicted : shape (pairs,), the LLM's value of every pair. topics : the topic of each pair.
    weight : as in `ppi_mean`; by default from the labelled pairs, about their topics' means.

    A topic's estimate is its labelled pairs' mean of human - lambda * predicted plus lambda times its mean of predicted
    over all its pairs; the interval is Student's t over topics. A topic without a human label is left out. n counts
    topics. Without a correlation above 0 at the one-sided 5% level lambda is 0, and `note` says so.
    """
    y, f = np.asarray(human, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    numbers: dict[Hashable, int] = {}
    groups = np.array([numbers.setdefault(topic, len(numbers)) for topic in topics], dtype=np.int64)
    if not len(y) == len(f) == len(groups):
        raise ValueError("human, predicted and topics must be equally long")
    labelled = np.isfinite(y)
    parts = [np.flatnonzero(groups == topic) for topic in np.unique(groups[labelled])]
    if not parts:
        return mean([], level)
    known = [part[labelled[part]] for part in parts]
    y_about = np.concatenate([y[part] - y[part].mean() for part in known])
    f_about = np.concatenate([f[part] - f[part].mean() for part in known])
    reason = _no_gain(y_about, f_about, sum(map(len, parts)) - len(y_about), lost=len(parts) - 1)
    if reason:
        trust = 0.0
    elif weight is not None:
        trust = weight
    else:
        unlabelled = 1 - len(y_about) / sum(map(len, parts))
        trust = float(f_about @ y_about / (f_about @ f_about)) * unlabelled
    estimates = [
        y[some].mean() + trust * (f[part].mean() - f[some].mean()) for some, part in zip(known, parts, strict=True)
    ]
    figure = mean(sorted(estimates), level)
    note = f"no gain from predictions, only human labels are used: {reason}" if reason else None
    said = "; ".join(text for text in (note, figure.note) if text) or None
    return Figure(figure.value, figure.low, figure.high, figure.n, said)


def _no_gain(y: Array, f: Array, others: int, lost: int = 0) -> str | None:
    """Why the predictions are of no use, or None where they are. lost : degrees of freedom spent on topics' means."""
    if others == 0:
        return "nothing has LLM labels only"
    freedom = len(y) - 2 - lost
    if freedom < 1:
        return "too little is judged by both to tell whether they go together"
    y_about, f_about = y - y.mean() if len(y) else y, f - f.mean() if len(f) else f
    spread = float(np.sqrt((y_about @ y_about) * (f_about @ f_about)))
    if spread <= 1e-12:
        return "human or LLM values are all alike"
    r = float(np.clip(y_about @ f_about / spread, -1, 1))
    t = r * np.sqrt(freedom / max(1 - r * r, 1e-15))
    if t > stdtrit(freedom, GAIN_LEVEL):
        return None
    return f"their correlation of {r:.2f} is not above 0 at the one-sided {1 - GAIN_LEVEL:.0%} level"


def _estimate(y: Array, f: Array, other: Array, share: float, weight: float | None) -> tuple[float, float]:
    """The estimate, and the weight lambda."""
    trust = weight
    if trust is None:
        about = f - f.mean()
        spread = float(about @ about)
        trust = float(about @ y) / spread * share if spread > 0 else 0.0
    return float(y.mean() + trust * (other.mean() - f.mean())), trust
