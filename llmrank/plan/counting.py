"""An `Ask` that counts instead of asking, and measures the prompts that it would have sent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from llmrank.ask.base import Ask
from llmrank.ask.templated import TemplateAsk
from llmrank.data.types import Anchor, Document, Passage
from llmrank.llm.client import Client
from llmrank.llm.history import Measure, token_history
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import Request, identity_of, ledger_key
from llmrank.questions import Answer, Choice, Grade, Order, Preference, Question, Written
from llmrank.settings import Settings
from llmrank.voice import Voice

WRITTEN = "text " * 60  # stands for what a model writes


@dataclass(slots=True)
class CountingAsk(Ask):
    """Counts questions and answers them as a judge would who finds the first stage's order right on the whole."""

    documents: Sequence[Document]
    seed: int
    templated: Mapping[str, TemplateAsk] | None = None
    """Makes the prompts of each part of the method, where their tokens or the ledger's answers are wanted."""
    clients: Mapping[str, Client] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    step: int = 1
    """Of so many prompts one is looked at."""
    asked: int = 0
    reused: int = 0
    unfit: int = 0
    rendered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    flops: float | None = None
    _worth: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        draw, n = random.Random(self.seed), len(self.documents)
        self._worth = {d.id: (n - i) / n + draw.gauss(0, 0.5) for i, d in enumerate(self.documents)}

    async def answer(self, question: Question) -> Answer:
        answer = self._answer(question)
        if self.templated is not None and (self.asked + self.reused) % self.step == 0:
            free = self._look_at_prompt(question, answer)
            if free is not None:
                return free
        self.asked += 1
        await asyncio.sleep(1)
        return answer

    def _look_at_prompt(self, question: Question, answer: Answer) -> Answer | None:
        """Adds up the prompt's tokens; the answer, where it takes no call: the ledger holds it, or it does not fit."""
        assert self.templated is not None
        templated, client = self.templated[question.by], self.clients[question.by]
        request = templated.request(question)
        if not isinstance(request, Request):
            self.unfit += 1
            self.step = 1  # the others may not fit either
            return request
        reply = client.known(ledger_key(request.canonical(client.identity)))
        template, n = templated.template, len(question.items)
        if reply is not None:
            self.reused += 1
            return template.read(reply, n)
        self.rendered += 1
        measure = self.measures[question.by]
        prompt, completion = measure.prompt(request), measure.completion(request, template.write(answer, n))
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        if (taken := measure.flops(prompt, completion)) is not None:
            self.flops = (self.flops or 0.0) + taken
        return None

    def _answer(self, question: Question) -> Answer:
        if question.kind == "write":
            return Written(text=WRITTEN, parts=(WRITTEN,) * 3)
        worths = [self._worth_of(item) for item in question.items if isinstance(item, Document)]
        order = sorted(range(len(worths)), key=lambda i: -worths[i])
        if question.kind == "grade":
            return Grade(value=worths[0])
        if question.kind == "compare":
            return Preference(share=float(worths[0] >= worths[1]))
        if question.kind == "choose":
            return Choice(index=order[-1] if question.worst else order[0])
        return Order(permutation=tuple(order))

    def _worth_of(self, document: Document) -> float:
        if isinstance(document, Anchor):
            return document.worth
        return self._worth[document.of if isinstance(document, Passage) else document.id]


def measures_of(voices: Mapping[str, Voice], settings: Settings, ledger: Ledger | None) -> dict[str, Measure]:
    """What tells the tokens of each part's prompts."""
    return {part: _measure(voice, settings, ledger) for part, voice in voices.items()}


def _measure(voice: Voice, settings: Settings, ledger: Ledger | None) -> Measure:
    counter, history = getattr(voice.backend, "counter", None), None
    if counter is None and getattr(voice.backend, "remote", False):
        path = settings.ledger_path
        if ledger is not None:
            history = token_history(ledger, identity_of(voice.backend))
        elif path is not None and path.exists():
            with closing(Ledger(path, read_only=True)) as own:
                history = token_history(own, identity_of(voice.backend))
    return Measure(counter, history, settings.model_architecture)
