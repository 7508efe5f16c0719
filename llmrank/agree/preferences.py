"""How far a judge's preferences agree with true ones: accuracy, kappa, and its biases for a side and for length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from llmrank.agree.confusion import Array, Confusion
from llmrank.agree.labels import accuracy, cohen_kappa
from llmrank.agree.resampling import Resampling, Sample
from llmrank.agree.results import Figure

NO_QUERIES = "the files have no query_id for every pair, so pairs are resampled"


class Votes(Protocol):
    """Columns of equal length, a row a vote, as `llmrank.data.comparisons.ComparisonTable` has them."""

    @property
    def left(self) -> Sequence[Hashable]: ...
    @property
    def right(self) -> Sequence[Hashable]: ...
    @property
    def share(self) -> Sequence[float]:
        """Left's share of the win in [0, 1]; 0.5 is a tie."""

    @property
    def weight(self) -> Sequence[float]: ...
    @property
    def query_id(self) -> Sequence[Hashable | None]: ...
    @property
    def left_length(self) -> Sequence[float | None]: ...
    @property
    def right_length(self) -> Sequence[float | None]: ...


@dataclass(frozen=True, slots=True)
class PreferenceAgreement:
    """How far one judge's preferences agree with the truth."""

    pairs: int
    """Pairs of items, each within its query, that both have compared: the only ones that count."""
    truth_pairs: int
    """Pairs of items that the truth has compared."""
    topics: int | None
    """Queries of `pairs`; None where not every pair has a query."""
    figures: dict[str, Figure]
    notes: tuple[str, ...] = ()

    @property
    def coverage(self) -> float:
        return self.pairs / self.truth_pairs if self.truth_pairs else 0.0


def agree_on_preferences(truth: Votes, judge: Votes, settings: Resampling = Resampling()) -> PreferenceAgreement:
    """Compare a judge's preferences with the true ones.

    Rows match by query and unordered pair. A pair's truth is the majority of its votes (a vote counts its weight), an
    even split a tie. The judge's answer is the majority in each order it was asked; where the two orders disagree, a
    tie. An item against itself is left out.

    `accuracy`: share of equal answers, ties as a third class. `accuracy_no_ties`: over pairs where neither says tie.
    `kappa`: Cohen's, over left / tie / right as the truth shows the pair (one that it shows both ways counts a share
    each way). `order_consistency`: share of the pairs asked in both orders with one answer. `position_bias`: left's
    share of the win less 1/2, over those pairs. `length_bias`: share won by the longer item under the judge less that
    under the truth, a tie half, over pairs of known and different lengths.

    settings : queries are resampled; pairs where `resample` says so, or where a pair has no query.
    """
    true, said = _by_pair(truth), _by_pair(judge)
    matched = [(key, _Pair.of(true[key], said[key])) for key in true if key in said]
    with_queries = all(key.query is not None for key, _ in matched)
    by_pair = settings.resample == "pairs" or not with_queries
    units: dict[Hashable, Array] = defaultdict(lambda: np.zeros(CELLS))
    for key, pair in matched:
        units[key if by_pair else key.query] += pair.cells()
    rows = np.array(list(units.values())).reshape(len(units), CELLS)
    by = "pairs" if by_pair else "topics"
    sample = Sample.of_units(rows, settings, by, size=lambda units: units[:, :TABLE].sum(1))
    figures = {name: _figure(statistic, sample) for name, statistic in STATISTICS.items()}
    notes = tuple(_notes(truth, judge, len(matched), len(true), with_queries))
    if not with_queries:
        figures = {n: replace(f, note="; ".join(p for p in (f.note, NO_QUERIES) if p)) for n, f in figures.items()}
    topics = len({key.query for key, _ in matched}) if with_queries else None
    return PreferenceAgreement(len(matched), len(true), topics, figures, notes)


class _Key(NamedTuple):
    """A pair of items in a query."""

    query: Hashable | None
    items: frozenset[Hashable]


class _Vote(NamedTuple):
    left: Hashable
    share: float
    weight: float
    lengths: dict[Hashable, float | None]


TABLE = 9
CELLS = TABLE + 6
"""What is summed over pairs: the 3 x 3 table of true and judged left / tie / right; then pairs asked in both orders,
those with one answer, left's share less 1/2; pairs of different length, wins of the longer under judge and truth."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """One pair under truth and judge; wins are those of `first`, either of the two items."""

    truth: float
    judge: float
    shown_first: float
    """Share of the truth's rows in which `first` stands on the left."""
    orders: tuple[float, ...]
    """The judge's answer for each order asked, first on the left and then the other way round."""
    left_share: float
    """Left's mean share of the win over the two orders, where both were asked."""
    longer: float | None
    """1 if `first` is longer, 0 if shorter, None if unknown or equal."""

    @classmethod
    def of(cls, truth: list[_Vote], judge: list[_Vote]) -> _Pair:
        first = truth[0].left
        sides = [[vote for vote in judge if (vote.left == first) == on_left] for on_left in (True, False)]
        orders = tuple(_majority(side, first) for side in sides if side)
        shares = [np.average([v.share for v in side], weights=[v.weight for v in side]) for side in sides if side]
        return cls(
            truth=_majority(truth, first),
            judge=orders[0] if len(set(orders)) == 1 else 0.5,
            shown_first=sum(vote.left == first for vote in truth) / len(truth),
            orders=orders,
            left_share=float(np.mean(shares)),
            longer=_longer(judge, first) if _longer(judge, first) is not None else _longer(truth, first),
        )

    def cells(self) -> Array:
        """Shape (CELLS,): what this pair adds to the sums."""
        cells = np.zeros(CELLS)
        for shown, share in ((True, self.shown_first), (False, 1 - self.shown_first)):
            row, column = (round(2 * (1 - win if shown else win)) for win in (self.truth, self.judge))
            cells[3 * row + column] += share
        if len(self.orders) == 2:
            cells[TABLE : TABLE + 3] = 1, self.orders[0] == self.orders[1], self.left_share - 0.5
        if self.longer is not None:
            wins = (win if self.longer else 1 - win for win in (self.judge, self.truth))
            cells[TABLE + 3 :] = 1, *wins
        return cells


