"""How shown items are named in prompts and replies: `1`, `2`, ... or `A`, `B`, ..."""

from __future__ import annotations

import string
from typing import Literal

from llmrank.errors import InputError

Identifiers = Literal["numbers", "letters"]
KINDS: tuple[Identifiers, ...] = ("numbers", "letters")
LETTERS = string.ascii_uppercase


def identifier(position: int, kind: Identifiers) -> str:
    """The identifier of the item at a 0-based position."""
    if kind == "numbers":
        return str(position + 1)
    if position >= len(LETTERS):
        raise InputError(f"letters name at most {len(LETTERS)} items; use numbers for more, or a smaller window")
    return LETTERS[position]


def position_of(word: str, kind: Identifiers) -> int | None:
    """The 0-based position that an identifier names, whether or not so many items are shown; None for no identifier."""
    if kind == "letters":
        return LETTERS.index(word.upper()) if len(word) == 1 and word.upper() in LETTERS else None
    # A reply may hold numbers of any length, which `int` refuses or takes long over.
    digits = word.lstrip("0") or "0"
    if not digits.isdecimal():
        return None
    return int(digits) - 1 if len(digits) <= 9 else 10**9


def preferred_first(kind: Identifiers) -> tuple[Identifiers, ...]:
    """Both kinds, the one that the prompt asked for first."""
    return KINDS if kind == "numbers" else KINDS[::-1]
