"""`TemplateAsk`: a question becomes a prompt that fits, a request, a reply and an answer, and is counted."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import NamedTuple, cast

from llmrank.ask.base import Ask
from llmrank.ask.held import constraint_of
from llmrank.ask.manner import Manner
from llmrank.ask.prompting import Prompting
from llmrank.ask.tally import Tally
from llmrank.data.types import Document, Query
from llmrank.llm.client import BackendRefused, Exchange, Named
from llmrank.llm.types import About, Constraint, Reply, Request, Sampling, ledger_key
from llmrank.questions import Answer, Question, failed, unasked
from llmrank.templates.parsers.reading import final_part

CONVINCING = 3  # replies without log-probabilities, and none with them: then the server gives none
SAMPLES = 1009  # samples that a method may take of a question: those of `--samples` lie so far apart
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
PORTIONS = (16, 64)  # prompts that are looked for in the ledger at once; memory holds no more of them
MOSTLY = 0.75  # share of a portion which the ledger lacks that tells not to look for the rest


class Evidence(NamedTuple):
    """An answer with the words that made it."""

    answer: Answer
    exchange: Exchange | None = None
    """The last exchange behind it; None where nothing could be asked."""
    reused: bool = False
    """Every reply behind it came from the ledger."""
    asked_again: bool = False
    """The format was restated after an unreadable reply."""


class Prompt(NamedTuple):
    """A request, and what it is in the ledger."""

    request: Request
    named: Named


class TemplateAsk(Ask):
    """Asks one query's questions through a template and a client."""

    def __init__(
        self, manner: Manner, query: Query, tally: Tally, *, sample: int = 0, documents: Sequence[Document] = ()
    ) -> None:
        self._manner = manner
        self.template = manner.template
        self._query = query
        self._tally = tally
        self._sample = sample
        self._samplings: dict[int, Sampling] = {}
        self._constraints: dict[int, Constraint | None] = {}
        header = manner.template.header
        self._grades = tuple(header.labels.items()) if header.labels else _ends(header.range)
        self._prompting = Prompting(manner, query, tally, documents)

    async def answer(self, question: Question) -> Answer:
        return (await self.evidence(question)).answer

    async def known(self, questions: Sequence[Question]) -> list[Answer | None]:
        """What the ledger holds, read in portions; after one of which it holds little the rest is not looked for."""
        known: list[Answer | None] = []
        for size in chain(PORTIONS, repeat(PORTIONS[-1])):
            portion = questions[len(known) : len(known) + size]
            if not portion or self._manner.client.ledger is None or self._is_late():
                break
            prompts = [self._prompt(question) for question in portion]
            replies = iter(self._manner.client.at_rest([p.named.key for p in prompts if isinstance(p, Prompt)]))
            found = [
                self._kept(question, prompt, next(replies)) if isinstance(prompt, Prompt) else self._counted(prompt)
                for question, prompt in zip(portion, prompts, strict=True)
            ]
            known += [None if evidence is None else evidence.answer for evidence in found]
            if found.count(None) > len(found) * MOSTLY:
                break
            await asyncio.sleep(0)
        return known + [None] * (len(questions) - len(known))

    async def evidence(self, question: Question) -> Evidence:
        """The answer with the exchange behind it."""
        ends, client = self._tally.ends, self._manner.client
        prompt: Prompt | None = None
        landed = client.landed
        if client.ledger is not None and client.prompts.in_use < client.prompts.size and not self._is_late():
            # What the ledger holds needs no place in a queue.
            made = self._prompt(question)
            if isinstance(made, Evidence):
                return self._counted(made)
            (reply,) = client.at_rest([made.named.key])
            if (kept := self._kept(question, made, reply)) is not None:
                return kept
            prompt = made if reply is None else None
        if ends is None:
            return await self._evidence(question, prompt, landed)
        if not self._is_late():  # a timeout that is over would still let the request go out
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(ends):
                    return await self._evidence(question, prompt, landed)
        return self._counted(Evidence(unasked(question.kind, "deadline")))

    async def _evidence(self, question: Question, prompt: Prompt | None, landed: int) -> Evidence:
        """The answer that has to be asked for. `prompt`: where it was just found not to be in the ledger."""
        prompts = self._manner.client.prompts
        await prompts.acquire(self._tally.remaining)  # a prompt is made when its turn is near, not before
        try:
            request = self.request(question) if prompt is None else prompt.request
            if not isinstance(request, Request):
                return self._counted(Evidence(request))
            # While it waited for its turn another may have asked the same.
            missing = prompt.named if prompt is not None and landed == self._manner.client.landed else None
            return self._counted(await self._ask(request, question, missing))
        finally:
            prompts.release()

    def _prompt(self, question: Question) -> Prompt | Evidence:
        request = self.request(question)
        if isinstance(request, Request):
            return Prompt(request, self._manner.client.named(request))
        return Evidence(request)

    def _kept(self, question: Question, prompt: Prompt, reply: Reply | None) -> Evidence | None:
        """The answer that the ledger's reply gives; None where something has to be sent."""
        if reply is None:
            return None
        manner, client = self._manner, self._manner.client
        exchange = Exchange(reply, reused=True, key=prompt.named.key)
        answer = self._read(exchange, question)
        if answer.status == "failed" and (manner.retry_failed or manner.retry_format or self.template.header.close):
            return None
        client.totals.reused += 1
        self._exchanged(exchange, question.by)
        return self._counted(Evidence(answer, exchange, True))

    def _counted(self, evidence: Evidence) -> Evidence:
        self._tally.answered(evidence.answer, evidence.reused)
        return evidence

    def _is_late(self) -> bool:
        ends = self._tally.ends
        return ends is not None and asyncio.get_running_loop().time() >= ends

    def request(self, question: Question) -> Request | Answer:
        """The request that asks the question, or the answer that it failed: `does-not-fit`."""
        documents = cast(tuple[Document, ...], question.items)
        n, template = len(documents), self.template
        rendered = self._prompting.rendered(documents, question)
        if rendered is None:
            return failed(question.kind, "does-not-fit")
        sampling = self._samplings.get(n)
        if sampling is None:
            sampling = self._samplings[n] = self._manner.sampling(n)
        about = About(
            question,
            self._query,
            documents,
            lambda answer: template.write(answer, n),
            self._grades,
            template.options if question.kind == "compare" else template.identifiers(n),
        )
        sample = self._sample * SAMPLES + question.sample
        held = self._held(n) if self._manner.constrain else None
        return Request(rendered.messages, rendered.raw, sampling, held, sample, about, rendered.continuation)

    def _held(self, n: int) -> Constraint | None:
        """What the reply about n items is held to."""
        if n not in self._constraints:
            self._constraints[n] = constraint_of(self.template, n)
        return self._constraints[n]

    async def _ask(self, request: Request, question: Question, missing: Named | None) -> Evidence:
        manner = self._manner
        exchange = await self._exchange(request, missing=missing)
        answer = self._read(exchange, question)
        if answer.status != "failed" or exchange.reply is None:
            return Evidence(answer, exchange, exchange.reused)
        if manner.retry_failed and exchange.reused and not self._repaired_before(request, exchange.reply, question):
            exchange = await self._exchange(request, fresh=True)
            answer = self._read(exchange, question)
        if answer.reason == "truncated" and exchange.reply is not None and self.template.header.close:
            return await self._further(self._closed(request, exchange.reply), question, exchange, answer, "closed")
        if manner.retry_format and answer.status == "failed" and exchange.reply is not None:
            restated = self._restated(request, exchange.reply)
            return await self._further(restated, question, exchange, answer, "asked-again")
        return Evidence(answer, exchange, exchange.reused)

    async def _exchange(self, request: Request, *, fresh: bool = False, missing: Named | None = None) -> Exchange:
        """What comes of a request, counted; also what was sent for it before the query's time was up."""
        client, tally = self._manner.client, self._tally
        part = request.about.question.by if request.about else ""
        spent: list[float] = []
        try:
            exchange = await client.ask(request, remaining=tally.remaining, fresh=fresh, spent=spent, missing=missing)
        except asyncio.CancelledError:
            cost = sum(spent) if client.price and spent else None
            tally.exchanged(Exchange(None, calls=len(spent), cost=cost), part)
            raise
        self._exchanged(exchange, part)
        return exchange

    def _exchanged(self, exchange: Exchange, part: str) -> None:
        manner = self._manner
        self._tally.exchanged(exchange, part, manner.architecture)
        if manner.watched and not manner.client.gives_logprobs and exchange.reply is not None:
            self._look_for_logprobs(exchange.reply)

    def _look_for_logprobs(self, reply: Reply) -> None:
        """Ends the job where the server passes over what the template cannot do without: the first replies show it."""
        client = self._manner.client
        if reply.tokens:
            client.gives_logprobs = True
        elif reply.text:
            client.without_logprobs += 1
            if client.without_logprobs < CONVINCING:  # one may be a fault, which comes as text too
                return
            raise BackendRefused(
                f"{client.origin or client.identity.model}: the replies have no log-probabilities, though they were "
                f"asked for, and --template {self.template.name} needs them; take another template or server "
                f"(`llmrank backends check` shows what it gives)"
            )

    def _repaired_before(self, request: Request, unreadable: Reply, question: Question) -> bool:
        """Whether the ledger holds a readable reply to the question with its format restated."""
        manner, client = self._manner, self._manner.client
        if not manner.retry_format:
            return False
        again = self._restated(request, unreadable)
        known = client.known(ledger_key(again.canonical(client.identity)))
        return known is not None and self.template.read(known, len(question.items)).usable

    async def _further(
        self, request: Request, question: Question, first: Exchange, failed: Answer, repair: str
    ) -> Evidence:
        """The answer to a further request after an unreadable reply; at best `repaired`, with the repair named."""
        again = await self._exchange(request)
        second = self._read(again, question, closed=True)
        reused = first.reused and again.reused
        if second.usable:
            second = replace(second, status="repaired", repairs=(*second.repairs, repair))
            return Evidence(second, again, reused, repair == "asked-again")
        # Without a second reply (a fault, a budget) the first is what there is to show.
        return Evidence(failed, again if again.reply is not None else first, reused, repair == "asked-again")

    def _closed(self, request: Request, reply: Reply) -> Request:
        """The same question with its unfinished chain of thought closed, so that the verdict comes next."""
        header, thought = self.template.header, _thought(reply)
        begun = f"{thought}{header.close}"
        n = len(request.about.documents) if request.about is not None else 1
        sampling = replace(request.sampling, max_tokens=self.template.verdict_tokens(n))
        if request.prompt is not None:
            return replace(request, prompt=f"{request.prompt}{begun}", sampling=sampling)
        messages = request.messages
        if "prefill" not in header.needs:
            told = (("assistant", thought), ("user", header.close.strip()))
            return replace(request, messages=(*messages, *told), sampling=sampling)
        if messages[-1][0] == "assistant":  # the template's own beginning of the reply
            messages, begun = messages[:-1], messages[-1][1] + begun
        return replace(request, messages=(*messages, ("assistant", begun)), sampling=sampling)

    def _read(self, exchange: Exchange, question: Question, *, closed: bool = False) -> Answer:
        """The answer in a reply; `closed`: to a chain of thought that is at its end, so that none can be cut."""
        if exchange.reply is None:
            if exchange.failure is None:
                return unasked(question.kind, "budget")
            return failed(question.kind, exchange.failure.kind)
        reply = exchange.reply
        answer = self.template.read(reply, len(question.items))
        if reply.finish == "length" and (reply.text or reply.reasoning):
            if answer.status == "failed":
                return replace(answer, reason="truncated")
            if self.template.header.close and not closed and _still_thinking(reply):
                return failed(question.kind, "truncated")  # what it names on the way is no verdict
        return answer

    def _restated(self, request: Request, reply: Reply) -> Request:
        """The same question with the unreadable reply and the format once more."""
        restate = (
            self.template.header.restate or "Answer again, in exactly the form that was asked for and nothing else."
        )
        if request.prompt is not None:
            return replace(request, prompt=f"{request.prompt}{reply.text}\n\n{restate}\n")
        said = ("assistant", reply.text or "(no answer)")
        return replace(request, messages=(*request.messages, said, ("user", restate)))


def _thought(reply: Reply) -> str:
    """What a reply says of its unfinished reasoning, to its last whole sentence."""
    said = reply.text
    if reply.reasoning and not said:
        said = f"<think>\n{reply.reasoning}"
    ends = [match.end() for match in SENTENCE_END.finditer(said)]
    return said[: ends[-1]] if ends else said


def _still_thinking(reply: Reply) -> bool:
    """Whether a reply that was cut shows no end of its reasoning."""
    return not (reply.text and reply.reasoning) and final_part(reply.text).start == 0


def _ends(scale: tuple[float, float] | None) -> tuple[tuple[str, float], ...]:
    """The ends of a range of scores, as labels."""
    return () if scale is None else tuple((f"{value:g}", value) for value in scale)
