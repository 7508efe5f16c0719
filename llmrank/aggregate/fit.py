"""Maximum likelihood of the Bradley-Terry and Davidson models: Newman's iteration, then Newton's; one fit or many.

Both models in one form, with d = theta_i - theta_j the difference of two items' log-strengths:

    P(i wins) = e^(d/2) / z,  P(j wins) = e^(-d/2) / z,  P(tie) = 2v / z,  z = e^(d/2) + e^(-d/2) + 2v.

v = 0 is Bradley-Terry, in which a tie counts half a win to each; Davidson (1970) writes nu = 2v. The log-likelihood
sum [(won - lost) d / 2 - met log z] + tied log 2v is concave in (theta, log v), so Newton's steps with halving end at
its maximum wherever there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import cg

from llmrank.aggregate.results import Floats
from llmrank.aggregate.tally import DENSE_CELLS, Tally

DENSE_SIZE = 300
"""Up to so many items Newton's equations are solved by Cholesky, above by conjugate gradients."""


class Fit(NamedTuple):
    """Log-strengths that sum to 0, and half of Davidson's tie parameter."""

    theta: Floats
    v: float

    @property
    def strengths(self) -> Floats:
        """Positive strengths that sum to 1."""
        return softmax(self.theta)


class Local(NamedTuple):
    """First and second derivatives of the log-likelihood at one point, pair by pair."""

    slope: Floats
    """d/dd of each pair's log-likelihood."""
    curve: Floats
    """-d2/dd2 of each pair's log-likelihood."""
    cross: Floats
    """-d2/(dd dlog v) of each pair's."""
    tie_slope: float
    tie_curve: float


