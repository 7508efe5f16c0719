"""The tally of a query: how its questions were answered, what they cost, and how far it still has to go."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from llmrank.flops import Architecture
from llmrank.llm.client import Exchange
from llmrank.questions import Answer


@dataclass(slots=True)
class Tally:
    """Counts of one query's questions; `ok`, `repaired` and `failed` add up to `questions`."""

    expected_calls: float = 1.0
    expected_rounds: float = 1.0
    questions: int = 0
    ok: int = 0
    repaired: int = 0
    failed: int = 0
    unasked: int = 0
    reused: int = 0
    calls: int = 0
    calls_of: Counter[str] = field(default_factory=Counter)
    """Calls of each part of the method."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache."""
    flops: float | None = None
    """What the replies took, where the model's architecture is known."""
    cost: float | None = None
    ends: float | None = None
    """When the query's time is up, in the loop's time."""
    kept_out: int = 0
    """Training queries that are no example here: they are the query itself, or share a document with it."""
    cut: set[str] = field(default_factory=set)
    """Ids of the documents that were cut to fit."""
    repairs: Counter[str] = field(default_factory=Counter)
    """How often each kind of repair was made."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How often a question failed for each reason."""

    @property
    def remaining(self) -> float:
        """Rounds still ahead, estimated from the share of the expected questions that are answered."""
        return self.expected_rounds * max(0.0, 1 - self.questions / max(self.expected_calls, 1.0))

    def exchanged(self, exchange: Exchange, part: str = "", architecture: Architecture | None = None) -> None:
        """Counts what a request cost. `part`: which part of the method asked; `architecture`: that of its model."""
        self.calls += exchange.calls
        self.calls_of[part] += exchange.calls
        if exchange.cost is not None:
            self.cost = (self.cost or 0.0) + exchange.cost
        reply = exchange.reply
        if reply is not None and not exchange.reused:
            self.prompt_tokens += reply.prompt_tokens or 0
            self.completion_tokens += reply.completion_tokens or 0
            self.cached_tokens += reply.cached_tokens or 0
            if architecture is not None and reply.prompt_tokens is not None:
                cached = min(reply.cached_tokens or 0, reply.prompt_tokens)
                done = architecture.flops(reply.prompt_tokens, reply.completion_tokens or 0, cached)
                self.flops = (self.flops or 0.0) + done

    def answered(self, answer: Answer, reused: bool) -> None:
        """Counts a question by its last answer."""
        if answer.status == "unasked":
            self.unasked += 1
            return
        self.questions += 1
        self.reused += reused
        if answer.status == "ok":
            self.ok += 1
        elif answer.status == "repaired":
            self.repaired += 1
            self.repairs.update(answer.repairs)
        else:
            self.failed += 1
            self.reasons[answer.reason or "unknown"] += 1
