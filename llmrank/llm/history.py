"""What the ledger tells of a model's tokens: how many it makes of a byte, and how much of its limit a reply takes."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from llmrank.flops import Architecture
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import Identity, Request
from llmrank.tokens import TokenCounter

LATEST = 1000  # replies that are looked at
MARKUP = 4  # tokens that a chat template puts around a message, about
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


class Measure:
    """How many tokens prompts and replies of a model have: counted, as its history tells, or four bytes each."""

    def __init__(
        self,
        counter: TokenCounter | None = None,
        history: TokenHistory | None = None,
        architecture: Architecture | None = None,
    ) -> None:
        self._counter = counter
        self._history = history
        self._architecture = architecture

    def flops(self, prompt: int, completion: int) -> float | None:
        """What so many tokens take, where the model's architecture is known."""
        return None if self._architecture is None else self._architecture.flops(prompt, completion)

    @property
    def note(self) -> str:
        """Where the numbers come from, for people."""
        if self._counter is not None:
            return "tokens are counted by the model's own tokenizer"
        if self._history is not None:
            return f"tokens are estimated from the last {self._history.replies:,} replies of the model in the ledger"
        return "tokens are estimated, at four bytes a token"

    def prompt(self, request: Request) -> int:
        if self._counter is not None:
            texts = [request.prompt] if request.prompt is not None else [text for _, text in request.messages]
            return sum(self._counter.count(text or "") + MARKUP for text in texts)
        if self._history is not None:
            return round(request.prompt_bytes() * self._history.prompt_per_byte)
        return request.prompt_bytes() // 4

    def completion(self, request: Request, text: str) -> int:
        """Of a reply that says no more than it has to."""
        most, size = request.sampling.max_tokens, len(text.encode())
        if self._counter is not None:
            return min(most, self._counter.count(text) + 1)
        if self._history is not None and self._history.completion_per_byte is not None:
            return min(most, -(-int(size * self._history.completion_per_byte * 1000) // 1000))
        return min(most, -(-size // 4))
