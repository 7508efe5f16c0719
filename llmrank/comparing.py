"""Comparing items two by two with a model: documents, or answers of systems; what comes out is a comparisons file."""

from __future__ import annotations

import asyncio
import csv
import io
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from llmrank.ask.base import Ask, Remember
from llmrank.ask.samples import Sampled
from llmrank.ask.tally import Tally
from llmrank.ask.templated import Evidence, TemplateAsk
from llmrank.data.types import Candidates, Document
from llmrank.errors import InputError
from llmrank.jobs.outputs import Outputs
from llmrank.jobs.spool import Spool
from llmrank.jobs.stream import stream
from llmrank.jobs.totals import AskedTotals
from llmrank.jobs.work import JobEnd, work
from llmrank.llm.client import Client, Totals
from llmrank.llm.types import Backend, identity_of
from llmrank.questions import Answer, Preference, Question
from llmrank.rerank.reranker import Reranker, candidates
from llmrank.settings import Settings
from llmrank.templates import Template, load

TEMPLATE = "preference/answers-short"
PAIRS = {"all": "all-pairs", "sample": "all-pairs", "bracket": "bracket", "active": "active"}
"""The method that picks the pairs, by the name that `--pairs` takes."""
SAMPLE = 0.2
"""The share of all pairs that `sample` draws, unless another is named; never fewer than hang together."""
COLUMNS = (
    *("query_id", "left", "right", "winner", "p_left", "left_length", "right_length", "status", "reason", "repairs"),
    *("raw", "template", "template_hash", "model", "key"),
)
"""What a row holds, in the order of the CSV."""


class Compared(NamedTuple):
    """What came of one query's items."""

    rows: list[dict[str, Any]]
    """The rows of the comparisons file, one for each order that was asked."""
    tally: Tally


class Comparer:
    """Compares each query's items in pairs: `Comparer(backend="openai:MODEL").compare(query, items)`.

    template: one that asks `compare`, by name or path. pairs: `all`; `sample`, which draws pairs that hang together;
    `bracket`, single elimination; or `active`, which goes on where the order is least certain. swap: every pair in
    both orders. options: those of the method that picks the pairs, such as sample=0.2 or budget=200. constrain: the
    reply is held to the words asked for, where the backend can do that. What else is given are settings, as for a
    Reranker; an unreadable reply is asked once more unless `retry_format=False`.
    """

    def __init__(
        self,
        template: str | Template = TEMPLATE,
        *,
        backend: str | Backend,
        pairs: str = "all",
        swap: bool = True,
        options: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
        constrain: bool = False,
        **settings: Any,
    ) -> None:
        if pairs not in PAIRS:
            raise InputError(f"--pairs {pairs}: there are {', '.join(PAIRS)}")
        if set(settings) != {"settings"}:
            settings = {"settings": Settings.of(**{"retry_format": True, **settings})}
        given: dict[str, Any] = {"swap": swap, **(options or {})}
        if pairs == "sample":
            given.setdefault("sample", SAMPLE)
        asked = template if isinstance(template, Template) else load(template, variables)
        how: dict[str, Any] = {"options": given, "depth": None, "constrain": constrain, **settings}
        self.reranker = Reranker(PAIRS[pairs], backend=backend, template=asked, **how)
        self.settings = self.reranker.settings
        self.template = self.reranker.template

    def compare(self, query: str, items: Iterable[str | Document]) -> list[dict[str, Any]]:
        """The rows of one query's comparisons; plain texts are named by their position, from 0."""
        request = candidates(query, list(items))

        async def once() -> Compared:
            try:
                return await self.compare_one(request)
            finally:
                await self.aclose()

        return asyncio.run(once()).rows

    async def compare_one(self, request: Candidates) -> Compared:
        """The comparisons of one query's items."""
        voice, tally, documents = self.reranker.voices[""], Tally(), request.documents
        self.reranker.check_size(request.query.id, len(documents))
        await self.reranker.ready(documents)
        calls, rounds = self.reranker.method.expected(len(documents), self.reranker.options)
        tally.expected_calls, tally.expected_rounds = _middle(calls) * self.settings.samples, _middle(rounds)
        if self.settings.deadline is not None:
            tally.ends = asyncio.get_running_loop().time() + self.settings.deadline
        sources = [_Recorded(ask) for ask in voice.asks(request.query, tally, documents=documents)]
        one = self.reranker.by_passages(sources[0] if len(sources) == 1 else Sampled(sources), request.query)
        remembered = Remember(one)
        try:
            await self.reranker.run_strategy(documents, remembered, request.query.id)
        except BaseException:
            await remembered.stop()
            raise
        place = {document: i for i, document in enumerate(documents)}
        told = sorted(remembered.answered().items(), key=lambda pair: [place[item] for item in pair[0].items])  # type: ignore[index]
        rows = [self._row(request, q, a, sources[0].evidence.get(q)) for q, a in told if a.status != "unasked"]
        return Compared(rows, tally)

    def _row(
        self, request: Candidates, question: Question, answer: Answer, evidence: Evidence | None
    ) -> dict[str, Any]:
        assert isinstance(answer, Preference)
        left, right = question.items
        assert isinstance(left, Document)
        assert isinstance(right, Document)
        exchange = evidence.exchange if evidence is not None else None
        decided = answer.share in (0.0, 0.5, 1.0)
        return {
            "query_id": request.query.id,
            "left": left.id,
            "right": right.id,
            "winner": "" if answer.share is None else answer.winner if decided else answer.share,
            "p_left": answer.p_left,
            "left_length": len(left.text),
            "right_length": len(right.text),
            "status": answer.status,
            "reason": answer.reason,
            "repairs": list(answer.repairs),
            "raw": exchange.reply.text if exchange is not None and exchange.reply is not None else None,
            "template": self.template.name,
            "template_hash": self.template.hash,
            "model": self.settings.model_id or identity_of(self.reranker.backend).model,
            "key": exchange.key.hex() if exchange is not None and exchange.key else None,
        }

    def client(self) -> Client:
        return self.reranker.client()

    async def numbered(self, requests: Iterable[Candidates], /) -> AsyncIterator[tuple[int, Compared]]:
        """The comparisons of each request with its place, from 0, as they are done."""
        async for numbered in stream(requests, self.compare_one, self.client().prompts, lambda request: True):
            yield numbered

    async def aclose(self) -> None:
        await self.reranker.aclose()


