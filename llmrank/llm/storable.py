"""What backends give, users' own among them, made what the ledger can keep."""

from __future__ import annotations

import math
from typing import Any

from llmrank.llm.types import FAILURES, Failure, Reply, safe_text
from llmrank.questions import Token

LEAST_LOGPROB = -9999.0


def storable(outcome: Any) -> Reply | Failure:
    """What a backend gave, as the ledger can keep it: so that a reply read again is the reply that was read."""
    if isinstance(outcome, Failure):
        return outcome if outcome.kind in FAILURES else Failure("backend-error", f"{outcome.kind}: {outcome.detail}")
    if not isinstance(outcome, Reply):
        return Failure("backend-error", f"it gave {type(outcome).__name__}, neither Reply nor Failure")
    if not isinstance(outcome.text, str):
        outcome.text = "" if outcome.text is None else str(outcome.text)
    outcome.text = safe_text(outcome.text)
    # A sum is finite where all of its terms are; to look at each would take as long as all else here.
    if outcome.tokens and not all(math.isfinite(sum([t.logprob, *[p for _, p in t.top]])) for t in outcome.tokens):
        outcome.tokens = tuple(
            Token(t.text, _logprob(t.logprob), tuple((w, _logprob(p)) for w, p in t.top if p == p))
            for t in outcome.tokens
        )
    return outcome


def _logprob(value: float) -> float:
    return max(value, LEAST_LOGPROB) if value == value and value != math.inf else LEAST_LOGPROB
