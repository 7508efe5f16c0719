"""Labels of several judges to one label an item: votes, means, and models of the judges' errors."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp, xlogy

from llmrank.aggregate.comparisons import id_key
from llmrank.aggregate.results import Floats, Ints, Scores, named, sentence
from llmrank.errors import InputError

Table = Sequence[Sequence[Any]] | NDArray[Any]
"""One row an item, one column a judge; None or NaN where a judge gave no label."""


@dataclass(frozen=True, eq=False)
class Labels:
    """One label for each item, in the order of the rows."""

    method: str
    label: tuple[Any, ...]
    """The label of each item; None where there is none (no votes, or votes that decide nothing)."""
    classes: tuple[Hashable, ...]
    """The labels that occur, in rising order."""
    distribution: Floats | None
    """Items x classes: share of the votes, or probability; rows without any label are uniform. None for numbers."""
    confidence: Floats
    """Of each item: the share or probability of its label; for means and medians the standard error (0 of one)."""
    n: int
    """How many labels went in."""
    note: str | None = None
    """Sentences about what the reader must know; None where there is nothing."""
    reliability: Floats | None = None
    """Of each judge, where the method estimates it: the probability of a right label (Dawid-Skene), ability (GLAD)."""
    confusion: Floats | None = None
    """Judges x true class x given class, where the method estimates it."""
    difficulty: Floats | None = None
    """Of each item, where the method estimates it: above 0, larger is harder."""
    tied: NDArray[np.bool_] | None = None
    """Of each item, for votes: whether several labels share the most of them."""


def majority(
    table: Table, weight: Sequence[float] | None = None, strict: bool = False, ties: Literal["none", "lower"] = "none"
) -> Labels:
    """The label with the most votes; where several share the most None, or with `ties="lower"` the lowest of them.

    `weight` has one number a judge, for weighted votes. `strict` asks for more than half of an item's votes, else the
    item abstains (None). A judge without a label for an item does not vote on it.
    """
    coded = _coded(table)
    weights = np.ones(coded.judges) if weight is None else np.asarray(weight, dtype=np.float64)
    if len(weights) != coded.judges or not (np.isfinite(weights) & (weights >= 0)).all():
        raise InputError(f"there are {coded.judges} judges: give a weight from 0 up for each")
    votes = _votes(coded, weights)
    total = votes.sum(axis=1)
    most = votes.max(axis=1, initial=0.0)
    tied = (total > 0) & ((votes >= most[:, None] - 1e-12).sum(axis=1) > 1)
    clear = (total > 0) & ~(tied & (ties == "none"))
    if strict:
        clear &= most > total / 2 + 1e-12
    share = _shares(votes)
    # The first of those that share the most, which is the lowest: weights may differ in their last digit.
    best = (votes >= most[:, None] - 1e-12).argmax(axis=1) if coded.classes else np.zeros(coded.items, dtype=np.int64)
    label = tuple(coded.classes[c] if ok else None for c, ok in zip(best, clear, strict=True))
    undecided = int((~clear & (total > 0)).sum())
    told = f"{undecided} items have no {'strict ' if strict else ''}majority and no label." if undecided else ""
    confidence = share.max(axis=1, initial=0.0) * (total > 0)
    note = sentence(_empty(coded), told)
    return Labels("majority", label, coded.classes, share, confidence, coded.n, note, tied=tied)


def mean_label(table: Table) -> Labels:
    """The mean of an item's labels, which must be numbers; `confidence` holds its standard error."""
    return _numeric("mean", table, np.nanmean)


def median_label(table: Table) -> Labels:
    """The median of an item's labels, which must be numbers: the mean of the middle two for an even number."""
    return _numeric("median", table, np.nanmedian)


def dawid_skene(table: Table, iterations: int = 500, smoothing: float = 0.01) -> Labels:
    """True labels and the judges' confusion matrices by the EM algorithm of Dawid and Skene (1979).

    P(judge j says l | truth k) = pi_j[k, l], classes have prevalences p_k, judges err independently. Starts from the
    shares of the votes; `smoothing` labels are added to each cell, so that no probability is 0. Deterministic. An item
    without labels gets none.
    """
    coded = _coded(table)
    if not coded.n:
        return _nothing("dawid-skene", coded)
    size = len(coded.classes)
    belief = _shares(_votes(coded, np.ones(coded.judges)))
    held = np.bincount(coded.item, minlength=coded.items) > 0
    place = coded.judge * size + coded.label
    previous = -np.inf
    for _ in range(iterations):
        # Judges x given x true, then turned.
        counts = np.zeros((coded.judges * size, size))
        np.add.at(counts, place, belief[coded.item])
        confusion = counts.reshape(coded.judges, size, size).transpose(0, 2, 1) + smoothing
        confusion /= confusion.sum(axis=2, keepdims=True)
        prevalence = belief[held].sum(axis=0) + smoothing
        prevalence /= prevalence.sum()
        log = np.tile(np.log(prevalence), (coded.items, 1))
        np.add.at(log, coded.item, np.log(confusion)[coded.judge, :, coded.label])
        total = logsumexp(log, axis=1)
        belief = np.exp(log - total[:, None])
        # With the smoothing EM climbs the penalised likelihood.
        penalty = smoothing * (np.log(confusion).sum() + np.log(prevalence).sum())
        likelihood = float(total[held].sum() + penalty)
        if likelihood - previous < 1e-9 * abs(likelihood):
            break
        previous = likelihood
    right = np.einsum("k,jkk->j", prevalence, confusion)
    return _believed("dawid-skene", coded, belief, held, reliability=right, confusion=confusion)


