"""Kemeny's consensus: the order that disagrees with the rankings in the fewest pairs, exact or by local search."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.consensus import NO_RANKINGS, Ranking
from llmrank.aggregate.results import Floats, Ints, Scores

EXACT_SIZE = 15
"""Up to so many items in one knot of majorities the best order is found exactly (2^n subsets)."""

RESTARTS = 40
"""Local searches from shaken orders; the best is kept."""


@dataclass(frozen=True, eq=False)
class Kemeny(Scores):
    """A consensus order: `value` falls from n by one from rank to rank."""

    cost: float = 0.0
    """Weight of the pairwise preferences that the order goes against."""
    bound: float = 0.0
    """No order can go against less; equal to `cost` where the order is known to be the best."""
    exact: bool = True
    """Whether the order was found by a method that always finds the best."""


def kemeny(rankings: Iterable[Ranking] | Comparisons, weight: Sequence[float] | None = None, seed: int = 0) -> Kemeny:
    """The order with the least sum of weights of pairwise preferences against it (Kemeny 1959).

    Takes rankings (of some of the items, with ties: a tie and a pair that a ranking lacks are against nothing), or
    comparisons. Majorities are knotted where they run in circles; every best order goes through the knots in one
    order (the extended Condorcet criterion, Truchon 1998), so each is solved by itself: exactly, by dynamic
    programming over subsets (Held and Karp), up to `EXACT_SIZE` items; beyond by insertion moves from Borda's order
    and seeded shaken ones, `note` giving the gap to the lower bound sum_pairs min(w_ij, w_ji). Where several orders
    are best, one is given.
    """
    comparisons = rankings if isinstance(rankings, Comparisons) else Comparisons.from_rankings(rankings, weight)
    tally, items = comparisons.tally, comparisons.items
    if not items:
        return Kemeny("kemeny", (), np.zeros(0), None, None, 0, NO_RANKINGS)
    against = np.zeros((len(items), len(items)))
    against[tally.first, tally.second], against[tally.second, tally.first] = tally.lost, tally.won
    order, exact = _ordered(against, np.random.default_rng(seed))
    cost = float(np.triu(against[np.ix_(order, order)], 1).sum())
    bound = cost if exact else float(np.minimum(against, against.T).sum() / 2)
    note = None
    if not exact and cost > bound:
        note = f"The order was found by local search: its cost {cost:g} is at most {cost - bound:g} above the best."
    value = np.empty(len(items))
    value[order] = np.arange(len(items), 0, -1)
    done = exact or cost <= bound
    return Kemeny("kemeny", items, value, None, None, comparisons.n, note, None, comparisons, cost, bound, done)


def _ordered(against: Floats, rng: np.random.Generator) -> tuple[Ints, bool]:
    """The best order found, and whether it is surely the best. against[i, j] is the cost of i before j."""
    # An edge where i is not beaten by j; knots are the strong components, and between two of them all edges agree.
    ahead = sparse.csr_array((against <= against.T).astype(np.int8))
    count, knot = csgraph.connected_components(ahead, connection="strong")
    inside = [np.flatnonzero(knot == c) for c in range(count)]
    inside.sort(key=lambda members: -int((against[members[0]] <= against[:, members[0]]).sum()))
    parts, exact = [], True
    for members in inside:
        costs = against[np.ix_(members, members)]
        small = len(members) <= EXACT_SIZE
        exact &= small
        parts.append(members[_exact(costs) if small else _search(costs, rng)])
    return np.concatenate(parts), exact


def _exact(against: Floats) -> Ints:
    """The best order by dynamic programming: the best order of each subset is that of the subset without its last."""
    size = len(against)
    if size == 1:
        return np.zeros(1, dtype=np.int64)
    subsets = np.arange(1 << size)
    # to_last[s, i]: what it costs to put i after all of s.
    to_last = np.zeros((1 << size, size))
    for item in range(size):
        to_last[1 << item : 2 << item] = to_last[: 1 << item] + against[item]
    best = np.full(1 << size, np.inf)
    best[0] = 0.0
    last = np.zeros(1 << size, dtype=np.int64)
    members = np.array([int(s).bit_count() for s in subsets])
    for count in range(1, size + 1):
        chosen = subsets[members == count]
        for item in range(size):
            holds = chosen[(chosen >> item) & 1 == 1]
            before = holds ^ (1 << item)
            cost = best[before] + to_last[before, item]
            better = cost < best[holds] - 1e-12
            best[holds[better]] = cost[better]
            last[holds[better]] = item
    order, subset = [], (1 << size) - 1
    while subset:
        order.append(int(last[subset]))
        subset ^= 1 << order[-1]
    return np.array(order[::-1], dtype=np.int64)


def _search(against: Floats, rng: np.random.Generator) -> Ints:
    """Insertion moves to a local best, from Borda's order and from shaken copies of the best so far."""
    best = _inserted(against, np.argsort(against.sum(axis=1) - against.sum(axis=0), kind="stable"))
    cost = _cost(against, best)
    for _ in range(RESTARTS):
        place = np.arange(len(best)) + rng.normal(scale=len(best) / 10, size=len(best))
        order = _inserted(against, best[np.argsort(place, kind="stable")])
        if (new := _cost(against, order)) < cost - 1e-9:
            best, cost = order, new
    return best


def _cost(against: Floats, order: Ints) -> float:
    return float(np.triu(against[np.ix_(order, order)], 1).sum())


def _inserted(against: Floats, order: Ints) -> Ints:
    """Take each item out and put it where it costs least, until no move helps."""
    # gain[i, j]: what it costs more to have i after j than before it.
    gain = against.T - against
    listed = order.tolist()
    moved = True
    while moved:
        moved = False
        for item in list(listed):
            at = listed.index(item)
            rest = listed[:at] + listed[at + 1 :]
            costs = np.concatenate([[0.0], np.cumsum(gain[item, rest])])
            place = int(costs.argmin())
            if costs[place] < costs[at] - 1e-9:
                listed = rest[:place] + [item] + rest[place:]
                moved = True
    return np.array(listed, dtype=np.int64)


def disagreement(order: Sequence[Hashable], rankings: Iterable[Ranking]) -> float:
    """How many pairwise preferences of the rankings an order of all their items goes against."""
    comparisons = Comparisons.from_rankings(rankings)
    place = {item: rank for rank, item in enumerate(order)}
    rank = np.array([place[item] for item in comparisons.items])
    tally = comparisons.tally
    before = rank[tally.first] < rank[tally.second]
    return float(np.where(before, tally.lost, tally.won).sum())
