"""`Reranker` puts a method, a template and a client together, for one query or for a stream of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from llmrank.ask.base import Ask, Remember, Routed
from llmrank.ask.loops import Background
from llmrank.ask.tally import Tally
from llmrank.ask.virtual import OneUnitEach, outside_of_tasks, rounds_of
from llmrank.data.types import Candidates, Document, Query
from llmrank.errors import InputError
from llmrank.llm.client import Client
from llmrank.llm.types import Backend
from llmrank.rerank.methods import Count, Ranked, find
from llmrank.rerank.ranking import Hit, Ranking, RankStatus, Row
from llmrank.rerank.stream import stream
from llmrank.settings import Settings
from llmrank.templates import Template, load
from llmrank.voice import Voices, together

Texts = Sequence["str | Document"]


class Reranker:
    """Reranks with one method over one backend: `Reranker("heapsort", backend="openai:MODEL").rank(query, texts)`.

    method: a name that `llmrank methods` lists. backend: a SPEC, or any object with `async complete(request)`.
    template: a name or a path, else the method's own. options: the method's options by name. depth: how many of a
    query's first documents are reranked, None for all; the others follow in the order given. What else is given are
    settings: the shared flags of the command line by name (`base_url=...`, `max_calls=...`, `ledger="none"`).

    Everything is checked here, before any request: raises InputError with one sentence.
    """

    def __init__(
        self,
        method: str = "sliding-window",
        *,
        backend: str | Backend,
        template: str | Template | None = None,
        options: Mapping[str, Any] | None = None,
        depth: int | None = None,
        **settings: Any,
    ) -> None:
        self.settings = settings["settings"] if set(settings) == {"settings"} else Settings.of(**settings)
        self.method = find(method).given(options or {})
        self.options = self.method.checked(options or {})
        if depth is not None and depth < 0:
            raise InputError(f"--depth {depth}: it must not be below 0")
        self.depth = depth
        self.template = template if isinstance(template, Template) else load(template or self.method.template)
        self._models = Voices(self.settings, backend)
        self.backend = self._models.backend
        self.parts = self.method.parts(**self.options)
        self.voices = {"": self._models.voice(self.template, whole=self.method.whole)}
        """The template and the model of each part of the method, by the name under which it asks."""
        for name, part in self.parts.items():
            self.voices[name] = self._models.voice(load(part.template), part.backend)
        self._check_fit()
        self._background = Background(self._models)

    def rank(self, query: str | Query, documents: Texts) -> Ranking:
        """The documents, best first. Also from inside a running event loop or a notebook."""
        return self._background.run(self.arank(query, documents))

    def rank_many(self, requests: Iterable[Candidates | tuple[str | Query, Texts]]) -> list[Ranking]:
        """A ranking for each request, in the order of the requests; all of them are worked on at once."""
        return self._background.run(self._collect(requests))

    async def arank(self, query: str | Query, documents: Texts) -> Ranking:
        """`rank` for a coroutine."""
        return await self.rank_one(candidates(query, documents))

    async def astream(self, requests: Iterable[Candidates | tuple[str | Query, Texts]]) -> AsyncIterator[Ranking]:
        """Rankings as they are done, in whatever order that is, in bounded memory for any number of requests."""
        async for _, ranking in self.numbered(requests):
            yield ranking

    async def numbered(
        self, requests: Iterable[Candidates | tuple[str | Query, Texts]]
    ) -> AsyncIterator[tuple[int, Ranking]]:
        """`astream`, each ranking with the place of its request, from 0."""
        taken = (r if isinstance(r, Candidates) else candidates(*r) for r in requests)
        async for numbered in stream(taken, self.rank_one, self.client().prompts, self._asks_much_at_once):
            yield numbered

    async def rank_one(self, request: Candidates) -> Ranking:
        """The ranking of one query's candidates."""
        started = time.perf_counter()
        documents = _distinct(request)
        head = documents if self.depth is None else documents[: self.depth]
        self.check_size(request.query.id, len(documents))
        tally = Tally()
        calls, rounds = self.method.expected(len(head), self.options)
        tally.expected_calls, tally.expected_rounds = _middle(calls) * self.settings.samples, _middle(rounds)
        if self.settings.deadline is not None:
            tally.ends = asyncio.get_running_loop().time() + self.settings.deadline
        asks = {name: together(voice.asks(request.query, tally)) for name, voice in self.voices.items()}
        remembered = Remember(asks[""] if len(asks) == 1 else Routed(asks))
        try:
            ranked = await self.run_strategy(head, remembered)
        except BaseException:
            await remembered.stop()
            raise

        def again() -> int:
            return rounds_of(lambda ask: self.run_strategy(head, Remember(ask)), OneUnitEach(remembered.answered()))

        # Where the number of rounds does not depend on the answers it is known; else the answers tell.
        chain = rounds if isinstance(rounds, int) and not tally.unasked else await outside_of_tasks(again)
        return _ranking(request.query, documents, ranked, tally, chain, time.perf_counter() - started)

    def check_size(self, query_id: str, n: int) -> None:
        """Raises InputError where the method cannot rank a query of n candidates, and names the query."""
        if problem := self.method.problem(min(n, n if self.depth is None else self.depth), **self.options):
            raise InputError(f"query {query_id}: {problem}")

    def client(self) -> Client:
        """The main model's client of the running event loop."""
        return self.voices[""].clients.current()

    async def aclose(self) -> None:
        """Closes the running loop's clients: their connections and ledgers. The end of the loop does so too."""
        await self._models.aclose()

    def close(self) -> None:
        """Closes what `rank` and `rank_many` opened. Not calling it loses nothing."""
        self._background.close()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def run_strategy(self, documents: Sequence[Document], ask: Ask) -> Ranked:
        """The method over some other source of answers: a counter, an oracle, remembered answers."""
        return await self.method.run(
            documents, self.method.asking(ask, self.options), self.options, seed=self.settings.seed
        )

    def _asks_much_at_once(self, request: Candidates) -> bool:
        calls, rounds = self.method.expected(min(len(request.documents), self.depth or 10**9), self.options)
        return _middle(calls) > 2 * _middle(rounds)

    def _check_fit(self) -> None:
        """Method, templates and backends must go together; what does not is told before the first call."""
        method, template, who = self.method, self.template, f"--method {self.method.name}"
        if template.question != method.question:
            raise InputError(
                f"--template {template.name} asks `{template.question}`, the method {method.name} needs a template "
                f"that asks `{method.question}`, such as {method.template}"
            )
        self.voices[""].check(method.needs, who)
        self._check_shown(template, method.shown(10**9, **self.options), method.worst)
        for name, part in self.parts.items():
            voice = self.voices[name]
            if voice.template.question != part.question:
                raise InputError(
                    f"{who}: the template {voice.template.name} asks `{voice.template.question}`, here one is needed "
                    f"that asks `{part.question}`"
                )
            voice.check(part.needs, who)
            self._check_shown(voice.template, part.shown, part.worst)

    def _check_shown(self, template: Template, shown: int, worst: bool) -> None:
        most = template.most_items
        if most is not None and shown > most:
            raise InputError(
                f"--template {template.name} can name {most} documents, the method {self.method.name} would show more; "
                "take a template with numbers, or show fewer"
            )
        if template.header.worst != worst:
            raise InputError(
                f"--template {template.name} and the method {self.method.name} do not both ask for the worst"
            )

    async def _collect(self, requests: Iterable[Candidates | tuple[str | Query, Texts]]) -> list[Ranking]:
        done = [numbered async for numbered in self.numbered(requests)]
        return [ranking for _, ranking in sorted(done, key=lambda pair: pair[0])]


