"""Panels of judges: weights from an exam or from each other, what each judge adds, and how many there are in effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmrank.aggregate.labels import Labels, peer_rank
from llmrank.aggregate.results import Floats, Ints, sentence
from llmrank.errors import InputError


@dataclass(frozen=True, eq=False)
class Weights:
    """What each judge's vote weighs."""

    weight: Floats
    """From 0 up, one a judge; 0 is no vote."""
    score: Floats
    """What the weight was made of: the share of right answers in an exam, the score that the peers gave."""
    n: Ints
    """On how many labels each score rests."""
    note: str | None = None


def exam_weights(
    truth: ArrayLike, table: ArrayLike, grades: int | None = None, pass_mark: float | None = None
) -> Weights:
    """Votes weighed by a qualification exam: the log-odds of a right answer, 0 for a judge who does not pass.

    truth : the right grade of each item. table : items x judges, NaN where a judge gave no label, which counts as
    wrong. grades : how many grades there are, else those that occur in truth. pass_mark : the least share of right
    answers, else just above what guessing gets.

    w_j = log((k - 1) p_j / (1 - p_j)) with p_j = (right_j + 1) / (n + k), k grades, is the best weight where judges err
    independently and alike over the wrong grades (Nitzan and Paroush 1982 for k = 2). Reviewers that must pass an exam
    and then vote with weights: PRE (2401.15641).
    """
    right, given = _truth_and_labels(truth, table)
    n, judges = given.shape
    k = max(2, len(np.unique(right)) if grades is None else grades)
    if not n:
        return Weights(np.ones(judges), np.full(judges, np.nan), np.zeros(judges, dtype=np.int64), "The exam is empty.")
    hits = (given == right[:, None]).sum(axis=0)
    chance = (hits + 1) / (n + k)
    weight = np.maximum(0.0, np.log((k - 1) * chance / (1 - chance)))
    share = hits / n
    if pass_mark is not None:
        weight = np.where(share >= pass_mark, np.maximum(weight, 1e-9), 0.0)
    failed = int((weight == 0).sum())
    note = f"{failed} of {judges} judges did not pass the exam and have no vote." if failed else ""
    return Weights(weight, share, np.full(judges, n, dtype=np.int64), sentence(note))


def peer_weights(table: ArrayLike) -> Weights:
    """Votes weighed by how far the other judges agree with a judge, each of these weighed the same way: peer rank.

    table : items x judges, NaN where a judge gave no label. Judge j scores judge i by Cohen's kappa between them over
    the items that both have labelled, 0 where it is below; the fixed point is that of `peer_rank` (2307.02762).
    """
    given = np.asarray(table, dtype=np.float64)
    judges = given.shape[1]
    scores: dict[Any, dict[Any, float]] = {j: {} for j in range(judges)}
    for j in range(judges):
        for i in range(judges):
            agreement = cohen_kappa(given[:, j], given[:, i]) if i != j else np.nan
            if not np.isnan(agreement):
                scores[j][i] = max(0.0, agreement)
    ranked = peer_rank(scores)
    score = np.full(judges, np.nan)
    for judge, value in ranked.as_dict().items():
        score[int(str(judge))] = value
    labels = (~np.isnan(given)).sum(axis=0).astype(np.int64)
    weight = np.nan_to_num(score)
    if not weight.sum() > 0:
        return Weights(np.ones(judges), score, labels, "No two judges agree beyond chance; all votes weigh the same.")
    return Weights(weight, score, labels, ranked.note)