def glad(table: Table, iterations: int = 200) -> Labels:
    """True labels, judges' abilities and items' difficulties, as in GLAD (Whitehill et al., NIPS 2009).

    P(judge j is right on item i) = 1 / (1 + exp(-a_j b_i)), a wrong label being any other class alike; ability a_j may
    be negative, 1 / b_i > 0 is the item's difficulty. EM with normal priors a ~ N(1, 1), log b ~ N(0, 1), which also
    fix the scale; gradient steps with halving inside the M step. An item without labels gets none.
    """
    coded = _coded(table)
    if not coded.n:
        return _nothing("glad", coded)
    held = np.bincount(coded.item, minlength=coded.items) > 0
    ability, ease = np.ones(coded.judges), np.zeros(coded.items)
    belief = _shares(_votes(coded, np.ones(coded.judges)))
    for _ in range(iterations):
        right = belief[coded.item, coded.label]
        ability, ease = _glad_step(coded, right, ability, ease)
        new = _glad_belief(coded, ability, ease)
        change = float(np.abs(new - belief).max())
        belief = new
        if change < 1e-7:
            break
    return _believed("glad", coded, belief, held, reliability=ability, difficulty=np.exp(-ease))


def peer_rank(scores: Mapping[Hashable, Mapping[Hashable, float]], iterations: int = 1000) -> Scores:
    """Scores of judges who judge each other, each judge's votes weighing what it scores itself: to the fixed point.

    `scores[judge][contestant]` is a number from 0 up, e.g. a win rate; what a judge says of itself is left out, a
    missing entry too. The fixed point s_i = sum_j w_j x_ji / sum_j w_j over the judges j of i, with w = s over its sum
    on the judges, is reached from equal weights. A contestant that nobody else judged has no score: it is in the note.
    Peer rank of Li et al. (2307.02762).
    """
    judges = sorted(scores, key=id_key)
    contestants = sorted({c for said in scores.values() for c in said} | set(judges), key=id_key)
    matrix = np.array([[scores[j].get(c, np.nan) if c != j else np.nan for c in contestants] for j in judges])
    if not judges or np.isnan(matrix).all():
        return Scores("peer-rank", (), np.zeros(0), None, None, 0, "No judge has scored another contestant.")
    if (matrix < 0).any() or np.isinf(matrix).any():
        raise InputError("scores of contestants must be finite and from 0 up, e.g. win rates")
    known = ~np.isnan(matrix)
    filled = np.where(known, matrix, 0.0)
    own = [contestants.index(judge) for judge in judges]
    weight = np.full(len(judges), 1 / len(judges))
    value = np.zeros(len(contestants))
    for _ in range(iterations):
        votes = weight @ known
        new = np.divide(weight @ filled, votes, out=np.zeros(len(contestants)), where=votes > 0)
        change, value = float(np.abs(new - value).max()), new
        total = value[own].sum()
        if change < 1e-12 or total <= 0:
            break
        # Half a step keeps judges that praise each other in turn from swinging.
        weight = 0.5 * weight + 0.5 * value[own] / total
    judged = known.any(axis=0)
    left_out = [c for c, seen in zip(contestants, judged, strict=True) if not seen]
    note = f"Nobody else judged {named(left_out)}." if left_out else None
    kept = tuple(c for c, seen in zip(contestants, judged, strict=True) if seen)
    return Scores("peer-rank", kept, value[judged], None, None, int(known.sum()), note)


@dataclass(frozen=True, slots=True, eq=False)
class _Coded:
    """A table of labels as three parallel columns, one entry a label given."""

    items: int
    judges: int
    classes: tuple[Hashable, ...]
    item: Ints
    judge: Ints
    label: Ints

    @property
    def n(self) -> int:
        return len(self.item)


def _coded(table: Table) -> _Coded:
    if isinstance(table, np.ndarray) and table.ndim == 2 and table.dtype.kind == "f":  # all at once, in little memory
        item, judge = np.nonzero(~np.isnan(table))
        found, label = np.unique(table[item, judge], return_inverse=True)
        items, judges = table.shape
        return _Coded(items, judges, tuple(found.tolist()), item, judge, label.reshape(-1).astype(np.int64))
    listed = [list(row) for row in (table.tolist() if isinstance(table, np.ndarray) else table)]
    judges = len(listed[0]) if listed else 0
    for i, row in enumerate(listed):
        if len(row) != judges:
            raise InputError(
                f"item {i + 1} has {len(row)} labels, the first has {judges}: write None for a missing one"
            )
    given = [(i, j, x) for i, row in enumerate(listed) for j, x in enumerate(row) if not _missing(x)]
    classes = tuple(sorted({x for _, _, x in given}, key=id_key))
    index = {x: c for c, x in enumerate(classes)}
    item, judge = (np.array([entry[side] for entry in given], dtype=np.int64) for side in (0, 1))
    label = np.array([index[x] for _, _, x in given], dtype=np.int64)
    return _Coded(len(listed), judges, classes, item, judge, label)


