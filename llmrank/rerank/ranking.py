"""Rankings: what comes out for one query, with the row that says how it came about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain, count, repeat
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llmrank.data.types import Document, Query
from llmrank.flops import queries_per_petaflop
from llmrank.questions import Answer, Question

if TYPE_CHECKING:
    from llmrank.rerank.beliefs import Belief

RankStatus = Literal["reranked", "unchanged", "partial", "failed"]


class Hit(NamedTuple):
    """One place of a ranking."""

    rank: int
    """From 1."""
    document: Document
    score: float | None
    """The method's own score, higher is better; None where it has ranks only."""


@dataclass(frozen=True, slots=True)
class Row:
    """How a query was reranked: one row of the report."""

    status: RankStatus
    questions: int = 0
    ok: int = 0
    repaired: int = 0
    failed: int = 0
    reused: int = 0
    calls: int = 0
    rounds: int = 0
    cut: int = 0
    kept_out: int = 0
    """Training queries that no prompt shows as examples: they are the query itself, or share a document with it."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache."""
    flops: float | None = None
    """What the replies took, where the model's architecture is known."""
    cost: float | None = None
    seconds: float = 0.0
    score_kind: str | None = None
    repairs: dict[str, int] = field(default_factory=dict)
    """How often each kind of repair was made."""
    reasons: dict[str, int] = field(default_factory=dict)
    """How often a question failed for each reason."""
    parts: dict[str, int] = field(default_factory=dict)
    """Calls of each part of the method, such as the stages of a cascade, where it has several."""

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ranking:
    """A query's documents, best first: all that were given, each once."""

    query: Query
    documents: tuple[Document, ...]
    """Best first."""
    own_scores: tuple[float | None, ...]
    """The method's own score of each of the first documents; the others have none."""
    row: Row
    answers: Mapping[Question, Answer] = field(default_factory=dict, repr=False, compare=False)
    """Every question with its answer, where the reranker was told to keep them."""
    spread: tuple[float | None, ...] | None = None
    """For each hit how far the replies behind its score lie apart, where the method knows it."""

    @property
    def hits(self) -> tuple[Hit, ...]:
        """Every place of the ranking; made when it is wanted, since most jobs want ids alone."""
        return tuple(self)

    def __iter__(self) -> Iterator[Hit]:
        return map(Hit, count(1), self.documents, chain(self.own_scores, repeat(None)))

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, place: int) -> Hit:
        return self.hits[place]

    @property
    def ids(self) -> list[str]:
        """Document ids, best first."""
        return [document.id for document in self.documents]

    def beliefs(self, k: int = 10, seed: int = 0) -> dict[str, Belief]:
        """By document id: a strength with its interval, and the probability of being among the k best.

        From the comparisons that were asked, whatever the method; needs `Reranker(..., keep_answers=True)`. Documents
        that were held against no other are left out: of one that was only graded a comparison's noise tells nothing.
        """
        from llmrank.rerank.beliefs import beliefs  # which takes scipy

        known = set(self.documents)
        together = (known.intersection(question.items) for question in self.answers)
        compared = {item for shown in together if len(shown) > 1 for item in shown}
        items = [document for document in self.documents if document in compared]
        return {item.id: belief for item, belief in beliefs(items, self.answers, k, seed).items()}  # type: ignore[attr-defined]

    @property
    def scores(self) -> list[float | None] | None:
        """The method's own scores; None where it has ranks only."""
        rest = len(self.documents) - len(self.own_scores)
        return [*self.own_scores, *[None] * rest] if self.row.score_kind else None


@dataclass(slots=True)
class RowTotals:
    """The sums of all rows."""

    queries: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    cost: float | None = None
    flops: float | None = None

    def add(self, row: Row) -> None:
        self.queries += 1
        self.statuses[row.status] += 1
        for name in SUMMED:
            self.sums[name] += getattr(row, name)
        self.repairs.update(row.repairs)
        self.reasons.update(row.reasons)
        if row.cost is not None:
            self.cost = (self.cost or 0.0) + row.cost
        if row.flops is not None:
            self.flops = (self.flops or 0.0) + row.flops

    @property
    def failure_rate(self) -> float:
        """Share of the questions that failed."""
        return self.sums["failed"] / self.sums["questions"] if self.sums["questions"] else 0.0

    def json(self) -> dict[str, Any]:
        return {
            "queries": self.queries,
            "statuses": dict(self.statuses),
            **{name: self.sums[name] for name in SUMMED},
            "cost": self.cost,
            "flops": self.flops,
            "queries_per_petaflop": queries_per_petaflop(self.queries, self.flops),
            "repairs": dict(self.repairs.most_common()),
            "reasons": dict(self.reasons.most_common()),
        }


SUMMED = (
    "questions",
    "ok",
    "repaired",
    "failed",
    "reused",
    "calls",
    "rounds",
    "cut",
    "kept_out",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
)
