"""`llmrank methods`: the table of methods, from the code itself."""

from __future__ import annotations

import inspect
import json
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llmrank.rerank.methods import Method


def methods(
    names: Annotated[
        list[str] | None, typer.Argument(help="Only these; FILE.py:NAME for one of your own.", metavar="NAME...")
    ] = None,
    judging: Annotated[bool, typer.Option("--judging", help="What `llmrank judge --template` takes instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the reranking methods: what each asks, needs and costs.

    A method that is named is described too.
    With --judging: the recipes of `llmrank judge` and the templates that grade, with their labels from least to most
    relevant, and whether the reply reasons before its label.

    Example: llmrank methods heapsort my_methods.py:mine; llmrank methods --judging nuggets
    """
    if judging:
        _recipes(names or [], as_json)
        return
    from llmrank.rerank.methods import all_methods, find

    known = [find(name) for name in names] if names else list(all_methods().values())
    if as_json:
        print(json.dumps({"methods": [_record(method) for method in known]}))
        return
    print(f"{'method':22} {'asks':8} needs")
    for method in known:
        print(f"{method.name:22} {method.question:8} {', '.join(method.needs)}")
        calls, rounds = method.formula
        options = " ".join(name + _shown(option.default) for name, option in method.options.items())
        print(_indented(f"calls: {calls}; rounds: {rounds}"))
        if options:
            print(_indented(f"options: {options}"))
        print(_indented(f"source: {method.source}"))
        if names:
            print(f"\n{_description(method)}\n")
    print(("" if names else "\n") + "n: candidates of a query. An option is given as --option NAME=VALUE.")
    if not names:
        print("What a method does and guarantees: llmrank methods NAME")


def _recipes(names: list[str], as_json: bool) -> None:
    """The table of what judges."""
    from llmrank.cli.recipes import described, records

    known = records(names)
    if as_json:
        print(json.dumps({"recipes": known}))
        return
    for record in known:
        name, *lines = described(record)
        print(name)
        for line in lines:
            print(_indented(line))
        if names:
            print(f"\n{_paragraphs(record['description'] or record['summary'])}\n")
    print(("" if names else "\n") + "n: documents of a query. An option is given as --option NAME=VALUE, a variable")
    print("as --template-variable NAME=VALUE.")
    if not names:
        print("What one does: llmrank methods --judging NAME")


def _description(method: Method) -> str:
    """What the method's docstring says."""
    return _paragraphs(inspect.getdoc(method.strategy) or "")


def _paragraphs(text: str) -> str:
    paragraphs = text.split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(paragraph.split()), 80, **MARGINS) for paragraph in paragraphs)


MARGINS: dict[str, Any] = {"initial_indent": "    ", "subsequent_indent": "    ", "break_on_hyphens": False}


def _indented(text: str) -> str:
    return textwrap.fill(text, 80, initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False)


def _record(method: Method) -> dict[str, Any]:
    calls, rounds = method.formula
    return {
        "name": method.name,
        "summary": method.summary,
        "question": method.question,
        "needs": list(method.needs),
        "calls": calls,
        "rounds": rounds,
        "source": method.source,
        "template": method.template,
        "options": {
            name: {"type": option.type.__name__, "default": option.default} for name, option in method.options.items()
        },
    }


def _shown(default: Any) -> str:
    """A default as it would be given; nothing where it depends on the query."""
    if default is None:
        return ""
    return "=" + (("on" if default else "off") if isinstance(default, bool) else str(default))
