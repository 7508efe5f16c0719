"""`TemplateAsk`: a question becomes a prompt that fits, a request, a reply and an answer, and is counted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from llmrank.ask.base import Ask
from llmrank.ask.tally import Tally
from llmrank.data.types import Document, Query
from llmrank.llm.client import Client, Exchange
from llmrank.llm.types import About, Reply, Request, Sampling, capabilities_of
from llmrank.questions import Answer, Question, failed, unasked
from llmrank.templates import Example, Rendered, Shown, Template
from llmrank.templates.fitting import EstimatedTokens, TokenCounter, fit
from llmrank.templates.prepare import safe, safe_values

PER_MESSAGE = 16  # tokens that a chat template may add around a message
SAMPLES = 1009  # samples that a method may take of a question: those of `--samples` lie so far apart
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
VERDICT_TOKENS = 8  # for the verdict of a chain of thought that was closed for the model


class Prepared(NamedTuple):
    """A document's text, made safe once."""

    text: str
    title: str
    size: int
    """Length in bytes: no tokeniser makes more tokens of it."""


class Evidence(NamedTuple):
    """An answer with the words that made it."""

    answer: Answer
    exchange: Exchange | None = None
    """The last exchange behind it; None where nothing could be asked."""
    reused: bool = False
    """Every reply behind it came from the ledger."""
    asked_again: bool = False
    """The format was restated after an unreadable reply."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How questions of a job are put: the same for all its queries."""

    template: Template
    client: Client
    context: int = 32_768
    counter: TokenCounter = EstimatedTokens()
    passage_tokens: int | None = None
    temperature: float | None = None
    max_completion_tokens: int | None = None
    seed: int = 0
    whole: bool = False
    """Texts are never cut: what does not fit as it is does not fit."""
    retry_format: bool = False
    retry_failed: bool = False
    examples: Callable[[Query], Sequence[Example]] | None = None
    """Worked examples for a query."""

    def sampling(self, n: int) -> Sampling:
        header = self.template.header
        temperature = header.temperature if self.temperature is None else self.temperature
        has_logprobs = "logprobs" in capabilities_of(self.client.backend)
        return Sampling(
            max_tokens=self.max_completion_tokens or self.template.completion_tokens(n),
            temperature=temperature,
            stop=header.stop,
            logprobs=header.logprobs if has_logprobs else 0,
            seed=self.seed if temperature else None,
        )


