"""Products in slices are the products."""

from __future__ import annotations

import numpy as np
import pytest

from llmrank.aggregate.products import product, together


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(0, 3, 4), (5, 1, 1), (100, 100, 100), (2000, 100, 100), (2001, 37, 90), (40, 300, 300)]
)
def test_slices_add_up(shape, kind):
    rows, columns, others = shape
    rng = np.random.default_rng(rows)
    left, right = rng.normal(size=(rows, columns)).astype(kind), rng.normal(size=(columns, others)).astype(kind)
    beside = rng.normal(size=(rows, others)).astype(kind)
    tolerance = 1e-3 if kind is np.float32 else 1e-10
    for found, expected in ((product(left, right), left @ right), (together(left, beside), left.T @ beside)):
        assert found.dtype == kind
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_counts_of_draws_are_exact():
    drawn = np.random.default_rng(0).random((2000, 100)) < 0.1
    counted = together(drawn.astype(np.float32), drawn.astype(np.float32))
    np.testing.assert_array_equal(counted, drawn.astype(int).T @ drawn.astype(int))
