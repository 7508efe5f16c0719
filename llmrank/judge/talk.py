"""What jobs share that put several kinds of question to several models: TRACe, the examiner, claims, topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import orjson

from llmrank.agree.resampling import Resampling, Sample
from llmrank.agree.results import Figure
from llmrank.ask.examples import Picked
from llmrank.ask.loops import Background
from llmrank.ask.manner import Manner
from llmrank.ask.tally import Tally
from llmrank.ask.templated import TemplateAsk
from llmrank.data.types import Document, Query
from llmrank.errors import InputError
from llmrank.jobs.stream import stream
from llmrank.judge.judgment import Source
from llmrank.llm.client import Client
from llmrank.llm.types import Backend
from llmrank.questions import Answer, Grade, Order, Question, Status, Written
from llmrank.settings import Settings
from llmrank.templates import Template, load
from llmrank.voice import Part, Voices

In = TypeVar("In")
Out = TypeVar("Out")
A = TypeVar("A", Written, Grade, Order)
T = TypeVar("T")
Row = dict[str, Any]
NOTHING: Mapping[str, str] = {}


class Told(NamedTuple, Generic[A]):
    """An answer, and the reply behind it."""

    answer: A
    source: Source


class Worked(NamedTuple, Generic[Out]):
    """What came of one unit of work."""

    value: Out
    tallies: tuple[tuple[str, Tally], ...]
    """What each template was asked, and what it cost."""


class Talk(Generic[In, Out]):
    """Works on a stream of requests by questions to the parts of a job, each a template with a model.

    Everything is checked when it is made, before any request: raises InputError in one sentence. All models spend
    from one budget and share one ledger.
    """

    unused: Mapping[str, str] = {}
    """Settings that mean nothing here, each with the sentence that says so."""

    def __init__(self, parts: Mapping[str, Part], settings: Settings, who: str, models: Voices | None = None) -> None:
        """who: what asks, for people. models: those of an earlier part of the job, whose budget is spent further."""
        defaults = Settings()
        for name, why in self.unused.items():
            if getattr(settings, name) != getattr(defaults, name):
                raise InputError(f"--{name.replace('_', '-')}: {why}")
        specs = list(dict.fromkeys(_key(part.backend) for part in parts.values()))
        if settings.model_id is not None and len(specs) > 1:
            raise InputError("--model-id gives one model a name; here several are asked, which it would take for one")
        self.settings = settings
        main = next(iter(parts.values())).backend
        assert main is not None
        # Who shows examples brings its own.
        none = {name: getattr(defaults, name) for name in ("examples", "shots", "select")}
        self.models = models or Voices(settings.model_copy(update=none), main)
        self.voices = {
            name: self.models.voice(_template(part), part.backend, whole=part.whole) for name, part in parts.items()
        }
        for name, part in parts.items():
            template = self.voices[name].template
            if template.question != part.question:
                raise InputError(
                    f"{who}: the template {template.name} asks `{template.question}`, here one is needed that asks "
                    f"`{part.question}`"
                )
            self.voices[name].check(part.needs, who)
        self._manners: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Manner]] = WeakKeyDictionary()
        self._background = Background(self.models)

    async def work(self, request: In) -> Worked[Out]:
        """What comes of one request."""
        raise NotImplementedError  # what the jobs differ in

    def run(self, requests: Iterable[In]) -> list[Out]:
        """What comes of each request, in their order. Also from inside a running event loop or a notebook."""
        return self._background.run(self.arun(requests))

    async def arun(self, requests: Iterable[In]) -> list[Out]:
        """`run` for a coroutine."""
        done = {place: worked.value async for place, worked in self.numbered(requests)}
        return [done[place] for place in sorted(done)]

    async def numbered(self, requests: Iterable[In], /) -> AsyncIterator[tuple[int, Worked[Out]]]:
        """What comes of each request with its place, from 0, as it is done; in bounded memory."""
        self._manners.pop(asyncio.get_running_loop(), None)
        async for numbered in stream(requests, self.work, self.client().prompts, lambda request: True):
            yield numbered

    def client(self) -> Client:
        """The first model's client of the running event loop."""
        return self.models.clients.current()

    async def aclose(self) -> None:
        """Closes the running loop's clients. The end of the loop does so too."""
        self._manners.pop(asyncio.get_running_loop(), None)
        await self.models.aclose()

    def manners(self) -> dict[str, Manner]:
        """How the questions of each part are put: the same from a stream's beginning to its end.

        Asking for a client anew would let one that was refused try again, once for every conversation begun.
        """
        loop = asyncio.get_running_loop()
        if (known := self._manners.get(loop)) is None:
            known = self._manners[loop] = {part: voice.manner() for part, voice in self.voices.items()}
        return known

    def close(self) -> None:
        """Closes what `run` opened. Not calling it loses nothing."""
        self._background.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Conversation:
    """The questions about one query, each put through the part that is named; keeps count of what they cost."""

    def __init__(self, talk: Talk[Any, Any], query: Query, examples: Mapping[str, Picked] | None = None) -> None:
        """examples: worked examples for a part, by its name."""
        self._manners = talk.manners()
        self._query = query
        self._examples = examples or {}
        self._asks: dict[str, TemplateAsk] = {}
        self._tallies: dict[str, Tally] = {}
        deadline = talk.settings.deadline
        self._ends = None if deadline is None else asyncio.get_running_loop().time() + deadline

    async def write(
        self, by: str, items: Sequence[Document] = (), *, given: Mapping[str, str] = NOTHING, sample: int = 0
    ) -> Told[Written]:
        answer, source = await self._told(Question("write", tuple(items), False, by, tuple(given.items()), sample))
        return Told(cast(Written, answer), source)

    async def grade(
        self, by: str, item: Document, *, given: Mapping[str, str] = NOTHING, sample: int = 0
    ) -> Told[Grade]:
        answer, source = await self._told(Question("grade", (item,), False, by, tuple(given.items()), sample))
        return Told(cast(Grade, answer), source)

    async def order(self, by: str, items: Sequence[Document], *, given: Mapping[str, str] = NOTHING) -> Told[Order]:
        answer, source = await self._told(Question("order", tuple(items), False, by, tuple(given.items())))
        return Told(cast(Order, answer), source)

    def reread(
        self, told: Told[A], status: Status, *, reason: str | None = None, repairs: Sequence[str] = ()
    ) -> Source:
        """The reply's source once more was found out than its parser could tell; it counts as this from here on."""
        tally = self._tallies[told.source.by]
        before = told.answer.status
        if before in ("ok", "repaired") and status != before:
            setattr(tally, before, getattr(tally, before) - 1)
            setattr(tally, status, getattr(tally, status) + 1)
        tally.repairs.update(repairs)
        if status == "failed":
            tally.reasons[reason or "unknown"] += 1
        return told.source._replace(status=status, reason=reason)

    def worked(self, value: Out) -> Worked[Out]:
        named = ((self._manners[part].template.name, tally) for part, tally in self._tallies.items())
        return Worked(value, tuple(named))

    async def _told(self, question: Question) -> tuple[Answer, Source]:
        ask = self._asks.get(question.by) or self._opened(question.by)
        answer, exchange, *_ = await ask.evidence(question)
        manner = self._manners[question.by]
        reply = exchange.reply if exchange is not None else None
        return answer, Source(
            question.by,
            manner.template.name,
            manner.template.hash,
            manner.client.identity.model,
            exchange.key.hex() if exchange is not None and exchange.key else None,
            None if reply is None else reply.text,
            answer.status,
            answer.reason,
        )

    def _opened(self, part: str) -> TemplateAsk:
        tally = self._tallies[part] = Tally(ends=self._ends)
        manner = self._manners[part]
        if (picked := self._examples.get(part)) is not None:
            manner = replace(manner, examples=lambda query, documents: picked)
        ask = self._asks[part] = TemplateAsk(manner, self._query, tally)
        return ask


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; an error of one ends the others, so that nothing is paid for that nobody will use."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def rows_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON lines."""
    return "".join(orjson.dumps(row).decode() + "\n" for row in rows)


