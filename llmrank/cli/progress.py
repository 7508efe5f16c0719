"""Progress of a job on stderr: a bar on a terminal, plain lines otherwise, nothing when quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmrank.rerank.job import JobResult

SECONDS_BETWEEN_LINES = 10.0


def say(text: str) -> None:
    """One line on stderr, however long."""
    print(" ".join(text.split()), file=sys.stderr, flush=True)


class Progress:
    """Counts queries that are done, with rate, cost so far and time left."""

    def __init__(self, total: int, quiet: bool) -> None:
        self.total, self.done = total, 0
        self._quiet = quiet
        self._started = self._last_line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("reranking"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(compact=True),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._bar.add_task("", total=self.total, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, _: object, result: JobResult) -> None:
        self.done += 1
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, note=self._note(result))
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._started) / self.done * (self.total - self.done)
            say(f"{self.done} of {self.total} queries, {self._note(result)}, {left:.0f} s left")

    def _note(self, result: JobResult) -> str:
        sums = result.totals.sums
        rate = sums["calls"] / max(1e-9, time.monotonic() - self._started)
        failed = f", {sums['failed']} failed" if sums["failed"] else ""
        cost = "" if result.totals.cost is None else f", {result.totals.cost:.4f} USD"
        return f"{sums['calls']} calls, {rate:.1f}/s{failed}{cost}"
