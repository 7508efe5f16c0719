"""Bradley-Terry as a regression: strengths together with what else decides, such as position or length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import expit, ndtri

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.diagnosis import limits
from llmrank.aggregate.fit import softmax
from llmrank.aggregate.resample import check_level
from llmrank.aggregate.results import Floats, Scores, sentence
from llmrank.aggregate.strengths import WEAK_PRIOR
from llmrank.errors import InputError


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a covariate on the log-odds that left wins, per unit of it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Regression(Scores):
    """Strengths with the covariates' effects taken out, and those effects."""

    effects: Mapping[str, Effect] = field(default_factory=dict)
    """By the covariate's name; `position` is the log-odds by which being shown first (left) helps."""


def bradley_terry_regression(
    comparisons: Comparisons,
    covariates: Mapping[str, Sequence[float] | NDArray[Any]] | None = None,
    position: bool = True,
    level: float = 0.95,
) -> Regression:
    """Strengths that sum to 1, with covariates of the comparison held equal.

    logit P(left wins) = theta_left - theta_right + b_position + sum_c b_c x_c, by maximum likelihood; a tie is half a
    win, a share of the win part win, part loss. Each covariate has one number x_c a comparison, counted in favour of
    left (for length: that of left less that of right); scale it as you want its effect read. Intervals from the
    inverse information, those of strengths on the log scale. Where no maximum exists (see `bradley_terry`; also where
    a covariate tells winners apart without error) a weak normal prior holds it and the note says so.
    """
    check_level(level)
    rows, said, size = comparisons.rows, limits(comparisons), len(comparisons.items)
    columns = {"position": np.ones(len(comparisons.left))} if position else {}
    columns |= {name: np.asarray(column, dtype=np.float64) for name, column in (covariates or {}).items()}
    for name, column in columns.items():
        if len(column) != len(comparisons.left) or not np.isfinite(column).all():
            raise InputError(
                f"covariate {name} needs one finite number for each of {len(comparisons.left)} comparisons"
            )
    if not comparisons.n:
        note = sentence(*said)
        return Regression("bradley-terry-regression", (), np.zeros(0), None, None, 0, note, comparisons=comparisons)
    extra = np.column_stack([column[rows.kept] for column in columns.values()] or [np.zeros((comparisons.n, 0))])
    design = _Design(comparisons, extra)
    point, converged = design.fit(1e-9)
    if not converged:
        point, _ = design.fit(WEAK_PRIOR)
        said.append(
            f"Maximum-likelihood estimates do not exist: values are MAP under a weak prior of precision {WEAK_PRIOR:g}."
        )
    covariance = linalg.inv(design.information(point, 1e-9 if converged else WEAK_PRIOR))
    theta = point[:size]
    p = softmax(theta)
    lever = np.eye(size) - p
    deviation = np.sqrt(np.clip(np.einsum("ij,jk,ik->i", lever, covariance[:size, :size], lever), 0.0, None))
    z = float(ndtri((1 + level) / 2))
    effects = {
        name: Effect(float(point[i]), *(float(point[i] + side * z * np.sqrt(covariance[i, i])) for side in (-1, 1)))
        for i, name in enumerate(columns, start=size)
    }
    low, high = p * np.exp(-z * deviation), p * np.exp(z * deviation)
    items, n, note = comparisons.items, comparisons.n, sentence(*said)
    return Regression("bradley-terry-regression", items, p, low, high, n, note, None, comparisons, effects)


class _Design:
    """The logistic regression of the comparisons on item indicators and covariates."""

    def __init__(self, comparisons: Comparisons, extra: Floats) -> None:
        rows = comparisons.rows
        self.left, self.right, self.share, self.extra = rows.left, rows.right, rows.share, extra
        self.weight = np.ones(len(rows.left)) if rows.weight is None else rows.weight
        self.size = len(rows.items)

    def fit(self, ridge: float) -> tuple[Floats, bool]:
        """Newton's method under a normal prior of this precision, and whether it settled on finite estimates."""
        point = np.zeros(self.size + self.extra.shape[1])
        for _ in range(60):
            step = linalg.solve(self.information(point, ridge), self._slope(point, ridge), assume_a="pos")
            point = point + step * min(1.0, 3.0 / max(float(np.abs(step).max()), 1e-300))
            if np.abs(step).max() < 1e-9:
                return point, bool(np.abs(self._linear(point)).max() < 25)
        return point, False

    def information(self, point: Floats, ridge: float) -> Floats:
        chance = expit(self._linear(point))
        curve = self.weight * chance * (1 - chance)
        size, matrix = self.size, ridge * np.eye(len(point))
        cells = np.bincount(self.left * size + self.right, weights=curve, minlength=size * size).reshape(size, size)
        cells = cells + cells.T
        matrix[:size, :size] += np.diag(cells.sum(axis=1)) - cells
        # Strengths are free up to a constant; this fixes it without touching differences.
        matrix[:size, :size] += 1.0 / size
        bent = curve[:, None] * self.extra
        for c in range(self.extra.shape[1]):
            border = self._per_item(bent[:, c])
            matrix[:size, size + c] += border
            matrix[size + c, :size] += border
        matrix[size:, size:] += self.extra.T @ bent
        return np.asarray(matrix)

    def _slope(self, point: Floats, ridge: float) -> Floats:
        residual = self.weight * (self.share - expit(self._linear(point)))
        return np.concatenate([self._per_item(residual), residual @ self.extra]) - ridge * point

    def _linear(self, point: Floats) -> Floats:
        theta = point[: self.size]
        return np.asarray(theta[self.left] - theta[self.right] + self.extra @ point[self.size :])

    def _per_item(self, values: Floats) -> Floats:
        left = np.bincount(self.left, weights=values, minlength=self.size)
        return np.asarray(left - np.bincount(self.right, weights=values, minlength=self.size), dtype=np.float64)
