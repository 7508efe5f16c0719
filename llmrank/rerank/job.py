"""A reranking job: a stream of queries in, a run file and a report out, whole even when it is ended early."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmrank.data.run import format_ranking
from llmrank.data.types import Candidates
from llmrank.errors import InputError
from llmrank.rerank.ranking import Ranking, RowTotals
from llmrank.rerank.reranker import Reranker
from llmrank.rerank.spool import Spool


@dataclass(slots=True)
class JobResult:
    """How a job ended."""

    totals: RowTotals
    ended_by: str | None = None
    """The budget that ended it, where one did."""
    other_origins: set[str] = field(default_factory=set)
    """Addresses, other than the one in use, from which replies in the ledger came."""


def partial_path(output: Path) -> Path:
    """Where a running job's results so far stand."""
    return output.with_name(f"{output.name}.partial")


async def run_job(
    reranker: Reranker,
    requests: Iterable[Candidates],
    output: str,
    *,
    report: str | None = None,
    manifest: Callable[[], dict[str, Any]] = dict,
    on_done: Callable[[Ranking, JobResult], None] | None = None,
) -> JobResult:
    """Reranks all requests and writes the run, and the report if one is wanted, under their final names at the end.

    Until then OUT.partial holds the queries that are done, in whole blocks. `-` writes to standard output.
    """
    final = Path(output)
    lines = Spool(None if output == "-" else _writable(partial_path(final)))
    rows = Spool() if report is not None else None
    result = JobResult(RowTotals())
    try:
        client = reranker.client()
        async for place, ranking in reranker.numbered(requests):
            tag = f"llmrank-{reranker.method.name}"
            lines.write(place, format_ranking(ranking.query.id, ranking.ids, ranking.scores, tag))
            if rows is not None:
                rows.write(place, f"{json.dumps(ranking.query.id)}: {json.dumps(ranking.row.json())}")
            result.totals.add(ranking.row)
            if on_done is not None:
                on_done(ranking, result)
        result.ended_by = client.budget.ended if client.budget is not None else None
        result.other_origins = set(client.totals.other_origins)
        lines.finish(final)
        if rows is not None and report is not None:
            _write_report(Path(report), rows, result, manifest())
        return result
    finally:
        lines.close()
        await reranker.aclose()


def _write_report(path: Path, rows: Spool, result: JobResult, manifest: dict[str, Any]) -> None:
    handle, temporary = tempfile.mkstemp(dir=_writable(path).parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(b'{"queries": {')
        for i, row in enumerate(rows.ordered()):
            file.write((b",\n" if i else b"\n") + row)
        totals = result.totals.json() | {"failure_rate": result.totals.failure_rate, "ended_by": result.ended_by}
        file.write(f'\n}},\n"totals": {json.dumps(totals)},\n"manifest": {json.dumps(manifest)}}}\n'.encode())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def _writable(path: Path) -> Path:
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; name a file")
    return path
