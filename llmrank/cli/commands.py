"""The kind of command that the program is made of: imported when it is used, with help that fits 80 columns."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup

from llmrank.errors import LlmrankError

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
EXAMPLE_COLUMNS = 74
_TYPE = re.compile(r" <(\w+)[^>]*>")


def say(text: str) -> None:
    """One line on stderr, however long, and whatever is in it."""
    print("".join(c if c.isprintable() else " " for c in text), file=sys.stderr, flush=True)


class Entry(NamedTuple):
    """A command that is not imported yet."""

    help: str
    """One sentence for the list of commands."""
    where: str
    """`module:function`."""


class Entries(NamedTuple):
    """Commands under one name, such as `llmrank ledger`."""

    help: str
    example: str
    commands: Mapping[str, Entry]


class Interrupted(LlmrankError):
    """Ctrl-C, or a signal to end."""

    exit_code = 130


class _WithExample:
    """Help that shows the example of its text as lines to copy."""

    help: str | None

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        for paragraph in (self.help or "").split("\n\n"):
            text = " ".join(paragraph.split()).removeprefix("Example:").strip()
            if text.startswith("llmrank "):
                with formatter.section("Example"):
                    formatter.write("".join(f"    {line}\n" for line in continued(text)))
            elif text:
                formatter.write_paragraph()
                with formatter.indentation():
                    formatter.write_text(text)


class Group(_WithExample, TyperGroup):
    """Knows its commands by name and sentence, and imports only the one that is invoked."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.entries: Mapping[str, Entry | Entries] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and loaded(name, self.entries[name]), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None


def group(app: typer.Typer, entries: Mapping[str, Entry | Entries]) -> Group:
    """The app as a group of these commands."""
    made = cast(Group, typer.main.get_group(app))
    made.entries = entries
    for name, entry in entries.items():  # stand-ins, enough for the list and for `did you mean`
        made.add_command(TyperCommand(name, short_help=entry.help, rich_markup_mode=None))
    return made


def loaded(name: str, entry: Entry | Entries) -> TyperGroup | TyperCommand:
    """The command itself."""
    app = typer.Typer(cls=Group, rich_markup_mode=None, add_completion=False, context_settings=SETTINGS)
    if isinstance(entry, Entries):
        app.info.name, app.info.help = name, f"{entry.help}\n\nExample: {entry.example}"
        return group(app, entry.commands)
    module, _, function = entry.where.partition(":")
    app.command(name, cls=Command)(getattr(import_module(module), function))
    return cast(TyperCommand, typer.main.get_command(app))


class Command(_WithExample, TyperCommand):
    """A command whose help shows its options in sections."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            title = getattr(parameter, "rich_help_panel", None) or usual
            if record := parameter.get_help_record(ctx):
                sections.setdefault(title, []).append((_TYPE.sub(_placeholder, record[0]), record[1]))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _placeholder(type_name: re.Match[str]) -> str:
    """What stands for a value where no metavar says more: nothing behind the name of an argument."""
    return "" if type_name.string[0] != "-" else {"int": " N", "float": " X"}.get(type_name[1], " TEXT")


def continued(command: str) -> list[str]:
    """A command line in lines that can be copied, broken before flags."""
    lines = [""]
    for part in re.split(r" (?=--?[a-z])", command):
        if lines[-1] and len(lines[-1]) + len(part) >= EXAMPLE_COLUMNS:
            lines[-1] += " \\"
            lines.append("  ")
        lines[-1] += f" {part}" if lines[-1].strip() else part
    return lines
