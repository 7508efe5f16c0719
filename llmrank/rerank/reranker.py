"""`Reranker` puts a method, a template and a client together, for one query or for a stream of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, cast

from llmrank.ask.base import Ask, Remember, Routed
from llmrank.ask.examples import check_shown
from llmrank.ask.loops import Background
from llmrank.ask.passages import COUNT, WORDS, Combination, Passages, Splitting
from llmrank.ask.tally import Tally
from llmrank.ask.virtual import OneUnitEach, outside_of_tasks, rounds_of
from llmrank.data.types import Candidates, Document, Query
from llmrank.errors import InputError
from llmrank.jobs.stream import stream
from llmrank.llm.client import Client
from llmrank.llm.types import Backend
from llmrank.questions import Answer, Question
from llmrank.rerank.methods import Count, Ranked, find
from llmrank.rerank.ranking import Ranking, RankStatus, Row
from llmrank.settings import Settings
from llmrank.templates import Template, load
from llmrank.voice import Voice, Voices, together

Texts = Sequence["str | Document"]


class Reranker:
    """Reranks with one method over one backend: `Reranker("heapsort", backend="openai:MODEL").rank(query, texts)`.

    method: a name that `llmrank methods` lists. backend: a SPEC, or any object with `async complete(request)`.
    template: a name or a path, else the method's own. options: the method's options by name. depth: how many of a
    query's first documents are reranked, None for all; the others follow in the order given. keep_answers: rankings
    hold every question with its answer, from which `Ranking.beliefs` tells how sure their places are. constrain:
    replies are held to what the template asks for, where the backend can do that. What else is given are settings: the
    shared flags of the command line by name (`base_url=...`, `max_calls=...`, `ledger="none"`).

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
        keep_answers: bool = False,
        constrain: bool = False,
        **settings: Any,
    ) -> None:
        self.settings = settings["settings"] if set(settings) == {"settings"} else Settings.of(**settings)
        self.method = find(method).given(options or {})
        self.options = self.method.checked(options or {})
        if depth is not None and depth < 0:
            raise InputError(f"--depth {depth}: it must not be below 0")
        self.depth = depth
        self.keep_answers = keep_answers
        if template is not None and self.method.apart:
            raise InputError(f"--template: the method {self.method.name} has several; name them in its stages")
        self.samples = self._take_samples(options or {})
        """Replies to each question."""
        self._models = Voices(self.settings.model_copy(update={"samples": self.samples}), backend)
        self.backend = self._models.backend
        self.parts = self.method.parts(**self.options)
        self.voices: dict[str, Voice] = {}
        """The template and the model of each part of the method, by the name under which it asks."""
        if not self.method.apart:
            main = _loaded(template or self.method.template)
            self.voices[""] = self._models.voice(main, whole=self.method.whole, constrain=constrain)
        for name, part in self.parts.items():
            self.voices[name] = self._models.voice(_loaded(part.template), part.backend, whole=part.whole)
        self.template = next(iter(self.voices.values())).template
        self._check_fit()
        self._check_samples(options or {})
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
        await self.ready(head)
        tally = Tally()
        calls, rounds = self.method.expected(len(head), self.options)
        tally.expected_calls, tally.expected_rounds = _middle(calls) * self.samples, _middle(rounds)
        if self.settings.deadline is not None:
            tally.ends = asyncio.get_running_loop().time() + self.settings.deadline
        asks = {
            name: together(voice.asks(request.query, tally, documents=documents)) for name, voice in self.voices.items()
        }
        routed = asks[""] if asks.keys() == {""} else Routed(asks)
        remembered = Remember(self.by_passages(routed, request.query))
        try:
            ranked = await self.run_strategy(head, remembered, request.query.id)
        except BaseException:
            await remembered.stop()
            raise

        def again() -> int:
            known = OneUnitEach(remembered.answered())
            return rounds_of(lambda ask: self.run_strategy(head, Remember(ask), request.query.id), known)

        # Where the number of rounds does not depend on the answers it is known; else the answers tell.
        chain = rounds if isinstance(rounds, int) and not tally.unasked else await outside_of_tasks(again)
        answers = remembered.answered() if self.keep_answers else {}
        return _ranking(request.query, documents, ranked, tally, chain, time.perf_counter() - started, answers)

    async def ready(self, documents: Sequence[Document]) -> None:
        """Finds out what must be known of each server before the first question; raises InputError for a lack."""
        for name, voice in self.voices.items():
            if voice.asks_a_server and not voice.settled:
                part = self.parts.get(name)
                shown = part.shown if part is not None else self.method.shown(len(documents), **self.options)
                longest = sum(sorted((len(d.text) for d in documents), reverse=True)[:shown])
                await voice.ready(f"--method {self.method.name} with --template {voice.template.name}", longest)

    def check_size(self, query_id: str, n: int) -> None:
        """Raises InputError where the method cannot rank a query of n candidates, and names the query."""
        known = {"query_id": query_id} if self.method.knows_query else {}
        if problem := self.method.problem(min(n, n if self.depth is None else self.depth), **self.options, **known):
            raise InputError(f"query {query_id}: {problem}")

    def client(self) -> Client:
        """The main model's client of the running event loop."""
        return next(iter(self.voices.values())).clients.current()

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

    async def run_strategy(self, documents: Sequence[Document], ask: Ask, query_id: str = "") -> Ranked:
        """The method over some other source of answers: a counter, an oracle, remembered answers."""
        asking, seed = self.method.asking(ask, self.options), self.settings.seed
        return await self.method.run(documents, asking, self.options, seed=seed, query_id=query_id)

    def by_passages(self, ask: Ask, query: Query) -> Ask:
        """The ask, or one around it that asks about long documents by their passages, where that is wanted."""
        settings = self.settings
        if settings.passages is None:
            return ask
        how = Splitting(
            cast(Combination, settings.passages), settings.passage_words or WORDS, settings.passage_count or COUNT
        )
        return Passages(ask, query, how)

    def _take_samples(self, given: Mapping[str, Any]) -> int:
        """How many replies each question gets; one where the method itself takes the several that are wanted."""
        wanted = self.settings.samples
        if wanted == 1 or "samples" not in self.method.options:
            return wanted
        if "samples" in given and self.options["samples"] != wanted:
            raise InputError(
                f"--samples {wanted} and --option samples={self.options['samples']}: both say how many replies "
                f"{self.method.name} puts together; give one"
            )
        self.options["samples"] = wanted
        return 1

    def _asks_much_at_once(self, request: Candidates) -> bool:
        calls, rounds = self.method.expected(min(len(request.documents), self.depth or 10**9), self.options)
        return _middle(calls) > 2 * _middle(rounds)

    def _check_fit(self) -> None:
        """Method, templates and backends must go together; what does not is told before the first call."""
        method, template, called = self.method, self.template, f"--method {self.method.name}"
        if method.apart:
            pass
        elif template.question != method.question:
            raise InputError(
                f"--template {template.name} asks `{template.question}`, the method {method.name} needs a template "
                f"that asks `{method.question}`, such as {method.template}"
            )
        else:
            self.voices[""].check(method.needs, called)
            self._check_shows()
            self._check_shown(template, method.shown(10**9, **self.options), method.worst)
        for name, part in self.parts.items():
            voice, who = self.voices[name], part.who or called
            if voice.template.question != part.question:
                raise InputError(
                    f"{who}: the template {voice.template.name} asks `{voice.template.question}`, here one is needed "
                    f"that asks `{part.question}`"
                )
            voice.check(part.needs, who)
            self._check_shown(voice.template, part.shown, part.worst, part.who)
        if self.settings.examples is not None:
            check_shown(self.settings.examples, [voice.template for voice in self.voices.values()])

    def _check_shows(self) -> None:
        """What the main template shows besides query and documents is what the method brings."""
        method, shows = self.method, set(self.template.header.given)
        if strange := shows - set(method.brings):
            raise InputError(
                f"--template {self.template.name} shows {min(strange)!r}, which the method {method.name} does not "
                f"bring; take a template such as {method.template}"
            )
        if lacking := set(method.brings) - shows:
            raise InputError(
                f"--template {self.template.name} does not show {min(lacking)!r}, by which the method {method.name} "
                f"works; take a template with `given: [{min(lacking)}]`, such as {method.template}"
            )

    def _check_samples(self, given: Mapping[str, Any]) -> None:
        """Several replies must be able to differ; of those that a method takes by default one is left where not."""
        header, own = self.template.header, self.options.get("samples") or 1
        temperature = header.temperature if self.settings.temperature is None else self.settings.temperature
        if self.samples > 1 and header.parser == "likelihood":
            raise InputError(
                f"--samples {self.samples}: with --template {self.template.name} nothing is drawn; leave it out"
            )
        if own > 1 and not temperature:
            if "samples" in given or self.settings.samples > 1:
                raise InputError(f"--option samples={own}: all samples are one at temperature 0; set --temperature")
            self.options["samples"] = 1

    def _check_shown(self, template: Template, shown: int, worst: bool, who: str = "") -> None:
        most, who = template.most_items, who or f"the method {self.method.name}"
        if most is not None and shown > most:
            raise InputError(
                f"--template {template.name} can name {most} documents, {who} would show more; take a template with "
                "numbers, or show fewer"
            )
        if template.header.worst != worst:
            raise InputError(f"--template {template.name} and {who} do not both ask for the worst")

    async def _collect(self, requests: Iterable[Candidates | tuple[str | Query, Texts]]) -> list[Ranking]:
        done = [numbered async for numbered in self.numbered(requests)]
        return [ranking for _, ranking in sorted(done, key=lambda pair: pair[0])]