def candidates(query: str | Query, documents: Texts) -> Candidates:
    """A request from plain strings; texts without ids are named by their position, from 0."""
    of = query if isinstance(query, Query) else Query("query", query)
    return Candidates(of, tuple(d if isinstance(d, Document) else Document(str(i), d) for i, d in enumerate(documents)))


def _distinct(request: Candidates) -> tuple[Document, ...]:
    documents = request.documents
    ids = [d.id for d in documents]
    if len(set(ids)) < len(ids):
        ((twice, _),) = Counter(ids).most_common(1)
        raise InputError(f"query {request.query.id}: the document {twice} is given twice; ids must differ")
    return documents


def _middle(count: Count) -> float:
    return count if isinstance(count, int) else sum(count) / 2


def _ranking(
    query: Query, documents: Sequence[Document], ranked: Ranked, tally: Tally, rounds: int, seconds: float
) -> Ranking:
    ordered = [*ranked.items, *documents[len(ranked.items) :]]
    scores = [*(ranked.scores or ()), *repeat(None, len(ordered) - len(ranked.scores or ()))]
    hits = tuple(map(Hit._make, zip(range(1, len(ordered) + 1), ordered, scores, strict=True)))
    row = Row(
        status=_status(tally),
        questions=tally.questions,
        ok=tally.ok,
        repaired=tally.repaired,
        failed=tally.failed,
        reused=tally.reused,
        calls=tally.calls,
        rounds=rounds,
        cut=len(tally.cut),
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
        cost=tally.cost,
        seconds=round(seconds, 6),
        score_kind=ranked.score_kind,
        repairs=dict(tally.repairs.most_common()),
        reasons=dict(tally.reasons.most_common()),
    )
    return Ranking(query, hits, row)


def _status(tally: Tally) -> RankStatus:
    if tally.unasked:
        return "partial"
    if not tally.questions:
        return "unchanged"
    return "reranked" if tally.ok + tally.repaired else "failed"
