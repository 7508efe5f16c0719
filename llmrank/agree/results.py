"""The figure: a number with its interval, what was counted, and a sentence where there is something to say."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that carries its n and its interval. No attribute is ever NaN or infinite: such a number is None."""

    value: float | None
    """The estimate, or None where it cannot be had; `note` then says why."""
    low: float | None
    """Lower end of the interval, or None where there is no interval."""
    high: float | None
    """Upper end of the interval, or None where there is no interval."""
    n: int
    """How many things (topics, pairs, systems) the value was computed from."""
    note: str | None = None
    """A sentence about what is special here, or None."""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            object.__setattr__(self, name, finite(getattr(self, name)))
        object.__setattr__(self, "n", int(self.n))
        if self.value is None and self.note is None:
            object.__setattr__(self, "note", "these numbers have no such value")

    def json(self) -> dict[str, float | int | str | None]:
        """The figure as JSON has it."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "note": self.note}


def finite(number: float | None) -> float | None:
    """The number as a plain float, or None where it is missing, NaN or infinite."""
    return None if number is None or not math.isfinite(number) else float(number)
