"""Comparisons coded for arithmetic, and what they add up to: by pair (tally) and by alike rows (cells)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from llmrank.aggregate.results import Floats, Ints

Flags = NDArray[np.bool_]

DENSE_CELLS = 4_000_000
"""Up to so many (item, item) cells pairs are found through a full matrix, which is faster than sorting."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Comparisons coded for arithmetic: items are positions in `items`."""

    items: tuple[Hashable, ...]
    left: Ints
    right: Ints
    share: Floats
    """Left's share of the win."""
    weight: Floats | None
    """None: all 1."""
    cluster: Ints | None
    kept: Ints
    """The position of each in the columns as given."""
    self_comparisons: int

    @property
    def first_share(self) -> Floats:
        """The share of the win of whichever item comes first in `items`."""
        return np.where(self.left < self.right, self.share, 1.0 - self.share)

    @property
    def plain(self) -> bool:
        """Whether every comparison is a win, a loss or a tie that counts once."""
        double = 2 * self.share
        return self.weight is None and bool((double == np.floor(double)).all())

    @property
    def place(self) -> Ints:
        """The pair of each row as first * size + second."""
        return np.minimum(self.left, self.right) * len(self.items) + np.maximum(self.left, self.right)


@dataclass(frozen=True, eq=False)
class Tally:
    """What each pair's comparisons add up to; one entry for each pair that met, `first` before `second` in `items`.

    A share between 0 and 1 other than one half counts as part win, part loss; one half is a tie.
    """

    size: int
    """How many items there are."""
    first: Ints
    second: Ints
    won: Floats
    """Weight that first won of second."""
    lost: Floats
    """Weight that second won of first."""
    tied: Floats
    """Weight of the ties."""

    @cached_property
    def met(self) -> Floats:
        """Weight of the pair's comparisons."""
        return self.won + self.lost + self.tied

    def half(self) -> tuple[Floats, Floats]:
        """Wins of first and of second, a tie half to each."""
        return self.won + self.tied / 2, self.lost + self.tied / 2

    def per_item(self, first: Floats, second: Floats) -> Floats:
        """Add up one value for each pair's first and one for its second item by item."""
        added = np.bincount(self.second, weights=second, minlength=self.size).astype(np.float64)
        starts, items = self._runs
        if len(starts):
            added[items] += np.add.reduceat(first, starts)
        return added

    @cached_property
    def _runs(self) -> tuple[Ints, Ints]:
        """Where the pairs of each first item begin, for they stand together; and those items."""
        starts = np.flatnonzero(np.diff(self.first, prepend=-1))
        return starts, self.first[starts]

    def matrix(self) -> Floats:
        """M[i, j] = wins of i over j, a tie half to each."""
        table = np.zeros((self.size, self.size))
        table[self.first, self.second], table[self.second, self.first] = self.half()
        return table

    def counts(self, won: Floats, lost: Floats, tied: Floats) -> Tally:
        """The same pairs with other counts."""
        return Tally(self.size, self.first, self.second, won, lost, tied)

    @cached_property
    def strong(self) -> tuple[int, Ints]:
        """How many groups of items chains of wins both ways link (a tie counts both ways), and each item's group."""
        tied = self.tied > 0
        first, second = (self.won > 0) | tied, (self.lost > 0) | tied
        if self.size and self.size**2 <= DENSE_CELLS and len(first) > self.size:
            beats = np.zeros((self.size, self.size), dtype=bool)
            beats[self.first, self.second], beats[self.second, self.first] = first, second
            if _reaches_all(beats) and _reaches_all(beats.T):
                return 1, np.zeros(self.size, dtype=np.int64)
        return self.linked(first, second, "strong")

    def linked(self, first: Flags, second: Flags, connection: Literal["weak", "strong"]) -> tuple[int, Ints]:
        """Components of the graph with an edge first -> second where `first` holds, and back where `second` does."""
        start = np.concatenate([self.first[first], self.second[second]])
        end = np.concatenate([self.second[first], self.first[second]])
        graph = sparse.csr_array((np.ones(len(start), dtype=np.int8), (start, end)), shape=(self.size, self.size))
        count, label = csgraph.connected_components(graph, directed=True, connection=connection)
        return int(count), label.astype(np.int64)


