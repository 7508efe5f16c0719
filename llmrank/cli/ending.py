"""How a job that asks questions ends on the command line: what it says when it breaks off, and how to go on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

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


def _go_on(outputs: Outputs, progress: Progress, settings: Settings) -> str:
    """How to go on after a job that broke off."""
    ledger = settings.ledger_path
    kept = f"the replies so far are kept in {ledger}" if ledger else "no ledger is kept, so all is asked again"
    where = f", in {outputs.partial}" if outputs.partial and os.path.exists(outputs.partial) else ""
    done = f"{progress.done} of {progress.total} {progress.what} are done{where}"
    return f"run the same command to go on: {done}, and {kept}"
