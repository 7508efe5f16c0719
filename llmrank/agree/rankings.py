"""Correlation of two rankings: Kendall's tau-b, Spearman's rho, tau_ap, rank-biased overlap and agreement of decisions.

Except for `rbo`, functions take scores of the same n systems, higher better, of shape (..., n), and give arrays of
shape (...), NaN where the coefficient does not exist. Scores nearer than 1e-12 tie.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmrank.agree.confusion import Array

TIE = 1e-12
P = 0.9


def tau_b(truth: Array, predicted: Array) -> Array:
    """Kendall's tau-b: (concordant - discordant) / sqrt(pairs untied in truth * pairs untied in prediction).

    Does not exist where all systems tie on one side. Kendall 1945, Biometrika 33.
    """
    true, said = pair_signs(truth), pair_signs(predicted)
    untied = np.abs(true).sum(-1) * np.abs(said).sum(-1)
    return _ratio((true * said).sum(-1), np.sqrt(untied))


def spearman(truth: Array, predicted: Array) -> Array:
    """Spearman's rho: Pearson's correlation of ranks, tied systems sharing the mean of theirs."""
    true, said = centred_ranks(pair_signs(truth)), centred_ranks(pair_signs(predicted))
    return _ratio((true * said).sum(-1), np.sqrt(np.square(true).sum(-1) * np.square(said).sum(-1)))


def tau_ap(truth: Array, predicted: Array) -> Array:
    """The AP rank correlation: 2 / (n - 1) sum_{i > 1} C(i) / (i - 1) - 1, which weighs errors at the top more.

    The sum walks down the order under the predicted scores; C(i) is how many of the i - 1 systems above place i are
    rightly above it by the true scores. It is not symmetric. Of systems that tie the earlier one goes first, on both
    sides: give them in the order of their names. Yilmaz, Aslam & Robertson 2008, SIGIR.
    """
    n = np.shape(truth)[-1]
    if n < 2:
        return np.full(np.shape(truth)[:-1], np.nan)
    first, second = np.triu_indices(n, 1)
    # +1 where the earlier of two systems stands above the later one; a tie counts as that.
    true, said = (np.where(pair_signs(scores) < 0, -1.0, 1.0) for scores in (truth, predicted))
    place = (n - 1) / 2 - centred_ranks(said)  # systems above each
    lower = np.where(said > 0, np.take(place, second, axis=-1), np.take(place, first, axis=-1))
    return np.asarray(2 / (n - 1) * ((true == said) / lower).sum(-1) - 1)


def decision_accuracy(truth: Array, predicted: Array) -> Array:
    """Of the pairs of systems that differ in truth, the share that the prediction puts in the same order."""
    true, said = pair_signs(truth), pair_signs(predicted)
    return _ratio(((true == said) & (true != 0)).sum(-1), (true != 0).sum(-1))


def top_tau_b(truth: Array, predicted: Array, k: int = 10) -> Array:
    """tau-b over the k best systems in truth; of systems that tie at the cut the earlier ones are taken."""
    # A stable sort of rounded scores, since sums that are equal on paper may differ in their last digits.
    best = np.argsort(-np.round(truth, 12), axis=-1, kind="stable")[..., :k]
    return tau_b(np.take_along_axis(truth, best, axis=-1), np.take_along_axis(predicted, best, axis=-1))


def rbo_of_scores(truth: Array, predicted: Array, p: float = P) -> Array:
    """Extrapolated rank-biased overlap of two full orders; of systems that tie the earlier one goes first.

    With the n systems in both orders, X_d of them among the first d of both: (1 - p) / p sum_d X_d / d p^d + p^n.
    """
    n = np.shape(truth)[-1]
    if n == 0:
        return np.full(np.shape(truth)[:-1], np.nan)
    orders = [np.argsort(-np.round(scores, 12), axis=-1, kind="stable") for scores in (truth, predicted)]
    deeper = np.maximum(*(np.argsort(order, axis=-1) for order in orders))
    # A system is in the overlap from its deeper place on, so it adds the tail of p^d / d from there.
    depth = np.arange(1, n + 1)
    tail = np.cumsum((p**depth / depth)[::-1])[::-1]
    return np.asarray((1 - p) / p * tail[deeper].sum(-1) + p**n)


Ranked = Sequence[Hashable | Iterable[Hashable]]


def rbo(left: Ranked, right: Ranked, p: float = P) -> float:
    """Rank-biased overlap of two lists, best first, extrapolated beyond their ends.

    left, right : items, each once; a tie group is a list, set or tuple of items in the place of one. The lists may
        differ in length and in items.
    p : persistence, in (0, 1); the first 10 places weigh 86% at 0.9.

    With X_d the overlap at depth d and lengths s <= l:
    (1-p)/p (sum_{d=1..l} X_d / d p^d + sum_{d=s+1..l} X_s (d - s) / (s d) p^d) + ((X_l - X_s) / l + X_s / s) p^l.
    An item of a tie group over places a to b counts (d - a + 1) / (b - a + 1) at a depth d in it: this is the mean
    over all ways to break the ties. Two empty lists give 1, one empty list 0.
    Webber, Moffat & Zobel 2010, ACM TOIS 28(4); ties: Corsi & Urbano 2024, SIGIR (RBO^a).
    """
    if not 0 < p < 1:
        raise ValueError("p must lie between 0 and 1")
    lists = [_places(ranked) for ranked in (left, right)]
    s, l = sorted(len(found.place) for found in lists)  # noqa: E741 (the paper's names)
    if s == 0:
        return 1.0 if l == 0 else 0.0
    depth = np.arange(1, l + 1)
    overlap = _overlap(lists[0], lists[1], l)
    weight = p**depth
    seen = float((overlap / depth * weight).sum())
    beyond = float((overlap[s - 1] * (depth[s:] - s) / (s * depth[s:]) * weight[s:]).sum())
    last = (overlap[-1] - overlap[s - 1]) / l + overlap[s - 1] / s
    return float((1 - p) / p * (seen + beyond) + last * p**l)


class _Places(NamedTuple):
    """The places of a list's items."""

    place: dict[Hashable, int]
    """By item its position in the list, from 0, tie groups broken anyhow."""
    first: NDArray[np.int64]
    """The first place, from 1, of the tie group at each position."""
    last: NDArray[np.int64]


