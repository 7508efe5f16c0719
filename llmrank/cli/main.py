"""The `llmrank` program: its commands, and one line on stderr for whatever goes wrong."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any

import typer

from llmrank import __version__
from llmrank.cli.commands import SETTINGS, Entries, Entry, Group, group, say
from llmrank.errors import LlmrankError

COMMANDS: dict[str, Entry | Entries] = {
    "rerank": Entry("Rerank a run with a large language model.", "llmrank.cli.rerank:rerank"),
    "judge": Entry("Judge relevance with a large language model, and write qrels.", "llmrank.cli.judge:judge"),
    "compare": Entry("Compare items two by two with a large language model.", "llmrank.cli.compare:compare"),
    "trace": Entry(
        "Measure generated answers against the passages that they were written from (TRACe).",
        "llmrank.cli.trace:trace",
    ),
    "crosscheck": Entry(
        "Check what each system claims against what the other systems answered.", "llmrank.cli.crosscheck:crosscheck"
    ),
    "examine": Entry(
        "Examine models by models: questions with follow-ups, scores and orders.", "llmrank.cli.examine:examine"
    ),
    "topics": Entry(
        "Write synthetic queries for documents, and keep those that find their own document again.",
        "llmrank.cli.topics:topics",
    ),
    "plan": Entries(
        "Say what a job will cost, before anything is sent.",
        "llmrank plan rerank --requests requests.jsonl --backend openai:gpt-4o-mini",
        {
            "rerank": Entry(
                "Price a reranking job: its flags are those of `llmrank rerank`.", "llmrank.cli.plan:rerank"
            ),
            "judge": Entry("Price a judging job: its flags are those of `llmrank judge`.", "llmrank.cli.plan:judge"),
        },
    ),
    "evaluate": Entry(
        "Measure runs against judgments, with intervals, and test them against a baseline.",
        "llmrank.cli.evaluate:evaluate",
    ),
    "fuse": Entry("Fuse runs of the same topics into one.", "llmrank.cli.fuse:fuse"),
    "aggregate": Entry(
        "Turn comparisons of items into scores with intervals, and say what the comparisons can support.",
        "llmrank.cli.aggregate:aggregate",
    ),
    "agree": Entry(
        "Measure how far judges agree with the truth, each figure with its n and a 95% interval.",
        "llmrank.cli.agree:agree",
    ),
    "backends": Entries(
        "List the backends, and check what one of them can answer.",
        "llmrank backends list",
        {
            "list": Entry("List the backends that a SPEC can name.", "llmrank.cli.backends:list_"),
            "check": Entry("Ask a backend what it can answer, and tell what is missing.", "llmrank.cli.backends:check"),
        },
    ),
    "methods": Entry("List the reranking methods: what each asks, needs and costs.", "llmrank.cli.methods:methods"),
    "prompts": Entries(
        "List, show, render, check and compare templates.",
        "llmrank prompts list",
        {
            "list": Entry("List the templates that ship with llmrank.", "llmrank.cli.prompts:list_"),
            "show": Entry("Print a template file as it is.", "llmrank.cli.prompts:show"),
            "render": Entry(
                "Print the prompt that a template makes, message by message.", "llmrank.cli.prompts:render"
            ),
            "lint": Entry("Check templates; exits with 2 where one cannot be used.", "llmrank.cli.prompts:lint"),
            "diff": Entry("Show how two templates differ, line by line.", "llmrank.cli.prompts:diff"),
        },
    ),
    "ledger": Entries(
        "Look into the ledger, the file of all replies.",
        "llmrank ledger stats",
        {
            "stats": Entry("Count the replies of each model.", "llmrank.cli.ledger:stats"),
            "show": Entry("Show one reply with the request that it answers.", "llmrank.cli.ledger:show"),
            "export": Entry("Write all replies as JSON lines.", "llmrank.cli.ledger:export"),
            "merge": Entry(
                "Add the replies of other ledgers to one; what is there already stays.", "llmrank.cli.ledger:merge"
            ),
            "verify": Entry(
                "Read every reply, and check that each stands under its own key.", "llmrank.cli.ledger:verify"
            ),
            "prune": Entry("Remove replies for good.", "llmrank.cli.ledger:prune"),
        },
    ),
    "demo": Entry("Rerank a small bundled collection with several methods, and compare them.", "llmrank.cli.demo:demo"),
}
"""Every command with its sentence, so that `llmrank --help` need not import what only one of them uses."""

app = typer.Typer(
    name="llmrank",
    help="Rerank retrieved candidates and judge relevance with a large language model, and know how far to trust it."
    "\n\nExample: llmrank demo",
    cls=Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"llmrank {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command that the program was called with, and exits with its code."""
    signal.signal(signal.SIGTERM, _terminated)
    # Before numpy is loaded: its threads gain nothing on small matrices, and cost dearly where cores are busy.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # what is piped on is data, whatever the terminal speaks
    sys.exit(run())


def _terminated(number: int, frame: FrameType | None) -> None:
    """Ends a job as Ctrl-C does: in order, with what is done written."""
    interrupt = signal.getsignal(signal.SIGINT)
    if callable(interrupt):
        interrupt(number, frame)
    else:  # Ctrl-C is ignored, as in a job of the shell's background; being asked to end is not
        raise KeyboardInterrupt


def run(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit code. Every error is one line on stderr."""
    try:
        code: Any = group(app, COMMANDS).main(args=arguments, prog_name="llmrank", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Exception as error:
        return _complain(error)


def _complain(error: Exception) -> int:
    """Tells of an error in one line; returns the exit code that it stands for."""
    if isinstance(error, BrokenPipeError):  # whoever read our output has gone; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, LlmrankError):
        text, code = str(error), error.exit_code
    elif (said := getattr(error, "format_message", None)) is not None:  # bad usage, in typer's own words
        usage = getattr(error, "ctx", None)
        text, code = said().rstrip(".").replace(": Value error, ", ": "), 2
        text += f"; see `{usage.command_path} --help`" if usage is not None else ""
    elif isinstance(error, OSError):
        place = error.filename or "reading or writing failed"
        text, code = f"{place}: {error.strerror or error}", 1
    else:
        (*_, last) = traceback.extract_tb(error.__traceback__)
        place = f"{last.filename}:{last.lineno}"
        text, code = f"a mistake in llmrank: {type(error).__name__}: {error} ({place}); please report it", 1
    say(f"llmrank: {text}")
    return code


if __name__ == "__main__":
    main()