class TemplateAsk(Ask):
    """Asks one query's questions through a template and a client."""

    def __init__(self, manner: Manner, query: Query, tally: Tally, *, sample: int = 0) -> None:
        self._manner = manner
        self.template = manner.template
        self._query = query
        self._names_items = self.template.question != "grade"
        told = (query.text, query.description, query.narrative, query.instruction)
        self._shown_query = Query(query.id, *map(self._safe, told))
        self._tally = tally
        self._sample = sample
        self._prepared: dict[str, Prepared] = {}
        self._tokens: dict[str, int] = {}
        self._frames: dict[tuple[int | str, ...], int] = {}
        self._samplings: dict[int, Sampling] = {}
        header = manner.template.header
        self._grades = tuple(header.labels.items()) if header.labels else _ends(header.range)
        self._examples = tuple(manner.examples(query)) if manner.examples else ()

    async def answer(self, question: Question) -> Answer:
        return (await self.evidence(question)).answer

    async def evidence(self, question: Question) -> Evidence:
        """The answer with the exchange behind it."""
        if self._tally.ends is None:
            return await self._evidence(question)
        try:
            async with asyncio.timeout_at(self._tally.ends):
                return await self._evidence(question)
        except TimeoutError:
            late = unasked(question.kind, "deadline")
            self._tally.answered(late, False)
            return Evidence(late)

    async def _evidence(self, question: Question) -> Evidence:
        prompts = self._manner.client.prompts
        await prompts.acquire(self._tally.remaining)  # a prompt is made when its turn is near, not before
        try:
            request = self.request(question)
            evidence = await self._ask(request, question) if isinstance(request, Request) else Evidence(request)
        finally:
            prompts.release()
        self._tally.answered(evidence.answer, evidence.reused)
        return evidence

    def request(self, question: Question) -> Request | Answer:
        """The request that asks the question, or the answer that it failed: `does-not-fit`."""
        documents = cast(tuple[Document, ...], question.items)
        n, template = len(documents), self.template
        rendered = self._rendered(documents, question)
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
        return Request(rendered.messages, rendered.raw, sampling, None, sample, about, rendered.continuation)

    async def _ask(self, request: Request, question: Question) -> Evidence:
        manner, tally = self._manner, self._tally
        exchange = await manner.client.ask(request, remaining=tally.remaining)
        tally.exchanged(exchange)
        answer = self._read(exchange, question)
        if answer.status != "failed" or exchange.reply is None:
            return Evidence(answer, exchange, exchange.reused)
        if manner.retry_failed and exchange.reused:
            exchange = await manner.client.ask(request, remaining=tally.remaining, fresh=True)
            tally.exchanged(exchange)
            answer = self._read(exchange, question)
        if answer.reason == "truncated" and exchange.reply is not None and self.template.header.close:
            return await self._further(self._closed(request, exchange.reply), question, exchange, answer, "closed")
        if manner.retry_format and answer.status == "failed" and exchange.reply is not None:
            restated = self._restated(request, exchange.reply)
            return await self._further(restated, question, exchange, answer, "asked-again")
        return Evidence(answer, exchange, exchange.reused)

    async def _further(
        self, request: Request, question: Question, first: Exchange, failed: Answer, repair: str
    ) -> Evidence:
        """The answer to a further request after an unreadable reply; at best `repaired`, with the repair named."""
        again = await self._manner.client.ask(request, remaining=self._tally.remaining)
        self._tally.exchanged(again)
        second = self._read(again, question)
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
        sampling = replace(request.sampling, max_tokens=VERDICT_TOKENS)
        if request.prompt is not None:
            return replace(request, prompt=f"{request.prompt}{begun}", sampling=sampling)
        messages = request.messages
        if "prefill" not in header.needs:
            told = (("assistant", thought), ("user", header.close.strip()))
            return replace(request, messages=(*messages, *told), sampling=sampling)
        if messages[-1][0] == "assistant":  # the template's own beginning of the reply
            messages, begun = messages[:-1], messages[-1][1] + begun
        return replace(request, messages=(*messages, ("assistant", begun)), sampling=sampling)

    def _read(self, exchange: Exchange, question: Question) -> Answer:
        if exchange.reply is None:
            if exchange.failure is None:
                return unasked(question.kind, "budget")
            return failed(question.kind, exchange.failure.kind)
        answer = self.template.read(exchange.reply, len(question.items))
        if answer.status == "failed" and exchange.reply.finish == "length" and exchange.reply.text:
            return replace(answer, reason="truncated")
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

    def _rendered(self, documents: Sequence[Document], question: Question) -> Rendered | None:
        """The prompt, its texts cut where it would not fit the context; None where it cannot fit."""
        manner = self._manner
        given = {name: self._safe(text) for name, text in question.given}
        prepared = [self._prepared.get(d.id) or self._prepare(d) for d in documents]
        texts = [p.text for p in prepared]
        cap = manner.passage_tokens
        if cap is not None and max((p.size for p in prepared), default=0) > cap:
            texts = [self._capped(d, p, cap) for d, p in zip(documents, prepared, strict=True)]
        room = manner.context - (manner.max_completion_tokens or self.template.completion_tokens(len(documents)))
        if sum([p.size for p in prepared]) <= room:
            rendered = self._render(documents, prepared, texts, given)
            if _size(rendered) <= room:  # bytes bound tokens from above: nothing need be counted
                return rendered
        spare = 0
        for _ in range(2):  # a template may show a text twice, or metadata: then the excess is taken off as well
            fitted = self._fitted(documents, texts, room - spare, given)
            if fitted is None:
                return None
            rendered = self._render(documents, prepared, fitted, given)
            excess = sum(manner.counter.count(text) + PER_MESSAGE for text in _texts(rendered)) - room
            if excess <= 0:
                return rendered
            spare += 2 * excess
        return None

    def _render(
        self,
        documents: Sequence[Document],
        prepared: Sequence[Prepared],
        texts: Sequence[str],
        given: dict[str, str],
    ) -> Rendered:
        if self.template.verbatim and not self._examples:
            return self.template.filled(self._shown_query, texts)
        names = self.template.identifiers(len(documents))
        together = zip(names, texts, prepared, documents, strict=True)
        shown = [Shown(name, text, p.title, d.score, safe_values(d.metadata)) for name, text, p, d in together]
        return self.template.prompt(self._shown_query, shown, given, self._examples)

    def _fitted(
        self, documents: Sequence[Document], texts: list[str], room: int, given: dict[str, str]
    ) -> list[str] | None:
        """The texts, cut so that the prompt has at most so many tokens; None where they cannot be."""
        counter, n = self._manner.counter, len(documents)
        frame = self._frames.get((n, *given.values()))
        if frame is None:
            empty = [Shown(name, "") for name in self.template.identifiers(n)]
            said = _texts(self.template.prompt(self._shown_query, empty, given, self._examples))
            frame = sum(counter.count(text) + PER_MESSAGE for text in said)
            self._frames[n, *given.values()] = frame
        sizes = [self._count(d, text) for d, text in zip(documents, texts, strict=True)]
        if self._manner.whole:
            return texts if frame + sum(sizes) <= room else None
        fitted = fit(texts, sizes, room - frame, counter)
        if fitted is not None:
            self._tally.cut.update(d.id for d, a, b in zip(documents, texts, fitted, strict=True) if a != b)
        return fitted

    def _prepare(self, document: Document) -> Prepared:
        title, text = "", document.text
        if document.title:
            title = self._safe(document.title)
            text = f"{document.title}\n{text}"
        text = safe(text, identifiers=self._names_items)
        prepared = Prepared(text, title, len(text) if text.isascii() else len(text.encode()))
        self._prepared[document.id] = prepared
        return prepared

    def _safe(self, text: str) -> str:
        return safe(text, identifiers=self._names_items)

    def _capped(self, document: Document, prepared: Prepared, cap: int) -> str:
        if prepared.size <= cap or self._count(document, prepared.text) <= cap:
            return prepared.text
        self._tally.cut.add(document.id)
        return self._manner.counter.cut(prepared.text, cap)

    def _count(self, document: Document, text: str) -> int:
        """Tokens of the document's text, counted once for its full text."""
        if text is not self._prepared[document.id].text:
            return self._manner.counter.count(text)
        tokens = self._tokens.get(document.id)
        if tokens is None:
            tokens = self._tokens[document.id] = self._manner.counter.count(text)
        return tokens


def _thought(reply: Reply) -> str:
    """What a reply says of its unfinished reasoning, to its last whole sentence."""
    said = reply.text
    if reply.reasoning and not said:
        said = f"<think>\n{reply.reasoning}"
    ends = [match.end() for match in SENTENCE_END.finditer(said)]
    return said[: ends[-1]] if ends else said


def _texts(rendered: Rendered) -> list[str]:
    texts = [rendered.raw] if rendered.raw is not None else [content for _, content in rendered.messages]
    return texts if rendered.continuation is None else [*texts, rendered.continuation]


def _size(rendered: Rendered) -> int:
    """Bytes of the prompt, with room for what a chat template adds."""
    return sum([(len(t) if t.isascii() else len(t.encode())) + PER_MESSAGE for t in _texts(rendered)])


def _ends(scale: tuple[float, float] | None) -> tuple[tuple[str, float], ...]:
    """The ends of a range of scores, as labels."""
    return () if scale is None else tuple((f"{value:g}", value) for value in scale)
