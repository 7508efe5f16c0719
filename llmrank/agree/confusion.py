"""Confusion counts: how many pairs have which true and which predicted label; every label statistic follows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Confusion:
    """Confusion counts, one table or any number of them at once."""

    counts: Array
    """Shape (..., k, k): pairs with the true label of the row and the predicted label of the column."""
    labels: Array
    """Shape (k,): the labels as numbers, rising."""

    @classmethod
    def of(cls, truth: ArrayLike, predicted: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> Confusion:
        """Count pairs: shape (number of groups, k, k).

        truth, predicted : a label a pair, each one of `labels`.
        labels : all labels there are, rising.
        groups : the group (topic) of each pair, numbered from 0.
        """
        known = np.asarray(labels, dtype=np.float64)
        k = len(known)
        sides = [np.asarray(side, dtype=np.float64) for side in (truth, predicted)]
        if not np.isin(np.concatenate(sides), known).all():
            raise ValueError("every label must be one of the labels there are")
        group = np.asarray(groups, dtype=np.int64)
        rows, columns = (np.searchsorted(known, side) for side in sides)
        n = int(group.max(initial=-1)) + 1
        counts = np.bincount((group * k + rows) * k + columns, minlength=n * k * k)
        return cls(counts.reshape(n, k, k).astype(np.float64), known)

    @cached_property
    def rows(self) -> Array:
        """Shape (..., k): pairs with each true label."""
        return np.asarray(self.counts.sum(-1))

    @cached_property
    def columns(self) -> Array:
        """Shape (..., k): pairs with each predicted label."""
        return np.asarray(self.counts.sum(-2))

    @cached_property
    def total(self) -> Array:
        """Shape (...): all pairs."""
        return np.asarray(self.rows.sum(-1))

    @property
    def k(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    def weighted(self, weights: Array) -> Array:
        """Shape (...): the sum of the counts times a (k, k) table of weights."""
        return np.asarray(self.counts.reshape(*self.counts.shape[:-2], self.k**2) @ weights.ravel())

    def reversed(self) -> Confusion:
        """The tables that predicted labels would give that are read from the other end of the scale."""
        return Confusion(self.counts[..., ::-1], self.labels)

    def pooled(self) -> Confusion:
        """All tables added to one."""
        return Confusion(self.counts.sum(axis=tuple(range(self.counts.ndim - 2))), self.labels)

    def binarized(self, cut: float) -> Confusion:
        """Tables of two labels: 0 below the cut, 1 from it on."""
        side = (self.labels >= cut).astype(np.float64)
        sides = np.stack([1 - side, side])
        return Confusion(sides @ self.counts @ sides.T, np.array([0.0, 1.0]))
