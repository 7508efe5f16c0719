"""`llmrank prompts`: the templates, listed, shown, rendered, checked and compared."""

from __future__ import annotations

import difflib
from typing import Annotated

import typer

from llmrank.errors import InputError

app = typer.Typer(help="List, show, render, check and compare templates.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of a template, or path of a file.", metavar="TEMPLATE")]


@app.command("list")
def list_() -> None:
    """List the templates that ship with llmrank.

    Example: llmrank prompts list
    """
    from rich.console import Console
    from rich.table import Table

    from llmrank.templates import load, names

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for column in ("template", "asks", "needs", "what"):
        table.add_column(column)
    for name in names():
        header = load(name).header
        table.add_row(name, header.question, " ".join(header.needs), header.description)
    Console().print(table)


@app.command()
def show(template: Name) -> None:
    """Print a template file as it is.

    Example: llmrank prompts show listwise/rank
    """
    from llmrank.templates import load

    print(load(template).text, end="")


@app.command()
def render(
    template: Name,
    query: Annotated[str, typer.Option(help="The query.")] = "what is bm25",
    document: Annotated[list[str], typer.Option(help="A document's text; repeat it.")] = [],  # noqa: B006  typer copies it
) -> None:
    """Print the prompt that a template makes, message by message.

    Example: llmrank prompts render pairwise/prefer --query "do goldfish grow" --document "They do." --document "Fish."
    """
    from llmrank.data.types import Query
    from llmrank.templates import Shown, load
    from llmrank.templates.prepare import safe

    loaded = load(template)
    n = {"grade": 1, "compare": 2}.get(loaded.question, len(document) or 3)
    texts = document or [f"The text of document {i}." for i in range(1, n + 1)]
    if len(texts) != n:
        raise InputError(f"{template} asks about {n} documents; give --document {n} times, not {len(texts)}")
    shown = [Shown(i, safe(text)) for i, text in zip(loaded.identifiers(n), texts, strict=True)]
    rendered = loaded.render(Query("query", safe(query)), shown)
    if rendered.raw is not None:
        print(rendered.raw, end="")
        return
    for role, content in rendered.messages:
        print(f"--- {role}\n{content}")


@app.command()
def lint(templates: Annotated[list[str], typer.Argument(help="Names or paths.", metavar="TEMPLATE...")]) -> int:
    """Check templates; exits with 2 where one cannot be used.

    Example: llmrank prompts lint my-template.j2
    """
    from llmrank.templates import load

    for template in templates:
        loaded = load(template)
        print(f"{template}: ok ({loaded.question}, parser {loaded.header.parser}, hash {loaded.hash})")
    return 0


@app.command()
def diff(old: Name, new: Name) -> None:
    """Show how two templates differ, line by line.

    Example: llmrank prompts diff listwise/rank my-rank.j2
    """
    from llmrank.templates import load

    a, b = load(old), load(new)
    lines = difflib.unified_diff(a.text.splitlines(), b.text.splitlines(), old, new, lineterm="")
    print("\n".join(lines) or f"{old} and {new} are the same (hash {a.hash})")
