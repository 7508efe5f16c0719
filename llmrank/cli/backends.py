"""`llmrank backends`: which backends there are, and what one of them can really answer."""

from __future__ import annotations

import asyncio
import json
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llmrank.llm.client import Client
    from llmrank.llm.probe import Verdict
    from llmrank.llm.types import Capability

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
COLUMNS = 80
INDENT = " " * 27


def list_(as_json: AsJson = False) -> None:
    """List the backends that a SPEC can name.

    Example: llmrank backends list
    """
    from llmrank.llm.backends import BACKENDS

    told = {name: tuple(part.strip() for part in text.split("  ", 1)) for name, text in BACKENDS.items()}
    if as_json:
        rows = [{"name": name, "spec": spec, "what": what} for name, (spec, what) in told.items()]
        print(json.dumps({"backends": rows}))
        return
    for spec, what in told.values():
        print(spec)
        print(textwrap.fill(what, COLUMNS, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False))


def check(
    spec: Annotated[str, typer.Argument(help="The backend, such as openai:MODEL.", metavar="SPEC")],
    base_url: Annotated[
        str | None, typer.Option(help="Address of the server, ending in /v1; else OPENAI_BASE_URL.", metavar="URL")
    ] = None,
    ledger: Annotated[
        str | None, typer.Option(help="Where what is found out is kept; none: nowhere.", metavar="FILE")
    ] = None,
    engine_option: Annotated[
        list[str] | None,
        typer.Option(
            help="What the engine of a backend in this process is given, such as dtype=float32.", metavar="KEY=VALUE"
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Ask also what is known from an earlier check.")] = False,
    max_calls: Annotated[int | None, typer.Option(help="Requests to send at most.", metavar="N")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a reply.", metavar="S")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Ask a backend what it can answer, and tell what is missing.

    Of what it lacks it is told which methods that costs.
    Sends a few small requests, each once for a server and a model: what is found out is kept in the ledger.

    Example: llmrank backends check openai:my-model --base-url http://localhost:8000/v1
    """
    from llmrank.llm.backends import open_backend
    from llmrank.llm.prices import Facts, facts_of
    from llmrank.settings import Settings

    given = {"base_url": base_url, "ledger": ledger, "engine_option": engine_option or []}
    settings = Settings.of(**given, max_calls=max_calls, timeout=timeout, retries=2)
    backend = open_backend(spec, base_url=base_url, engine_options=settings.engine_options)
    client = settings.client(backend, settings.budget())
    verdicts, served = asyncio.run(_examined(client, again))
    facts = facts_of(client.identity.model, base_url=client.origin or None) if client.origin else Facts()
    context, calls = served or facts.context, client.totals.calls
    uses = _uses()
    if as_json:
        rows = [_row(name, verdict, uses[name]) for name, verdict in verdicts.items()]
        told = {"backend": spec, "origin": client.origin, "calls": calls, "context": context, "price": facts.price}
        print(json.dumps(told | {"capabilities": rows}))
        return
    where = f" at {client.origin}" if client.origin else ""
    print(textwrap.fill(f"{spec}{where} ({calls} {'call' if calls == 1 else 'calls'})", COLUMNS))
    if context is not None:
        source = facts.source if not served else "the server says so" if client.origin else "the model's files say so"
        print(f"context           {context} tokens ({source})")
    if (price := facts.price) is not None:
        print(f"price             {price.prompt:g},{price.completion:g} USD per million tokens ({facts.source})")
    for name, verdict in verdicts.items():
        print(_told(name, verdict, uses[name]))


async def _examined(client: Client, again: bool) -> tuple[dict[Capability, Verdict], int | None]:
    """What was found of each capability, and how many tokens the model takes."""
    from llmrank.llm.probe import examine
    from llmrank.llm.types import CAPABILITIES

    try:
        # A permutation goes as what was asked before it.
        fresh = {name: again and name != "permutation" for name in CAPABILITIES}
        verdicts = {name: await examine(client, name, again=fresh[name]) for name in CAPABILITIES}
        if verdicts["prompt-logprobs"].has is False and verdicts["raw"].has:  # many servers have it of these alone
            raw = await examine(client, "prompt-logprobs", raw=True, again=again)
            verdicts["prompt-logprobs"] = replace(raw, note="with raw prompts only") if raw.has else raw
        learn = getattr(client.backend, "learn_context", None)
        return verdicts, await learn() if learn else getattr(client.backend, "context", None)
    finally:
        await client.aclose()


def _uses() -> dict[Capability, tuple[list[str], list[str]]]:
    """The methods that need a capability, with their own templates; and further templates that do."""
    from llmrank.llm.types import CAPABILITIES
    from llmrank.rerank.methods import all_methods
    from llmrank.templates import load, names

    needs = {name: {*load(name).header.needs, *(["raw"] if load(name).header.raw else [])} for name in names()}
    methods = {m.name: {*m.needs, *needs.get(m.template, ())} for m in all_methods().values()}
    used = {m.template for m in all_methods().values()}
    return {
        capability: (
            sorted(name for name, wanted in methods.items() if capability in wanted),
            sorted(name for name, wanted in needs.items() if capability in wanted and name not in used),
        )
        for capability in CAPABILITIES
    }


def _row(name: Capability, verdict: Verdict, uses: tuple[list[str], list[str]]) -> dict[str, Any]:
    methods, templates = uses
    return {
        "capability": name,
        "has": verdict.has,
        "form": verdict.form or None,
        "note": verdict.note or None,
        "remembered": verdict.remembered,
        "methods": methods,
        "templates": templates,
    }


def _told(name: Capability, verdict: Verdict, uses: tuple[list[str], list[str]]) -> str:
    """A capability with its verdict; where it is missing also what that costs."""
    from llmrank.llm.types import CAPABILITIES

    state = {True: "has", False: "lacks", None: "unknown"}[verdict.has]
    lines = [_filled(CAPABILITIES[name], f"{name:17} {state:8} ")]
    if verdict.has and verdict.form:
        lines.append(_filled(f"asked for as {verdict.form.replace('_', ' ')}"))
    if verdict.note:
        lines.append(_filled(verdict.note))
    if not verdict.has:
        lost = [
            f"{kind}: {', '.join(names)}" for kind, names in zip(("methods", "templates"), uses, strict=True) if names
        ]
        lines.append(_filled(f"without it no {'; no '.join(lost)}" if lost else "no method needs it"))
    return "\n".join(lines)


def _filled(text: str, begin: str = INDENT) -> str:
    return textwrap.fill(text, COLUMNS, initial_indent=begin, subsequent_indent=INDENT, break_on_hyphens=False)
