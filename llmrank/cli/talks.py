"""What `trace`, `examine`, `crosscheck` and `topics` share: their common flags, progress, tables and endings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, Field, ValidationError

from llmrank.cli import ending
from llmrank.cli.commands import say
from llmrank.cli.ending import bill, place_of, tell_origins
from llmrank.cli.progress import Progress
from llmrank.errors import InputError

if TYPE_CHECKING:
    from llmrank.agree.results import Figure
    from llmrank.judge.talkjob import OnProgress, TalkEnd

Flags = TypeVar("Flags", bound=BaseModel)
Manifest = Annotated[
    str | None,
    typer.Option(help="Everything needed to repeat the job.", metavar="OUT.json", rich_help_panel="Output"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.", rich_help_panel="Output")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress, table or summary; errors still show.", rich_help_panel="Output"),
]
BACKEND = "openai:MODEL, simulated:QRELS, lexical, replay:LEDGER."


def file_of(text: str, metavar: str = "FILE") -> Any:
    """The field of a flag that takes a file, or something else with a name of its own."""
    return Field(description=text, json_schema_extra={"metavar": metavar})


def checked(model: type[Flags], given: Mapping[str, Any], needed: Iterable[str]) -> Flags:
    """The flags as given. Raises InputError for one that is wrong or missing."""
    try:
        found = model(**given)
    except ValidationError as error:
        first = error.errors()[0]
        problem = first["msg"].removeprefix("Value error, ")
        raise InputError(f"--{str(first['loc'][0]).replace('_', '-')} {first['input']}: {problem}") from None
    for name in needed:
        if getattr(found, name) in (None, []):
            example = ", for example --backend openai:gpt-4o-mini" if name == "backend" else ""
            raise InputError(f"--{name.replace('_', '-')} is missing{example or '; name it'}")
    return found


def one_stdin(flags: Mapping[str, str | None]) -> None:
    """Raises InputError where several inputs are standard input."""
    named = [flag for flag, path in flags.items() if path == "-"]
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)}: only one of them can be standard input")


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
