"""Tables of scores to a ranking of systems, judges that judge each other, and two scorings of the same candidates."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from llmrank.aggregate.consensus import borda
from llmrank.aggregate.luce import plackett_luce
from llmrank.aggregate.medians import kemeny
from llmrank.aggregate.results import Floats, Scores
from llmrank.errors import InputError

Consensus = Literal["borda", "kemeny"]
_CONSENSUS = {"borda": borda, "kemeny": kemeny}


def table_rankings(
    table: Sequence[Sequence[float]] | NDArray[Any],
    systems: Sequence[Hashable],
    higher_is_better: Sequence[bool] | bool = True,
) -> list[list[list[Hashable]]]:
    """Each column of a table as a ranking of the systems that have a score there; equal scores tie.

    `table` is systems x tasks (or items), NaN or None where a score is missing; `higher_is_better` is one answer for
    all columns or one for each. Columns with fewer than two scores are left out, for they rank nothing.
    """
    values = np.array(table, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(systems):
        raise InputError(f"the table has {len(values)} rows: it needs one for each of {len(systems)} systems")
    up = np.broadcast_to(np.asarray(higher_is_better, dtype=bool), values.shape[1:])
    rankings = []
    for column, rises in zip(values.T, up, strict=True):
        seen = np.flatnonzero(~np.isnan(column))
        if len(seen) < 2:
            continue
        levels, level = np.unique(-column[seen] if rises else column[seen], return_inverse=True)
        groups: list[list[Hashable]] = [[] for _ in levels]
        for row, place in zip(seen, level, strict=True):
            groups[place].append(systems[int(row)])
        rankings.append(groups)
    return rankings


def table_consensus(
    table: Sequence[Sequence[float]] | NDArray[Any],
    systems: Sequence[Hashable],
    higher_is_better: Sequence[bool] | bool = True,
    groups: Sequence[Hashable] | None = None,
    method: Consensus = "borda",
) -> Scores:
    """One ranking of the systems from their scores on many tasks, each task counting the same whatever its scale.

    Every column becomes a ranking, and `method` joins them. With `groups`, one name a column, there are two levels:
    first a consensus within each group of columns, then one over the groups', so that a group with many columns counts
    no more than another.
    """
    if method not in _CONSENSUS:
        raise InputError(f"method is {method!r}: it must be borda or kemeny")
    join = _CONSENSUS[method]
    values = np.array(table, dtype=np.float64)
    if groups is None:
        return join(table_rankings(values, systems, higher_is_better))
    if values.ndim != 2 or len(groups) != values.shape[1]:
        raise InputError(f"there are {len(groups)} names of groups: give one for each column of the table")
    up = np.broadcast_to(np.asarray(higher_is_better, dtype=bool), values.shape[1:])
    level = []
    for name in dict.fromkeys(groups):
        columns = [i for i, group in enumerate(groups) if group == name]
        inner = join(table_rankings(values[:, columns], systems, [bool(up[i]) for i in columns]))
        level.append(_tied(inner))
    return join([ranking for ranking in level if ranking])


def table_strengths(
    table: Sequence[Sequence[float]] | NDArray[Any],
    systems: Sequence[Hashable],
    higher_is_better: Sequence[bool] | bool = True,
    bootstrap: int = 0,
    seed: int = 0,
) -> Scores:
    """Plackett-Luce strengths of the systems, each item (column) being a partial ranking of those scored on it.

    Sound when nearly all entries are missing: a missing score says nothing, and an item ranks only who tried it.
    """
    return plackett_luce(table_rankings(table, systems, higher_is_better), bootstrap=bootstrap, seed=seed)


def triplet_ranking(
    preferences: NDArray[Any], models: Sequence[Hashable], method: Literal["greedy", "full"] = "full"
) -> Scores:
    """A ranking of models that judge each other, without ground truth, from triplets (2402.14860).

    `preferences[j, a, b]` is the share of prompts on which judge j prefers a to b (NaN: not judged; j in {a, b} is not
    used). In a triplet each member judges the other two, and the one that loses most by the others' word is the worst.

    - `full`: every triplet counts: each judge's word on the other two is weighted by its reputation, the mean share of
      what it wins over all triplets so weighted, iterated to a fixed point from equal reputations.
    - `greedy`: models are taken in order of their names; the worst of the two survivors so far and the next one is set
      aside until two are left, which are the best; the rest is ranked the same way. O(n^2) triplets.

    Fewer than three models: no triplet, a note.
    """
    if method not in ("greedy", "full"):
        raise InputError(f"method is {method!r}: it must be greedy or full")
    share = np.array(preferences, dtype=np.float64)
    size = len(models)
    if share.shape != (size, size, size):
        raise InputError(f"preferences have the shape {share.shape}: they need {size} x {size} x {size}, judge first")
    name = f"triplets-{method}"
    if size < 3:
        return Scores(name, tuple(models), None, None, None, 0, "Triplets need three models or more.")
    triplets = size * (size - 1) * (size - 2) // 6
    if method == "greedy":
        order = _greedy(share, sorted(range(size), key=lambda i: str(models[i])))
        value = np.empty(size)
        value[order] = np.arange(size, 0, -1)
        return Scores(name, tuple(models), value, None, None, triplets)
    value, settled = _full(share)
    note = None if settled else "Reputations did not settle; the last ones are given."
    return Scores(name, tuple(models), value, None, None, triplets, note)


def equilibrium_ranking(
    generator: NDArray[Any] | Sequence[Any],
    discriminator: NDArray[Any] | Sequence[Any],
    rate: float = 0.1,
    pull: float = 0.1,
    rounds: int = 5000,
) -> Scores:
    """Candidates scored where a model's two ways of scoring them agree: the consensus game (2310.09139).

    `generator` is n x 2, the log-probability of each candidate given that the answer is to be correct, and incorrect;
    `discriminator` is n x 2, the log-probability of the verdicts correct and incorrect on each candidate. Both players
    are rewarded for agreeing and held near where they began (`pull`); no-regret steps of `rate` for `rounds` rounds.
    The score is the product of the final probabilities P_G(candidate | correct) P_D(correct | candidate), which sums
    to at most 1. Items are the candidates' positions.
    """
    said_g, said_d = np.array(generator, dtype=np.float64), np.array(discriminator, dtype=np.float64)
    if said_g.ndim != 2 or said_g.shape[1] != 2 or said_g.shape != said_d.shape:
        raise InputError("generator and discriminator must both be candidates x 2: correct, then incorrect")
    if not len(said_g):
        return Scores("equilibrium", (), np.zeros(0), None, None, 0, "There are no candidates.")
    if not (np.isfinite(said_g).all() and np.isfinite(said_d).all()):
        raise InputError("log-probabilities must be finite: give an impossible candidate a very low one")
    first_g, first_d = log_softmax(said_g, axis=0), log_softmax(said_d, axis=1)
    policy_g, policy_d = np.exp(first_g), np.exp(first_d)
    reward_g, reward_d = np.zeros_like(policy_g), np.zeros_like(policy_d)
    for t in range(1, rounds + 1):
        reward_g, reward_d = reward_g + policy_d / 2, reward_d + policy_g / 2
        scale = 1 / (rate * t) + pull
        policy_g = softmax((reward_g / t + pull * first_g) / scale, axis=0)
        policy_d = softmax((reward_d / t + pull * first_d) / scale, axis=1)
    value = np.asarray(policy_g[:, 0] * policy_d[:, 0], dtype=np.float64)
    return Scores("equilibrium", tuple(range(len(value))), value, None, None, len(value))


def most_disputed(shares: NDArray[Any] | Sequence[Sequence[float]], count: int | None = None) -> list[int]:
    """The pairs that a human should see next: where the judges disagree most.

    `shares` is judges x pairs, each judge's probability (or share) for the left answer, NaN where it gave none. Pairs
    fall by the variance of the judges' shares, then by how near their mean is to one half, then by position; those
    that fewer than two judges answered come last. Returns positions, `count` of them or all.
    """
    table = np.array(shares, dtype=np.float64)
    if table.ndim != 2:
        raise InputError("shares must be judges x pairs")
    known = ~np.isnan(table)
    answered = known.sum(axis=0)
    filled = np.where(known, table, 0.0)
    mean = filled.sum(axis=0) / np.maximum(answered, 1)
    variance = (np.where(known, table - mean, 0.0) ** 2).sum(axis=0) / np.maximum(answered, 1)
    order = np.lexsort((np.arange(len(mean)), np.round(np.abs(mean - 0.5), 12), -np.round(variance, 12), answered < 2))
    return [int(i) for i in order[:count]]


def _tied(scores: Scores) -> list[list[Hashable]]:
    """A ranking with ties from scores."""
    if scores.ranks is None:
        return []
    ranks = scores.ranks
    return [[scores.items[i] for i in np.flatnonzero(ranks == rank)] for rank in np.unique(ranks)]


def _full(share: Floats) -> tuple[Floats, bool]:
    size = len(share)
    judge, a, b = (np.array(side) for side in zip(*itertools.permutations(range(size), 3), strict=True))
    known = ~np.isnan(share[judge, a, b])
    judge, a, won = judge[known], a[known], share[judge, a, b][known]
    reputation = np.full(size, 0.5)
    for _ in range(1000):
        total = np.bincount(a, weights=reputation[judge], minlength=size)
        gained = np.bincount(a, weights=reputation[judge] * won, minlength=size)
        new = np.divide(gained, total, out=np.full(size, 0.5), where=total > 0)
        change = float(np.abs(new - reputation).max())
        reputation = 0.5 * (reputation + new)
        if change < 1e-12:
            return reputation, True
    return reputation, False


def _greedy(share: Floats, models: list[int]) -> list[int]:
    if len(models) < 2:
        return models
    survivors, aside = models[:2], []
    for model in models[2:]:
        trio = [*survivors, model]
        worst = min(trio, key=lambda m: (_word(share, m, trio), trio.index(m)))
        aside.append(worst)
        survivors = [m for m in trio if m != worst]
    first, second = survivors
    others = [judge for judge in range(len(share)) if judge not in survivors]
    lead = np.nan_to_num(share[others, first, second], nan=0.5).sum() - len(others) / 2
    best = [first, second] if lead >= 0 else [second, first]
    return best + _greedy(share, aside)


def _word(share: Floats, model: int, trio: list[int]) -> float:
    """What the other two, each judging the model against the third, give it."""
    one, other = (m for m in trio if m != model)
    given = np.array([share[one, model, other], share[other, model, one]])
    return float(np.nan_to_num(given, nan=0.5).sum())
