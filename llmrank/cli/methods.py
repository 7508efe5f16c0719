"""`llmrank methods`: the table of methods, from the code itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llmrank.rerank.methods import Method


def methods(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the reranking methods: what each asks, needs and costs.

    Example: llmrank methods
    """
    from llmrank.rerank.methods import all_methods

    known = all_methods().values()
    if as_json:
        print(json.dumps({"methods": [_record(method) for method in known]}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for column in ("method", "asks", "calls", "rounds", "options"):
        table.add_column(column, overflow="fold")
    for method in known:
        options = " ".join(f"{name}={_shown(option.default)}" for name, option in method.options.items())
        table.add_row(method.name, method.question, *method.formula, options)
    console = Console()
    console.print(table)
    console.print("n: candidates. Sources and needs: llmrank methods --json", style="dim")


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


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