def _reaches_all(edges: Flags) -> bool:
    """Whether paths lead from the first item to all, by breadth; in dense graphs that is two or three looks."""
    seen = np.zeros(len(edges), dtype=bool)
    new = np.zeros(len(edges), dtype=bool)
    new[0] = True
    while new.any():
        seen |= new
        new = edges[new].any(axis=0) & ~seen
    return bool(seen.all())


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Comparisons that are alike, counted: one entry for each pair, share and weight that occurs, sorted by them."""

    pair: Ints
    """The number of the pair in the tally."""
    share: Floats
    """First's share of the win."""
    weight: Floats
    count: Ints
    by_cluster: sparse.csr_array | None
    """Clusters x cells: how many comparisons of each; None without clusters."""


def tallied(rows: Rows) -> Tally:
    """The comparisons added up by pair."""
    size = len(rows.items)
    if rows.plain and size * size <= DENSE_CELLS:
        return _tallied_by_matrix(rows, size)
    key, places = _pairs(rows)
    share = rows.first_share
    weight = np.ones(len(share)) if rows.weight is None else rows.weight
    tie = share == 0.5
    parts = (np.where(tie, 0.0, weight * share), np.where(tie, 0.0, weight * (1.0 - share)), weight * tie)
    sums = (np.bincount(key, weights=part, minlength=len(places)) for part in parts)
    won, lost, tied = (np.asarray(total, dtype=np.float64) for total in sums)
    return Tally(size, places // max(size, 1), places % max(size, 1), won, lost, tied)


def _tallied_by_matrix(rows: Rows, size: int) -> Tally:
    """Wins and ties counted over (item, item); one pass over the rows for each."""
    forward, backward = rows.left * size + rows.right, rows.right * size + rows.left
    tie = rows.share == 0.5
    ties = np.zeros((size, size), dtype=np.int64)
    if tie.any():
        ties = np.bincount(forward[tie], minlength=size * size).reshape(size, size)
        ties = ties + ties.T
        decided = ~tie
        forward, backward = forward[decided], backward[decided]
    won_by_left = (rows.share if len(forward) == len(tie) else rows.share[decided]) == 1
    wins = np.bincount(np.where(won_by_left, forward, backward), minlength=size * size).reshape(size, size)
    first, second = np.nonzero(np.triu(wins + wins.T + ties, 1))
    counts = (wins[first, second], wins[second, first], ties[first, second])
    won, lost, tied = (count.astype(np.float64) for count in counts)
    return Tally(size, first, second, won, lost, tied)


def counted_cells(rows: Rows, tally: Tally) -> Cells:
    """Count alike comparisons. The order of the cells depends on the ids and not on the order of the rows."""
    if rows.plain and rows.cluster is None:
        count = np.column_stack([tally.lost, tally.tied, tally.won]).astype(np.int64).reshape(-1)
        used = np.flatnonzero(count)
        return Cells(used // 3, used % 3 / 2, np.ones(len(used)), count[used], None)
    levels, level = _levels(rows)
    used, of_row, count = np.unique(_pairs(rows)[0] * len(levels) + level, return_inverse=True, return_counts=True)
    pair, kind = np.divmod(used, len(levels))
    table = None
    if rows.cluster is not None:
        shape = (int(rows.cluster.max()) + 1, len(used))
        table = sparse.csr_array((np.ones(len(of_row)), (rows.cluster, of_row)), shape=shape)
    return Cells(pair, levels[kind, 0], levels[kind, 1], count, table)


def _pairs(rows: Rows) -> tuple[Ints, Ints]:
    """For each row the number of its pair among the pairs that met, and for each pair first * size + second."""
    places, key = np.unique(rows.place, return_inverse=True)
    return key, places


def _levels(rows: Rows) -> tuple[Floats, Ints]:
    """The distinct (share of first, weight) in rising order, and each row's place among them."""
    share = rows.first_share
    weight = np.ones(len(share)) if rows.weight is None else rows.weight
    shares, share_level = np.unique(share, return_inverse=True)
    weights, weight_level = np.unique(weight, return_inverse=True)
    used, level = np.unique(share_level * len(weights) + weight_level, return_inverse=True)
    return np.column_stack([shares[used // len(weights)], weights[used % len(weights)]]), level
