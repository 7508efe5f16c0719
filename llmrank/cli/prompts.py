"""`llmrank prompts`: the templates, listed, shown, rendered, checked and compared."""

from __future__ import annotations

import difflib
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.cli.commands import say
from llmrank.cli.jobs import variables
from llmrank.errors import InputError

if TYPE_CHECKING:
    from llmrank.templates import Rendered, Template

Name = Annotated[str, typer.Argument(help="Name of a template, or path of a file.", metavar="TEMPLATE")]
Variables = Annotated[
    list[str], typer.Option("--template-variable", help="A variable of the template's own.", metavar="KEY=VALUE")
]
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

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("template", no_wrap=True)
    table.add_column("asks", no_wrap=True)
    table.add_column("what")
    for template in templates:
        table.add_row(template.name, template.header.question, template.header.description)
    Console().print(table)


def show(template: Name, as_json: AsJson = False) -> None:
    """Print a template file as it is.

    One in YAML is printed as the template that it is read as.

    Example: llmrank prompts show listwise/rank
    """
    from llmrank.templates import load

    loaded = load(template)
    print(json.dumps(_described(loaded) | {"text": loaded.text}) if as_json else loaded.text.rstrip("\n"))


def render(
    template: Name,
    query: Annotated[str, typer.Option(help="The query.", metavar="TEXT")] = "what is bm25",
    instruction: Annotated[str, typer.Option(help="The query's instruction.", metavar="TEXT")] = "",
    document: Annotated[list[str], typer.Option(help="A document's text; repeat it.", metavar="TEXT")] = [],  # noqa: B006  typer copies it
    given: Annotated[list[str], typer.Option(help="A text that a method brings.", metavar="NAME=TEXT")] = [],  # noqa: B006
    template_variable: Variables = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Print the prompt that a template makes, message by message.

    A raw prompt is printed to the byte.
    With --json it is the body that an OpenAI-compatible server is sent, without the name of the model.

    Example: llmrank prompts render pairwise/prefer --query "do goldfish grow" --document "They do." --document "Fish."
    """
    from llmrank.data.types import Query
    from llmrank.templates import Shown
    from llmrank.templates.prepare import safe

    loaded = _loaded(template, template_variable)
    n = {"grade": 1, "compare": 2}.get(loaded.question, len(document) or 3)
    texts = document or [f"The text of document {i}." for i in range(1, n + 1)]
    if len(texts) != n:
        raise InputError(
            f"{template} asks about {n} document{'s'[: n - 1]}; give --document {n} times, not {len(texts)}"
        )
    if loaded.most_items is not None and n > loaded.most_items:
        raise InputError(f"{template} can name {loaded.most_items} documents; give --document no more often than that")
    named = loaded.question != "grade"
    shown = [Shown(i, safe(text, identifiers=named)) for i, text in zip(loaded.identifiers(n), texts, strict=True)]
    asked = Query("query", safe(query, identifiers=named), instruction=safe(instruction, identifiers=named))
    brought = {name: f"(the text {name!r})" for name in loaded.header.given} | variables(given, "--given")
    if unknown := set(brought) - set(loaded.header.given):
        raise InputError(f"--given {min(unknown)}: {template} shows no such text")
    rendered = loaded.render(asked, shown, brought)
    if as_json:
        print(json.dumps(_body(loaded, rendered, n)))
        return
    if rendered.raw is not None:
        sys.stdout.write(rendered.raw)
    for role, content in rendered.messages:
        print(f"--- {role}\n{content}")
    if rendered.continuation is not None:
        begin = "\n" if rendered.raw is not None else ""
        print(f"{begin}--- continuation, whose likelihood is the score\n{rendered.continuation}")


def lint(
    templates: Annotated[list[str], typer.Argument(help="Names or paths.", metavar="TEMPLATE")],
    as_json: AsJson = False,
) -> int:
    """Check templates; exits with 2 where one cannot be used.

    One line a finding; where all can be used the exit code is 0, whatever is found.

    Example: llmrank prompts lint my-template.j2
    """
    from llmrank.llm.types import CAPABILITIES
    from llmrank.templates import load
    from llmrank.templates.lint import lint as findings

    told: list[dict[str, Any]] = []
    for template in templates:
        try:
            loaded = load(template)
        except InputError as problem:
            told.append({"template": template, "ok": False, "problem": str(problem), "findings": []})
            say(f"llmrank: {problem}")
            continue
        found = findings(loaded, CAPABILITIES)
        ok = not any(finding.serious for finding in found)
        told.append({"template": template, "ok": ok, **_described(loaded), "findings": [f._asdict() for f in found]})
        for finding in found:
            line = f"{loaded.origin}:{finding.line}: {finding.sentence} ({finding.rule})"
            if finding.serious:
                say(f"llmrank: {line}")
            elif not as_json:
                print(line)
    if as_json:
        print(json.dumps({"templates": told}))
    else:
        for t in told:
            if not t["findings"] and t["ok"]:
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


def _loaded(name: str, given: list[str]) -> Template:
    from llmrank.templates import load

    return load(name, variables(given))


def _body(template: Template, rendered: Rendered, n: int) -> dict[str, Any]:
    """The JSON in which a prompt is sent."""
    from llmrank.llm.backends.openai import OpenAIBackend
    from llmrank.llm.types import Request, Sampling

    header = template.header
    sampling = Sampling(template.completion_tokens(n), header.temperature, None, header.stop, header.logprobs)
    request = Request(rendered.messages, rendered.raw, sampling, continuation=rendered.continuation)
    body = OpenAIBackend("MODEL", base_url="http://localhost/v1", api_key="none").call(request).body
    return {name: value for name, value in body.items() if name != "model"}


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
