"""`llmrank plan`: what a job will cost, before anything is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.cli.flags import flags, split
from llmrank.cli.jobs import RerankFlags, make_reranker, open_inputs, rerank_flags
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.plan import Estimate, Plan
    from llmrank.rerank.reranker import Reranker

app = typer.Typer(help="Calls, rounds, tokens, price and time of a job, before anything is sent.", no_args_is_help=True)


@flags(RerankFlags, Settings)
def rerank(
    *,
    latency: Annotated[float, typer.Option(help="Seconds that one call takes.", metavar="S")] = 1.0,
    output: Annotated[str | None, typer.Option(help="Taken and not used, so that the same flags can be given.", hidden=True)] = None,
    report: Annotated[str | None, typer.Option(hidden=True)] = None,
    manifest: Annotated[str | None, typer.Option(hidden=True)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", hidden=True)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    **given: Any,
) -> None:
    """Price a reranking job: the flags are those of `llmrank rerank`.

    First attempts against an empty ledger; with --ledger given, what it holds is subtracted.

    Example: llmrank plan rerank --queries topics.tsv --corpus passages.jsonl --run bm25.trec --backend openai:gpt-4o-mini --price 0.15,0.6
    """
    from pathlib import Path

    from llmrank.llm.ledger import Ledger
    from llmrank.plan import plan

    ours, settings = split(given, RerankFlags, Settings)
    job = rerank_flags(ours)
    reranker = make_reranker(job, settings)
    named = settings.get("ledger")
    ledger = Ledger(named, read_only=True) if named not in (None, "none") and Path(named).exists() else None
    with open_inputs(job) as inputs:
        planned = plan(reranker, inputs, ledger=ledger, latency=latency)
    print(json.dumps(planned.json())) if as_json else _print(planned, reranker, latency)


app.command("rerank")(rerank)


def _print(planned: Plan, reranker: Reranker, latency: float) -> None:
    print(f"{reranker.method.name} over {planned.queries} queries, template {reranker.template.name}")
    lines: list[tuple[str, Estimate]] = [
        ("calls", planned.calls),
        ("rounds", planned.rounds),
        ("prompt tokens", planned.prompt_tokens),
        ("completion tokens", planned.completion_tokens),
    ]
    if planned.cost is not None:
        lines.append(("USD", planned.cost))
    lines.append((f"seconds at {latency:g} s a call, {reranker.settings.concurrency} at once", planned.seconds))
    for name, estimate in lines:
        print(f"  {name}: {_text(estimate)}")
    if planned.reused:
        print(f"  answered by the ledger: {planned.reused}")
    print(f"  ({planned.note}{'' if planned.cost is not None else '; give --price IN,OUT for the cost'})")


def _text(estimate: Estimate) -> str:
    if estimate.exact:
        return _number(estimate.expected)
    return f"about {_number(estimate.expected)} ({_number(estimate.low)} to {_number(estimate.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.4g}"
