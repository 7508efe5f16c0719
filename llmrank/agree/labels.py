"""Agreement of two labellers: chance-corrected coefficients and errors, each a function of confusion counts.

Each statistic takes a `Confusion` of any leading shape and gives an array of that shape, NaN where it does not exist.
In the formulas p[i, j] is the share of pairs with true label i and predicted label j, r and c are its row and column
sums, q = (r + c) / 2, k is the number of labels, and d[i, j] is how far apart labels i and j are: `nominal` 0 or 1,
`linear` |i - j|, `quadratic` (i - j)^2, by the labels' values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from llmrank.agree.confusion import Array, Confusion

Distance = Callable[[Array], Array]


def _nominal(labels: Array) -> Array:
    return 1.0 - np.eye(len(labels))


def _linear(labels: Array) -> Array:
    return np.abs(labels[:, None] - labels)


def _quadratic(labels: Array) -> Array:
    return np.square(labels[:, None] - labels)


DISTANCES: dict[str | None, Distance] = {None: _nominal, "linear": _linear, "quadratic": _quadratic}
"""Distances between labels by the name of the weights of kappa."""


def cohen_kappa(confusion: Confusion, weights: str | None = None) -> Array:
    """Cohen's kappa: 1 - sum d p / sum d r c.

    Each labeller's own shares of labels are taken as chance. Does not exist where both use one and the same label.
    Cohen 1960, Educ. Psychol. Meas. 20; weighted: Cohen 1968, Psychol. Bull. 70.
    """
    distance = DISTANCES[weights](confusion.labels)
    expected = ((confusion.rows @ distance) * confusion.columns).sum(-1)
    return 1 - _ratio(confusion.weighted(distance) * confusion.total, expected)


def scott_pi(confusion: Confusion) -> Array:
    """Scott's pi: 1 - (1 - sum p[i, i]) / (1 - sum q^2).

    As kappa, but chance is the labellers' common share of each label. Scott 1955, Public Opinion Quarterly 19.
    """
    observed = confusion.weighted(_nominal(confusion.labels))
    both = confusion.rows + confusion.columns
    expected = np.square(both.sum(-1)) - np.square(both).sum(-1)
    return 1 - _ratio(4 * observed * confusion.total, expected)


def krippendorff_alpha(confusion: Confusion, level: str = "nominal") -> Array:
    """Krippendorff's alpha for two labellers without missing labels: 1 - D_o / D_e.

    With n labels in all (twice the pairs), n_i of them i: D_o = sum d p, D_e = sum_ij n_i n_j d[i, j] / (n (n - 1)).
    d is nominal, or for `interval` quadratic, or for `ordinal` the square of the labels between i and j, the two
    themselves counted half. Does not exist where all labels are one. Krippendorff 2019, Content Analysis, ch. 12.
    """
    both = confusion.rows + confusion.columns
    n = both.sum(-1)
    if level == "ordinal":
        rank = np.cumsum(both, axis=-1) - both / 2
        distance = np.square(rank[..., :, None] - rank[..., None, :])
        observed = (confusion.counts * distance).sum((-1, -2))
        # Moments of the ranks in place of k x k products: sum_ij n_i n_j (R_i - R_j)^2 = 2 (n S2 - S1^2).
        first, second = (both * rank).sum(-1), (both * np.square(rank)).sum(-1)
        expected = 2 * (n * second - np.square(first))
    else:
        weights = _nominal(confusion.labels) if level == "nominal" else _quadratic(confusion.labels)
        observed = confusion.weighted(weights)
        expected = ((both @ weights) * both).sum(-1)
    return 1 - _ratio(2 * observed * (n - 1), expected)


def gwet(confusion: Confusion, weights: str | None = None) -> Array:
    """Gwet's AC1 (no weights) and AC2 (weights): (A - E) / (1 - E), A = sum w p, E = sum w / (k (k-1)) sum q (1-q).

    w = 1 - d / max d. Less moved than kappa by labels of which one is far more frequent. The labels are those of the
    scale, used or not. Gwet 2008, Br. J. Math. Stat. Psychol. 61; 2014, Handbook of Inter-Rater Reliability, ch. 4.
    """
    k = confusion.k
    if k < 2:
        return np.full(np.shape(confusion.total), np.nan)
    distance = DISTANCES[weights](confusion.labels)
    agreement = 1 - distance / distance.max()
    share = _ratio((confusion.rows + confusion.columns) / 2, confusion.total[..., None])
    chance = agreement.sum() / (k * (k - 1)) * (share * (1 - share)).sum(-1)
    return _ratio(_ratio(confusion.weighted(agreement), confusion.total) - chance, 1 - chance)


def brennan_prediger(confusion: Confusion) -> Array:
    """Brennan and Prediger's coefficient: (A - 1/k) / (1 - 1/k), A the share of equal labels, chance uniform.

    The labels are those of the scale, used or not. Brennan & Prediger 1981, Educ. Psychol. Meas. 41.
    """
    if confusion.k < 2:
        return np.full(np.shape(confusion.total), np.nan)
    return np.asarray((accuracy(confusion) - 1 / confusion.k) / (1 - 1 / confusion.k))


def accuracy(confusion: Confusion) -> Array:
    """Share of pairs with equal labels: sum p[i, i]."""
    return _ratio(confusion.weighted(np.eye(confusion.k)), confusion.total)


def mean_absolute_error(confusion: Confusion) -> Array:
    """Mean of |predicted - truth|."""
    return _ratio(confusion.weighted(_linear(confusion.labels)), confusion.total)


def bias(confusion: Confusion) -> Array:
    """Mean of predicted - truth: above 0 for a lenient judge."""
    return _ratio(confusion.weighted(confusion.labels - confusion.labels[:, None]), confusion.total)


def precision(confusion: Confusion) -> Array:
    """Of the pairs whose predicted label is the highest, the share whose true label is too (for two labels)."""
    return _ratio(confusion.counts[..., -1, -1], confusion.columns[..., -1])


def recall(confusion: Confusion) -> Array:
    """Of the pairs whose true label is the highest, the share whose predicted label is too (for two labels)."""
    return _ratio(confusion.counts[..., -1, -1], confusion.rows[..., -1])


def hit_rates(confusion: Confusion) -> Array:
    """Shape (..., k): of the pairs with each true label, the share that has it predicted. NaN for a label unused."""
    return _ratio(np.diagonal(confusion.counts, axis1=-2, axis2=-1), confusion.rows)


class Statistic(NamedTuple):
    """A statistic with the sentence that is said where it does not exist."""

    function: Callable[[Confusion], Array]
    missing: str


_ONE_LABEL = "truth and prediction use one label only, so there is no chance agreement to correct for"
_ONE_LABEL_SCALE = "the scale has one label only"

STATISTICS: dict[str, Statistic] = {
    "kappa": Statistic(cohen_kappa, _ONE_LABEL),
    "kappa_linear": Statistic(partial(cohen_kappa, weights="linear"), _ONE_LABEL),
    "kappa_quadratic": Statistic(partial(cohen_kappa, weights="quadratic"), _ONE_LABEL),
    "scott_pi": Statistic(scott_pi, _ONE_LABEL),
    "alpha_nominal": Statistic(krippendorff_alpha, _ONE_LABEL),
    "alpha_ordinal": Statistic(partial(krippendorff_alpha, level="ordinal"), _ONE_LABEL),
    "alpha_interval": Statistic(partial(krippendorff_alpha, level="interval"), _ONE_LABEL),
    "ac1": Statistic(gwet, _ONE_LABEL_SCALE),
    "ac2": Statistic(partial(gwet, weights="quadratic"), _ONE_LABEL_SCALE),
    "brennan_prediger": Statistic(brennan_prediger, _ONE_LABEL_SCALE),
    "accuracy": Statistic(accuracy, "there are no pairs"),
    "mae": Statistic(mean_absolute_error, "there are no pairs"),
    "bias": Statistic(bias, "there are no pairs"),
}
"""The statistics of labels, by name."""

BINARIZED: dict[str, Statistic] = {
    **{name: STATISTICS[name] for name in ("kappa", "alpha_nominal", "ac1", "accuracy")},
    "precision": Statistic(precision, "no pair is predicted relevant"),
    "recall": Statistic(recall, "no pair is relevant"),
}
"""The statistics of labels cut into relevant and not, by name."""


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The quotient, NaN where the denominator is 0 but for rounding."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=np.abs(bottom) > 1e-12))
