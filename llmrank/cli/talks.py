"""What `trace`, `examine`, `crosscheck` and `topics` share: progress, tables and endings."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from llmrank.cli import ending
from llmrank.cli.commands import say
from llmrank.cli.ending import bill, place_of, tell_origins
from llmrank.cli.progress import Progress

if TYPE_CHECKING:
    from llmrank.agree.results import Figure
    from llmrank.judge.talkjob import OnProgress, TalkEnd


def counting(progress: Progress) -> OnProgress:
    """Tells the progress how many units of work are done."""

    def update(end: TalkEnd, spent: Any) -> None:
        progress.update(SimpleNamespace(totals=SimpleNamespace(**{progress.what: end.totals.done})), spent)

    return update


def conclude(end: TalkEnd, limit: float, place: str, lost: str, left: str, summary: str, quiet: bool) -> int:
    """Says how the job ended; returns the exit code.

    lost: what becomes of failed questions. left: what a budget left out. summary: what was made, for the last line.
    """
    totals, sums, place = end.totals, end.totals.sums, place_of(place)
    if not quiet:
        say(
            f"{summary}; {sums['questions']} questions, {sums['repaired']} repaired, {sums['failed']} failed, "
            f"{bill(totals, place)}"
        )
        tell_origins(end.other_origins)
    return ending.conclude(end, limit, lost, f"{left}; {place} holds the rest")


def print_table(title: str, first: str, columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    """A table of numbers on standard output."""
    from rich.console import Console

    from llmrank.cli.evaluate import numbers_table

    console = Console(markup=False, highlight=False, emoji=False)
    table = numbers_table(first, *columns)
    for row in rows:
        table.add_row(*row)
    console.print(title)
    console.print(table)


def cells(figure: Figure, form: str = ".3f") -> tuple[str, str, str, str]:
    """n, value and interval."""
    numbers = (figure.value, figure.low, figure.high)
    return (str(figure.n), *("-" if number is None else format(number, form) for number in numbers))  # type: ignore[return-value]
