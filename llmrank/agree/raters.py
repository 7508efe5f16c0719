"""Agreement of any number of raters: Fleiss' kappa and Krippendorff's alpha with labels missing; a human ceiling."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmrank.agree.confusion import Array
from llmrank.agree.label_agreement import JudgeTest, compare_judges, kappa
from llmrank.agree.resampling import REPLICATES, Resampling, Sample
from llmrank.agree.results import Figure


def fleiss_kappa(labels: ArrayLike, settings: Resampling = Resampling()) -> Figure:
    """Fleiss' kappa: (P - P_e) / (1 - P_e) of m raters who have all labelled every unit.

    labels : shape (raters, units), no label missing. P is the share of pairs of raters who agree on a unit, P_e the sum
    of the squared shares of the labels. n counts units, which are what is resampled. Fleiss 1971, Psychol. Bull. 76.
    """
    table = np.asarray(labels, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError("labels must be raters x units with none missing; `krippendorff_alpha` takes missing ones")
    m, n = table.shape
    if m < 2 or n == 0:
        return Figure(None, None, None, n, "two raters and a unit are needed")
    counts = np.stack([(table == label).sum(0) for label in np.unique(table)], axis=1).astype(np.float64)
    rows = np.concatenate([counts, (counts * (counts - 1)).sum(1, keepdims=True), np.ones((n, 1))], axis=1)

    def function(sums: Array) -> Array:
        units = np.maximum(sums[..., -1], 1)
        agreed = sums[..., -2] / (units * m * (m - 1))
        chance = np.square(sums[..., :-2] / (units * m)[..., None]).sum(-1)
        return _ratio(agreed - chance, 1 - chance)

    return _sample(rows, settings).figure(function, n, "all raters give one label only")


def krippendorff_alpha(labels: ArrayLike, level: str = "nominal", settings: Resampling = Resampling()) -> Figure:
    """Krippendorff's alpha, 1 - D_o / D_e, of any number of raters, labels missing or not.

    labels : shape (raters, units), numbers, NaN where a rater gave none. A unit with fewer than two labels is left out.
    level : distance of labels, `nominal`, `ordinal` or `interval`, as in `labels.krippendorff_alpha`.

    Each unit of m labels adds the pairs of its labels, over m - 1, to a table of coincidences, from which both
    disagreements follow. n counts the units used, which are what is resampled. Krippendorff 2019, ch. 12.
    """
    if level not in ("nominal", "ordinal", "interval"):
        raise ValueError(f"level {level!r} is neither nominal, ordinal nor interval")
    table = np.asarray(labels, dtype=np.float64)
    values = np.unique(table[np.isfinite(table)])
    counts = np.stack([(table == value).sum(0) for value in values], axis=1) if len(values) else np.zeros((0, 0))
    counts = counts[counts.sum(1) > 1].astype(np.float64)
    n, k = counts.shape
    if n == 0:
        return Figure(None, None, None, 0, "no unit has two labels")
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(k)
    rows = (pairs / (counts.sum(1) - 1)[:, None, None]).reshape(n, k * k)

    def function(sums: Array) -> Array:
        coincidences = sums.reshape(*sums.shape[:-1], k, k)
        totals = coincidences.sum(-1)
        distance = _distances(values, totals, level)
        observed = (coincidences * distance).sum((-1, -2))
        expected = (totals[..., :, None] * totals[..., None, :] * distance).sum((-1, -2))
        return np.asarray(1 - _ratio(observed * (totals.sum(-1) - 1), expected))

    return _sample(rows, settings).figure(function, n, "all labels are one and the same")


def _distances(values: Array, totals: Array, level: str) -> Array:
    if level == "nominal":
        return np.asarray(1.0 - np.eye(len(values)))
    if level == "interval":
        return np.asarray(np.square(values[:, None] - values))
    rank = np.cumsum(totals, axis=-1) - totals / 2
    return np.asarray(np.square(rank[..., :, None] - rank[..., None, :]))


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A judge beside a second human, both against the first, over the pairs that all three have labelled."""

    judge: Figure
    human: Figure
    """How far the second human agrees with the first: what a judge can be expected to reach."""
    test: JudgeTest
    """Judge less human. An interval below 0 is a judge that agrees less than a human would."""


def human_ceiling(
    truth: ArrayLike,
    judge: ArrayLike,
    human: ArrayLike,
    topics: Sequence[Hashable] | None = None,
    weights: str | None = None,
    bootstrap: int = REPLICATES,
    seed: int = 0,
) -> Ceiling:
    """How far a judge agrees with a human, beside how far a second human does.

    truth, judge, human : a grade a pair, equally long; None or NaN where there is none. topics, weights, bootstrap,
    seed : as in `kappa`.
    """
    grades = [np.asarray(values, dtype=np.float64) for values in (truth, judge, human)]
    kept = np.logical_and.reduce([np.isfinite(values) for values in grades])
    true, said, second = (values[kept] for values in grades)
    names = None if topics is None else [topic for topic, keep in zip(topics, kept.tolist(), strict=True) if keep]
    statistic = "kappa" if weights is None else f"kappa_{weights}"
    return Ceiling(
        kappa(true, said, names, weights, bootstrap, seed),
        kappa(true, second, names, weights, bootstrap, seed),
        compare_judges(true, said, second, names, statistic, bootstrap, seed),
    )


def _sample(rows: Array, settings: Resampling) -> Sample:
    return Sample.of_units(rows, settings, "units", size=lambda units: np.ones(len(units)))


def _ratio(numerator: Array, denominator: Array) -> Array:
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=np.abs(bottom) > 1e-12))
