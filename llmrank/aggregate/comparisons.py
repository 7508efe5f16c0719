"""Comparisons of two items: ids, winners and weights as people have them, checked and coded."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrank.aggregate.results import Floats, Ints
from llmrank.aggregate.tally import Cells, Rows, Tally, counted_cells, tallied
from llmrank.errors import InputError

SHARES: dict[object, float] = {"left": 1.0, "right": 0.0, "tie": 0.5}
"""Left's share of the win for each word that a winner may be."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Who met whom, and left's share of the win.

    All columns are equally long sequences or arrays. A comparison of an item with itself and one of weight 0 count
    for nothing: they are in `self_comparisons` and `n` accordingly, never an error.
    """

    left: Sequence[Hashable] | NDArray[Any]
    """Ids (int or str) of the items shown first."""
    right: Sequence[Hashable] | NDArray[Any]
    """Ids of the items shown second."""
    winner: Sequence[str | float] | NDArray[Any]
    """`left`, `right`, `tie`, or left's share of the win in [0, 1] (1.0 a win, 0.0 a loss, 0.5 a tie)."""
    weight: Sequence[float] | NDArray[Any] | None = None
    """How many comparisons each counts for; None for one each."""
    cluster: Sequence[Hashable] | NDArray[Any] | None = None
    """What belongs together, e.g. query ids: the bootstrap then resamples clusters, not single comparisons."""

    def __post_init__(self) -> None:
        columns = {"left": self.left, "right": self.right, "winner": self.winner}
        columns |= {name: column for name in ("weight", "cluster") if (column := getattr(self, name)) is not None}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise InputError(f"the columns of the comparisons must be equally long, but {said}")
        _ = self.rows

    @classmethod
    def read(cls, path: str) -> Comparisons:
        """The comparisons of a CSV or JSONL file, several queries as clusters; an empty winner is passed over."""
        from llmrank.data.comparisons import read_comparisons

        table = read_comparisons(path)
        clustered = all(query is not None for query in table.query_id)
        several = clustered and len(set(table.query_id)) > 1
        return cls(table.left, table.right, table.share, table.weight, table.query_id if several else None)

    @classmethod
    def from_rankings(cls, rankings: Iterable[Iterable[Any]], weight: Sequence[float] | None = None) -> Comparisons:
        """Every pair that a ranking orders, as one comparison; members of a tie group tie.

        A ranking lists ids, best first; a list, tuple or set in place of an id is a group of items that tie.
        """
        left: list[Hashable] = []
        right: list[Hashable] = []
        share: list[float] = []
        weights: list[float] = []
        for r, ranking in enumerate(rankings):
            above: list[Hashable] = []
            for group in tie_groups(ranking):
                pairs = [(a, b, 1.0) for a in above for b in group]
                pairs += [(a, b, 0.5) for i, a in enumerate(group) for b in group[i + 1 :]]
                for a, b, s in pairs:
                    left.append(a)
                    right.append(b)
                    share.append(s)
                weights += [1.0 if weight is None else weight[r]] * len(pairs)
                above += group
        return cls(left, right, share, weights)

    @property
    def items(self) -> tuple[Hashable, ...]:
        """The ids of all items compared with another, in rising order (numbers before text)."""
        return self.rows.items

    @property
    def n(self) -> int:
        """How many comparisons count."""
        return len(self.rows.left)

    @property
    def self_comparisons(self) -> int:
        """How many comparisons of an item with itself were left out."""
        return self.rows.self_comparisons

    @cached_property
    def rows(self) -> Rows:
        """The comparisons that count, coded as integers."""
        share = _shares(self.winner)
        weight = _weights(self.weight, len(share))
        items, left, right = _codes(self.left, self.right)
        same = left == right
        keep = ~same if weight is None else ~same & (weight > 0)
        cluster = None if self.cluster is None else _codes(self.cluster, self.cluster)[1]
        if not keep.all():
            share, left, right = share[keep], left[keep], right[keep]
            weight = None if weight is None else weight[keep]
            cluster = None if cluster is None else cluster[keep]
            items, left, right = _only_used(items, left, right)
        return Rows(items, left, right, share, weight, cluster, np.flatnonzero(keep), int(same.sum()))

    @cached_property
    def tally(self) -> Tally:
        """The comparisons added up by pair."""
        return tallied(self.rows)

    @cached_property
    def cells(self) -> Cells:
        """The comparisons added up by pair, share and weight."""
        return counted_cells(self.rows, self.tally)

    def swapped(self) -> Comparisons:
        """The same comparisons with winners and losers exchanged."""
        return Comparisons(self.left, self.right, 1.0 - _shares(self.winner), self.weight, self.cluster)