def source_row(source: Source) -> Row:
    """Where something comes from, as rows tell it: status, reply, its key in the ledger, template and model."""
    return source._asdict()


def mean_figure(values: Iterable[tuple[Hashable, float]], by: str, settings: Resampling) -> Figure:
    """The mean of (unit, value) pairs with an interval for which whole units are drawn again; n: values."""
    units: dict[Hashable, list[float]] = {}
    for unit, value in values:
        total = units.setdefault(unit, [0.0, 0.0])
        total[0] += value
        total[1] += 1
    n = int(sum(count for _, count in units.values()))
    if not n:
        return Figure(None, None, None, 0, "there is nothing to take the mean of")
    rows = np.array(list(units.values()), dtype=np.float64)
    sample = Sample.of_units(rows, settings, by, size=lambda some: np.asarray(some[:, 1]))

    def mean(sums: Any) -> Any:
        total, count = sums[..., 0], sums[..., 1]
        return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)

    return sample.figure(mean, n, "there is nothing to take the mean of")


def same_model(one: str | Backend, other: str | Backend) -> bool:
    """Whether two models are one, whatever they are called."""
    return _key(one) == _key(other)


def parse_models(texts: Sequence[str], flag: str) -> dict[str, str]:
    """NAME=SPEC texts as a dictionary."""
    found: dict[str, str] = {}
    for text in texts:
        name, sign, spec = (part.strip() for part in text.partition("="))
        if not (sign and name and spec):
            raise InputError(f"{flag} {text}: write it as NAME=SPEC, for example {flag} small=openai:gpt-4o-mini")
        if name.split() != [name]:
            raise InputError(f"{flag} {text}: the name has white space, which makes a poor column; leave it out")
        if name in found:
            raise InputError(f"{flag} {text}: {name} is named already; names must differ")
        found[name] = spec
    return found


def _template(part: Part) -> Template:
    return part.template if isinstance(part.template, Template) else load(part.template)


def _key(backend: object) -> object:
    return backend if isinstance(backend, str) else id(backend)
