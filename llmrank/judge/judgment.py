"""Judgments: a label of a (query, document) pair with the words that made it, and the sums of many."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from llmrank.ask.tally import Tally
from llmrank.data.types import Document, Query
from llmrank.jobs.totals import AskedTotals
from llmrank.questions import Status


class Source(NamedTuple):
    """One reply behind a label."""

    by: str
    """The part of the recipe that asked; empty for its main part."""
    template: str
    template_hash: str
    model: str
    key: str | None
    """The reply's key in the ledger, in hexadecimal; None where nothing could be asked."""
    raw: str | None
    """The reply, word for word."""
    status: Status
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """One label, or the reason why there is none."""

    query_id: str
    doc_id: str
    grade: int | None
    """A whole number on the template's scale; None where the label failed. It is the value of the label that the reply
    names, else the nearest whole number to the score or the expected grade; from halfway between two the lower."""
    status: Status
    reason: str | None = None
    """Why it failed, e.g. `out-of-range`, `ambiguous`, `no-label`, `refused`, `truncated`, `no-majority`."""
    repairs: tuple[str, ...] = ()
    distribution: Mapping[str, float] | None = None
    """Probability of each label: from log-probabilities where the backend gives them, else the share of the samples or
    of the panel's votes; None where one bare label is all that is known."""
    empirical: Mapping[str, float] | None = None
    """Share of the samples that gave each label, where there were several."""
    expected: float | None = None
    """The grade expected under the distribution; the score itself, where it is no whole number."""
    source: Source | None = None
    """The reply that decided; None in the label of a panel."""
    sources: tuple[Source, ...] = ()
    """All replies behind the label, where there were several."""
    samples: int = 1
    """How many samples, or votes of a panel, the label was made of."""
    member: str | None = None
    """Which judge of a panel gave it; None for the label that counts."""

    @property
    def usable(self) -> bool:
        return self.grade is not None

    @property
    def raw(self) -> str | None:
        return self.source.raw if self.source else None

    @property
    def key(self) -> str | None:
        return self.source.key if self.source else None

    @property
    def template(self) -> str | None:
        return self.source.template if self.source else None

    @property
    def template_hash(self) -> str | None:
        return self.source.template_hash if self.source else None

    @property
    def model(self) -> str | None:
        return self.source.model if self.source else None

    def json(self) -> dict[str, Any]:
        """The object of the judgments file."""
        told: dict[str, Any] = {
            "query_id": self.query_id,
            "doc_id": self.doc_id,
            "grade": self.grade,
            "status": self.status,
            "reason": self.reason,
            "repairs": self.repairs,
            "distribution": self.distribution,
            "empirical": self.empirical,
            "expected": self.expected,
            "raw": self.raw,
            "template": self.template,
            "template_hash": self.template_hash,
            "model": self.model,
            "samples": self.samples,
            "key": self.key,
            "member": self.member,
        }
        if self.sources:
            told["sources"] = [source._asdict() for source in self.sources]
        return told

    def line(self) -> str:
        return orjson.dumps(self.json()).decode() + "\n"


class Pairs(NamedTuple):
    """Documents of one query that are judged together: a job's unit of work."""

    query: Query
    documents: tuple[Document, ...]
    places: tuple[int, ...]
    """Where each pair stands in the job, from 0."""


class Verdict(NamedTuple):
    """What came of one pair."""

    judgment: Judgment
    members: tuple[Judgment, ...] = ()
    """The labels of a panel's judges, in their order; of those that were asked."""


class Labelled(NamedTuple):
    """What came of a unit of work."""

    pairs: Pairs
    verdicts: tuple[Verdict, ...]
    """One for each document."""
    tallies: tuple[tuple[str, Tally], ...]
    """What each template was asked, and what it cost."""


@dataclass(slots=True)
class JudgeTotals(AskedTotals):
    """The sums of a job."""

    pairs: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    """Labels by status: ok, repaired, failed, unasked."""
    grades: Counter[int] = field(default_factory=Counter)
    why: Counter[str] = field(default_factory=Counter)
    """How often a label failed for each reason."""
    first_failure: Judgment | None = None
    """Of the failed labels the one that stands first in the job."""
    _first: int = 0

    def add(self, labelled: Labelled) -> None:
        """Counts what was asked and what it cost."""
        self.pairs += len(labelled.verdicts)
        self.spent(labelled.tallies)

    def add_label(self, place: int, judgment: Judgment) -> None:
        """Counts one label."""
        self.labels[judgment.status] += 1
        if judgment.grade is not None:
            self.grades[judgment.grade] += 1
        if judgment.status == "failed":
            self.why[judgment.reason or "unknown"] += 1
            if self.first_failure is None or place < self._first:
                self.first_failure, self._first = judgment, place

    def json(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs,
            "labels": {status: self.labels[status] for status in ("ok", "repaired", "failed", "unasked")},
            "grades": {str(grade): count for grade, count in sorted(self.grades.items())},
            "label_reasons": dict(self.why.most_common()),
            **self.asked(),
        }


def whole(value: float) -> int:
    """The nearest whole number; from halfway between two the lower, as a tie of votes takes the lower grade."""
    return math.ceil(round(value, 9) - 0.5)
