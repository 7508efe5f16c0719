"""Products of small matrices in one thread: on busy cores the threads of BLAS take ten times the time they save."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64)

ALONE = 200_000
"""Multiplications in a product that OpenBLAS leaves to one thread: it shares out from 4 x 65,536 on."""
LARGE = 200
"""From so many columns on both sides threads are worth their while."""


def product(left: NDArray[Real], right: NDArray[Real]) -> NDArray[Real]:
    """left @ right, whose rows are cut into slices where both are small."""
    step = ALONE // max(1, left.shape[1] * right.shape[1])
    if step < 2 or max(left.shape[1], right.shape[1]) > LARGE:
        return left @ right
    result = np.empty((left.shape[0], right.shape[1]), dtype=left.dtype)
    for start in range(0, len(left), step):
        np.matmul(left[start : start + step], right, out=result[start : start + step])
    return result


def together(left: NDArray[Real], right: NDArray[Real]) -> NDArray[Real]:
    """left.T @ right for a few columns and many rows, added up over slices of these."""
    step = ALONE // max(1, left.shape[1] * right.shape[1])
    if step < 2 or max(left.shape[1], right.shape[1]) > LARGE:
        return left.T @ right
    result = np.zeros((left.shape[1], right.shape[1]), dtype=left.dtype)
    for start in range(0, len(left), step):
        result += left[start : start + step].T @ right[start : start + step]
    return result
