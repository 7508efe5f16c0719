"""How far predicted labels agree with true ones: every statistic with its interval, and one judge against another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmrank.agree.confusion import Array, Confusion
from llmrank.agree.labels import BINARIZED, DISTANCES, STATISTICS, Statistic, hit_rates
from llmrank.agree.resampling import REPLICATES, Resampling, Sample
from llmrank.agree.results import Figure


def kappa(
    truth: ArrayLike | Sequence[float | None],
    predicted: ArrayLike | Sequence[float | None],
    topics: Sequence[Hashable] | None = None,
    weights: str | None = None,
    bootstrap: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> Figure:
    """Cohen's kappa of two labellers, with an interval.

    truth, predicted : a grade a pair, equally long. A pair with a grade missing (None or NaN) is left out.
    topics : the topic of each pair; topics are then what is resampled. Without them pairs are.
    weights : None, `linear` |i - j| or `quadratic` (i - j)^2, in the grades' own distances.
    bootstrap : resamples; 0 for no interval. seed, level : of the interval.

    n is the number of pairs. The value is None, and the note says why, where there are no pairs or both labellers use
    one grade only. Formula and source: `labels.cohen_kappa`; interval: `resampling.expanded_percentile`.
    """
    if weights not in DISTANCES:
        raise ValueError(f"weights {weights!r} are neither None, 'linear' nor 'quadratic'")
    if bootstrap < 0 or not 0 < level < 1:
        raise ValueError("bootstrap must be 0 or more, and level between 0 and 1")
    confusion, missing = counted(truth, predicted, topics)
    settings = Resampling(bootstrap, "pairs" if topics is None else "topics", seed, level)
    name = "kappa" if weights is None else f"kappa_{weights}"
    figure = ConfusionSample(confusion, settings).figure(STATISTICS[name])
    left_out = f"{missing} pairs without a grade are left out" if missing else None
    return replace(figure, note="; ".join(note for note in (figure.note, left_out) if note) or None)


def counted(
    truth: ArrayLike | Sequence[float | None],
    predicted: ArrayLike | Sequence[float | None],
    topics: Sequence[Hashable] | None = None,
    labels: ArrayLike | None = None,
) -> tuple[Confusion, int]:
    """Confusion counts, shape (topics, k, k), and the number of pairs left out for want of a grade.

    labels : all labels there are, rising; by default those that occur.
    """
    true, said = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if true.shape != said.shape or true.ndim != 1 or (topics is not None and len(topics) != len(true)):
        raise ValueError("truth, predicted and topics must be equally long")
    both = np.isfinite(true) & np.isfinite(said)
    occurring = np.unique([true[both], said[both]]) if both.any() else [0.0]
    known = np.asarray(occurring if labels is None else labels, dtype=np.float64)
    return Confusion.of(true[both], said[both], known, _numbers(topics, both)), int(np.count_nonzero(~both))


def _numbers(topics: Sequence[Hashable] | None, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of each kept pair's topic, in order of first appearance."""
    if topics is None:
        return np.zeros(int(kept.sum()), dtype=np.int64)
    number: dict[Hashable, int] = {}
    numbers = [number.setdefault(topic, len(number)) for topic, keep in zip(topics, kept, strict=True) if keep]
    return np.array(numbers, dtype=np.int64)


def label_figures(confusion: Confusion, settings: Resampling = Resampling()) -> dict[str, Figure]:
    """Every statistic of `STATISTICS` over all pairs. confusion : shape (topics, k, k), over the labels of a scale."""
    return ConfusionSample(confusion, settings).figures(STATISTICS)


def binarized_figures(
    confusion: Confusion, cuts: Iterable[float], settings: Resampling = Resampling()
) -> dict[float, dict[str, Figure]]:
    """Every statistic of `BINARIZED`, by cut: a label at or above it is relevant."""
    sample = ConfusionSample(confusion, settings)
    return {cut: sample.binarized(cut).figures(BINARIZED) for cut in cuts}


def hit_rate_figures(confusion: Confusion, settings: Resampling = Resampling()) -> dict[float, Figure]:
    """By label of the scale: of the pairs that have it in truth, the share that has it predicted; n counts them."""
    sample, rates = ConfusionSample(confusion, settings), {}
    for place, label in enumerate(confusion.labels.tolist()):
        rate = Statistic(partial(_hit_rate, place=place), "no pair has this label in truth")
        rates[label] = replace(sample.figure(rate), n=int(sample.seen.rows[place]))
    return rates


def _hit_rate(confusion: Confusion, place: int) -> Array:
    return np.asarray(hit_rates(confusion)[..., place])


