"""What `llmrank judge --template` takes: the recipes and the templates that grade, with labels, polarity and source."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmrank.errors import InputError
from llmrank.judge.recipes import all_recipes, find, plain
from llmrank.templates import load, names


def records(wanted: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Those named, else all: recipes of several steps first, then the templates that grade by themselves."""
    return [_record(name) for name in (wanted or _known())]


def described(record: Mapping[str, Any]) -> Iterator[str]:
    """A record as lines for people, the name first; what is indented below it may be wrapped."""
    yield record["name"]
    yield f"grades: {' < '.join(record['labels']) or '{:g} to {:g}'.format(*record['range'])}, the last is best"
    yield f"reasoning: {record['reasoning']}"
    yield f"calls: {record['calls']}; rounds: {record['rounds']}"
    if record["templates"] != [record["name"]]:
        yield f"templates: {' '.join(record['templates'])}"
    if record["options"]:
        told = (name if default is None else f"{name}={_shown(default)}" for name, default in record["options"].items())
        yield f"options: {' '.join(told)}"
    if record["variables"]:
        yield f"variables: {' '.join(record['variables'])}"
    if record["source"]:
        yield f"source: {record['source']}"


def _known() -> list[str]:
    headers = {name: load(name).header for name in names()}
    # What shows texts that only a recipe brings is a part of one.
    return [*all_recipes(), *(n for n, h in headers.items() if h.question == "grade" and not h.given and not h.raw)]


def _record(name: str) -> dict[str, Any]:
    recipe, template = find(name)
    header, alone = template.header, recipe.run is plain("").run
    if header.question != "grade":
        raise InputError(
            f"{name} asks `{header.question}`, which labels no document; a judge needs one that asks `grade`"
        )
    given = {option: value.default for option, value in recipe.options.items()}
    calls, rounds = recipe.formula
    scale = recipe.scale
    return {
        "name": recipe.name,
        "summary": header.description if alone else recipe.summary,
        "description": "" if alone else inspect.getdoc(recipe.run) or "",
        "labels": list(header.labels) if scale is None else [f"{grade:g}" for grade in scale],
        "range": list(header.range or ()),
        "reasoning": header.reasoning,
        "calls": calls,
        "rounds": rounds,
        "templates": [template.name, *(_name(part.template) for part in recipe.parts(**given).values())],
        "options": given,
        "variables": dict(header.variables),
        "source": header.source if alone else recipe.source,
    }


def _name(template: Any) -> str:
    return template if isinstance(template, str) else str(template.name)


def _shown(default: Any) -> str:
    return f'"{default}"' if " " in str(default) else str(default)