def _missing(label: Any) -> bool:
    return label is None or (isinstance(label, float | np.floating) and bool(np.isnan(label)))


def _votes(coded: _Coded, weight: Floats) -> Floats:
    size = len(coded.classes)
    place = coded.item * size + coded.label
    counted = np.bincount(place, weights=weight[coded.judge], minlength=coded.items * size)
    return np.asarray(counted.reshape(coded.items, size), dtype=np.float64)


def _shares(votes: Floats) -> Floats:
    total = votes.sum(axis=1, keepdims=True)
    uniform = np.full(votes.shape, 1 / max(1, votes.shape[1]))
    return np.asarray(np.divide(votes, total, out=uniform, where=total > 0))


def _empty(coded: _Coded) -> str:
    if not coded.n:
        return "There are no labels."
    count = coded.items - len(np.unique(coded.item))
    return f"{count} items have no votes and no label." if count else ""


def _nothing(method: str, coded: _Coded) -> Labels:
    return Labels(method, (None,) * coded.items, (), None, np.zeros(coded.items), 0, _empty(coded))


def _numeric(method: str, table: Table, middle: Any) -> Labels:
    coded = _coded(table)
    if not all(isinstance(x, int | float | np.number) for x in coded.classes):
        raise InputError(f"{method} needs labels that are numbers: use majority or dawid_skene for others")
    if not coded.n:
        return _nothing(method, coded)
    values = np.full((coded.items, coded.judges), np.nan)
    values[coded.item, coded.judge] = np.array(coded.classes, dtype=np.float64)[coded.label]
    count = (~np.isnan(values)).sum(axis=1)
    label: list[float | None] = [None] * coded.items
    error = np.zeros(coded.items)
    for i in np.flatnonzero(count):
        label[i] = float(middle(values[i]))
        error[i] = float(np.nanstd(values[i], ddof=1) / np.sqrt(count[i])) if count[i] > 1 else 0.0
    return Labels(method, tuple(label), coded.classes, None, error, coded.n, sentence(_empty(coded)))


def _believed(method: str, coded: _Coded, belief: Floats, held: NDArray[np.bool_], **more: Any) -> Labels:
    """The likeliest class of each item that has labels."""
    best = belief.argmax(axis=1)
    label = tuple(coded.classes[c] if ok else None for c, ok in zip(best, held, strict=True))
    alone = "All labels are alike: nothing is known about the judges." if len(coded.classes) == 1 else ""
    note = sentence(_empty(coded), alone)
    return Labels(method, label, coded.classes, belief, belief.max(axis=1) * held, coded.n, note, **more)


def _glad_belief(coded: _Coded, ability: Floats, ease: Floats) -> Floats:
    size = len(coded.classes)
    right = expit(ability[coded.judge] * np.exp(ease[coded.item]))
    wrong = np.log1p(-np.clip(right, 0.0, 1 - 1e-12)) - np.log(max(1, size - 1))
    log = np.zeros((coded.items, size))
    # Every class but the one given gets the chance of a wrong label, that one the chance of a right one.
    np.add.at(log, coded.item, np.tile(wrong[:, None], (1, size)))
    np.add.at(log, (coded.item, coded.label), np.log(np.maximum(right, 1e-300)) - wrong)
    return np.asarray(np.exp(log - logsumexp(log, axis=1, keepdims=True)))


def _glad_step(coded: _Coded, right: Floats, ability: Floats, ease: Floats) -> tuple[Floats, Floats]:
    """A few gradient steps up the expected log-posterior in abilities and log-eases, halved until they climb."""

    def height(a: Floats, e: Floats) -> float:
        chance = expit(a[coded.judge] * np.exp(e[coded.item]))
        prior = ((a - 1) ** 2).sum() / 2 + (e**2).sum() / 2
        return float((xlogy(right, chance) + xlogy(1 - right, 1 - chance)).sum() - prior)

    now = height(ability, ease)
    share = 1.0
    for _ in range(10):
        b = np.exp(ease[coded.item])
        residual = right - expit(ability[coded.judge] * b)
        up_a = np.bincount(coded.judge, weights=residual * b, minlength=coded.judges) - (ability - 1)
        up_e = np.bincount(coded.item, weights=residual * ability[coded.judge] * b, minlength=coded.items) - ease
        # Scaled by how many labels each parameter has part in, so that one step suits all.
        up_a /= 1 + np.bincount(coded.judge, minlength=coded.judges) / 4
        up_e /= 1 + np.bincount(coded.item, minlength=coded.items) / 4
        while (new := height(ability + share * up_a, ease + share * up_e)) < now and share > 1e-8:
            share /= 2
        if new < now:
            break
        ability, ease, now = ability + share * up_a, ease + share * up_e, new
        share = min(1.0, 2 * share)
    return ability, ease
