"""What a job will cost before it is run: the very same strategy, run against an `Ask` that counts instead of asking."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from llmrank.ask.base import Ask, Remember
from llmrank.ask.passages import COUNT
from llmrank.ask.samples import Sampled
from llmrank.ask.tally import Tally
from llmrank.ask.templated import Manner, TemplateAsk
from llmrank.ask.virtual import VirtualLoop
from llmrank.data.types import Anchor, Candidates, Document, Passage
from llmrank.flops import queries_per_petaflop
from llmrank.judge.discussion import TURNS
from llmrank.judge.grader import Grader
from llmrank.judge.inputs import JudgeInputs
from llmrank.judge.judge import UNIT, Labeller
from llmrank.judge.judgment import Pairs
from llmrank.judge.panels import Panel
from llmrank.llm.client import Client
from llmrank.llm.history import Measure, token_history
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import Backend, Request, identity_of, ledger_key
from llmrank.questions import Answer, Choice, Grade, Order, Preference, Question, Written
from llmrank.rerank.reranker import Reranker
from llmrank.settings import Settings, known_price
from llmrank.voice import Voice

RUNS = 20  # simulated runs behind an expected number
WRITTEN = "text " * 60  # stands for what a model writes
RENDERED = 400  # prompts a query that are rendered for their tokens; of more, every so many-th


@dataclass(frozen=True, slots=True)
class Estimate:
    """A count: one number where it does not depend on the answers, else a range with its expected value."""

    low: float
    expected: float
    high: float

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def json(self, digits: int = 1) -> Any:
        if self.exact:
            return _whole(self.expected)
        return {"min": _whole(self.low), "expected": _whole(round(self.expected, digits)), "max": _whole(self.high)}

    def rounded(self, digits: int) -> Estimate:
        return Estimate(round(self.low, digits), round(self.expected, digits), round(self.high, digits))

    def scaled(self, factor: float) -> Estimate:
        return Estimate(self.low * factor, self.expected * factor, self.high * factor)

    def perhaps(self, chance: float) -> Estimate:
        """From nothing to all of it."""
        return Estimate(0, self.expected * chance, self.high)

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def longer(self, other: Estimate) -> Estimate:
        return Estimate(max(self.low, other.low), max(self.expected, other.expected), max(self.high, other.high))


NOTHING = Estimate(0, 0, 0)


@dataclass(slots=True)
class Plan:
    """First attempts of a job, against an empty ledger unless one was given."""

    queries: int = 0
    calls: Estimate = NOTHING
    rounds: Estimate = NOTHING
    """The longest chain of questions, of any query."""
    prompt_tokens: Estimate = NOTHING
    completion_tokens: Estimate = NOTHING
    reused: int = 0
    """Questions that the given ledger answers."""
    does_not_fit: int = 0
    """Questions that will fail without a call, since they do not fit the context."""
    cost: Estimate | None = None
    """USD, where a price is known."""
    flops: Estimate | None = None
    """Floating point operations, where the model's architecture is known; cached prefixes are not taken off."""
    seconds: Estimate = NOTHING
    note: str = Measure().note

    def add(self, other: Plan, *, one_after_another: bool) -> None:
        """Adds what another part of the job takes, beside this one or after it."""
        self.calls += other.calls
        self.rounds = self.rounds + other.rounds if one_after_another else self.rounds.longer(other.rounds)
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        if other.flops is not None:
            self.flops = other.flops if self.flops is None else self.flops + other.flops
        self.note = other.note
        self.reused += other.reused
        self.does_not_fit += other.does_not_fit

    def perhaps(self, chance: float) -> Plan:
        """The same where it may come to nothing."""
        names = ("calls", "rounds", "prompt_tokens", "completion_tokens", "flops")
        known = [name for name in names if getattr(self, name) is not None]
        return replace(self, **{name: getattr(self, name).perhaps(chance) for name in known})

    def json(self) -> dict[str, Any]:
        return {
            "queries": self.queries,
            "calls": self.calls.json(),
            "rounds": self.rounds.json(),
            "prompt_tokens": self.prompt_tokens.rounded(0).json(),
            "completion_tokens": self.completion_tokens.rounded(0).json(),
            "reused": self.reused,
            "does_not_fit": self.does_not_fit,
            "cost": None if self.cost is None else self.cost.rounded(6).json(6),
            "flops": None if self.flops is None else self.flops.rounded(0).json(),
            "queries_per_petaflop": queries_per_petaflop(
                self.queries, None if self.flops is None else self.flops.expected
            ),
            "seconds": self.seconds.json(),
            "note": self.note,
        }


