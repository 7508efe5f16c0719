"""Rankings to one consensus by points, ranks or scores: Borda, median rank, RRF, CombSUM and CombMNZ."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from llmrank.aggregate.comparisons import Comparisons, id_key, tie_groups
from llmrank.aggregate.counts import copeland
from llmrank.aggregate.results import Floats, Scores
from llmrank.errors import InputError

Ranking = Iterable[Any]
"""Ids, best first; a list, tuple or set in place of an id is a group that ties."""

NO_RANKINGS = "There are no rankings."


def borda(rankings: Iterable[Ranking], weight: Sequence[float] | None = None) -> Scores:
    """Borda's points: the number of items ranked below, a tie half a point, added up over the rankings.

    On rankings of all n items this is the sum of n - rank. A ranking of some items only says what it ranks: an item
    gets the mean over the rankings that hold it of the share of its rivals there that it beats, times (n - 1) and the
    rankings' total weight, so that an item is neither helped nor hurt by being left out. Borda (1781).
    """
    table, items, weights = _ranks(rankings, weight)
    share = 1 - _relative(table)
    return _mean_scores("borda", share, items, weights, (len(items) - 1) * float(weights.sum()))


def median_rank(rankings: Iterable[Ranking]) -> Scores:
    """Minus the median rank over the rankings that hold the item (so that higher is better).

    Items that tie share the mean of their ranks; ranks of a shorter ranking are stretched to 1..n.
    """
    table, items, _ = _ranks(rankings, None)
    if not items:
        return _no_rankings("median-rank")
    stretched = 1 + _relative(table) * (len(items) - 1)
    return Scores("median-rank", items, -np.nanmedian(stretched, axis=0), None, None, len(table))


def rrf(rankings: Iterable[Ranking], k: float = 60, weight: Sequence[float] | None = None) -> Scores:
    """Reciprocal rank fusion: the sum over the rankings that hold the item of 1 / (k + rank).

    Items that tie share the mean of their ranks. Cormack, Clarke and Buettcher (SIGIR 2009).
    """
    if not k > -1:
        raise InputError(f"k is {k}: reciprocal rank fusion needs k above -1, and 60 is usual")
    table, items, weights = _ranks(rankings, weight)
    if not items:
        return _no_rankings("rrf")
    value = np.nansum(weights[:, None] / (k + table), axis=0)
    return Scores("rrf", items, value, None, None, len(table))


def copeland_consensus(rankings: Iterable[Ranking], weight: Sequence[float] | None = None) -> Scores:
    """Copeland's score over the pairs that the rankings order: rivals beaten by majority less rivals lost to."""
    listed = [list(ranking) for ranking in rankings]
    result = copeland(Comparisons.from_rankings(listed, weight))
    return replace(result, n=len(listed)) if result.items else _no_rankings("copeland")


Normalization = Literal["minmax", "zscore", "sum", "none"]


def combsum(
    scores: Sequence[Mapping[Hashable, float]],
    normalization: Normalization = "minmax",
    weight: Sequence[float] | None = None,
) -> Scores:
    """The sum of an item's normalised scores over the lists that hold it.

    Each list of scores is first brought to one scale: `minmax` to 0..1, `zscore` to mean 0 and standard deviation 1
    (an item that a list lacks then has 0, the mean), `sum` to a sum of 1 from its least score up; a list whose scores
    are all equal gives 0 by `zscore`, 1 by `minmax`, and equal shares by `sum`. Fox and Shaw (TREC-2, 1994).
    """
    return _combined("combsum", scores, normalization, weight)


def combmnz(
    scores: Sequence[Mapping[Hashable, float]],
    normalization: Normalization = "minmax",
    weight: Sequence[float] | None = None,
) -> Scores:
    """`combsum` times the number of lists that hold the item. Fox and Shaw (TREC-2, 1994)."""
    return _combined("combmnz", scores, normalization, weight)


