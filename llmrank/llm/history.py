"""What the ledger tells of a model's tokens: how many it makes of a byte, and how much of its limit a reply takes."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from llmrank.llm.ledger import Ledger
from llmrank.llm.types import Identity

LATEST = 1000  # replies that are looked at
COLUMNS = "SELECT request, reply FROM replies WHERE kind = ? AND model = ? ORDER BY rowid DESC LIMIT ?"


class TokenHistory(NamedTuple):
    """Means over the latest replies of a model, each weighted by its length."""

    replies: int
    prompt_per_byte: float
    """Prompt tokens for a byte of the prompt's texts, chat markup included."""
    completion_per_byte: float | None
    """Completion tokens for a byte of the reply's text; None where all were empty."""
    completion_share: float
    """Completion tokens, as a share of what the requests allowed."""


def token_history(ledger: Ledger, identity: Identity, latest: int = LATEST) -> TokenHistory | None:
    """The model's history; None where the ledger holds no reply of it that told its tokens."""
    replies = prompt_tokens = prompt_bytes = tokens = text_tokens = text_bytes = allowed = 0
    for request, reply in ledger.query(COLUMNS, (*identity, latest)):
        text, _, reasoning, (prompt, completion, _), *_ = orjson.loads(reply)
        _, told, (limit, *_), *_ = orjson.loads(request)
        if prompt is None or completion is None:
            continue
        replies += 1
        prompt_tokens += prompt
        prompt_bytes += len(told.encode()) if isinstance(told, str) else sum(len(said.encode()) for _, said in told)
        tokens += completion
        allowed += limit
        if text and not reasoning:  # thinking that was split off has tokens too
            text_tokens += completion
            text_bytes += len(text.encode())
    if not replies or not prompt_bytes or not allowed:
        return None
    per_byte = text_tokens / text_bytes if text_bytes else None
    return TokenHistory(replies, prompt_tokens / prompt_bytes, per_byte, tokens / allowed)
