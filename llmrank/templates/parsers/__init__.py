"""Parsers: from the text of a reply (and its tokens) to an answer, and from an answer to the text that says it.

`read` takes any text whatsoever and never raises: what cannot be read is a failed answer with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, cast

from llmrank.questions import Answer, Kind, Said
from llmrank.templates.parsers.choose import ChooseParser
from llmrank.templates.parsers.compare import CompareParser
from llmrank.templates.parsers.continuation import LikelihoodParser
from llmrank.templates.parsers.grade import LabelParser, ScoreParser, Scoring
from llmrank.templates.parsers.identifiers import Identifiers
from llmrank.templates.parsers.likelihood import ambiguous_first_tokens
from llmrank.templates.parsers.order import OrderParser
from llmrank.templates.parsers.pattern import PatternParser
from llmrank.templates.parsers.scores import ScoresParser
from llmrank.templates.parsers.written import ListParser, ObjectParser, TextParser

__all__ = [
    "PARSERS",
    "ChooseParser",
    "CompareParser",
    "LabelParser",
    "LikelihoodParser",
    "ListParser",
    "ObjectParser",
    "OrderParser",
    "Parser",
    "ParserEntry",
    "PatternParser",
    "ScoreParser",
    "ScoresParser",
    "Settings",
    "TextParser",
    "ambiguous_first_tokens",
]


class Settings(Protocol):
    """What parsers need to know of a template: part of its header."""

    @property
    def labels(self) -> Mapping[str, float]: ...
    @property
    def scoring(self) -> Literal["probability", "log-odds", "expected", "label", "mean", "sum"]: ...
    @property
    def range(self) -> tuple[float, float] | None: ...
    @property
    def identifiers(self) -> Identifiers: ...
    @property
    def worst(self) -> bool: ...
    @property
    def validation(self) -> str: ...
    @property
    def extraction(self) -> str: ...


class Parser(Protocol):
    """Reads replies about n shown items, and writes the reply that says an answer."""

    def read(self, said: Said, n: int, /) -> Answer: ...
    def write(self, answer: Any, n: int, /) -> str: ...


class ParserEntry(NamedTuple):
    """A parser by the name that template headers use."""

    kind: Kind
    """The question whose answers it reads."""
    make: Callable[[Settings], Parser]


def _compare_parser(labels: Mapping[str, float]) -> CompareParser:
    """Reads A, B or a tie; with labels of the template's own the higher one says that left wins."""
    if len(labels) != 2:
        return CompareParser()
    right, left = sorted(labels, key=labels.__getitem__)
    return CompareParser((left, right), ties=False)


PARSERS: dict[str, ParserEntry] = {
    "brackets": ParserEntry("order", lambda header: OrderParser(header.identifiers, "brackets")),
    "json": ParserEntry("order", lambda header: OrderParser(header.identifiers, "json")),
    "lines": ParserEntry("order", lambda header: OrderParser(header.identifiers, "lines")),
    "letters": ParserEntry("order", lambda header: OrderParser("letters", "brackets")),
    "pattern": ParserEntry(
        "order", lambda header: PatternParser(header.validation, header.extraction, header.identifiers)
    ),
    "scores": ParserEntry("order", lambda header: ScoresParser(header.identifiers, *(header.range or (0.0, 100.0)))),
    "choice": ParserEntry("choose", lambda header: ChooseParser(header.identifiers, header.worst)),
    "choice-letters": ParserEntry("choose", lambda header: ChooseParser("letters", header.worst)),
    "ab": ParserEntry("compare", lambda header: _compare_parser(header.labels)),
    "label": ParserEntry("grade", lambda header: LabelParser(header.labels, cast(Scoring, header.scoring))),
    "score": ParserEntry("grade", lambda header: ScoreParser(*(header.range or (0.0, 100.0)))),
    "likelihood": ParserEntry("grade", lambda header: LikelihoodParser("sum" if header.scoring == "sum" else "mean")),
    "text": ParserEntry("write", lambda header: TextParser()),
    "list": ParserEntry("write", lambda header: ListParser()),
    "object": ParserEntry("write", lambda header: ObjectParser()),
}