def Cascade(stages: Sequence[Any], *, backend: str | Backend, **more: Any) -> Reranker:
    """A `Reranker` of several stages: `Cascade([Stage("yes-no"), Stage("all-pairs", depth=10)], backend=...)`."""
    return Reranker("cascade", backend=backend, options={"stages": stages}, **more)


def candidates(query: str | Query, documents: Texts) -> Candidates:
    """A request from plain strings; texts without ids are named by their position, from 0."""
    of = query if isinstance(query, Query) else Query("query", query)
    return Candidates(of, tuple(d if isinstance(d, Document) else Document(str(i), d) for i, d in enumerate(documents)))


def _loaded(template: str | Template) -> Template:
    return template if isinstance(template, Template) else load(template)


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
    query: Query,
    documents: Sequence[Document],
    ranked: Ranked,
    tally: Tally,
    rounds: int,
    seconds: float,
    answers: Mapping[Question, Answer],
) -> Ranking:
    ordered = (*ranked.items, *documents[len(ranked.items) :])
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
        kept_out=tally.kept_out,
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
        cached_tokens=tally.cached_tokens,
        flops=tally.flops,
        cost=tally.cost,
        seconds=round(seconds, 6),
        score_kind=ranked.score_kind,
        repairs=dict(tally.repairs.most_common()),
        reasons=dict(tally.reasons.most_common()),
        parts=dict(sorted(tally.calls_of.items())) if tally.calls_of.keys() - {""} else {},
    )
    spread = None if ranked.spread is None else (*ranked.spread, *repeat(None, len(ordered) - len(ranked.spread)))
    return Ranking(query, ordered, tuple(ranked.scores or ()), row, answers, spread)


def _status(tally: Tally) -> RankStatus:
    if tally.unasked:
        return "partial"
    if not tally.questions:
        return "unchanged"
    return "reranked" if tally.ok + tally.repaired else "failed"
