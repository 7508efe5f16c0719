"""Query, Document, Hit and the records of a job: plain frozen types, identified by id, never by text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for. `text` is the short form; the others are shown only by templates that ask for them."""

    id: str
    text: str
    description: str = ""
    narrative: str = ""
    instruction: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """A candidate. Two documents are the same when their ids are, whatever their texts say."""

    id: str
    text: str = ""
    title: str = ""
    score: float | None = None
    """The first stage's score, where known."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that came with the document (`url`, ...)."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Document) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True, slots=True, eq=False)
class Passage(Document):
    """A part of a longer document, shown in its place."""

    of: str = ""
    """Id of the document: what is known of its relevance is known under this id."""


@dataclass(frozen=True, slots=True, eq=False)
class Anchor(Document):
    """A document of known grade with which candidates are compared; its `id` is no candidate's."""

    of: str = ""
    """The id under which its relevance may be known as well; empty where there is none."""
    query: str = ""
    """The query for which it has this grade; empty: that of the candidates."""
    grade: float = 0.0
    worth: float = 0.0
    """The grade on a scale from 0, the lowest of all anchors, to 1, the highest."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """One query with its candidates in first-stage order: what a reranker takes."""

    query: Query
    documents: tuple[Document, ...]
