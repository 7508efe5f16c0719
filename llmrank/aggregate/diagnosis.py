"""What a set of comparisons can and cannot support: groups that never met, items that only win, cycles, flips."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.results import named
from llmrank.aggregate.tally import Tally


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Figures about a set of comparisons; `sentences` says what matters of them in words."""

    items: int
    """How many items were compared with another."""
    comparisons: int
    """How many comparisons count."""
    self_comparisons: int
    """Comparisons of an item with itself, left out."""
    components: tuple[tuple[Hashable, ...], ...]
    """Groups of items linked by comparisons, the largest first; more than one: the graph is disconnected."""
    strong_components: int
    """Groups of items linked by chains of wins in both directions (a tie counts both ways); 1 where the strengths of
    Bradley-Terry exist."""
    only_win: tuple[Hashable, ...]
    """Items that won all their comparisons."""
    only_lose: tuple[Hashable, ...]
    """Items that lost all their comparisons."""
    all_ties: bool
    """Whether every comparison is a tie."""
    cyclic_triads: int
    """Triples of items in which each beats the next by majority, round in a circle."""
    triads: int
    """Triples whose three pairs all have a majority."""
    order_pairs: int
    """Pairs that were asked in both orders (within a cluster, where clusters are given)."""
    order_inconsistent: int
    """Those of them whose majority changed with the order."""
    comparisons_per_item: tuple[int, float, int]
    """Fewest, median and most comparisons of an item."""

    @property
    def cyclic_share(self) -> float | None:
        """Cyclic triads as a share of all triads; None where there are none."""
        return self.cyclic_triads / self.triads if self.triads else None

    @property
    def sentences(self) -> tuple[str, ...]:
        """The diagnosis in words, what limits the scores first."""
        if not self.comparisons:
            return tuple(filter(None, (_left_out(self.self_comparisons), NO_COMPARISONS)))
        fewest, median, most = self.comparisons_per_item
        said = [
            _left_out(self.self_comparisons),
            _components(self.components),
            "Every comparison is a tie." if self.all_ties else "",
            f"{_subject(self.only_win)} won every comparison." if self.only_win else "",
            f"{_subject(self.only_lose)} lost every comparison." if self.only_lose else "",
            f"{self.items} items, {self.comparisons} comparisons: {fewest} to {most} an item, median {median:g}.",
            f"{self.cyclic_triads} of {self.triads} triads are cyclic ({self.cyclic_triads / self.triads:.1%})."
            if self.triads
            else "",
            f"{self.order_inconsistent} of {self.order_pairs} pairs asked in both orders changed their winner with the "
            f"order ({self.order_inconsistent / self.order_pairs:.1%})."
            if self.order_pairs
            else "",
        ]
        return tuple(filter(None, said))


NO_COMPARISONS = "There are no comparisons of two different items."


def diagnose(comparisons: Comparisons) -> Diagnosis:
    """Everything about the comparisons that limits what scores can say.

    Components by union of the pairs that met; strong components over the graph with an edge from i to j where i won
    something of j. Cyclic triads as in Kendall and Babington Smith (1940), over the triples of which all three pairs
    have a majority: with A[i, j] = 1 where i has the majority over j, trace(A^3) / 3 cyclic of trace((A + A')^3) / 6.
    """
    rows, tally = comparisons.rows, comparisons.tally
    won, lost = tally.half()
    wins, losses = tally.per_item(won, lost), tally.per_item(lost, won)
    per_item = np.bincount(np.concatenate([rows.left, rows.right]), minlength=tally.size)
    cyclic, triads = _triads(tally)
    both, flipped = _orders(comparisons)
    return Diagnosis(
        items=tally.size,
        comparisons=comparisons.n,
        self_comparisons=comparisons.self_comparisons,
        components=components(comparisons),
        strong_components=tally.strong[0],
        only_win=tuple(rows.items[i] for i in np.flatnonzero((losses == 0) & (wins > 0))),
        only_lose=tuple(rows.items[i] for i in np.flatnonzero((wins == 0) & (losses > 0))),
        all_ties=bool(comparisons.n) and not bool((tally.won + tally.lost).any()),
        cyclic_triads=cyclic,
        triads=triads,
        order_pairs=both,
        order_inconsistent=flipped,
        comparisons_per_item=(int(per_item.min()), float(np.median(per_item)), int(per_item.max()))
        if tally.size
        else (0, 0.0, 0),
    )


