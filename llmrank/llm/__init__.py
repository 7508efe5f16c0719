"""From requests to replies: the client with its ledger, budgets and limits, and the backends."""

from __future__ import annotations

from llmrank.llm.types import Backend, Failure, Reply, Request, Sampling

__all__ = ["Backend", "Failure", "Reply", "Request", "Sampling"]
