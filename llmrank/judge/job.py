"""A judging job: pairs in, qrels and the judgments behind them out, whole even when it is ended early."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrank.aggregate.panels import separability
from llmrank.data.qrels import format_grade
from llmrank.jobs.outputs import Outputs, write
from llmrank.jobs.spool import Spool
from llmrank.jobs.work import JobEnd, work
from llmrank.judge.inputs import JudgeInputs
from llmrank.judge.judge import Labeller
from llmrank.judge.judgment import JudgeTotals, Judgment, Labelled, Verdict
from llmrank.judge.panels import Panel
from llmrank.llm.client import Totals

HUMAN = -(1 << 40)  # the place of the human lines: before all others
DROP, ERROR = "drop", "error"
Numbers = NDArray[np.float64]


@dataclass(slots=True)
class JudgeResult(JobEnd):
    """How a judging job ended."""

    totals: JudgeTotals = field(default_factory=JudgeTotals)
    filled: int = 0
    """Failed labels that were written as the grade that stands for them."""
    panel: dict[str, Any] | None = None
    """What each judge of a panel adds to it."""

    def json(self) -> dict[str, Any]:
        told = self.totals.json() | {"filled": self.filled}
        told |= {"failure_rate": self.totals.failure_rate, "ended_by": self.ended_by}
        return told if self.panel is None else told | {"panel": self.panel}


OnProgress = Callable[[JudgeResult, Totals], None]
"""Told what is done and what the clients spent so far."""


def run_judging(
    labeller: Labeller,
    inputs: JudgeInputs,
    outputs: Outputs,
    *,
    on_failure: str | int = DROP,
    manifest: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> JudgeResult:
    """Judges all pairs and writes the qrels and what else is wanted, under their final names only at the end.

    Human lines come first, as they are. A failed label is left out of the qrels (`drop`, `error`), or stands there as
    the grade that `on_failure` names; the judgments tell of it with its reason in either case. Until the end
    OUT.partial holds whole lines of what is done, of a panel that decides at the end none.
    """
    result = JudgeResult()
    files = _Files(result, outputs, on_failure)
    votes = _Votes(labeller) if isinstance(labeller, Panel) else None

    def take(_: int, labelled: Labelled) -> None:
        result.totals.add(labelled)
        for place, verdict in zip(labelled.pairs.places, labelled.verdicts, strict=True):
            files.members(place, verdict.members)
            if votes is not None:
                votes.add(place, verdict)
            if not labeller.late:
                files.label(place, verdict.judgment)

    def progress(spent: Totals) -> None:
        if on_progress is not None:
            on_progress(result, spent)

    requests = inputs.units(together=labeller.together)
    lines = asyncio.run(work(labeller, requests, lambda: files.begin(inputs.human_lines()), take, result, progress))
    if votes is not None:
        for place, judgment in votes.concluded(inputs) if labeller.late else ():
            files.label(place, judgment)
        result.panel = votes.diagnosis(inputs)
    outputs.finish(lines)
    if files.judgments is not None and outputs.judgments is not None:
        write(outputs.judgments, files.judgments.ordered())
    if outputs.report is not None:
        write(outputs.report, _report(files.rows, result, inputs, manifest or {}))
    outputs.write_manifest(manifest)
    return result


class _Files:
    """What a job writes: the qrels as they grow, the judgments, and a row of the report for each query."""

    def __init__(self, result: JudgeResult, outputs: Outputs, on_failure: str | int) -> None:
        self._result = result
        self._outputs = outputs
        self._fill = on_failure if isinstance(on_failure, int) else None
        self._lines: Spool | None = None
        self.judgments = Spool() if outputs.judgments is not None else None
        self.rows: dict[str, Counter[str]] | None = {} if outputs.report is not None else None

    def begin(self, human: Iterator[str]) -> Spool:
        lines = self._lines = Spool(self._outputs.partial)
        for i, block in enumerate(human):
            lines.write(HUMAN + i, block)
        return lines

    def members(self, place: int, members: Sequence[Judgment]) -> None:
        if self.judgments is not None and members:
            self.judgments.write(2 * place, "".join(member.line() for member in members if member.status != "unasked"))

    def label(self, place: int, judgment: Judgment) -> None:
        assert self._lines is not None
        self._result.totals.add_label(place, judgment)
        grade = judgment.grade
        if judgment.status == "failed" and self._fill is not None:
            grade = self._fill
            self._result.filled += 1
        if grade is not None:
            self._lines.write(place, format_grade(judgment.query_id, judgment.doc_id, grade))
        if judgment.status != "unasked" and self.judgments is not None:
            self.judgments.write(2 * place + 1, judgment.line())
        if self.rows is not None:
            row = self.rows.setdefault(judgment.query_id, Counter())
            row[judgment.status] += 1
            if judgment.grade is not None:
                row[str(judgment.grade)] += 1


class _Votes:
    """The grades of all judges of a panel, in little memory."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._places, self._grades, self._finals = array("q"), array("f"), array("f")

    def add(self, place: int, verdict: Verdict) -> None:
        if all(member.status == "unasked" for member in verdict.members):
            return
        self._places.append(place)
        self._grades.extend(self._panel.row(verdict.members))
        grade = verdict.judgment.grade
        self._finals.append(float("nan") if grade is None else grade)

    def concluded(self, inputs: JudgeInputs) -> Iterator[tuple[int, Judgment]]:
        """The labels of a panel that decides at the end."""
        width, row_of = len(self._panel.graders), {place: row for row, place in enumerate(self._places)}
        outcomes = self._panel.outcomes(self._table())
        for place, query_id, doc_id in inputs.names():
            row = row_of.get(place)
            if row is None:  # a budget came before every judge
                yield place, Judgment(query_id=query_id, doc_id=doc_id, grade=None, status="unasked")
                continue
            grades = self._grades[row * width : (row + 1) * width]
            judgment = self._panel.decided(query_id, doc_id, grades, outcomes, row)
            self._finals[row] = float("nan") if judgment.grade is None else judgment.grade
            yield place, judgment

    def diagnosis(self, inputs: JudgeInputs) -> dict[str, Any]:
        table, finals = self._table(), np.frombuffer(self._finals, dtype=np.float32).astype(np.float64)
        told = self._panel.diagnosis(table, finals)
        if inputs.systems > 1:
            columns = dict(zip([*self._panel.graders, "panel"], [*table.T, finals], strict=True))
            told["separability"] = self._separability(inputs, columns)
        return told

    def _separability(self, inputs: JudgeInputs, columns: Mapping[str, Numbers]) -> dict[str, Any]:
        """Which share of the pairs of runs each judge's labels tell apart, by the mean grade of their documents."""
        row_of = {place: row for row, place in enumerate(self._places)}
        topics: dict[str, int] = {}
        rows, cells = array("q"), array("q")
        for place, run, query_id in inputs.shown():
            if place in row_of:
                rows.append(row_of[place])
                cells.append(topics.setdefault(query_id, len(topics)) * inputs.systems + run)
        at, size = np.frombuffer(cells, dtype=np.int64), len(topics) * inputs.systems
        told = {}
        for name, grades in columns.items():
            given = grades[np.frombuffer(rows, dtype=np.int64)]
            known = ~np.isnan(given)
            count = np.bincount(at[known], minlength=size)
            total = np.bincount(at[known], weights=given[known], minlength=size)
            means = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
            found = separability(means.reshape(-1, inputs.systems), seed=self._panel.settings.seed)
            value = None if found.value is None else round(found.value, 6)
            told[name] = {"value": value, "pairs": found.pairs, "note": found.note}
        return told

    def _table(self) -> Numbers:
        flat = np.frombuffer(self._grades, dtype=np.float32).astype(np.float64)
        return flat.reshape(-1, len(self._panel.graders))


def _report(
    rows: Mapping[str, Counter[str]] | None, result: JudgeResult, inputs: JudgeInputs, manifest: Mapping[str, Any]
) -> Iterator[str]:
    yield '{"queries": {'
    for i, (query_id, row) in enumerate((rows or {}).items()):
        statuses = {status: row[status] for status in ("ok", "repaired", "failed", "unasked")}
        grades = {name: count for name, count in sorted(row.items()) if name not in statuses}
        told = {"pairs": sum(statuses.values()), **statuses, "grades": grades}
        yield (",\n" if i else "\n") + f"{json.dumps(query_id)}: {json.dumps(told)}"
    totals = result.json() | {"strata": inputs.strata, "repeated": inputs.repeated}
    yield f'\n}},\n"totals": {json.dumps(totals)},\n"manifest": {json.dumps(manifest)}}}\n'
