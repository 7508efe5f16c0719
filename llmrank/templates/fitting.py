"""Fitting shown texts to a context: each is measured once, and the room is shared out by water-filling."""

from __future__ import annotations

from collections.abc import Sequence

from llmrank.tokens import TokenCounter

SHORTEST = 8  # tokens; a text cut below this says nothing, and the question is held not to fit


def water_level(sizes: Sequence[int], room: int) -> int | None:
    """The highest L with sum(min(size, L)) <= room; None where nothing has to be cut."""
    if room < 0:
        return 0
    if sum(sizes) <= room:
        return None
    left, rest = room, len(sizes)
    for size in sorted(sizes):
        if size * rest > left:
            return max(0, left // rest)
        left -= size
        rest -= 1
    return None


def fit(texts: Sequence[str], sizes: Sequence[int], room: int, counter: TokenCounter) -> list[str] | None:
    """The texts, the longest cut to one common length so that all fit the room; None where they cannot."""
    level = water_level(sizes, room)
    if level is None:
        return list(texts)
    if level < SHORTEST:
        return None
    return [counter.cut(text, level) if size > level else text for text, size in zip(texts, sizes, strict=True)]