class ConfusionSample:
    """Confusion counts of topics or pairs with their resamples, shared by all statistics."""

    def __init__(self, confusion: Confusion, settings: Resampling) -> None:
        """confusion : shape (topics, k, k)."""
        k = confusion.k
        if settings.resample == "pairs":
            self.sample = Sample.of_pairs(confusion.pooled().counts.ravel(), settings)
        else:
            self.sample = Sample.of_units(confusion.counts.reshape(-1, k * k), settings)
        sample = self.sample
        self.seen, self.drawn, self.without = (
            Confusion(sums.reshape(*sums.shape[:-1], k, k), confusion.labels)
            for sums in (sample.total, sample.drawn, sample.without)
        )

    def binarized(self, cut: float) -> ConfusionSample:
        """The same units and resamples with labels cut in two."""
        copy = object.__new__(ConfusionSample)
        copy.sample = self.sample
        copy.seen, copy.drawn, copy.without = (part.binarized(cut) for part in (self.seen, self.drawn, self.without))
        return copy

    def figures(self, statistics: Mapping[str, Statistic]) -> dict[str, Figure]:
        return {name: self.figure(statistic) for name, statistic in statistics.items()}

    def figure(self, statistic: Statistic) -> Figure:
        """The statistic of the whole sample with its interval; n is the number of pairs."""
        n = int(self.seen.total)
        if n == 0:
            return Figure(None, None, None, 0, "there are no pairs that both have labelled")
        value = float(statistic.function(self.seen))
        if not np.isfinite(value):
            return Figure(None, None, None, n, statistic.missing)
        if self.sample.settings.replicates == 0:
            return Figure(value, None, None, n)
        values = statistic.function(self.drawn), statistic.function(self.without)
        low, high, note = self.sample.interval(value, *values)
        return Figure(value, low, high, n, note)


def polarity(confusion: Confusion, settings: Resampling = Resampling()) -> str | None:
    """A sentence where the judge seems to read the scale from the wrong end, else None.

    That is where quadratic kappa is below 0, interval and all, and above 0 once the predicted scale is reversed.
    confusion : shape (topics, k, k).
    """
    statistic = STATISTICS["kappa_quadratic"]
    figure = ConfusionSample(confusion, settings).figure(statistic)
    highest = figure.value if figure.high is None else figure.high
    if highest is None or highest >= 0:
        return None
    turned = float(statistic.function(confusion.reversed().pooled()))
    if not turned > 0:
        return None
    return (
        f"reversed polarity: quadratic kappa is {figure.value:.3f}, and {turned:.3f} once the predicted scale is "
        "reversed; the judge seems to give its lowest label to what is most relevant"
    )


@dataclass(frozen=True, slots=True)
class JudgeTest:
    """One judge against another on the same pairs."""

    difference: Figure
    """The statistic of the first judge less that of the second; n counts the pairs that both have labelled."""
    p: float | None
    """Two-sided p that the two are exchangeable, by swapping their labels topic by topic (or pair by pair)."""

    def json(self) -> dict[str, object]:
        return {"difference": self.difference.json(), "p": self.p}


def compare_judges(
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    topics: Sequence[Hashable] | None = None,
    statistic: str = "kappa",
    bootstrap: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> JudgeTest:
    """Whether one judge agrees better with the truth than another, over the pairs that all three have labelled.

    truth, first, second : a grade a pair, equally long; None or NaN where there is none.
    topics : the topic of each pair: topics are then resampled, and swapped; without them pairs are.
    statistic : a name of `STATISTICS`.

    The interval resamples what both judges said together, so that what makes a topic hard for both cancels out. The
    test swaps the two judges' labels in each topic at random: with b of m swaps at least as far from 0 as what was
    seen, p = (b + 1) / (m + 1). p is None with `bootstrap` 0 or where the difference does not exist.
    """
    true, one, two = (np.asarray(grades, dtype=np.float64) for grades in (truth, first, second))
    kept = np.isfinite(true) & np.isfinite(one) & np.isfinite(two)
    n = int(kept.sum())
    if n == 0:
        return JudgeTest(Figure(None, None, None, 0, "there are no pairs that all have labelled"), None)
    labels = np.unique([true[kept], one[kept], two[kept]])
    k, function = len(labels), STATISTICS[statistic].function
    joint = _joint(labels, _numbers(topics, kept), true[kept], one[kept], two[kept])

    def differences(tables: Array) -> Array:
        cube = tables.reshape(*tables.shape[:-1], k, k, k)
        return np.asarray(function(Confusion(cube.sum(-1), labels)) - function(Confusion(cube.sum(-2), labels)))

    settings = Resampling(bootstrap, "pairs" if topics is None else "topics", seed, level)
    sample = Sample.of_pairs(joint.sum(0), settings) if topics is None else Sample.of_units(joint, settings)
    difference = sample.figure(differences, n, STATISTICS[statistic].missing)
    tested = difference.value is not None and bootstrap > 0
    return JudgeTest(difference, _swapping_p(differences, sample, k) if tested else None)


def _joint(labels: Array, groups: NDArray[np.int64], true: Array, one: Array, two: Array) -> Array:
    """Shape (topics, k k k): pairs by truth, first judge and second judge."""
    k = len(labels)
    place = groups
    for grades in (true, one, two):
        place = place * k + np.searchsorted(labels, grades)
    topics = int(groups.max(initial=-1)) + 1
    return np.bincount(place, minlength=topics * k**3).reshape(topics, k**3).astype(np.float64)


def _swapping_p(differences: Callable[[Array], Array], sample: Sample, k: int) -> float:
    """The p of swapping the judges in each unit with probability one half."""
    units, times, settings = sample.units, sample.times, sample.settings
    swapped = units.reshape(-1, k, k, k).swapaxes(-1, -2).reshape(units.shape)
    generator = np.random.default_rng(settings.seed)
    kept = generator.binomial(times, 0.5, size=(settings.replicates, len(times))).astype(np.float64)
    found = differences(kept @ units + (times - kept) @ swapped)
    extreme = np.count_nonzero(np.abs(found) >= abs(float(differences(sample.total))) - 1e-12)
    return float((extreme + 1) / (settings.replicates + 1))
