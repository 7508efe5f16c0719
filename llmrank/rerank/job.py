"""A reranking job: a stream of queries in, a run file and a report out, whole even when it is ended early."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from llmrank.data.files import unusable, writing
from llmrank.data.run import format_ranking
from llmrank.data.types import Candidates
from llmrank.errors import InputError, LlmrankError
from llmrank.llm.client import Totals
from llmrank.rerank.ranking import RowTotals
from llmrank.rerank.reranker import Reranker
from llmrank.rerank.spool import Spool

SECONDS_BETWEEN_TICKS = 0.5


class Outputs(NamedTuple):
    """The files that a job writes; `-` is standard output."""

    run: str
    report: str | None = None
    manifest: str | None = None

    @property
    def partial(self) -> str | None:
        """Where a running job's results so far stand; nowhere where the run goes to a pipe or a device."""
        special = self.run == "-" or (os.path.exists(self.run) and not os.path.isfile(self.run))
        return None if special else f"{self.run}.partial"

    def check(self) -> None:
        """What can be told before anything is asked: raises InputError for a path that cannot be written."""
        flags = {"--output": self.run, "--report": self.report, "--manifest": self.manifest}
        given = {flag: path for flag, path in flags.items() if path is not None}
        for flag, path in given.items():
            folder = os.path.dirname(os.path.realpath(path))
            if not path:
                raise InputError(f"{flag}: the name is empty; name a file")
            if path == "-":
                continue
            if not os.path.isdir(folder):
                raise InputError(f"{flag} {path}: the folder {folder} does not exist; make it first")
            if os.path.isdir(path):
                raise InputError(f"{flag} {path}: this is a folder; name a file")
            if not os.access(path if _is_special(path) else folder, os.W_OK):
                raise InputError(f"{flag} {path}: no permission to write there; name a file in another folder")
        places = {flag: path if path == "-" else os.path.realpath(path) for flag, path in given.items()}
        for flag, place in places.items():
            twin = next(other for other, at in places.items() if at == place)
            if twin != flag and (place == "-" or not _is_special(place)):
                raise InputError(f"{twin} and {flag} are both {given[flag]}; name two files")


@dataclass(slots=True)
class JobResult:
    """How a job ended."""

    totals: RowTotals = field(default_factory=RowTotals)
    ended_by: str | None = None
    """The budget that ended it, where one did."""
    other_origins: set[str] = field(default_factory=set)
    """Addresses, other than the one in use, from which replies in the ledger came."""

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
    on_progress: OnProgress | None = None,
) -> JobResult:
    """Reranks all requests and writes the run and what else is wanted, under their final names only at the end.

    Until then OUT.partial holds the queries that are done, in whole blocks. An error keeps it, but for one that came
    before anything was asked. `on_progress` is called when a query is done, and every half second.
    """
    result = JobResult()
    lines, rows = asyncio.run(_work(reranker, requests, outputs, result, on_progress))
    with _naming(outputs.run):
        if lines.path is not None and lines.in_order and not os.path.islink(outputs.run):
            lines.close()
            os.replace(lines.path, outputs.run)
        else:
            with writing(outputs.run) as file:
                file.writelines(lines.ordered())
            lines.remove()
    if rows is not None and outputs.report is not None:
        with _naming(outputs.report), writing(outputs.report) as file:
            file.writelines(_report(rows, result, manifest or {}))
    if outputs.manifest is not None:
        with _naming(outputs.manifest), writing(outputs.manifest) as file:
            file.write(json.dumps(manifest, indent=2) + "\n")
    return result


async def _work(
    reranker: Reranker,
    requests: Iterable[Candidates],
    outputs: Outputs,
    result: JobResult,
    on_progress: OnProgress | None,
) -> tuple[Spool, Spool | None]:
    """Asks everything; returns the lines of the run and the rows of the report."""
    client = reranker.client()  # a ledger that cannot be used shows here, before an earlier OUT.partial is touched
    tag = f"llmrank-{reranker.method.name}"
    progress = partial(on_progress or (lambda *_: None), result, client.totals)
    ticking = asyncio.create_task(_every(SECONDS_BETWEEN_TICKS, progress))
    try:
        lines = Spool(outputs.partial)
        rows = Spool() if outputs.report is not None else None
        try:
            async for place, ranking in reranker.numbered(requests):
                lines.write(place, format_ranking(ranking.query.id, ranking.ids, ranking.scores, tag))
                if rows is not None:
                    rows.write(place, f"{json.dumps(ranking.query.id)}: {json.dumps(ranking.row.json())}")
                result.totals.add(ranking.row)
                progress()
        except LlmrankError as error:
            if client.totals.calls and error.exit_code == InputError.exit_code:
                error.exit_code = 1  # not the 2 that says that nothing was sent
            elif error.exit_code == InputError.exit_code and not len(lines):
                lines.remove()
            raise
        result.ended_by = client.budget.ended if client.budget is not None else None
        result.other_origins = set(client.totals.other_origins)
        return lines, rows
    finally:
        ticking.cancel()
        await reranker.aclose()


async def _every(seconds: float, call: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        call()


def _report(rows: Spool, result: JobResult, manifest: Mapping[str, Any]) -> Iterator[str]:
    yield '{"queries": {'
    for i, row in enumerate(rows.ordered()):
        yield (",\n" if i else "\n") + row
    yield f'\n}},\n"totals": {json.dumps(result.json())},\n"manifest": {json.dumps(manifest)}}}\n'


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Errors in writing a file name it, and count as what they are after the questions are paid for."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read it has gone; the program tells nobody
    except OSError as error:
        failure: LlmrankError = unusable("write", "standard output" if path == "-" else path, error)
        failure.exit_code = 1
        raise failure from None
    except LlmrankError as failure:
        failure.exit_code = 1
        raise


def _is_special(path: str) -> bool:
    """Standard output, a device, a pipe: what is written into, not replaced."""
    return path == "-" or (os.path.exists(path) and not os.path.isfile(path))
