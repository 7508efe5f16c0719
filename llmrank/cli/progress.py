"""Progress of a job on stderr: a bar on a terminal, plain lines otherwise, nothing when quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from llmrank.cli.commands import say

if TYPE_CHECKING:
    from llmrank.data.inputs import RerankInputs
    from llmrank.llm.client import Totals
    from llmrank.rerank.reranker import Reranker

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """What is done of a job, with rate, cost so far and time left.

    The bar goes by questions, since queries are worked on side by side and end together. `what` is counted: the name
    under which the totals of the job hold how many are done.
    """

    def __init__(self, total: int, questions: float, quiet: bool, what: str = "queries") -> None:
        self.total, self.done, self.what = total, 0, what
        self._questions = max(1.0, questions)
        self._quiet = quiet
        self._started = self._last_line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(bar_width=16), TextColumn("{task.fields[note]}"), TimeRemainingColumn(compact=True))
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task("", total=self._questions, note=f"0/{self.total} {self.what}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, result: Any, spent: Totals) -> None:
        self.done = getattr(result.totals, self.what)
        if self._quiet:
            return
        answered = min(self._questions, spent.calls + spent.reused)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=answered, note=self._note(spent))
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = (now - self._started) * (self._questions - answered) / answered if answered else None
            say(f"{self._note(spent)}{'' if left is None else f', about {left:.0f} s left'}")

    def _note(self, spent: Totals) -> str:
        rate = spent.calls / max(1e-9, time.monotonic() - self._started)
        reused = f", {spent.reused} reused" if spent.reused else ""
        cost = "" if spent.cost is None else f", {spent.cost:.4f} USD"
        return f"{self.done}/{self.total} {self.what}, {spent.calls} calls, {rate:.1f}/s{reused}{cost}"


def expected_questions(reranker: Reranker, inputs: RerankInputs) -> float:
    """How many questions a job will ask: the middle, where that depends on the answers."""
    total = 0.0
    for n, queries in inputs.sizes.items():
        calls, _ = reranker.method.expected(n, reranker.options)
        total += queries * (calls if isinstance(calls, int) else sum(calls) / 2)
    return total * reranker.samples
