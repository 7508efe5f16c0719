"""Counting a text in a model's tokens, and cutting it to a number of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ALONE = re.compile(r"[\d_]|[^\w\s]")  # some tokenisers make one token of each


class TokenCounter(Protocol):
    """Measures texts in a model's tokens, and cuts them."""

    def count(self, text: str) -> int: ...
    def cut(self, text: str, tokens: int) -> str:
        """The longest beginning of the text, at a word's end where there is one, of at most so many tokens."""
        ...


class EstimatedTokens:
    """For a model whose tokeniser is not at hand: three letters a token, a digit or a sign one, other scripts more.

    English runs at more than four letters a token in today's vocabularies, so this errs on the side of room.
    """

    def count(self, text: str) -> int:
        size, letters, alone = len(text.encode(errors="replace")), len(text), len(ALONE.findall(text))
        return alone + -(-(letters - alone) // 3) + (size - letters) // 2

    def cut(self, text: str, tokens: int) -> str:
        length = min(len(text), 3 * tokens)
        while length > 0 and (over := self.count(text[:length]) - tokens) > 0:
            length -= max(1, over // 4)
        return _at_word_end(text, length)


class CountedTokens:
    """A model's own tokeniser."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def cut(self, text: str, tokens: int) -> str:
        # What lies far behind the cut need not be tokenised; no token in use is longer than 64 characters on average.
        head = text[: 64 * tokens]
        offsets = self._tokenizer.encode(head, add_special_tokens=False).offsets
        return head if len(offsets) <= tokens else _at_word_end(text, offsets[tokens - 1][1])


def _at_word_end(text: str, length: int) -> str:
    if length >= len(text):
        return text
    end = max(text.rfind(space, 0, length + 1) for space in (" ", "\n", "\t"))
    # A script without spaces, or one endless word, is cut where it falls.
    return text[: end if end > length * 0.8 else length].rstrip()