class _Recorded(Ask):
    """Keeps the evidence behind each answer."""

    def __init__(self, inner: TemplateAsk) -> None:
        self._inner = inner
        self.evidence: dict[Question, Evidence] = {}

    async def answer(self, question: Question) -> Answer:
        evidence = self.evidence[question] = await self._inner.evidence(question)
        return evidence.answer


@dataclass(slots=True)
class CompareTotals(AskedTotals):
    """The sums of a job."""

    queries: int = 0
    rows: int = 0
    winners: Counter[str] = field(default_factory=Counter)

    def add(self, template: str, compared: Compared) -> None:
        self.queries += 1
        self.rows += len(compared.rows)
        for row in compared.rows:
            winner = row["winner"] if isinstance(row["winner"], str) else "share"
            self.winners[winner or "failed"] += 1
        self.spent([(template, compared.tally)])

    def json(self) -> dict[str, Any]:
        return {"queries": self.queries, "rows": self.rows, "winners": self.winners} | self.asked()


@dataclass(slots=True)
class CompareResult(JobEnd):
    """How a comparing job ended."""

    totals: CompareTotals = field(default_factory=CompareTotals)

    def json(self) -> dict[str, Any]:
        return self.totals.json() | {"failure_rate": self.totals.failure_rate, "ended_by": self.ended_by}


def run_comparing(
    comparer: Comparer,
    requests: Iterable[Candidates],
    outputs: Outputs,
    *,
    manifest: Mapping[str, Any] | None = None,
    on_progress: Callable[[CompareResult, Totals], None] | None = None,
) -> CompareResult:
    """Compares all items and writes the comparisons under their final name only at the end.

    They are JSON lines, or CSV with a header where the name says so.
    """
    result = CompareResult()
    opened: list[Spool] = []
    as_csv = outputs.output.endswith(".csv")

    def begin() -> Spool:
        opened.append(Spool(outputs.partial))
        if as_csv:
            opened[0].write(-1, _csv([COLUMNS]))
        return opened[0]

    def take(place: int, compared: Compared) -> None:
        rows = compared.rows
        lines = _csv(map(_cells, rows)) if as_csv else "".join(orjson.dumps(row).decode() + "\n" for row in rows)
        opened[0].write(place, lines)
        result.totals.add(comparer.template.name, compared)

    def progress(spent: Totals) -> None:
        if on_progress is not None:
            on_progress(result, spent)

    outputs.finish(asyncio.run(work(comparer, requests, begin, take, result, progress)))
    outputs.write_manifest(manifest)
    return result


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _cells(row: Mapping[str, Any]) -> list[Any]:
    return [" ".join(row[column]) if column == "repairs" else row[column] for column in COLUMNS]


def _middle(count: int | tuple[int, int]) -> float:
    return count if isinstance(count, int) else sum(count) / 2
