"""A voice: a template and a model that together answer a job's questions, checked to go together before the first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

from llmrank.ask.base import Ask
from llmrank.ask.examples import Examples, Select
from llmrank.ask.held import needed_to_hold
from llmrank.ask.loops import Clients
from llmrank.ask.manner import Manner
from llmrank.ask.samples import Sampled
from llmrank.ask.tally import Tally
from llmrank.ask.templated import TemplateAsk
from llmrank.data.types import Document, Query
from llmrank.errors import InputError
from llmrank.llm.backends import WITH_ENGINE, open_backend
from llmrank.llm.budget import Budget
from llmrank.llm.client import Client, Totals
from llmrank.llm.probe import require
from llmrank.llm.types import CAPABILITIES, Backend, capabilities_of, identity_of
from llmrank.questions import Kind
from llmrank.settings import Settings, known_price
from llmrank.templates import Template
from llmrank.tokens import EstimatedTokens, TokenCounter

TOLD_BY_REPLIES = {"text", "logprobs", "later-logprobs", "prompt-logprobs"}
"""Capabilities whose lack shows in the first reply, so that no call has to be made to find it out."""
SHORT = 3000  # bytes of a prompt's texts: with what stands around them they fit the shortest context in use
DEFAULT_CONTEXT = 32_768  # tokens, where nothing tells how many the model takes


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a method or a recipe: it has a template of its own, and a model of its own where it names one."""

    template: str | Any
    """A name, or a template."""
    question: Kind
    backend: str | Any | None = None
    """A SPEC, or a backend; None for that of the job."""
    worst: bool = False
    needs: tuple[str, ...] = ("text",)
    shown: int = 1
    """How many items one of its prompts may show."""
    whole: bool = False
    """Texts are never cut to make a prompt fit."""
    who: str = ""
    """What asks, for people, where that is not the method as a whole: a stage of a cascade."""


class Voices:
    """The models of a job by the SPEC that names them: each is opened once, and all spend from one budget."""

    def __init__(self, settings: Settings, backend: str | Backend) -> None:
        self.settings = settings
        self._budget: Budget | None = settings.budget()
        self._totals = Totals()
        self._examples: Examples | None = None
        if (path := settings.examples) is not None:
            select = cast(Select, settings.select)
            self._examples = Examples.read(path, shots=settings.shots, select=select, seed=settings.seed)
        else:
            _check_nothing_is_chosen(settings)
        self._opened: dict[object, tuple[Backend, Clients]] = {}
        self._main: object = backend
        self.backend, self.clients = self._open(backend)

    def voice(
        self,
        template: Template,
        backend: str | Backend | None = None,
        *,
        whole: bool = False,
        constrain: bool = False,
    ) -> Voice:
        """The template answered by a model, that of the job unless another is named."""
        opened = self._open(self._main if backend is None else backend)
        return Voice(template, *opened, self.settings, whole, self._examples, constrain)

    def _open(self, spec: object) -> tuple[Backend, Clients]:
        key = spec if isinstance(spec, str) else id(spec)
        if key not in self._opened:
            settings, budget, totals = self.settings, self._budget, self._totals
            backend: Backend = spec  # type: ignore[assignment]  # whatever is no SPEC is taken for a backend
            if isinstance(spec, str):
                takes = spec is self._main or spec.partition(":")[0] in WITH_ENGINE
                options = settings.engine_options if takes else None
                backend = open_backend(spec, base_url=settings.base_url, engine_options=options)
            self._opened[key] = backend, Clients(lambda: settings.client(backend, budget, totals))
        return self._opened[key]

    async def aclose(self) -> None:
        """Closes the running loop's clients."""
        for _, clients in self._opened.values():
            await clients.aclose()


def _check_nothing_is_chosen(settings: Settings) -> None:
    """Raises InputError where it is said how examples are chosen, and there are none."""
    for name in ("shots", "select"):
        value = getattr(settings, name)
        if value != Settings.model_fields[name].default:  # a manifest names defaults too
            raise InputError(
                f"--{name} {value}: there are no examples to choose from; add --examples FILE.jsonl, or leave it out"
            )