def tie_groups(ranking: Iterable[Any]) -> list[list[Hashable]]:
    """A ranking as its groups, best first: an id stands alone, a list, tuple or set of ids ties."""
    groups: list[list[Hashable]] = []
    seen: set[Hashable] = set()
    for entry in ranking:
        group = sorted(entry, key=id_key) if isinstance(entry, list | tuple | set | frozenset) else [entry]
        for item in group:
            if item in seen:
                raise InputError(f"item {item!r} stands twice in one ranking: a ranking names each item once")
            seen.add(item)
        if group:
            groups.append(group)
    return groups


def id_key(item: Hashable) -> tuple[str, Any]:
    """Orders ids: numbers by value before text by characters."""
    return ("", item) if isinstance(item, int | float | np.number) else (type(item).__name__, item)


def _shares(winner: Sequence[str | float] | NDArray[Any]) -> Floats:
    """Left's share of each win."""
    if isinstance(winner, np.ndarray) and winner.dtype.kind in "fiub":
        share = winner.astype(np.float64)
    elif isinstance(winner, np.ndarray) and winner.dtype.kind == "U":
        share = np.full(len(winner), np.nan)
        for word, value in SHARES.items():
            share[winner == word] = value
    else:
        listed = winner.tolist() if hasattr(winner, "tolist") else winner
        try:
            share = np.array([SHARES.get(word, word) for word in listed], dtype=np.float64)
        except (TypeError, ValueError):
            words = (isinstance(SHARES.get(word, word), int | float) for word in listed)
            share = np.array([0.5 if known else np.nan for known in words])
    bad = np.flatnonzero(~((share >= 0) & (share <= 1)))
    if bad.size:
        raise InputError(
            f"comparison {bad[0] + 1} has the winner {winner[int(bad[0])]!r}: "
            "it must be left, right, tie, or left's share of the win in [0, 1]"
        )
    return share


def _weights(weight: Sequence[float] | NDArray[Any] | None, count: int) -> Floats | None:
    if weight is None:
        return None
    weights = np.asarray(weight, dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if bad.size:
        raise InputError(f"comparison {bad[0] + 1} has the weight {weights[bad[0]]}: a weight is a number from 0 up")
    return None if bool((weights == 1).all()) else weights


def _codes(left: Any, right: Any) -> tuple[tuple[Hashable, ...], Ints, Ints]:
    """The distinct ids of both columns in rising order, and each column as positions among them."""
    if all(isinstance(column, np.ndarray) and column.dtype.kind in "iu" for column in (left, right)) and len(left):
        low = int(min(left.min(), right.min()))
        spread = int(max(left.max(), right.max())) - low + 1
        if spread <= 4 * len(left) + 1000:
            left, right = left.astype(np.int64) - low, right.astype(np.int64) - low
            used = np.flatnonzero(np.bincount(left, minlength=spread) + np.bincount(right, minlength=spread))
            if len(used) == spread:
                return tuple((used + low).tolist()), left, right
            place = np.zeros(spread, dtype=np.int64)
            place[used] = np.arange(len(used))
            return tuple((used + low).tolist()), place[left], place[right]
    lists = [column.tolist() if hasattr(column, "tolist") else column for column in (left, right)]
    items = sorted(set(lists[0]).union(lists[1]), key=id_key)
    index = {item: i for i, item in enumerate(items)}
    coded = [np.fromiter(map(index.__getitem__, ids), dtype=np.int64, count=len(ids)) for ids in lists]
    return tuple(items), coded[0], coded[1]


def _only_used(items: tuple[Hashable, ...], left: Ints, right: Ints) -> tuple[tuple[Hashable, ...], Ints, Ints]:
    """Drop the items that no remaining comparison names."""
    used = np.zeros(len(items), dtype=bool)
    used[left] = used[right] = True
    place = np.cumsum(used) - 1
    return tuple(item for item, kept in zip(items, used, strict=True) if kept), place[left], place[right]
