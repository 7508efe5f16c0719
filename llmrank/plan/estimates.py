"""What a plan tells: counts that are one number, or a range where they depend on the answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from llmrank.flops import queries_per_petaflop
from llmrank.llm.history import Measure


@dataclass(frozen=True, slots=True)
class Estimate:
    """A count: one number where it does not depend on the answers, else a range with its expected value."""

    low: float
    expected: float
    high: float

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def json(self, digits: int = 1) -> Any:
        if self.exact:
            return _whole(self.expected)
        return {"min": _whole(self.low), "expected": _whole(round(self.expected, digits)), "max": _whole(self.high)}

    def rounded(self, digits: int) -> Estimate:
        return Estimate(round(self.low, digits), round(self.expected, digits), round(self.high, digits))

    def scaled(self, factor: float) -> Estimate:
        return Estimate(self.low * factor, self.expected * factor, self.high * factor)

    def perhaps(self, chance: float) -> Estimate:
        """From nothing to all of it."""
        return Estimate(0, self.expected * chance, self.high)

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def longer(self, other: Estimate) -> Estimate:
        return Estimate(max(self.low, other.low), max(self.expected, other.expected), max(self.high, other.high))


NOTHING = Estimate(0, 0, 0)


@dataclass(slots=True)
class Plan:
    """First attempts of a job, against an empty ledger unless one was given."""

    queries: int = 0
    calls: Estimate = NOTHING
    rounds: Estimate = NOTHING
    """The longest chain of questions, of any query."""
    prompt_tokens: Estimate = NOTHING
    completion_tokens: Estimate = NOTHING
    reused: int = 0
    """Questions that the given ledger answers."""
    does_not_fit: int = 0
    """Questions that will fail without a call, since they do not fit the context."""
    cost: Estimate | None = None
    """USD, where a price is known."""
    flops: Estimate | None = None
    """Floating point operations, where the model's architecture is known; cached prefixes are not taken off."""
    seconds: Estimate = NOTHING
    note: str = Measure().note

    def add(self, other: Plan, *, one_after_another: bool) -> None:
        """Adds what another part of the job takes, beside this one or after it."""
        self.calls += other.calls
        self.rounds = self.rounds + other.rounds if one_after_another else self.rounds.longer(other.rounds)
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        if other.flops is not None:
            self.flops = other.flops if self.flops is None else self.flops + other.flops
        self.note = other.note
        self.reused += other.reused
        self.does_not_fit += other.does_not_fit

    def perhaps(self, chance: float) -> Plan:
        """The same where it may come to nothing."""
        names = ("calls", "rounds", "prompt_tokens", "completion_tokens", "flops")
        known = [name for name in names if getattr(self, name) is not None]
        return replace(self, **{name: getattr(self, name).perhaps(chance) for name in known})

    def json(self) -> dict[str, Any]:
        return {
            "queries": self.queries,
            "calls": self.calls.json(),
            "rounds": self.rounds.json(),
            "prompt_tokens": self.prompt_tokens.rounded(0).json(),
            "completion_tokens": self.completion_tokens.rounded(0).json(),
            "reused": self.reused,
            "does_not_fit": self.does_not_fit,
            "cost": None if self.cost is None else self.cost.rounded(6).json(6),
            "flops": None if self.flops is None else self.flops.rounded(0).json(),
            "queries_per_petaflop": queries_per_petaflop(
                self.queries, None if self.flops is None else self.flops.expected
            ),
            "seconds": self.seconds.json(),
            "note": self.note,
        }


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number