class Voice:
    """One template answered by one model."""

    def __init__(
        self,
        template: Template,
        backend: Backend,
        clients: Clients,
        settings: Settings,
        whole: bool = False,
        examples: Examples | None = None,
        constrain: bool = False,
    ) -> None:
        self.constrain = constrain
        """Replies are held to what the template asks for."""
        self.template = template
        self.backend = backend
        self.clients = clients
        self.settings = settings
        self.whole = whole
        """Texts are never cut: what does not fit as it is does not fit."""
        self._more_needs: frozenset[str] = frozenset()
        self._readying: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[None]] = WeakKeyDictionary()
        self._learning: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[None]] = WeakKeyDictionary()
        self._examples = None
        if examples is not None and template.shows_examples:
            self._examples = examples.worded(template, self._cut)

    @property
    def context(self) -> int:
        """Tokens that the model takes, prompt and reply."""
        return self.settings.context or getattr(self.backend, "context", None) or DEFAULT_CONTEXT

    @property
    def asks_a_server(self) -> bool:
        """What the model can do hangs on a server, which has to be asked."""
        return bool(getattr(self.backend, "probed", None))

    @property
    def settled(self) -> bool:
        """All is known in this event loop that there is to know of the server."""
        loop = asyncio.get_running_loop()
        asked = self._readying.get(loop)
        if asked is None or not asked.done() or asked.cancelled() or asked.exception() is not None:
            return False
        known = self.settings.context is not None or getattr(self.backend, "context", 0) is not None
        return known or loop in self._learning

    async def ready(self, who: str, size: int) -> None:
        """Finds out, once for each event loop, what must be known of a server before it is asked.

        who: what asks, for people. size: bytes of the longest texts of a prompt; short ones fit any context. Raises
        InputError where the server lacks what the template needs. Log-probabilities are told by the first reply.
        """
        client, loop = self.clients.current(), asyncio.get_running_loop()
        if self._readying.get(loop) is None:
            needs = {*self.template.header.needs, *self._more_needs} - TOLD_BY_REPLIES
            self._readying[loop] = asyncio.ensure_future(require(client, needs, who, raw=self.template.header.raw))
        await asyncio.shield(self._readying[loop])
        if size > SHORT and self.settings.context is None and getattr(self.backend, "context", 0) is None:
            await self._learn_context()

    async def _learn_context(self) -> None:
        backend: Any = self.backend
        loop = asyncio.get_running_loop()
        if self._learning.get(loop) is None:
            self._learning[loop] = asyncio.ensure_future(_learned(backend))
        await asyncio.shield(self._learning[loop])

    def manner(self, client: Client | None = None) -> Manner:
        """How questions are put through this voice."""
        settings = self.settings
        return Manner(
            template=self.template,
            client=client or self.clients.current(),
            context=self.context,
            counter=self._counter,
            passage_tokens=self._passage_tokens,
            temperature=settings.temperature,
            max_completion_tokens=settings.max_completion_tokens,
            seed=settings.seed,
            whole=self.whole,
            architecture=self.settings.model_architecture,
            constrain=self.constrain,
            watched="logprobs" in self.template.header.needs and "logprobs" in getattr(self.backend, "probed", ()),
            retry_format=settings.retry_format,
            retry_failed=settings.retry_failed,
            examples=self._examples,
        )

    @property
    def _counter(self) -> TokenCounter:
        own: TokenCounter | None = getattr(self.backend, "counter", None)
        return own or EstimatedTokens()

    @property
    def _passage_tokens(self) -> int | None:
        return self.settings.passage_tokens or self.template.header.passage_tokens

    def _cut(self, text: str) -> str:
        """The text of an example, no longer than that of any document."""
        most = self._passage_tokens
        return text if most is None or self._counter.count(text) <= most else self._counter.cut(text, most)

    def asks(
        self, query: Query, tally: Tally, manner: Manner | None = None, documents: Sequence[Document] = ()
    ) -> list[TemplateAsk]:
        """What asks one query's questions: one for each sample. No example shares a document with `documents`."""
        manner = manner or self.manner()
        return [TemplateAsk(manner, query, tally, sample=i, documents=documents) for i in range(self.settings.samples)]

    def check(self, needs: Iterable[str], who: str) -> None:
        """Raises InputError where template and backend do not go together. `who` names what asks, for people."""
        template = self.template
        held = {needed_to_hold(template)} if self.constrain else set()
        self._more_needs = frozenset({*needs, *held})
        missing = sorted({*template.header.needs, *self._more_needs} - capabilities_of(self.backend))
        if missing:
            what = {str(name): sentence for name, sentence in CAPABILITIES.items()}.get(missing[0], "unknown")
            raise InputError(
                f"{who} with --template {template.name} needs {missing[0]} ({what}), which the backend "
                f"{identity_of(self.backend).kind} does not have; take another method, template or backend"
            )
        temperature = self.settings.temperature
        if self.settings.samples > 1 and not (template.header.temperature if temperature is None else temperature):
            raise InputError(
                f"--samples {self.settings.samples}: all samples are one at temperature 0; set --temperature"
            )
        settings = self.settings
        if settings.max_cost is not None and settings.price is None and known_price(self.backend) is None:
            raise InputError(
                "--max-cost needs to know what the model costs: give --price IN,OUT in USD per million tokens"
            )


async def _learned(backend: Any) -> None:
    """Has the backend find out how many tokens its model takes: from the kept table, else from the server."""
    from llmrank.llm.prices import context_of

    backend.context = context_of(backend.identity.model, base_url=getattr(backend, "origin", None))
    if backend.context is None:
        await backend.learn_context()


def together(asks: list[TemplateAsk]) -> Ask:
    """One ask of as many samples as there are."""
    return asks[0] if len(asks) == 1 else Sampled(asks)
