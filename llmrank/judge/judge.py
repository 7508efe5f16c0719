"""`Judge` labels documents with one recipe over one model, for one query or for a stream of pairs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from llmrank.ask.loops import Background
from llmrank.data.types import Document, Query
from llmrank.errors import InputError
from llmrank.jobs.stream import stream
from llmrank.judge.grader import Grader
from llmrank.judge.judgment import Judgment, Labelled, Pairs, Verdict
from llmrank.judge.recipes import DEFAULT
from llmrank.llm.client import Client
from llmrank.llm.types import Backend
from llmrank.settings import Settings
from llmrank.templates import Template
from llmrank.voice import Voices

UNIT = 16  # pairs of a query that are worked on together, where the recipe does not want all of them at once
Pair = tuple[str | Query, str | Document]


class Labeller:
    """What labels pairs: one judge, or a panel of them."""

    models: Voices
    settings: Settings
    graders: dict[str, Grader]
    """Its judges by name; of a single one the name is empty."""
    together: bool
    """All of a query's documents are wanted at once."""
    late = False
    """What it says of a pair is known only when all pairs have been judged."""

    def __init__(self) -> None:
        self._background = Background(self.models)

    async def label(self, pairs: Pairs) -> Labelled:
        """The labels of some documents of one query."""
        raise NotImplementedError  # Judge and Panel differ in nothing else

    def conclude(self, verdicts: Sequence[Verdict]) -> list[Judgment]:
        """The labels that count, once all of a job's pairs have been judged."""
        return [verdict.judgment for verdict in verdicts]

    def judge(self, query: str | Query, documents: Sequence[str | Document]) -> list[Judgment]:
        """A judgment of each document, in their order. Also from inside a running event loop or a notebook."""
        return self._background.run(self.ajudge(query, documents))

    def judge_pairs(self, pairs: Iterable[Pair]) -> list[Judgment]:
        """A judgment of each (query, document) pair, in their order; all of them are worked on at once."""
        return self._background.run(self._collect(pairs))

    async def ajudge(self, query: str | Query, documents: Sequence[str | Document]) -> list[Judgment]:
        """`judge` for a coroutine."""
        return await self._collect((query, document) for document in _named(documents))

    async def ajudge_pairs(self, pairs: Iterable[Pair]) -> list[Judgment]:
        """`judge_pairs` for a coroutine."""
        return await self._collect(pairs)

    async def astream(self, pairs: Iterable[Pair]) -> AsyncIterator[Judgment]:
        """Judgments as they are made, in whatever order that is, in bounded memory for any number of pairs.

        Of a panel that decides at the end (`late`) the labels that count come with `judge_pairs`, not here.
        """
        async for _, labelled in self.numbered(units(pairs, together=self.together)):
            for verdict in labelled.verdicts:
                yield verdict.judgment

    async def numbered(self, requests: Iterable[Pairs], /) -> AsyncIterator[tuple[int, Labelled]]:
        """The labels of each unit of work with its place, from 0, as they are done."""
        async for numbered in stream(requests, self.label, self.client().prompts, lambda unit: True):
            yield numbered

    def client(self) -> Client:
        """The main model's client of the running event loop."""
        return self.models.clients.current()

    async def aclose(self) -> None:
        """Closes the running loop's clients: their connections and ledgers. The end of the loop does so too."""
        await self.models.aclose()

    def close(self) -> None:
        """Closes what `judge` and `judge_pairs` opened. Not calling it loses nothing."""
        self._background.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _collect(self, pairs: Iterable[Pair]) -> list[Judgment]:
        done: dict[int, Verdict] = {}
        async for _, labelled in self.numbered(units(pairs, together=self.together)):
            done.update(zip(labelled.pairs.places, labelled.verdicts, strict=True))
        return self.conclude([done[place] for place in sorted(done)])


class Judge(Labeller):
    """Labels with one recipe over one backend: `Judge(backend="openai:MODEL").judge(query, texts)`.

    template: a recipe, or a template that grades, by name or path. backend: a SPEC, or any object with
    `async complete(request)`. options: options of the recipe; variables: of its main template. constrain: the
    reply is held to the labels, where the backend can do that. What else is given
    are settings: the shared flags of the command line by name (`base_url=...`, `samples=...`); an unreadable
    reply is asked once more with the format restated, unless `retry_format=False`.

    Everything is checked here, before any request: raises InputError with one sentence.
    """

    def __init__(
        self,
        template: str | Template = DEFAULT,
        *,
        backend: str | Backend,
        options: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
        constrain: bool = False,
        **settings: Any,
    ) -> None:
        self.settings = judging_settings(settings)
        self.models = Voices(self.settings, backend)
        self.grader = Grader(self.models, template, options=options, variables=variables, constrain=constrain)
        self.graders = {"": self.grader}
        self.together = self.grader.recipe.together
        super().__init__()

    async def label(self, pairs: Pairs) -> Labelled:
        judgments, tallies = await self.grader.label(pairs.query, pairs.documents)
        return Labelled(pairs, tuple(map(Verdict, judgments)), tuple(tallies))


def judging_settings(given: Mapping[str, Any]) -> Settings:
    """The settings of a judging job: those of every job, but that the format is restated once."""
    if set(given) == {"settings"}:
        ready: Settings = given["settings"]
        return ready
    return Settings.of(**{"retry_format": True, **given})


def units(pairs: Iterable[Pair], *, together: bool) -> Iterator[Pairs]:
    """Pairs as units of work: neighbours of one query, or all of a query's where they belong together."""
    numbered = ((place, _query(query), document) for place, (query, document) in enumerate(pairs))
    if together:
        of_query: dict[Query, list[tuple[int, Document]]] = {}
        for place, query, document in numbered:
            of_query.setdefault(query, []).append((place, _document(document, place)))
        for query, listed in of_query.items():
            yield unit(query, listed)
        return
    for query, group in groupby(numbered, lambda triple: triple[1]):
        listed = []
        for place, _, document in group:
            listed.append((place, _document(document, place)))
            if len(listed) == UNIT:
                yield unit(query, listed)
                listed = []
        if listed:
            yield unit(query, listed)


def unit(query: Query, listed: Sequence[tuple[int, Document]]) -> Pairs:
    """Numbered documents of one query as a unit of work."""
    return Pairs(query, tuple(document for _, document in listed), tuple(place for place, _ in listed))


def _query(query: str | Query) -> Query:
    return query if isinstance(query, Query) else Query("query", query)


def _document(document: str | Document, place: int) -> Document:
    return document if isinstance(document, Document) else Document(str(place), document)


def _named(documents: Sequence[str | Document]) -> list[Document]:
    """The documents, plain texts named by their position, from 0; ids must differ."""
    named = [_document(document, place) for place, document in enumerate(documents)]
    twice = [d.id for i, d in enumerate(named) if d in named[:i]] if len({d.id for d in named}) < len(named) else []
    if twice:
        raise InputError(f"the document {twice[0]} is given twice; ids must differ")
    return named