def plan(
    reranker: Reranker, requests: Iterable[Candidates], *, ledger: Ledger | None = None, latency: float = 1.0
) -> Plan:
    """The plan of reranking all requests. `ledger`: what it holds is subtracted; `latency`: seconds a call takes."""
    planner = _Planner(reranker, ledger)
    result = Plan()
    for request in requests:
        planner.add(request, result)
    return _priced(result, reranker.settings, reranker.backend, latency)


def plan_judging(
    labeller: Labeller, inputs: JudgeInputs, *, ledger: Ledger | None = None, latency: float = 1.0
) -> Plan:
    """The plan of judging all pairs, as `plan`. Of a panel that escalates half of the pairs are taken to be unsure."""
    result, parts = Plan(queries=inputs.queries), []
    every = 1 if ledger is not None else max(1, len(inputs) // (RENDERED * UNIT))
    graders = list(labeller.graders.values())
    escalate = isinstance(labeller, Panel) and labeller.escalate is not None
    for grader in graders:
        part = Plan()
        planner = _GraderPlanner(grader, ledger, every)
        for unit in inputs.units(together=labeller.together):
            planner.add(unit, part)
        if escalate and grader is not graders[0]:
            part = part.perhaps(0.5)
        parts.append(part)
    for part in parts:
        result.add(part, one_after_another=escalate)
    if isinstance(labeller, Panel) and labeller.rule.discusses:
        turns = replace(result, queries=0, reused=0, does_not_fit=0, rounds=Estimate(TURNS, TURNS, TURNS))
        turns.calls = turns.calls.scaled(TURNS)
        result.add(turns.perhaps(0.5), one_after_another=True)
    return _priced(result, labeller.settings, graders[0].voices[""].backend, latency)


def _measures(voices: Mapping[str, Voice], settings: Settings, ledger: Ledger | None) -> dict[str, Measure]:
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


def _priced(result: Plan, settings: Settings, backend: Backend, latency: float) -> Plan:
    """The plan with the time and the money that its calls and tokens take."""
    seconds = result.calls.scaled(latency / settings.concurrency_of(backend)).longer(result.rounds.scaled(latency))
    if settings.rpm:
        seconds = seconds.longer(result.calls.scaled(60 / settings.rpm))
    if settings.tpm:
        seconds = seconds.longer((result.prompt_tokens + result.completion_tokens).scaled(60 / settings.tpm))
    result.seconds = seconds.rounded(1)
    if (price := settings.unit_price or known_price(backend)) is not None:
        prompt, completion = result.prompt_tokens, result.completion_tokens
        result.cost = prompt.scaled(price.prompt / 1e6) + completion.scaled(price.completion / 1e6)
    return result


class _Planner:
    """Adds up queries; what depends on the number of candidates alone is worked out once for each number."""

    def __init__(self, reranker: Reranker, ledger: Ledger | None) -> None:
        self._reranker = reranker
        model_id = reranker.settings.model_id
        self._manners: dict[str, Manner] = {
            part: voice.manner(Client(voice.backend, ledger=ledger, model_id=model_id))
            for part, voice in reranker.voices.items()
        }
        self._measures = _measures(reranker.voices, reranker.settings, ledger)
        self._has_ledger = ledger is not None
        self._counts: dict[tuple[int, str], tuple[Estimate, Estimate]] = {}

    def add(self, request: Candidates, result: Plan) -> None:
        reranker, samples = self._reranker, self._reranker.samples
        head = request.documents if reranker.depth is None else request.documents[: reranker.depth]
        calls, rounds = self._of_size(len(head), request.query.id if reranker.method.knows_query else "")
        every = 1 if self._has_ledger else max(1, round(calls.expected / RENDERED))
        asks = [
            _CountingAsk(
                head,
                0,
                {
                    part: TemplateAsk(m, request.query, Tally(), sample=i, documents=request.documents)
                    for part, m in self._manners.items()
                },
                {part: manner.client for part, manner in self._manners.items()},
                self._measures,
                every,
            )
            for i in range(samples)
        ]
        loop = VirtualLoop()
        together = asks[0] if samples == 1 else Sampled(asks)
        remembered = Remember(reranker.by_passages(together, request.query))
        loop.run(reranker.run_strategy(head, remembered, request.query.id))
        asked, free = sum(ask.asked for ask in asks), sum(ask.reused + ask.unfit for ask in asks)
        calls = self._by_passages(calls, len(remembered.answered()), (asked + free) // samples).scaled(samples)
        if free:
            calls, rounds = _less(calls, asked, free), _less(rounds, loop.time(), 0)
        rendered = max(1, sum(ask.rendered for ask in asks))
        result.queries += 1
        result.calls += calls
        result.rounds = result.rounds.longer(rounds)
        result.prompt_tokens += calls.scaled(sum(ask.prompt_tokens for ask in asks) / rendered)
        result.completion_tokens += calls.scaled(sum(ask.completion_tokens for ask in asks) / rendered)
        if any(ask.flops is not None for ask in asks):
            taken = calls.scaled(sum(ask.flops or 0.0 for ask in asks) / rendered)
            result.flops = taken if result.flops is None else result.flops + taken
        result.note = self._measures[next(iter(self._measures))].note
        result.reused += sum(ask.reused for ask in asks)
        result.does_not_fit += sum(ask.unfit for ask in asks)

    def _by_passages(self, calls: Estimate, questions: int, prompts: int) -> Estimate:
        """Calls where a question about a long document is one about each of its passages."""
        if questions == prompts:
            return calls
        if calls.exact:
            return Estimate(prompts, prompts, prompts)
        most = self._reranker.settings.passage_count or COUNT
        return Estimate(calls.low, calls.expected * prompts / questions, calls.high * most)

    def _of_size(self, n: int, query_id: str) -> tuple[Estimate, Estimate]:
        """Calls and rounds for n candidates; of that query, where the method wants to know which it is."""
        if (n, query_id) not in self._counts:
            calls, rounds = self._reranker.method.expected(n, self._reranker.options)
            if isinstance(calls, int) and isinstance(rounds, int):
                self._counts[n, query_id] = Estimate(calls, calls, calls), Estimate(rounds, rounds, rounds)
            else:
                self._counts[n, query_id] = self._simulated(n, query_id, _ends(calls), _ends(rounds))
        return self._counts[n, query_id]

    def _simulated(
        self, n: int, query_id: str, calls: tuple[int, int], rounds: tuple[int, int]
    ) -> tuple[Estimate, Estimate]:
        documents = tuple(Document(str(i)) for i in range(n))
        asked, chains = 0, 0.0
        for seed in range(RUNS):
            ask = _CountingAsk(documents, seed)
            loop = VirtualLoop()
            loop.run(self._reranker.run_strategy(documents, Remember(ask), query_id))
            asked += ask.asked
            chains += loop.time()
        return Estimate(calls[0], asked / RUNS, calls[1]), Estimate(rounds[0], chains / RUNS, rounds[1])


class _GraderPlanner:
    """Adds up the units of work of one judge."""

    def __init__(self, grader: Grader, ledger: Ledger | None, every: int) -> None:
        self._grader = grader
        self._every, self._seen, self._prompts = every, 0, 0
        self._tokens, self._flops = (0, 0), 0.0
        self._measures = _measures(grader.voices, grader.settings, ledger)
        model_id = grader.settings.model_id
        self._manners: dict[str, Manner] = {
            part: voice.manner(Client(voice.backend, ledger=ledger, model_id=model_id))
            for part, voice in grader.voices.items()
        }

    def add(self, unit: Pairs, result: Plan) -> None:
        grader, samples = self._grader, self._grader.settings.samples
        look, self._seen = self._seen % self._every == 0, self._seen + 1
        clients = {part: manner.client for part, manner in self._manners.items()}
        tallies = {part: Tally() for part in self._manners}
        asked, free, chain = 0, 0, 0.0
        for i in range(samples):
            sources = grader.asks(unit.query, tallies, i, unit.documents, self._manners) if look else None
            ask = _CountingAsk(unit.documents, 0, sources, clients, self._measures)
            loop = VirtualLoop()
            loop.run(grader.run_recipe(unit.query, unit.documents, Remember(ask)))
            asked, free, chain = asked + ask.asked, free + ask.reused + ask.unfit, max(chain, loop.time())
            result.reused += ask.reused
            result.does_not_fit += ask.unfit
            self._prompts += ask.rendered
            self._tokens = self._tokens[0] + ask.prompt_tokens, self._tokens[1] + ask.completion_tokens
            self._flops += ask.flops or 0.0
        least, most = _ends(grader.expected(len(unit.documents))[0])
        exact = least == most or free > 0
        calls = Estimate(asked, asked, asked) if exact else Estimate(least * samples, asked, most * samples)
        result.calls += calls
        result.rounds = result.rounds.longer(Estimate(chain, chain, chain))
        for tokens, name in zip(self._tokens, ("prompt_tokens", "completion_tokens"), strict=True):
            setattr(result, name, result.calls.scaled(tokens / max(1, self._prompts)))
        if self._flops:
            result.flops = result.calls.scaled(self._flops / max(1, self._prompts))
        result.note = self._measures[next(iter(self._measures))].note


@dataclass(slots=True)
class _CountingAsk(Ask):
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


def _less(count: Estimate, left: float, free: int) -> Estimate:
    """What is left of a count where some answers take no call."""
    if count.exact or left == 0:
        return Estimate(left, left, left)
    return Estimate(min(1, left), left, max(left, count.high - free))


def _ends(count: int | tuple[int, int]) -> tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number
