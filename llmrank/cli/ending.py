"""How a job that asks questions ends on the command line: what it says when it breaks off, and how to go on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from llmrank.cli.commands import Interrupted, say
from llmrank.cli.progress import Progress
from llmrank.errors import InputError, LlmrankError
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.jobs.outputs import Outputs


@contextmanager
def telling_how_to_go_on(outputs: Outputs, progress: Progress, settings: Settings) -> Iterator[None]:
    """An interruption or an error is told with what is done, where it is, and how to go on from there."""
    try:
        with progress:
            yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {_go_on(outputs, progress, settings)}") from None
    except LlmrankError as error:
        if error.exit_code == InputError.exit_code:
            raise
        refused = "the backend refused: " if error.exit_code == 5 else ""
        error.args = (f"{refused}{error}; put that right, then {_go_on(outputs, progress, settings)}",)
        raise


def tell_origins(origins: Iterable[str]) -> None:
    """A line for every other address whose replies were used."""
    for origin in sorted(origins):
        say(
            f"note: replies found in the ledger came from {origin or 'elsewhere'} under the same model name, and "
            "were used; tell models apart with --model-id"
        )


class Ended(Protocol):
    """How a job ended, as far as its ending is told."""

    ended_by: str | None

    @property
    def totals(self) -> Any: ...


def conclude(result: Ended, limit: float, lost: str, left: str, otherwise: str | None = None) -> int:
    """Says what went wrong, in one line, if anything did; returns the exit code.

    limit: the share of failed questions that is borne. lost: what becomes of them. left: what a budget left out, and
    where the rest is. otherwise: another complaint, where not too many failed.
    """
    totals, code, told = result.totals, 0, list[str]()
    if totals.failure_rate > limit:
        reasons = ", ".join(f"{reason} {count}" for reason, count in totals.reasons.most_common(4))
        told.append(
            f"{totals.sums['failed']} of {totals.sums['questions']} questions failed, more than "
            f"--max-failure-rate {limit:g} ({reasons}); {lost}"
        )
        code = 3
    elif otherwise is not None:
        told.append(otherwise)
        code = 3
    if result.ended_by is not None:
        told.insert(0, f"the budget {result.ended_by} ended the job: {left}; run it again with more to go on")
        code = 4
    if told:
        say(f"llmrank: {'; also, '.join(told)}")
    return code


def place_of(output: str) -> str:
    """What an output is called, for people."""
    return "standard output" if output == "-" else output


def bill(totals: Any, place: str) -> str:
    """What a job took and where its output is: the end of its summary."""
    sums, cost = totals.sums, "" if totals.cost is None else f", {totals.cost:.4f} USD"
    return (
        f"{sums['calls']} calls, {sums['reused']} answers reused, "
        f"{sums['prompt_tokens']} + {sums['completion_tokens']} tokens{cost} -> {place}"
    )


def by_questions(totals: Any, place: str) -> str:
    """The summary of a job over queries."""
    sums = totals.sums
    return (
        f"{totals.queries} queries, {sums['questions']} questions: {sums['ok']} ok, {sums['repaired']} repaired, "
        f"{sums['failed']} failed; {bill(totals, place)}"
    )


def _go_on(outputs: Outputs, progress: Progress, settings: Settings) -> str:
    """How to go on after a job that broke off."""
    ledger = settings.ledger_path
    kept = f"the replies so far are kept in {ledger}" if ledger else "no ledger is kept, so all is asked again"
    where = f", in {outputs.partial}" if outputs.partial and os.path.exists(outputs.partial) else ""
    done = f"{progress.done} of {progress.total} {progress.what} are done{where}"
    return f"run the same command to go on: {done}, and {kept}"
