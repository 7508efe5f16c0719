"""What the flags of commands that ask questions have in common: files to read and to write, and checks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, Field, ValidationError

from llmrank.errors import InputError

Flags = TypeVar("Flags", bound=BaseModel)

BACKEND = "openai:MODEL, simulated:QRELS, lexical, replay:LEDGER."
READ = (
    *("queries", "items", "subjects", "answers", "corpus", "run", "requests", "pairs", "qrels", "exam", "config"),
    *("examples", "example_queries", "example_qrels", "architecture", "template", "split", "check"),
)
"""Flags that name what is read."""
SPECS = ("backend", "check_backend", "system", "examiner", "judge")
"""Flags with a backend in them, which may be made from a file."""
OPTIONS = ("anchors=", "stages=")
"""Options of a method that name a file."""


def flag_of(text: str, metavar: str = "FILE") -> Any:
    """The field of a flag whose value the help calls by that name: a file, if no other."""
    return Field(description=text, json_schema_extra={"metavar": metavar})


def out_of(text: str, metavar: str) -> Any:
    """A flag that names a file to write."""
    return typer.Option(help=text, metavar=metavar, rich_help_panel="Output")


Manifest = Annotated[str | None, out_of("Everything needed to repeat the job.", "OUT.json")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel="Output")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress, table or summary; errors still show.", rich_help_panel="Output"),
]


def checked(model: type[Flags], given: Mapping[str, Any], needed: Iterable[str] = ()) -> Flags:
    """The flags as given. Raises InputError for one that is wrong, or needed and missing."""
    try:
        found = model(**given)
    except ValidationError as error:
        from llmrank.settings import complaint

        raise complaint(error) from None
    for name in needed:
        if getattr(found, name) in (None, []):
            named = "name the model, for example --backend openai:gpt-4o-mini" if name == "backend" else "name it"
            raise InputError(f"{_flag(name)} is missing: {named}")
    return found


def one_stdin(given: Mapping[str, Any]) -> None:
    """Raises InputError where several inputs are standard input."""
    named = [_flag(name) for name in READ for path in _listed(given.get(name)) if path == "-"]
    if len(named) > 1:
        raise InputError(f"{' and '.join(dict.fromkeys(named))}: only one of the inputs can be - (standard input)")


def read_by(given: Mapping[str, Any]) -> Iterator[str]:
    """Every file that flags name to be read, and the ledger; for some a text that names no file."""
    from llmrank.llm.ledger import default_path

    yield from (path for name in READ for path in _listed(given.get(name)))
    ledger = given.get("ledger", str(default_path()))
    if ledger != "none":
        yield ledger
    for text in (text for name in SPECS for text in _listed(given.get(name))):
        yield from (text.partition(":")[2], *re.split("[:?@]", text))
    for text in _listed(given.get("option")):
        yield from (text.removeprefix(option) for option in OPTIONS if text.startswith(option))


def _flag(name: Any) -> str:
    return f"--{str(name).replace('_', '-')}"


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [] if value is None else [str(value)]
