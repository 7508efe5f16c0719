"""Scores from walks over the win graph: PageRank, the leading eigenvector, and rank centrality."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import linalg

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.counts import estimated
from llmrank.aggregate.results import Floats, Scores
from llmrank.aggregate.strengths import WEAK_PRIOR
from llmrank.aggregate.tally import Tally
from llmrank.errors import InputError


def pagerank(
    comparisons: Comparisons, damping: float = 0.85, bootstrap: int = 0, seed: int = 0, level: float = 0.95
) -> Scores:
    """PageRank of the graph in which each loser links to its winners, a tie half a link each way; sums to 1.

    The stationary distribution of the walk that, from item j, goes with chance `damping` to an item that beat j, in
    proportion to its wins over j, and else to any item; from an item that never lost it goes to any item. Solved as a
    linear system, so exact up to rounding. It exists for every graph; a disconnected one is noted. Page et al. (1999).
    """
    if not 0 <= damping < 1:
        raise InputError(f"damping is {damping}: it lies in [0, 1), e.g. 0.85")
    return estimated("pagerank", comparisons, lambda tally: _pagerank(tally, damping), bootstrap, seed, level)


def eigenvector(comparisons: Comparisons, bootstrap: int = 0, seed: int = 0, level: float = 0.95) -> Scores:
    """The leading eigenvector of M, M[i, j] = wins of i over j with a tie half to each; positive, of Euclidean norm 1.

    A win counts as much as the beaten item's own score (Kendall 1955, Wei 1952). Unique and positive where chains of
    wins lead from every item to every other (Perron-Frobenius); elsewhere `WEAK_PRIOR` wins of each item, spread over
    all others, are added and the note says so.
    """
    return _with_weak_prior("eigenvector", comparisons, _eigenvector, bootstrap, seed, level)


def rank_centrality(comparisons: Comparisons, bootstrap: int = 0, seed: int = 0, level: float = 0.95) -> Scores:
    """Stationary distribution of the walk that leaves i for j at the rate at which j beats i; sums to 1.

    The rate from i to j is the share of their comparisons that j won, a tie half; the number of comparisons of a pair
    does not count. Consistent for Bradley-Terry strengths (Negahban, Oh and Shah 2012, "Rank Centrality"). Where wins
    do not lead from every item to every other, as for `eigenvector`.
    """
    return _with_weak_prior("rank-centrality", comparisons, _rank_centrality, bootstrap, seed, level)


def _pagerank(tally: Tally, damping: float) -> Floats:
    size = tally.size
    wins = tally.matrix()
    lost = wins.sum(axis=0)
    walk = np.divide(wins, lost, out=np.full((size, size), 1.0 / size), where=lost > 0)
    return _scaled(linalg.solve(np.eye(size) - damping * walk, np.full(size, (1 - damping) / size)))


def _eigenvector(matrix: Floats) -> Floats:
    scale = matrix.sum(axis=0).max()
    # The shift keeps a matrix of period two (two items, say) from swinging; it changes no eigenvector.
    step = matrix / scale + 0.1 * np.eye(len(matrix))
    vector = np.full(len(matrix), 1.0 / len(matrix))
    for _ in range(2000):
        new = step @ vector
        new /= np.linalg.norm(new)
        if np.abs(new - vector).max() < 1e-14:
            return np.asarray(new)
        vector = new
    values, vectors = np.linalg.eig(step)
    leading = np.abs(np.real(vectors[:, np.argmax(values.real)]))
    return np.asarray(leading / np.linalg.norm(leading))


def _rank_centrality(matrix: Floats) -> Floats:
    met = matrix + matrix.T
    rate = np.divide(matrix.T, met, out=np.zeros_like(matrix), where=met > 0)
    flow = rate.T - np.diag(rate.sum(axis=1))
    # One balance equation follows from the others; the sum takes its place.
    flow[-1] = 1.0
    return _scaled(linalg.solve(flow, np.append(np.zeros(len(matrix) - 1), 1.0)))


def _with_weak_prior(
    method: str,
    comparisons: Comparisons,
    score: Callable[[Floats], Floats],
    bootstrap: int,
    seed: int,
    level: float,
) -> Scores:
    """Score the win matrix, with a little of every win added to a tally whose scores would not exist without."""

    def estimate(tally: Tally) -> Floats:
        matrix = tally.matrix()
        if tally.strong[0] > 1:
            matrix += WEAK_PRIOR / (tally.size - 1) * (1 - np.eye(tally.size))
        return score(matrix)

    remark = None
    if comparisons.n and comparisons.tally.strong[0] > 1:
        remark = (
            f"The scores do not exist as such: {WEAK_PRIOR:g} wins of each item, spread over the others, were added."
        )
    return estimated(method, comparisons, estimate, bootstrap, seed, level, remark=remark)


def _scaled(value: Floats) -> Floats:
    value = np.clip(value, 0.0, None)
    return np.asarray(value / value.sum())
