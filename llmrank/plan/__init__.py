"""What a job will cost before it is run: the very same strategy, run against an `Ask` that counts instead of asking."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from llmrank.ask.base import Remember
from llmrank.ask.manner import Manner
from llmrank.ask.passages import COUNT
from llmrank.ask.samples import Sampled
from llmrank.ask.tally import Tally
from llmrank.ask.templated import TemplateAsk
from llmrank.ask.virtual import VirtualLoop
from llmrank.data.types import Candidates, Document
from llmrank.judge.discussion import TURNS
from llmrank.judge.grader import Grader
from llmrank.judge.inputs import JudgeInputs
from llmrank.judge.judge import UNIT, Labeller
from llmrank.judge.judgment import Pairs
from llmrank.judge.panels import Panel
from llmrank.llm.client import Client
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import Backend
from llmrank.plan.counting import CountingAsk, measures_of
from llmrank.plan.estimates import Estimate as Estimate
from llmrank.plan.estimates import Plan as Plan
from llmrank.rerank.reranker import Reranker
from llmrank.settings import Settings, known_price

RUNS = 20  # simulated runs behind an expected number
RENDERED = 400  # prompts a query that are rendered for their tokens; of more, every so many-th


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
        self._measures = measures_of(reranker.voices, reranker.settings, ledger)
        self._has_ledger = ledger is not None
        self._counts: dict[tuple[int, str], tuple[Estimate, Estimate]] = {}

    def add(self, request: Candidates, result: Plan) -> None:
        reranker, samples = self._reranker, self._reranker.samples
        head = request.documents if reranker.depth is None else request.documents[: reranker.depth]
        calls, rounds = self._of_size(len(head), request.query.id if reranker.method.knows_query else "")
        every = 1 if self._has_ledger else max(1, round(calls.expected / RENDERED))
        asks = [
            CountingAsk(
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
            ask = CountingAsk(documents, seed)
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
        self._measures = measures_of(grader.voices, grader.settings, ledger)
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
            ask = CountingAsk(unit.documents, 0, sources, clients, self._measures)
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


def _less(count: Estimate, left: float, free: int) -> Estimate:
    """What is left of a count where some answers take no call."""
    if count.exact or left == 0:
        return Estimate(left, left, left)
    return Estimate(min(1, left), left, max(left, count.high - free))


def _ends(count: int | tuple[int, int]) -> tuple[int, int]:
    return (count, count) if isinstance(count, int) else count