def _combined(
    method: str,
    scores: Sequence[Mapping[Hashable, float]],
    normalization: Normalization,
    weight: Sequence[float] | None,
) -> Scores:
    if normalization not in _NORMALIZATIONS:
        raise InputError(f"normalization is {normalization!r}: choose one of {', '.join(_NORMALIZATIONS)}")
    weights = _weighed(weight, len(scores))
    items = tuple(sorted(set().union(*scores), key=id_key)) if scores else ()
    if not items:
        return _no_rankings(method)
    index = {item: i for i, item in enumerate(items)}
    total, lists = np.zeros(len(items)), np.zeros(len(items))
    for listed, w in zip(scores, weights, strict=True):
        if not listed:
            continue
        values = np.array(list(listed.values()), dtype=np.float64)
        if not np.isfinite(values).all():
            raise InputError("a score is not a finite number: leave out the items that have none")
        places = [index[item] for item in listed]
        total[places] += w * _NORMALIZATIONS[normalization](values)
        lists[places] += 1
    return Scores(method, items, total * lists if method == "combmnz" else total, None, None, len(scores))


def _minmax(values: Floats) -> Floats:
    spread = float(np.ptp(values))
    return np.asarray((values - values.min()) / spread if spread else np.ones(len(values)))


def _zscore(values: Floats) -> Floats:
    deviation = float(values.std())
    return np.asarray((values - values.mean()) / deviation if deviation else np.zeros(len(values)))


def _sum_to_one(values: Floats) -> Floats:
    raised = values - values.min()
    return np.asarray(raised / raised.sum() if raised.any() else np.full(len(values), 1 / len(values)))


def _unchanged(values: Floats) -> Floats:
    return values


_NORMALIZATIONS: dict[str, Callable[[Floats], Floats]] = {
    "minmax": _minmax,
    "zscore": _zscore,
    "sum": _sum_to_one,
    "none": _unchanged,
}


def _ranks(rankings: Iterable[Ranking], weight: Sequence[float] | None) -> tuple[Floats, tuple[Hashable, ...], Floats]:
    """Rankings x items: the rank of each item, ties sharing their mean, NaN where a ranking lacks the item."""
    listed = [tie_groups(ranking) for ranking in rankings]
    weights = _weighed(weight, len(listed))
    items = tuple(sorted({item for groups in listed for group in groups for item in group}, key=id_key))
    index = {item: i for i, item in enumerate(items)}
    table = np.full((len(listed), len(items)), np.nan)
    for r, groups in enumerate(listed):
        above = 0
        for group in groups:
            table[r, [index[item] for item in group]] = above + (len(group) + 1) / 2
            above += len(group)
    return table, items, weights


def _weighed(weight: Sequence[float] | None, count: int) -> Floats:
    weights = np.ones(count) if weight is None else np.asarray(weight, dtype=np.float64)
    if len(weights) != count or not (np.isfinite(weights) & (weights >= 0)).all():
        raise InputError(f"there are {count} rankings: give a weight from 0 up for each")
    return weights


def _relative(table: Floats) -> Floats:
    """Ranks as 0 (first) to 1 (last) of their ranking; one half in a ranking of one."""
    rivals = (~np.isnan(table)).sum(axis=1, keepdims=True) - 1.0
    return np.where(rivals > 0, (table - 1) / np.where(rivals > 0, rivals, 1.0), np.where(np.isnan(table), np.nan, 0.5))


def _mean_scores(method: str, share: Floats, items: tuple[Hashable, ...], weights: Floats, scale: float) -> Scores:
    """The weighted mean of each column's shares, times a scale; an item held only by rankings of weight 0 has half."""
    if not items:
        return _no_rankings(method)
    held = ~np.isnan(share) * weights[:, None]
    total = held.sum(axis=0)
    mean = np.where(total > 0, np.nansum(share * held, axis=0) / np.where(total > 0, total, 1.0), 0.5)
    return Scores(method, items, np.asarray(mean * scale), None, None, len(share))


def _no_rankings(method: str) -> Scores:
    return Scores(method, (), np.zeros(0), None, None, 0, NO_RANKINGS)
