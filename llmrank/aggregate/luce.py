"""Plackett-Luce strengths from rankings: of any length, of any subset of the items, with ties."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import LinearOperator, cg

from llmrank.aggregate.comparisons import id_key, tie_groups
from llmrank.aggregate.fit import softmax
from llmrank.aggregate.resample import check_level, percentiles
from llmrank.aggregate.results import Floats, Ints, Scores, named, sentence
from llmrank.aggregate.strengths import WEAK_PRIOR
from llmrank.errors import InputError


def plackett_luce(
    rankings: Iterable[Iterable[Any]],
    weight: Sequence[float] | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    level: float = 0.95,
    prior: float = 0.0,
) -> Scores:
    """Strengths of the Plackett-Luce model by maximum likelihood, which sum to 1.

    A ranking is drawn from the best down: item i comes next with probability w_i over the sum of those not yet drawn.
    Each ranking lists some of the items, best first; those it leaves out took no part in it. A list, tuple or set in
    place of an id is a group that ties: its log-likelihood is averaged over the group's orders, the sum left in a
    denominator being replaced by its mean over them (Efron's approximation), so that a tie of two is half a win to
    each exactly, and rankings of two items are `bradley_terry` with `ties="half"`. Concave in log w, so Newton's steps
    end at the maximum.

    `weight` counts each ranking so many times. `bootstrap` resamples rankings; percentile intervals. The maximum
    exists only where chains of "ranked above" lead from every item to every other; elsewhere the values are MAP
    estimates under the weak prior of `bradley_terry`, and the note says so. Rankings of fewer than two items say
    nothing and are left out. Luce (1959), Plackett (1975); Hunter (2004); Efron (1977) for ties.
    """
    check_level(level)
    if bootstrap < 0 or prior < 0:
        raise InputError(f"bootstrap is {bootstrap} and prior {prior}: both are 0 or more")
    stages = _stages(rankings, weight)
    if stages is None:
        return Scores("plackett-luce", (), np.zeros(0), None, None, 0, "There are no rankings of two or more items.")
    count, linked = _links(stages)
    said = []
    if len(linked) > 1:
        groups = "; ".join(named([stages.items[i] for i in group], 3) for group in linked[:3])
        said.append(
            f"The rankings are disconnected: {len(linked)} groups of items were never ranked together ({groups}), "
            "and scores of items in different groups cannot be compared."
        )
    used = prior
    if prior:
        said.append(f"Values are MAP estimates: each item has {prior:g} wins and losses against an average one.")
    elif count > 1:
        used = WEAK_PRIOR
        said.append(
            f"Maximum-likelihood strengths do not exist ({count} groups of items, some always ranked above others): "
            f"values are MAP under a weak prior, {used:g} wins and losses of each item against an average one."
        )
    theta = _fit(stages, stages.weight, used, np.zeros(len(stages.items)))
    low = high = spread = None
    if bootstrap:
        strengths = softmax(_resampled(stages, used, theta, bootstrap, seed))
        low, high = percentiles(strengths, level)
        spread = np.asarray(strengths.std(axis=0))
    return Scores("plackett-luce", stages.items, softmax(theta), low, high, stages.n, sentence(*said), spread)


@dataclass(frozen=True, slots=True, eq=False)
class _Stages:
    """Rankings as arrays. A slot is a (ranking, group) cell of a table with one row a ranking, padded at the end."""

    items: tuple[Hashable, ...]
    shape: tuple[int, int]
    """Rankings x the most groups of one."""
    member: Ints
    """The item of each membership."""
    slot: Ints
    """The slot of each membership."""
    credit: Floats
    """How much of each membership is drawn against somebody: 1, or (m - 1) / m in a last group of m."""
    stage: Ints
    """The slot of each draw."""
    left: Floats
    """The share of its own group that is not yet drawn at each draw."""
    weight: Floats
    """The weight of each ranking."""
    n: int


def _stages(rankings: Iterable[Iterable[Any]], weight: Sequence[float] | None) -> _Stages | None:
    listed = [tie_groups(ranking) for ranking in rankings]
    weights = [1.0] * len(listed) if weight is None else [float(w) for w in weight]
    if len(weights) != len(listed) or not all(np.isfinite(w) and w >= 0 for w in weights):
        raise InputError(f"there are {len(listed)} rankings: give a weight from 0 up for each")
    said = [(groups, w) for groups, w in zip(listed, weights, strict=True) if sum(map(len, groups)) > 1 and w > 0]
    if not said:
        return None
    items = tuple(sorted({item for groups, _ in said for group in groups for item in group}, key=id_key))
    index = {item: i for i, item in enumerate(items)}
    coded = [([sorted(index[item] for item in group) for group in groups], w) for groups, w in said]
    coded.sort()  # so that the order of the rankings changes no resample
    width = max(len(groups) for groups, _ in coded)
    member, slot, credit, stage, left = [], [], [], [], []
    for r, (groups, _) in enumerate(coded):
        for g, group in enumerate(groups):
            size, last = len(group), g == len(groups) - 1
            draws = size - last
            member += group
            slot += [r * width + g] * size
            credit += [draws / size] * size
            stage += [r * width + g] * draws
            left += [1 - drawn / size for drawn in range(draws)]
    ints = [np.array(column, dtype=np.int64) for column in (member, slot, stage)]
    weighed = np.array([w for _, w in coded])
    columns = (ints[0], ints[1], np.array(credit), ints[2], np.array(left))
    return _Stages(items, (len(coded), width), *columns, weighed, len(coded))


def _links(stages: _Stages) -> tuple[int, list[Ints]]:
    """How many groups of items are ranked above each other both ways, and the groups that are ranked together."""
    order = np.arange(len(stages.slot))
    first = np.concatenate([[True], np.diff(stages.slot) != 0])
    start = order[first][np.cumsum(first) - 1]
    last = np.concatenate([first[1:], [True]])
    # Members of one group form a circle; the first of each group is linked to the first of the next.
    around = np.where(last, start, order + 1)
    heads = order[first]
    down = np.flatnonzero(stages.slot[heads][:-1] // stages.shape[1] == stages.slot[heads][1:] // stages.shape[1])
    begin = np.concatenate([stages.member, stages.member[heads[down]]])
    end = np.concatenate([stages.member[around], stages.member[heads[down + 1]]])
    size = len(stages.items)
    graph = sparse.csr_array((np.ones(len(begin)), (begin, end)), shape=(size, size))
    count, _ = csgraph.connected_components(graph, connection="strong")
    together, group = csgraph.connected_components(graph, connection="weak")
    groups = [np.flatnonzero(group == g) for g in range(together)]
    return int(count), sorted(groups, key=len, reverse=True)


class _Likelihood:
    """The log-likelihood of log-strengths with its first and second derivatives, for given weights of the rankings."""

    def __init__(self, stages: _Stages, weight: Floats, prior: float) -> None:
        self.stages, self.prior, self.size = stages, prior, len(stages.items)
        width = stages.shape[1]
        self.weight = weight[stages.stage // width]
        member_weight = weight[stages.slot // width] * stages.credit
        self.wins = np.bincount(stages.member, weights=member_weight, minlength=self.size)

    def at(self, theta: Floats) -> float:
        self.w = np.exp(theta)
        self.theta = theta
        self.sums = self._draws(self.w)
        self.back = self._items(self.weight / self.sums)
        height = float(self.wins @ theta - self.weight @ np.log(self.sums))
        return height - 2 * self.prior * float(np.log(2 * np.cosh(theta / 2)).sum()) if self.prior else height

    def slope(self) -> Floats:
        return np.asarray(self.wins - self.w * self.back - self.prior * np.tanh(self.theta / 2))

    def step(self, slope: Floats) -> Floats:
        """Newton's step, by conjugate gradients."""
        ridge = self.prior / 2 / np.cosh(self.theta / 2) ** 2
        diagonal = self.w * self.back + ridge
        bend = self.weight / self.sums**2

        def curve(x: Floats) -> Floats:
            x = x.reshape(-1)
            inner = self._items(bend * self._draws(self.w * x))
            return np.asarray(diagonal * x - self.w * inner)

        shape = (self.size, self.size)
        scale = LinearOperator(shape, matvec=lambda x: x.reshape(-1) / diagonal, dtype=np.float64)
        if not self.prior:
            slope = slope - slope.mean()
        operator = LinearOperator(shape, matvec=curve, dtype=np.float64)
        step = np.asarray(cg(operator, slope, rtol=1e-8, maxiter=5 * self.size, M=scale)[0])
        return step if self.prior else step - step.mean()

    def _draws(self, values: Floats) -> Floats:
        """For each draw the sum of the values of the items not yet drawn."""
        stages, cells = self.stages, self.stages.shape[0] * self.stages.shape[1]
        group = np.bincount(stages.slot, weights=values[stages.member], minlength=cells)
        below = np.cumsum(group.reshape(stages.shape)[:, ::-1], axis=1)[:, ::-1].reshape(-1) - group
        return np.asarray(below[stages.stage] + stages.left * group[stages.stage])

    def _items(self, values: Floats) -> Floats:
        """For each item the sum of the draws' values in which it takes part: the transpose of `_draws`."""
        stages, cells = self.stages, self.stages.shape[0] * self.stages.shape[1]
        whole = np.bincount(stages.stage, weights=values, minlength=cells)
        own = np.bincount(stages.stage, weights=values * stages.left, minlength=cells)
        above = np.cumsum(whole.reshape(stages.shape), axis=1).reshape(-1) - whole
        return np.asarray(
            np.bincount(stages.member, weights=(above + own)[stages.slot], minlength=self.size), np.float64
        )


def _fit(stages: _Stages, weight: Floats, prior: float, theta: Floats) -> Floats:
    likelihood = _Likelihood(stages, weight, prior)
    height = likelihood.at(theta)
    for _ in range(200):
        step = likelihood.step(likelihood.slope())
        size = float(np.abs(step).max())
        share = min(1.0, 3.0 / size) if size else 1.0
        while (new_height := likelihood.at(theta + share * step)) < height - 1e-12 * abs(height) and share > 1e-6:
            share /= 2
        theta, height = theta + share * step, new_height
        if size < 1e-7:
            break
    return theta if prior else theta - theta.mean()


def _resampled(stages: _Stages, prior: float, theta: Floats, bootstrap: int, seed: int) -> Floats:
    """Log-strengths of resampled rankings; one that has no maximum is fitted under the weak prior."""
    rng = np.random.default_rng(seed)
    thetas = []
    for _ in range(bootstrap):
        drawn = rng.multinomial(stages.n, np.full(stages.n, 1 / stages.n))
        kept = drawn[stages.slot // stages.shape[1]] > 0
        present = replace(stages, member=stages.member[kept], slot=stages.slot[kept])
        exists = prior or (len(np.unique(present.member)) == len(stages.items) and _links(present)[0] == 1)
        thetas.append(_fit(stages, stages.weight * drawn, prior if exists else WEAK_PRIOR, theta))
    return np.array(thetas)
