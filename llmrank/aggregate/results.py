"""What the aggregators return: small frozen results whose every attribute has a sentence."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llmrank.aggregate.comparisons import Comparisons
    from llmrank.aggregate.diagnosis import Diagnosis

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scores:
    """One score for each item. Higher is better for every method."""

    method: str
    """The method's name on the command line, e.g. `bradley-terry`."""
    items: tuple[Hashable, ...]
    """The ids, in rising order; every array below is in this order."""
    value: Floats | None
    """The scores, all finite; None where they do not exist (then `note` says why)."""
    low: Floats | None
    """Lower ends of the intervals; None where none were asked for or none exist."""
    high: Floats | None
    """Upper ends of the intervals."""
    n: int
    """How many comparisons (or rankings) the scores come from."""
    note: str | None = None
    """Sentences about what the reader must know, e.g. a disconnected graph; None where there is nothing."""
    spread: Floats | None = None
    """Standard deviation of each score over what was averaged or resampled, where there is one."""
    comparisons: Comparisons | None = None
    """What the scores come from, for the diagnosis."""

    @cached_property
    def diagnosis(self) -> Diagnosis | None:
        """What the comparisons can and cannot support, in figures and in words."""
        from llmrank.aggregate.diagnosis import diagnose

        return None if self.comparisons is None else diagnose(self.comparisons)

    @cached_property
    def ranks(self) -> Ints | None:
        """The rank of each item, 1 the best; items with one score share the best rank of theirs."""
        return None if self.value is None else competition_ranks(self.value)

    @cached_property
    def ranking(self) -> list[Hashable]:
        """The ids, best first; items with one score stand in the order of `items`; empty where there are no scores."""
        if self.value is None:
            return []
        return [self.items[i] for i in np.argsort(-rounded(self.value), kind="stable")]

    def as_dict(self) -> dict[Hashable, float]:
        """Id to score; empty where there are no scores."""
        return {} if self.value is None else dict(zip(self.items, self.value.tolist(), strict=True))


def rounded(value: Floats) -> Floats:
    """Scores without the last noise of floating point, so that equal scores compare as equal.

    11 significant digits of each are kept, and nothing below 1e-14 of the largest.
    """
    scale = float(np.max(np.abs(value), initial=0.0))
    if scale == 0.0:
        return value
    coarse = np.round(value / scale, 14)
    with np.errstate(divide="ignore"):
        digits = np.where(coarse == 0, 0.0, 10.0 ** (10 - np.floor(np.log10(np.abs(coarse)))))
    return np.asarray(np.where(coarse == 0, 0.0, np.round(coarse * digits) / np.where(digits == 0, 1.0, digits)))


def competition_ranks(value: Floats) -> Ints:
    """Ranks from 1 for falling scores, equal scores sharing the best of their ranks (1, 2, 2, 4)."""
    ordered = np.sort(-rounded(value))
    return np.searchsorted(ordered, -rounded(value), side="left").astype(np.int64) + 1


def sentence(*parts: Any) -> str | None:
    """The sentences that are there, joined to one note; None where there are none."""
    said = [str(part) for part in parts if part]
    return " ".join(said) if said else None


def named(items: tuple[Hashable, ...] | list[Hashable], limit: int = 5) -> str:
    """Some ids as a person would list them: all of a few, else the first ones and how many more."""
    shown = ", ".join(str(item) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
