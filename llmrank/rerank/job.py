"""A reranking job: a stream of queries in, a run file and a report out, whole even when it is ended early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmrank.data.run import format_ranking
from llmrank.data.types import Candidates
from llmrank.jobs.outputs import Outputs, write
from llmrank.jobs.spool import Spool
from llmrank.jobs.work import JobEnd, work
from llmrank.llm.client import Totals
from llmrank.rerank.ranking import Ranking, RowTotals
from llmrank.rerank.reranker import Reranker
from llmrank.rerank.teacher import teacher_line


@dataclass(slots=True)
class JobResult(JobEnd):
    """How a reranking job ended."""

    totals: RowTotals = field(default_factory=RowTotals)

    def json(self) -> dict[str, Any]:
        return self.totals.json() | {"failure_rate": self.totals.failure_rate, "ended_by": self.ended_by}


OnProgress = Callable[[JobResult, Totals], None]
"""Told what is done and what the client spent so far."""


def run_job(
    reranker: Reranker,
    requests: Iterable[Candidates],
    outputs: Outputs,
    *,
    manifest: Mapping[str, Any] | None = None,
    uncertainty: bool = False,
    on_progress: OnProgress | None = None,
) -> JobResult:
    """Reranks all requests and writes the run and what else is wanted, under their final names only at the end.

    `uncertainty` adds each document's belief, or the spread of its replies, to the report; it and a teacher file need a
    reranker that keeps answers. Until then OUT.partial holds the queries that are done, in whole blocks. An error keeps
    it, but for one that came before anything was asked. `on_progress` is called when a query is done, and every half
    second.
    """
    result, tag = JobResult(), f"llmrank-{reranker.method.name}"
    rows = Spool() if outputs.report is not None else None
    taught = Spool() if outputs.teacher is not None else None
    opened: list[Spool] = []

    def begin() -> Spool:
        opened.append(Spool(outputs.partial))
        return opened[0]

    def take(place: int, ranking: Ranking) -> None:
        opened[0].write(place, format_ranking(ranking.query.id, ranking.ids, ranking.scores, tag))
        if rows is not None:
            rows.write(place, f"{json.dumps(ranking.query.id)}: {json.dumps(_row(reranker, ranking, uncertainty))}")
        if taught is not None:
            taught.write(place, teacher_line(ranking))
        result.totals.add(ranking.row)

    def progress(spent: Totals) -> None:
        if on_progress is not None:
            on_progress(result, spent)

    outputs.finish(asyncio.run(work(reranker, requests, begin, take, result, progress)))
    if rows is not None and outputs.report is not None:
        write(outputs.report, _report(rows, result, manifest or {}))
    if taught is not None and outputs.teacher is not None:
        write(outputs.teacher, taught.ordered())
    outputs.write_manifest(manifest)
    return result


def _row(reranker: Reranker, ranking: Ranking, uncertainty: bool) -> dict[str, Any]:
    row = ranking.row.json()
    if uncertainty:
        beliefs = ranking.beliefs(reranker.options.get("k", 10), reranker.settings.seed)
        row["documents"] = {name: belief.json() for name, belief in beliefs.items()}
        for hit, spread in zip(ranking.hits, ranking.spread or (), strict=False):
            if spread is not None:
                row["documents"].setdefault(hit.document.id, {})["spread"] = round(spread, 6)
    return row


def _report(rows: Spool, result: JobResult, manifest: Mapping[str, Any]) -> Iterator[str]:
    yield '{"queries": {'
    for i, row in enumerate(rows.ordered()):
        yield (",\n" if i else "\n") + row
    yield f'\n}},\n"totals": {json.dumps(result.json())},\n"manifest": {json.dumps(manifest)}}}\n'
