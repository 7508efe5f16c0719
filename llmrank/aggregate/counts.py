"""Scores that are counted, not fitted: wins, win rates, and Copeland's majorities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.diagnosis import limits
from llmrank.aggregate.resample import check_level, percentiles, replicate
from llmrank.aggregate.results import Floats, Scores, sentence
from llmrank.aggregate.tally import Tally


def counting(comparisons: Comparisons, bootstrap: int = 0, seed: int = 0, level: float = 0.95) -> Scores:
    """Weight of the wins of each item, a tie half a win.

    s_i = sum_j (w_ij + t_ij / 2), `w_ij` the weight that i won of j, `t_ij` that of their ties. Items with more
    comparisons score higher for it: use `win_rate` where the numbers differ. With `bootstrap` resamples, percentile
    intervals at `level`. No comparisons: no items and a note.
    """
    return estimated("counting", comparisons, wins, bootstrap, seed, level)


def win_rate(comparisons: Comparisons, bootstrap: int = 0, seed: int = 0, level: float = 0.95) -> Scores:
    """Share of its comparisons that each item won, a tie half: `counting` over the weight of its comparisons.

    Lies in [0, 1]. It takes no account of who the opponents were.
    """
    return estimated("win-rate", comparisons, lambda tally: _over(wins(tally), _met(tally)), bootstrap, seed, level)


def average_win_rate(comparisons: Comparisons, bootstrap: int = 0, seed: int = 0, level: float = 0.95) -> Scores:
    """Mean over the opponents that an item met of its win rate against each, so that each opponent counts the same.

    s_i = mean_j (w_ij + t_ij / 2) / (w_ij + w_ji + t_ij) over the j that i met. As in evalica 0.4 (`average_win_rate`).
    """
    return estimated("average-win-rate", comparisons, _average_win_rate, bootstrap, seed, level)


def copeland(comparisons: Comparisons, bootstrap: int = 0, seed: int = 0, level: float = 0.95) -> Scores:
    """Opponents beaten by majority less opponents lost to by majority; an even split and no meeting count 0.

    s_i = sum_j sign(w_ij - w_ji). Copeland (1951), "A reasonable social welfare function". The difference, not the
    number of victories, so that items which met fewer opponents are not taken for losers.
    """
    return estimated("copeland", comparisons, majorities, bootstrap, seed, level)


def wins(tally: Tally) -> Floats:
    """Weight of each item's wins, a tie half."""
    return tally.per_item(*tally.half())


def majorities(tally: Tally) -> Floats:
    """Opponents beaten less opponents lost to, by majority."""
    lead = np.sign(np.round(tally.won - tally.lost, 9))
    return tally.per_item(lead, -lead)


def _average_win_rate(tally: Tally) -> Floats:
    met = tally.met
    rate = _over(tally.half()[0], met)
    seen = (met > 0).astype(np.float64)
    return _over(tally.per_item(rate * seen, (1.0 - rate) * seen), tally.per_item(seen, seen))


def _met(tally: Tally) -> Floats:
    return tally.per_item(tally.met, tally.met)


def _over(part: Floats, whole: Floats) -> Floats:
    """part / whole, one half where whole is 0 (only in a resample that lacks the item)."""
    return np.asarray(np.divide(part, whole, out=np.full(len(part), 0.5), where=whole > 0), dtype=np.float64)


def estimated(
    method: str,
    comparisons: Comparisons,
    estimate: Callable[[Tally], Floats],
    bootstrap: int,
    seed: int,
    level: float,
    *,
    remark: str | None = None,
) -> Scores:
    """Put a score of tallies, its bootstrap and its note together; no comparisons give no items and a note."""
    check_level(level)
    said = limits(comparisons)
    if not comparisons.n:
        empty = np.zeros(0)
        return Scores(method, (), empty, None, None, 0, sentence(*said), comparisons=comparisons)
    value = estimate(comparisons.tally)
    low = high = spread = None
    if bootstrap:
        values = replicate(comparisons, bootstrap, seed, estimate)
        low, high = percentiles(values, level)
        spread = np.asarray(values.std(axis=0))
    note = sentence(*said, remark)
    return Scores(method, comparisons.items, value, low, high, comparisons.n, note, spread, comparisons)
