"""Recipes: how a label is made for one document, as a plain function over questions; the table of them, by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from llmrank.ask.base import Ask
from llmrank.data.types import Document, Query
from llmrank.errors import InputError
from llmrank.options import Option, given_options, options_of
from llmrank.questions import Answer, Grade, Kind, Question
from llmrank.templates import Template, load, names
from llmrank.voice import Part

Count = int | tuple[int, int]
"""A number of questions or rounds: one number, or the least and the most where it depends on the answers."""
DEFAULT = "relevance/umbrela"
FAMILIES: tuple[str, ...] = ("graded", "rubrics", "useful", "nuggets")
"""The modules of this room that hold further recipes, in the order in which these are listed."""


class Asking(Ask):
    """What a recipe asks through; it knows whose document it is about."""

    def __init__(self, inner: Ask, query: Query, pool: tuple[Document, ...]) -> None:
        self._inner = inner
        self.query = query
        self.pool = pool
        """All documents that are judged for the query, in a recipe that is `together`; else some of them."""

    async def answer(self, question: Question) -> Answer:
        return await self._inner.answer(question)


Run = Callable[..., Coroutine[Any, Any, Grade]]
"""A recipe's function: `async def run(item: Document, ask: Asking, *, option=...) -> Grade`."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe, as `--template` names it."""

    name: str
    run: Run
    source: str
    template: str
    """The template of its main part, which is asked where a question names no part."""
    question: Kind = "grade"
    """What the main part asks."""
    calls: Callable[..., Count] = lambda n, **options: n
    """Questions for n documents of a query, and the options by name."""
    rounds: Callable[..., Count] = lambda n, **options: min(n, 1)
    """The longest chain of questions that wait for each other."""
    formula: tuple[str, str] = ("n", "1")
    """Calls and rounds in words, for the table."""
    needs: tuple[str, ...] = ("text",)
    parts: Callable[..., Mapping[str, Part]] = lambda **options: {}
    """Its further parts by the name under which they ask (`Question.by`), given the options."""
    together: bool = False
    """It asks about the query as a whole, or about several of its documents: all of these are worked on at once."""
    scale: tuple[float, ...] | None = None
    """The grades that it can give, where they are not the values of its main template's labels."""
    fault: Callable[..., str | None] = lambda **options: None
    """What is wrong with the options, as a sentence; None where nothing is."""
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.run) or "").partition("\n\n")[0].replace("\n", " ")

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options by name, those given converted and checked. Raises InputError in one sentence."""
        values = given_options(self.options, given, f"the recipe {self.name}")
        if fault := self.fault(**values):
            raise InputError(fault)
        return values


RECIPES: dict[str, Recipe] = {}
"""Every recipe that is made of more than one template, by name."""


def recipe(name: str, *, source: str, template: str, **more: Any) -> Callable[[Run], Run]:
    """Registers a function as a recipe. Its keyword-only parameters are its options."""

    def register(run: Run) -> Run:
        RECIPES[name] = Recipe(name, run, source, template, options=options_of(run), **more)
        return run

    return register


async def asked_once(item: Document, ask: Asking) -> Grade:
    """Asks the template for the document's grade."""
    return await ask.grade(item)


def plain(template: str, source: str = "") -> Recipe:
    """The recipe that asks one template, once a document."""
    return Recipe(template, asked_once, source, template)


def all_recipes() -> dict[str, Recipe]:
    """Every recipe, those of installed packages (entry points `llmrank.recipes`) too."""
    for family in FAMILIES:
        import_module(f"llmrank.judge.{family}")  # which fills the table
    for entry in entry_points(group="llmrank.recipes"):
        entry.load()
    return RECIPES


def find(name: str | Template) -> tuple[Recipe, Template]:
    """The recipe of that name with its main template; else the plain one, with the template of that name or path."""
    if isinstance(name, Template):
        return plain(name.name, name.header.source), name
    known = all_recipes()
    if name in known:
        return known[name], load(known[name].template)
    try:
        template = load(name)
    except InputError:
        near = difflib.get_close_matches(name, [*known, *names()], n=1)
        if near and near[0] in known:
            raise InputError(
                f"--template {name}: there is no such recipe or template; did you mean {near[0]}?"
            ) from None
        raise
    return plain(template.name, template.header.source), template