def _places(ranked: Ranked) -> _Places:
    groups = [list(entry) if isinstance(entry, GROUPS) else [entry] for entry in ranked] if _any_group(ranked) else None
    items = list(ranked) if groups is None else [item for group in groups for item in group]
    place: dict[Hashable, int] = dict(zip(items, range(len(items)), strict=True))  # type: ignore[arg-type]
    if len(place) < len(items):
        twice = next(item for number, item in enumerate(items) if place[item] != number)  # type: ignore[index]
        raise ValueError(f"{twice!r} is in a list twice")
    if groups is None:
        alone = np.arange(1, len(items) + 1)
        return _Places(place, alone, alone)
    sizes = np.array([len(group) for group in groups])
    last = np.cumsum(sizes)
    return _Places(place, np.repeat(last - sizes + 1, sizes), np.repeat(last, sizes))


GROUPS = (list, tuple, set, frozenset)


def _any_group(ranked: Ranked) -> bool:
    return any(issubclass(kind, GROUPS) for kind in set(map(type, ranked)))


def _overlap(left: _Places, right: _Places, depths: int) -> Array:
    """Shape (depths,): the overlap at each depth from 1."""
    both = left.place.keys() & right.place.keys()
    ours, theirs = (np.array([side.place[item] for item in both], dtype=np.int64) for side in (left, right))
    start1, end1, start2, end2 = left.first[ours], left.last[ours], right.first[theirs], right.last[theirs]
    tied = (start1 != end1) | (start2 != end2)
    first = np.maximum(start1, start2)[~tied]
    overlap = np.cumsum(np.bincount(first, minlength=depths + 1)[1:]).astype(np.float64)
    if not tied.any():
        return np.asarray(overlap)
    depth = np.arange(1, depths + 1)[:, None]
    counted = [
        np.clip((depth - start + 1) / (end - start + 1), 0, 1)
        for start, end in ((start1[tied], end1[tied]), (start2[tied], end2[tied]))
    ]
    return np.asarray(overlap + (counted[0] * counted[1]).sum(1))


def pair_signs(scores: Array) -> Array:
    """Shape (..., n (n - 1) / 2): +1, 0 or -1 as the earlier of two systems is better, ties or is worse."""
    first, second = np.triu_indices(np.shape(scores)[-1], 1)
    difference = np.take(scores, first, axis=-1) - np.take(scores, second, axis=-1)
    return np.asarray(np.where(np.abs(difference) <= TIE, 0.0, np.sign(difference)))


def centred_ranks(signs: Array) -> Array:
    """Shape (..., n): half of (systems below - systems above) from the signs of pairs; rises with the score."""
    n = round((1 + np.sqrt(1 + 8 * np.shape(signs)[-1])) / 2)
    first, second = np.triu_indices(n, 1)
    pairs = np.arange(len(first))
    incidence = np.zeros((len(first), n))
    incidence[pairs, first], incidence[pairs, second] = 0.5, -0.5
    return np.asarray(signs @ incidence)


def tied(scores: Array) -> int:
    """How many of the systems, shape (n,), have the score of another."""
    n = len(scores)
    first, second = np.triu_indices(n, 1)
    equal = pair_signs(scores) == 0
    return len(set(first[equal].tolist()) | set(second[equal].tolist()))


def _ratio(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> Array:
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.asarray(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0))


Correlation = Callable[[Array, Array], Array]
