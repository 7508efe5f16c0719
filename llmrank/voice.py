"""A voice: a template and a model that together answer a job's questions, checked to go together before the first."""

from __future__ import annotations

from collections.abc import Iterable

from llmrank.ask.base import Ask
from llmrank.ask.loops import Clients
from llmrank.ask.samples import Sampled
from llmrank.ask.tally import Tally
from llmrank.ask.templated import Manner, TemplateAsk
from llmrank.data.types import Query
from llmrank.errors import InputError
from llmrank.llm.backends import open_backend
from llmrank.llm.budget import Budget
from llmrank.llm.client import Client, Totals
from llmrank.llm.types import CAPABILITIES, Backend, capabilities_of
from llmrank.settings import Settings
from llmrank.templates import Template
from llmrank.templates.fitting import EstimatedTokens, TokenCounter

DEFAULT_CONTEXT = 32_768  # tokens, where nothing tells how many the model takes


class Voices:
    """The models of a job by the SPEC that names them: each is opened once, and all spend from one budget."""

    def __init__(self, settings: Settings, backend: str | Backend) -> None:
        self.settings = settings
        self._budget: Budget | None = settings.budget()
        self._totals = Totals()
        self._opened: dict[object, tuple[Backend, Clients]] = {}
        self._main: object = backend
        self.backend, self.clients = self._open(backend)

    def voice(self, template: Template, backend: str | Backend | None = None, *, whole: bool = False) -> Voice:
        """The template answered by a model, that of the job unless another is named."""
        return Voice(template, *self._open(self._main if backend is None else backend), self.settings, whole)

    def _open(self, spec: object) -> tuple[Backend, Clients]:
        key = spec if isinstance(spec, str) else id(spec)
        if key not in self._opened:
            settings, budget, totals = self.settings, self._budget, self._totals
            opened = open_backend(spec, base_url=settings.base_url) if isinstance(spec, str) else spec
            backend: Backend = opened  # type: ignore[assignment]  # whatever is no SPEC is taken for a backend
            self._opened[key] = backend, Clients(lambda: settings.client(backend, budget, totals))
        return self._opened[key]

    async def aclose(self) -> None:
        """Closes the running loop's clients."""
        for _, clients in self._opened.values():
            await clients.aclose()


class Voice:
    """One template answered by one model."""

    def __init__(
        self, template: Template, backend: Backend, clients: Clients, settings: Settings, whole: bool = False
    ) -> None:
        self.template = template
        self.backend = backend
        self.clients = clients
        self.settings = settings
        self.whole = whole
        """Texts are never cut: what does not fit as it is does not fit."""

    @property
    def context(self) -> int:
        """Tokens that the model takes, prompt and reply."""
        return self.settings.context or getattr(self.backend, "context", None) or DEFAULT_CONTEXT

    def manner(self, client: Client | None = None) -> Manner:
        """How questions are put through this voice."""
        settings = self.settings
        counter: TokenCounter | None = getattr(self.backend, "counter", None)
        return Manner(
            template=self.template,
            client=client or self.clients.current(),
            context=self.context,
            counter=counter or EstimatedTokens(),
            passage_tokens=settings.passage_tokens,
            temperature=settings.temperature,
            max_completion_tokens=settings.max_completion_tokens,
            seed=settings.seed,
            whole=self.whole,
            retry_format=settings.retry_format,
            retry_failed=settings.retry_failed,
        )

    def asks(self, query: Query, tally: Tally, manner: Manner | None = None) -> list[TemplateAsk]:
        """What asks one query's questions: one for each sample that is wanted."""
        manner = manner or self.manner()
        return [TemplateAsk(manner, query, tally, sample=i) for i in range(self.settings.samples)]

    def check(self, needs: Iterable[str], who: str) -> None:
        """Raises InputError where template and backend do not go together. `who` names what asks, for people."""
        template = self.template
        missing = sorted({*template.header.needs, *needs} - capabilities_of(self.backend))
        if missing:
            what = {str(name): sentence for name, sentence in CAPABILITIES.items()}.get(missing[0], "unknown")
            raise InputError(
                f"{who} with --template {template.name} needs {missing[0]} ({what}), which the backend "
                f"{type(self.backend).__name__} does not have; take another method, template or backend"
            )
        temperature = self.settings.temperature
        if self.settings.samples > 1 and not (template.header.temperature if temperature is None else temperature):
            raise InputError(
                f"--samples {self.settings.samples}: all samples are one at temperature 0; set --temperature"
            )
        if self.settings.max_cost is not None and self.settings.price is None:
            raise InputError(
                "--max-cost needs to know what the model costs: give --price IN,OUT in USD per million tokens"
            )


def together(asks: list[TemplateAsk]) -> Ask:
    """One ask of as many samples as there are."""
    return asks[0] if len(asks) == 1 else Sampled(asks)
