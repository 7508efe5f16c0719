"""How far predicted labels rank systems as true labels do: correlations, inflation and significance decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from llmrank.agree import rankings
from llmrank.agree.confusion import Array
from llmrank.agree.resampling import Resampling, Sample
from llmrank.agree.results import Figure

ALPHA = 0.05
CELLS_AT_ONCE = 2_000_000
"""Replicates x pairs of systems that are held at once."""


class Coefficient(NamedTuple):
    """A number that compares the true and the predicted means of systems."""

    function: rankings.Correlation
    breaks_ties: bool = False
    """Whether systems that tie are put in order of their names first."""
    fewest: int = 2
    """How many systems there must be."""
    smooth: bool = False
    """Whether small changes of the means change it a little; what goes by ranks jumps."""


def inflation(truth: Array, predicted: Array) -> Array:
    """Mean over systems of the predicted mean less the true one; above 0 where the judge makes systems look better."""
    return np.asarray((predicted - truth).mean(-1))


COEFFICIENTS: dict[str, Coefficient] = {
    "tau_b": Coefficient(rankings.tau_b),
    "rho": Coefficient(rankings.spearman),
    "tau_ap": Coefficient(rankings.tau_ap, breaks_ties=True),
    "rbo": Coefficient(rankings.rbo_of_scores, breaks_ties=True),
    "top10_tau_b": Coefficient(rankings.top_tau_b),
    "decision_accuracy": Coefficient(rankings.decision_accuracy),
    "inflation": Coefficient(inflation, fewest=1, smooth=True),
}
"""The figures of two sets of means, by name; how each walks and breaks ties is in its function."""


def system_figures(truth: Array, predicted: Array, settings: Resampling = Resampling()) -> dict[str, Figure]:
    """Every figure of `COEFFICIENTS`, and the significance decisions.

    truth, predicted : shape (S, T), a measure of each system in each topic under true and under predicted labels;
        systems in the order of their names, which is how ties are broken.
    settings : topics are what is resampled, whatever `resample` says: a score belongs to a topic, not to a pair.

    n is the number of systems. Fewer than two systems, or systems that all tie, give null values with a note.
    """
    systems, topics = truth.shape
    rows = np.concatenate([truth, predicted, np.ones((1, topics))]).T
    sample = Sample.of_units(rows, settings, size=lambda units: units[:, -1])
    return {name: _figure(name, sample, systems) for name in COEFFICIENTS} | decisions(truth, predicted)


def _figure(name: str, sample: Sample, systems: int) -> Figure:
    coefficient = COEFFICIENTS[name]
    if sample.n == 0:
        return Figure(None, None, None, systems, "there are no topics")
    if systems < coefficient.fewest:
        return Figure(None, None, None, systems, f"{coefficient.fewest} systems are needed, and there are {systems}")

    def values(sums: Array) -> Array:
        # The last cell counts the topics.
        means = sums[..., :-1] / np.maximum(sums[..., -1:], 1)
        return _by_blocks(coefficient.function, means[..., :systems], means[..., systems:])

    figure = sample.figure(
        values, systems, "all systems tie, so there is no order to compare", smooth=coefficient.smooth
    )
    if figure.value is None or not coefficient.breaks_ties:
        return figure
    means = sample.total[:-1] / sample.n
    tied = [rankings.tied(side) for side in (means[:systems], means[systems:])]
    if tied == [0, 0]:
        return figure
    said = f"{tied[0]} systems tie in truth and {tied[1]} in prediction; those are taken in the order of their names"
    return replace(figure, note="; ".join(note for note in (said, figure.note) if note))


def _by_blocks(function: rankings.Correlation, truth: Array, predicted: Array) -> Array:
    """The function of true and predicted means, shape (..., S), some rows at a time."""
    if truth.ndim == 1:
        return function(truth, predicted)
    step = max(1, CELLS_AT_ONCE // truth.shape[1] ** 2)
    starts = range(0, max(1, len(truth)), step)
    return np.concatenate([function(truth[i : i + step], predicted[i : i + step]) for i in starts])


DECISIONS: dict[str, Callable[[Array, Array], Array]] = {
    "significant_kept": lambda true, said: (true != 0) & (said == true),
    "significant_lost": lambda true, said: (true != 0) & (said == 0),
    "significant_flipped": lambda true, said: (true != 0) & (said == -true),
}
"""What becomes of the significant differences, from the sign of each, 0 where it is not significant."""


def decisions(truth: Array, predicted: Array, alpha: float = ALPHA) -> dict[str, Figure]:
    """Of the pairs of systems that differ significantly in truth, the shares kept, lost and flipped in prediction.

    truth, predicted : shape (S, T). Significant: two-sided paired t test over topics, p < alpha, no correction.
    Flipped: significant the other way round. n is the number of pairs significant in truth; what is significant only
    in prediction is in the note of `significant_kept`.
    """
    true, said = _significant(truth, alpha), _significant(predicted, alpha)
    n = int(np.count_nonzero(true))
    gained = int(np.count_nonzero((true == 0) & (said != 0)))
    if n == 0:
        none = Figure(None, None, None, 0, "no two systems differ significantly in truth")
        found = dict.fromkeys(DECISIONS, none)
    else:
        found = {
            name: Figure(np.count_nonzero(kind(true, said)) / n, None, None, n, None)
            for name, kind in DECISIONS.items()
        }
    if gained:
        kept = found["significant_kept"]
        note = f"{gained} other pairs of systems differ significantly in prediction only"
        found["significant_kept"] = replace(kept, note="; ".join(said for said in (kept.note, note) if said))
    return found


def _significant(scores: Array, alpha: float) -> Array:
    """The sign of each pair's mean difference, 0 where it is not significant."""
    systems, topics = scores.shape
    first, second = np.triu_indices(systems, 1)
    if topics < 2:
        return np.zeros(len(first))
    difference = scores[first] - scores[second]
    centre, error = difference.mean(1), difference.std(1, ddof=1) / np.sqrt(topics)
    # Differences that are all alike have no t test, as in `significance.paired_t`.
    alike = np.ptp(difference, axis=1) <= 1e-12 * np.abs(difference).max(1, initial=0)
    t = np.abs(centre) / np.where(alike, 1.0, error)
    p = np.where(alike, 1.0, 2 * stdtr(topics - 1, -t))
    return np.asarray(np.where(p < alpha, np.sign(centre), 0.0))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a system may be worth when some of what it retrieved has no label."""

    low: float
    """If nothing unlabelled is relevant."""
    high: float
    """If everything unlabelled has the highest grade."""


def judged(grades: Array, k: int | None = None) -> Array:
    """The share of the first k places that have a label.

    grades : shape (..., depth), the labels down a ranking, NaN where there is none. k : all places by default.
    """
    top = np.asarray(grades, dtype=np.float64)[..., :k]
    return np.asarray(np.isfinite(top).mean(-1)) if top.shape[-1] else np.full(top.shape[:-1], np.nan)


def condensed(grades: Array) -> Array:
    """One ranking's labels without the places that have none, moved up. Sakai 2007, SIGIR (condensed lists).

    grades : shape (depth,), NaN where there is no label; the result is as long as there are labels.
    """
    ranking = np.asarray(grades, dtype=np.float64)
    return np.asarray(ranking[np.isfinite(ranking)])


def bounds(grades: Array, weights: Array, highest: float) -> Bounds:
    """Between what values sum weight * grade lies, whatever the missing labels are.

    grades : shape (depth,), NaN where there is no label. weights : shape (depth,), what a place is worth: 1 / k for
    P@k of binary grades, (1 - p) p^(i - 1) for RBP, 1 / log2(i + 1) for DCG. highest : the highest grade there is.
    The width is the residual of Moffat & Zobel 2008, ACM TOIS 27(1).
    """
    ranking, worth = np.asarray(grades, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    missing = ~np.isfinite(ranking)
    low = float(worth @ np.where(missing, 0.0, ranking))
    return Bounds(low, low + float(worth[missing].sum()) * highest)
