"""The template engine: a sandbox that sees what templates may see, and the filter by which they cut a text to words."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmrank.data.types import Query
from llmrank.templates.messages import MessageExtension
from llmrank.templates.shown import Shown

PLAIN: dict[type, frozenset[str]] = {
    Shown: frozenset(Shown._fields),
    Query: frozenset(f.name for f in fields(Query)),
}


class Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with a short way to what templates may always see: it takes half the time of a long prompt."""

    def __init__(self) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined,
            extensions=[MessageExtension],
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,  # prompts are no HTML
        )
        self.filters["words"] = words

    def getattr(self, obj: Any, attribute: str) -> Any:
        if attribute in PLAIN.get(type(obj), ()):
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)


def words(text: str, most: int) -> str:
    """The first words of a text, one space between two of them: as published rerankers cut passages."""
    return " ".join(text.split(None, most)[:most])
