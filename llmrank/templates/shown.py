"""What a template is shown: documents, worked examples; and what it makes of them, a prompt. Plain types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple


class Shown(NamedTuple):
    """A document as a template sees it."""

    identifier: str
    """How the prompt names it: `1`, `2`, ... or `A`, `B`, ..."""
    text: str
    """Its title, if any, and its text, made safe and cut to fit."""
    title: str = ""
    score: float | None = None
    """The first stage's score, where known."""
    metadata: Mapping[str, Any] = MappingProxyType({})

    @property
    def body(self) -> str:
        """The text without the title."""
        return self.text.removeprefix(self.title).removeprefix("\n") if self.title else self.text


class Example(NamedTuple):
    """A worked example as a template sees it."""

    query: str
    documents: tuple[str, ...]
    answer: str
    """In the words that the template asks for."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt: chat messages as (role, content), or one raw text."""

    messages: tuple[tuple[str, str], ...] = ()
    raw: str | None = None
    continuation: str | None = None
    """The text whose log-probability after the prompt is wanted."""
