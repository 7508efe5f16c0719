"""The `llmrank` program: its commands, and one line on stderr for whatever goes wrong."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from llmrank import __version__
from llmrank.cli import demo, evaluate, ledger, methods, plan, prompts, rerank
from llmrank.errors import LlmrankError

app = typer.Typer(
    name="llmrank",
    help="Rerank retrieved candidates and judge relevance with a large language model, and know how far to trust it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("rerank")(rerank.rerank)
app.command("evaluate")(evaluate.evaluate)
app.command("methods")(methods.methods)
app.command("demo")(demo.demo)
app.add_typer(plan.app, name="plan")
app.add_typer(prompts.app, name="prompts")
app.add_typer(ledger.app, name="ledger")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"llmrank {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and exits with its code; every error is one line."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    try:
        code: Any = app(arguments, standalone_mode=False)
    except LlmrankError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody to tell
        return 1
    except Exception as error:
        message = getattr(error, "format_message", None)  # bad usage, in typer's own words
        if message is None:
            raise
        usage = getattr(error, "ctx", None)
        hint = f"; see `{usage.command_path} --help`" if usage is not None else ""
        return _complain(f"{message().rstrip('.')}{hint}", 2)
    return code if isinstance(code, int) else 0


def _complain(text: str, code: int) -> int:
    print(f"llmrank: {' '.join(text.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