def softmax(theta: Floats) -> Floats:
    """exp(theta) scaled to the sum 1, along the last axis."""
    raised = np.exp(theta - theta.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def exists(tally: Tally, ties: bool) -> bool:
    """Whether the likelihood has a maximum.

    Bradley-Terry: exactly where chains of wins lead from every item to every other (Ford 1957), a tie being a link
    both ways. Davidson's tie parameter asks for more: the tie's probability must not be able to grow with the
    differences, i.e. no theta has d >= 2 along all wins and |d| <= 2 along all ties. Such a theta is a feasible
    potential of a difference system, which exists unless the system's graph has a negative cycle.
    """
    if tally.strong[0] != 1:
        return False
    if not ties or not tally.tied.any():
        return True
    first_won, second_won, tied = tally.won > 0, tally.lost > 0, tally.tied > 0
    if (first_won & second_won).any() or tally.linked(first_won, second_won, "strong")[0] < tally.size:
        return True  # wins in a circle
    plain = tied & ~first_won & ~second_won
    # Edge u -> w of length c says theta_w <= theta_u + c; a pair with a win and a tie has d = 2 exactly.
    edges = [
        (tally.first[first_won], tally.second[first_won], -2.0),
        (tally.second[second_won], tally.first[second_won], -2.0),
        (tally.second[first_won & tied], tally.first[first_won & tied], 2.0),
        (tally.first[second_won & tied], tally.second[second_won & tied], 2.0),
        (tally.first[plain], tally.second[plain], 2.0),
        (tally.second[plain], tally.first[plain], 2.0),
    ]
    start, end = (np.concatenate([edge[side] for edge in edges]) for side in (0, 1))
    length = np.concatenate([np.full(len(edge[0]), edge[2]) for edge in edges])
    graph = sparse.csr_array((length, (start, end)), shape=(tally.size, tally.size))
    try:
        csgraph.bellman_ford(graph, directed=True, indices=np.array([0]))
    except csgraph.NegativeCycleError:
        return True
    return False


def fit(tally: Tally, ties: bool, prior: float = 0.0, start: Fit | None = None) -> Fit:
    """The maximum of the log-likelihood, or with a prior of the log-posterior.

    The prior is `prior` wins and as many losses of each item against one of average strength. Without it the maximum
    must exist; where nothing but ties is known the strengths are equal. Newman's iteration ("Efficient computation of
    rankings from pairwise comparisons", JMLR 24, 2023) runs until its steps are small, Newton's method from there on.
    """
    if not (tally.won + tally.lost).any():
        return Fit(np.zeros(tally.size), 0.0)
    ties = ties and bool(tally.tied.any())
    theta = np.zeros(tally.size) if start is None else start.theta
    v = 0.0 if not ties else 0.5 if start is None else max(start.v, 1e-3)
    theta, v = _newman(tally, theta, v, prior)
    return _newton(tally, theta, v, prior)


def _newman(tally: Tally, theta: Floats, v: float, prior: float) -> tuple[Floats, float]:
    """theta_i += log(sum_j w_ij E_ji / sum_j w_ji E_ij), w with ties half, E_ij the expected share of i against j."""
    first_won, second_won = tally.half()
    decided, tied = tally.won + tally.lost, tally.tied
    for _ in range(30):
        a, b, z = _odds(tally, theta, v)
        share = (a + v) / z
        up = tally.per_item(first_won * (1 - share), second_won * share)
        down = tally.per_item(second_won * share, first_won * (1 - share))
        if prior:
            against = 1 / (1 + np.exp(-theta))
            up, down = up + prior * (1 - against), down + prior * against
        step = np.log(up / down)
        step -= 0.0 if prior else step.mean()
        theta = theta + step
        if v:
            v = float((tied * (a + b) / z).sum() / (decided * 2 / z).sum())
        if np.abs(step).max(initial=0.0) < 1e-4:
            break
    return theta, v


def _newton(tally: Tally, theta: Floats, v: float, prior: float) -> Fit:
    for _ in range(200):
        step, tie_step = _step(tally, theta, v, prior)
        size = max(float(np.abs(step).max(initial=0.0)), abs(tie_step))
        share = min(1.0, 5.0 / size) if size else 1.0
        new, new_v = theta + share * step, v * float(np.exp(share * tie_step))
        if size > 0.01:  # below, a full step never falls
            height = _log_likelihood(tally, theta, v, prior)
            while _log_likelihood(tally, new, new_v, prior) < height - 1e-12 * abs(height) and share > 1e-6:
                share /= 2
                new, new_v = theta + share * step, v * float(np.exp(share * tie_step))
        theta, v = new, new_v
        if size < 1e-7:  # the next would be some 1e-14
            break
    return Fit(theta if prior else theta - theta.mean(), v)


def _odds(tally: Tally, theta: Floats, v: float) -> tuple[Floats, Floats, Floats]:
    """e^(d/2), e^(-d/2) and z of each pair."""
    root = np.exp(theta / 2)
    a = root[tally.first] / root[tally.second]
    b = 1 / a
    return a, b, a + b + 2 * v


def _log_likelihood(tally: Tally, theta: Floats, v: float, prior: float) -> float:
    a, _, z = _odds(tally, theta, v)
    total = float(((tally.won - tally.lost) * np.log(a) - tally.met * np.log(z)).sum())
    total += float(tally.tied.sum()) * float(np.log(2 * v)) if v else 0.0
    return total - 2 * prior * float(np.log(2 * np.cosh(theta / 2)).sum()) if prior else total


def local(tally: Tally, theta: Floats, v: float) -> Local:
    """The derivatives of the log-likelihood, pair by pair."""
    a, b, z = _odds(tally, theta, v)
    met = tally.met
    mean = (a - b) / (2 * z)
    tie = 2 * v / z
    return Local(
        slope=(tally.won - tally.lost) / 2 - met * mean,
        curve=met * ((a + b) / (4 * z) - mean**2),
        cross=-met * mean * tie,
        tie_slope=float(tally.tied.sum() - (met * tie).sum()),
        tie_curve=float((met * tie * (1 - tie)).sum()),
    )


def _step(tally: Tally, theta: Floats, v: float, prior: float) -> tuple[Floats, float]:
    """Newton's step in theta and log v, by eliminating the tie parameter from the bordered system."""
    at = local(tally, theta, v)
    slope = tally.per_item(at.slope, -at.slope)
    ridge = np.zeros(tally.size)
    if prior:
        against = 1 / (1 + np.exp(-theta))
        slope = slope - prior * (2 * against - 1)
        ridge = 2 * prior * against * (1 - against)
    solve = _solver(tally, at.curve, ridge)
    step = solve(slope)
    if not v:
        return step, 0.0
    border = tally.per_item(at.cross, -at.cross)
    bend = solve(border)
    tie_step = (at.tie_slope - float(border @ step)) / (at.tie_curve - float(border @ bend))
    return step - bend * tie_step, tie_step


def _solver(tally: Tally, curve: Floats, ridge: Floats) -> Callable[[Floats], Floats]:
    """Solves (Laplacian of `curve` + diag(ridge)) x = y; without a ridge, the x that sums to 0."""
    if tally.size <= DENSE_SIZE:
        factor = linalg.cho_factor(laplacian(tally, curve, ridge), lower=True, overwrite_a=True, check_finite=False)
        return lambda y: np.asarray(linalg.cho_solve(factor, y, check_finite=False))
    diagonal = tally.per_item(curve, curve) + ridge
    matrix: Floats | sparse.csr_array
    if len(curve) > 0.02 * tally.size**2 and tally.size**2 <= DENSE_CELLS:
        matrix = bordered(tally, curve, curve, None)
        matrix[np.diag_indices(tally.size)] = diagonal
    else:
        links = sparse.csr_array((-curve, (tally.first, tally.second)), shape=(tally.size, tally.size))
        matrix = (links + links.T + sparse.diags_array(diagonal)).tocsr()
    scale = sparse.diags_array(1 / diagonal)

    def solve(y: Floats) -> Floats:
        y = y if ridge.any() else y - y.mean()
        x = np.asarray(cg(matrix, y, rtol=1e-10, maxiter=5 * tally.size, M=scale)[0])
        return x if ridge.any() else x - x.mean()

    return solve


def laplacian(tally: Tally, curve: Floats, ridge: Floats) -> Floats:
    """The full matrix of second derivatives in theta; where it is singular, along (1, ..., 1), it is made regular."""
    matrix = bordered(tally, curve, curve, None)
    if ridge.any():
        matrix[np.diag_indices(tally.size)] += ridge
    else:
        matrix += np.trace(matrix) / tally.size**2
    return matrix


def bordered(tally: Tally, curve: Floats, cross: Floats, corner: float | None) -> Floats:
    """The matrix with the quadratic form sum curve d^2 + 2 u cross d + corner u^2; without a corner, without u."""
    size = tally.size
    matrix = np.zeros((size + (corner is not None),) * 2)
    matrix[tally.first, tally.second] = matrix[tally.second, tally.first] = -curve
    matrix[np.arange(size), np.arange(size)] = tally.per_item(curve, curve)
    if corner is not None:
        matrix[size, :size] = matrix[:size, size] = tally.per_item(cross, -cross)
        matrix[size, size] = corner
    return matrix


def information(tally: Tally, at: Fit, prior: float = 0.0) -> Floats:
    """The full observed information in theta and, where v > 0, log v as the last row and column."""
    here = local(tally, at.theta, at.v)
    against = 1 / (1 + np.exp(-at.theta))
    matrix = laplacian(tally, here.curve, 2 * prior * against * (1 - against))
    if not at.v:
        return matrix
    with_tie = bordered(tally, here.curve, here.cross, here.tie_curve)
    with_tie[: tally.size, : tally.size] = matrix
    return with_tie
