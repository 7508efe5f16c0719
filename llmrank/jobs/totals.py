"""What the questions of a whole job came to, and what they cost: the sums that every report tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from llmrank.ask.tally import Tally

READ = ("questions", "ok", "repaired", "failed")
SUMMED = (*READ, "unasked", "reused", "calls", "prompt_tokens", "completion_tokens")


@dataclass(slots=True)
class AskedTotals:
    """The sums of a job's tallies."""

    sums: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """How often a question failed for each reason."""
    repairs: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    cost: float | None = None
    templates: dict[str, Counter[str]] = field(default_factory=dict)
    """What each template was asked, and how its replies were read."""

    def spent(self, tallies: Iterable[tuple[str, Tally]]) -> None:
        """Counts what each template was asked and what it cost."""
        for template, tally in tallies:
            counts = self.templates.setdefault(template, Counter())
            for name in SUMMED:
                self.sums[name] += getattr(tally, name)
                counts[name] += getattr(tally, name)
            self.reasons.update(tally.reasons)
            self.repairs.update(tally.repairs)
            self.cut += len(tally.cut)
            if tally.cost is not None:
                self.cost = (self.cost or 0.0) + tally.cost

    @property
    def failure_rate(self) -> float:
        """Share of the questions that failed."""
        return self.sums["failed"] / self.sums["questions"] if self.sums["questions"] else 0.0

    def asked(self) -> dict[str, Any]:
        """The sums as reports tell them."""
        return {
            **{name: self.sums[name] for name in SUMMED},
            "cut": self.cut,
            "cost": self.cost,
            "repairs": dict(self.repairs.most_common()),
            "reasons": dict(self.reasons.most_common()),
            "templates": {name: {c: counts[c] for c in READ} for name, counts in sorted(self.templates.items())},
        }