def _by_pair(votes: Votes) -> dict[_Key, list[_Vote]]:
    found: dict[_Key, list[_Vote]] = defaultdict(list)
    columns = (
        votes.left,
        votes.right,
        votes.share,
        votes.weight,
        votes.query_id,
        votes.left_length,
        votes.right_length,
    )
    for left, right, share, weight, query, left_length, right_length in zip(*columns, strict=True):
        if left != right and weight > 0:
            lengths = {left: left_length, right: right_length}
            found[_Key(query, frozenset((left, right)))].append(_Vote(left, share, weight, lengths))
    return dict(found)


def _majority(votes: list[_Vote], first: Hashable) -> float:
    """1 if most say `first`, 0 if most say the other, 0.5 if most say tie or none has most."""
    counts = {0.0: 0.0, 0.5: 0.0, 1.0: 0.0}
    for vote in votes:
        win = float(np.sign(vote.share - 0.5)) / 2 + 0.5
        counts[win if vote.left == first else 1 - win] += vote.weight
    most = max(counts.values())
    winners = [win for win, count in counts.items() if count >= most * (1 - 1e-12)]
    return winners[0] if len(winners) == 1 else 0.5


def _longer(votes: list[_Vote], first: Hashable) -> float | None:
    """1 if `first` is the longer of the two, 0 if the shorter; None where that is not known or they are equal."""
    known: list[float] = []
    for vote in votes:
        ours = vote.lengths[first]
        other = next(length for item, length in vote.lengths.items() if item != first)
        if ours is not None and other is not None:
            known.append(ours - other)
    difference = sum(known)
    return None if difference == 0 else float(difference > 0)


class _Statistic(NamedTuple):
    """A figure: a function of the sums, the cells that count what it is over, and why it may be missing."""

    function: Callable[[Array], Array]
    over: Sequence[int]
    missing: str


def _table(sums: Array) -> Confusion:
    return Confusion(sums[..., :TABLE].reshape(*sums.shape[:-1], 3, 3), np.arange(3.0))


def _share(sums: Array, part: Sequence[int], whole: Sequence[int]) -> Array:
    top, bottom = sums[..., part].sum(-1), sums[..., whole].sum(-1)
    return np.asarray(np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 1e-9))


_ALL, _UNTIED = range(TABLE), [0, 2, 6, 8]
_BOTH, _ONE_ANSWER, _LEFT, _UNEQUAL, _JUDGE_LONGER, _TRUTH_LONGER = ([cell] for cell in range(TABLE, CELLS))
_NOT_BOTH = "no pair was asked in both orders"

STATISTICS: dict[str, _Statistic] = {
    "accuracy": _Statistic(lambda s: accuracy(_table(s)), _ALL, "there are no pairs that both have compared"),
    "accuracy_no_ties": _Statistic(lambda s: _share(s, [0, 8], _UNTIED), _UNTIED, "in every pair someone says tie"),
    "kappa": _Statistic(lambda s: cohen_kappa(_table(s)), _ALL, "truth and judge give one and the same answer only"),
    "order_consistency": _Statistic(lambda s: _share(s, _ONE_ANSWER, _BOTH), _BOTH, _NOT_BOTH),
    "position_bias": _Statistic(lambda s: _share(s, _LEFT, _BOTH), _BOTH, _NOT_BOTH),
    "length_bias": _Statistic(
        lambda s: _share(s, _JUDGE_LONGER, _UNEQUAL) - _share(s, _TRUTH_LONGER, _UNEQUAL),
        _UNEQUAL,
        "no pair has a left_length and a right_length that differ",
    ),
}
"""The figures of preferences, by name."""


def _figure(statistic: _Statistic, sample: Sample) -> Figure:
    n = round(float(sample.total[list(statistic.over)].sum()))
    pairs = round(float(sample.total[:TABLE].sum()))
    return sample.figure(statistic.function, n, statistic.missing if pairs else STATISTICS["accuracy"].missing)


def _notes(truth: Votes, judge: Votes, pairs: int, wanted: int, with_queries: bool) -> Iterator[str]:
    if pairs == 0:
        yield "no pair of items was compared by both: are the ids, and the query_id, the same?"
    elif pairs < wanted:
        yield f"{wanted - pairs} of the truth's {wanted} pairs were not compared by the judge and are left out"
    if not with_queries:
        yield NO_QUERIES
    for name, votes in (("truth", truth), ("judge", judge)):
        selves = sum(left == right for left, right in zip(votes.left, votes.right, strict=True))
        if selves:
            yield f"{selves} rows of the {name} compare an item with itself and are left out"