def cohen_kappa(one: ArrayLike, other: ArrayLike) -> float:
    """Cohen's kappa of two judges over the items that both have labelled; NaN where it does not exist."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        return float("nan")
    a, b = a[both], b[both]
    classes = np.unique(np.concatenate([a, b]))
    chance = float(sum((a == c).mean() * (b == c).mean() for c in classes))
    return float("nan") if chance >= 1 - 1e-12 else ((a == b).mean() - chance) / (1 - chance)


@dataclass(frozen=True, eq=False)
class Effective:
    """How many independent judges a panel is worth."""

    value: float | None
    """From 1 where all err alike to the number of judges where errors have nothing to do with each other; more than
    that where they make up for each other. None where there are no errors to go by."""
    correlation: Floats
    """Judges x judges: correlation of their errors, NaN where it does not exist."""
    n: int
    """Items with a truth and at least two labels."""
    note: str | None = None


def effective_judges(table: ArrayLike, truth: ArrayLike) -> Effective:
    """The effective number of independent judges, m / (1 + (m - 1) r), r the mean correlation of two judges' errors.

    table : items x judges, NaN where a judge gave no label. truth : the right grade of each item, NaN where it is not
    known; the panel's own label in its place understates what judges have in common. Errors are label less truth. It is
    the number of judges with independent errors whose mean would err as much as the panel's (Kish 1965, design effect).
    """
    right, given = _truth_and_labels(truth, table)
    known = ~np.isnan(right)
    errors = (given - right[:, None])[known]
    errors = errors[(~np.isnan(errors)).sum(axis=1) > 1]
    m = given.shape[1]
    correlation = np.full((m, m), np.nan)
    for i in range(m):
        for j in range(m):
            both = ~(np.isnan(errors[:, i]) | np.isnan(errors[:, j]))
            x, y = errors[both, i], errors[both, j]
            if len(x) > 2 and x.std() > 1e-12 and y.std() > 1e-12:
                correlation[i, j] = np.corrcoef(x, y)[0, 1]
    pairs = correlation[np.triu_indices(m, 1)]
    if not m or np.isnan(pairs).all():
        return Effective(None, correlation, len(errors), "There are no errors of two judges to be correlated.")
    mean = float(np.nanmean(pairs))
    if 1 + (m - 1) * mean <= 1e-9:
        return Effective(None, correlation, len(errors), "The judges' errors cancel out; no number says how many.")
    missing = int(np.isnan(pairs).sum())
    note = (
        f"{missing} of {len(pairs)} pairs of judges have no correlation of errors and are left out." if missing else ""
    )
    return Effective(m / (1 + (m - 1) * mean), correlation, len(errors), sentence(note))


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What becomes of a panel without one of its judges."""

    agreement: Floats
    """Of each judge: kappa of its labels and those of the panel without it."""
    changed: Floats
    """Of each judge: share of the items whose label is another without it, or none."""
    n: int


def leave_one_out(table: ArrayLike, decide: Callable[[Floats], Labels]) -> LeftOut:
    """The panel decides once without each judge (Language Model Council, 2406.08598). `decide` takes items x judges."""
    given = np.asarray(table, dtype=np.float64)
    items, judges = given.shape
    full = as_numbers(decide(given).label)
    agreement, changed = np.full(judges, np.nan), np.full(judges, np.nan)
    for j in range(judges):
        rest = as_numbers(decide(np.delete(given, j, axis=1)).label)
        agreement[j] = cohen_kappa(given[:, j], rest)
        if items:
            changed[j] = float(((full != rest) & ~(np.isnan(full) & np.isnan(rest))).mean())
    return LeftOut(agreement, changed, items)


@dataclass(frozen=True, eq=False)
class Separability:
    """How many pairs of systems a judge's scores can tell apart."""

    value: float | None
    """Share of the pairs of systems whose intervals do not overlap."""
    low: Floats
    high: Floats
    pairs: int
    note: str | None = None


def separability(scores: ArrayLike, bootstrap: int = 1000, level: float = 0.95, seed: int = 0) -> Separability:
    """The share of pairs of systems with intervals that do not overlap (Language Model Council, 2406.08598).

    scores : topics x systems, under one judge's labels, NaN where a system has none. Intervals are percentiles of the
    mean over resampled topics.
    """
    values = np.asarray(scores, dtype=np.float64)
    topics, systems = values.shape
    pairs = systems * (systems - 1) // 2
    if topics < 2 or not pairs:
        empty = np.full(systems, np.nan)
        return Separability(None, empty, empty, pairs, "Two systems and two topics are needed.")
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    times = np.random.default_rng(seed).multinomial(topics, np.full(topics, 1 / topics), size=bootstrap)
    counts = times @ known
    means = np.divide(times @ filled, counts, out=np.zeros(counts.shape), where=counts > 0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    apart = (low[:, None] > high[None, :]) | (low[None, :] > high[:, None])
    return Separability(float(apart[np.triu_indices(systems, 1)].mean()), low, high, pairs)


def as_numbers(labels: Sequence[Any]) -> NDArray[np.float64]:
    """Labels as numbers, NaN where there is none."""
    return np.array([np.nan if label is None else float(label) for label in labels])


def _truth_and_labels(truth: ArrayLike, table: ArrayLike) -> tuple[Floats, Floats]:
    right, given = np.asarray(truth, dtype=np.float64), np.asarray(table, dtype=np.float64)
    if given.ndim != 2 or right.shape != given.shape[:1]:
        raise InputError(f"truth has {right.size} grades, the table {len(given)} rows: give one grade a row")
    return right, given
