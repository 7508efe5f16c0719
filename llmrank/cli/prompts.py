"""`llmrank prompts`: the templates, listed, shown, rendered, checked and compared."""

from __future__ import annotations

import difflib
import json
from typing import Annotated, Any

import typer

from llmrank.cli.commands import say
from llmrank.errors import InputError

Name = Annotated[str, typer.Argument(help="Name of a template, or path of a file.", metavar="TEMPLATE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def list_(as_json: AsJson = False) -> None:
    """List the templates that ship with llmrank.

    Example: llmrank prompts list
    """
    from llmrank.templates import load, names

    templates = [load(name) for name in names()]
    if as_json:
        print(json.dumps({"templates": [_described(template) for template in templates]}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for column in ("template", "asks", "needs", "what"):
        table.add_column(column)
    for template in templates:
        header = template.header
        table.add_row(template.name, header.question, " ".join(header.needs), header.description)
    Console().print(table)


def show(template: Name, as_json: AsJson = False) -> None:
    """Print a template file as it is.

    Example: llmrank prompts show listwise/rank
    """
    from llmrank.templates import load

    loaded = load(template)
    print(json.dumps(_described(loaded) | {"text": loaded.text}) if as_json else loaded.text.rstrip("\n"))


def render(
    template: Name,
    query: Annotated[str, typer.Option(help="The query.", metavar="TEXT")] = "what is bm25",
    document: Annotated[list[str], typer.Option(help="A document's text; repeat it.", metavar="TEXT")] = [],  # noqa: B006  typer copies it
    as_json: AsJson = False,
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
        raise InputError(
            f"{template} asks about {n} document{'s'[: n - 1]}; give --document {n} times, not {len(texts)}"
        )
    if loaded.most_items is not None and n > loaded.most_items:
        raise InputError(f"{template} can name {loaded.most_items} documents; give --document no more often than that")
    shown = [Shown(i, safe(text)) for i, text in zip(loaded.identifiers(n), texts, strict=True)]
    rendered = loaded.render(Query("query", safe(query)), shown)
    if as_json:
        messages = [{"role": role, "content": content} for role, content in rendered.messages]
        print(json.dumps({"messages": messages} if rendered.raw is None else {"prompt": rendered.raw}))
        return
    if rendered.raw is not None:
        print(rendered.raw)
    for role, content in rendered.messages:
        print(f"--- {role}\n{content}")


def lint(
    templates: Annotated[list[str], typer.Argument(help="Names or paths.", metavar="TEMPLATE")],
    as_json: AsJson = False,
) -> int:
    """Check templates; exits with 2 where one cannot be used.

    Example: llmrank prompts lint my-template.j2
    """
    from llmrank.templates import load

    told: list[dict[str, Any]] = []
    for template in templates:
        try:
            told.append({"template": template, "ok": True, **_described(load(template))})
        except InputError as problem:
            told.append({"template": template, "ok": False, "problem": str(problem)})
            say(f"llmrank: {problem}")
    if as_json:
        print(json.dumps({"templates": told}))
    else:
        for t in told:
            if t["ok"]:
                print(f"{t['template']}: ok ({t['question']}, parser {t['parser']}, hash {t['hash']})")
    return 0 if all(t["ok"] for t in told) else 2


def diff(old: Name, new: Name, as_json: AsJson = False) -> None:
    """Show how two templates differ, line by line.

    Example: llmrank prompts diff listwise/rank my-rank.j2
    """
    from llmrank.templates import load

    a, b = load(old), load(new)
    lines = list(difflib.unified_diff(a.text.splitlines(), b.text.splitlines(), old, new, lineterm=""))
    if as_json:
        print(json.dumps({"same": not lines, "diff": lines}))
    else:
        print("\n".join(lines) or f"{old} and {new} are the same (hash {a.hash})")


def _described(template: Any) -> dict[str, Any]:
    header = template.header
    return {
        "name": template.name,
        "question": template.question,
        "parser": header.parser,
        "needs": list(header.needs),
        "version": header.version,
        "hash": template.hash,
        "source": header.source,
        "description": header.description,
    }