def components(comparisons: Comparisons) -> tuple[tuple[Hashable, ...], ...]:
    """Groups of items linked by comparisons, the largest first, equal ones by their first item."""
    tally, items = comparisons.tally, comparisons.items
    if tally.size == 0:
        return ()
    count, label = tally.linked(tally.met > 0, tally.met < 0, "weak")
    groups: list[list[Hashable]] = [[] for _ in range(count)]
    for item, group in zip(items, label, strict=True):
        groups[group].append(item)
    return tuple(tuple(group) for group in sorted(groups, key=len, reverse=True))


def limits(comparisons: Comparisons) -> list[str]:
    """The sentences that every strength model's note must hold, for it has no scores of the plain kind there."""
    tally, items = comparisons.tally, comparisons.items
    count, label = tally.strong
    said = [_left_out(comparisons.self_comparisons)]
    if not tally.size:
        return [*filter(None, said), NO_COMPARISONS]
    if count > 1:
        groups = components(comparisons)
        said.append(_components(groups))
        won, lost = tally.half()
        wins, losses = tally.per_item(won, lost), tally.per_item(lost, won)
        only_win = [items[i] for i in np.flatnonzero(losses == 0)]
        only_lose = [items[i] for i in np.flatnonzero(wins == 0)]
        said.append(f"{_subject(only_win)} only wins." if only_win else "")
        said.append(f"{_subject(only_lose)} only loses." if only_lose else "")
        if len(groups) == 1 and not only_win and not only_lose:
            best = [item for item, group in zip(items, label, strict=True) if group == label[0]]
            said.append(
                f"The items fall into {count} groups with wins one way only between them: {named(best)} are one."
            )
    if not (tally.won + tally.lost).any():
        said.append("Every comparison is a tie.")
    return [*filter(None, said)]


def _triads(tally: Tally) -> tuple[int, int]:
    ahead, behind = tally.won > tally.lost, tally.lost > tally.won
    start = np.concatenate([tally.first[ahead], tally.second[behind]])
    end = np.concatenate([tally.second[ahead], tally.first[behind]])
    graph = sparse.csr_array((np.ones(len(start)), (start, end)), shape=(tally.size, tally.size))
    if len(start) > 0.05 * tally.size**2 and tally.size <= 4000:
        beats = graph.toarray()
        either = beats + beats.T
        return round(float(((beats @ beats) * beats.T).sum()) / 3), round(float(((either @ either) * either).sum()) / 6)
    pairs = graph + graph.T
    return round(float((graph @ graph).multiply(graph.T).sum()) / 3), round(
        float((pairs @ pairs).multiply(pairs).sum()) / 6
    )


def _orders(comparisons: Comparisons) -> tuple[int, int]:
    """Pairs asked in both orders, and those whose majority changed with the order."""
    rows = comparisons.rows
    if not len(rows.left):
        return 0, 0
    size = len(rows.items)
    pair = np.minimum(rows.left, rows.right) * size + np.maximum(rows.left, rows.right)
    if rows.cluster is not None:
        pair = rows.cluster * size * size + pair
    _, key = np.unique(pair, return_inverse=True)
    forward = rows.left < rows.right
    lead = np.where(forward, rows.share - 0.5, 0.5 - rows.share) * (1.0 if rows.weight is None else rows.weight)
    asked = [np.bincount(key[side], minlength=key.max() + 1) > 0 for side in (forward, ~forward)]
    leads = [np.bincount(key, weights=np.where(side, lead, 0.0)) for side in (forward, ~forward)]
    both = asked[0] & asked[1]
    signs = [np.sign(np.round(side, 12)) for side in leads]
    return int(both.sum()), int((both & (signs[0] != signs[1])).sum())


def _left_out(count: int) -> str:
    plural = "comparisons of an item with itself are" if count > 1 else "comparison of an item with itself is"
    return f"{count} {plural} left out." if count else ""


def _components(groups: tuple[tuple[Hashable, ...], ...]) -> str:
    if len(groups) < 2:
        return ""
    shown = "; ".join(named(group, 3) for group in groups[:3]) + ("; ..." if len(groups) > 3 else "")
    return (
        f"The comparison graph is disconnected: {len(groups)} groups of items never met ({shown}), "
        "and scores of items in different groups cannot be compared."
    )


def _subject(items: tuple[Hashable, ...] | list[Hashable]) -> str:
    return named(items) if len(items) == 1 else f"Each of {named(items)}"
