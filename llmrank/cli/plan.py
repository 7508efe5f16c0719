"""`llmrank plan`: what a job will cost, before anything is sent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.cli.flags import flags, split
from llmrank.cli.jobs import RerankFlags, check_sizes, make_reranker, open_inputs, rerank_flags
from llmrank.errors import InputError
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.plan import Estimate, Plan
    from llmrank.rerank.reranker import Reranker


@flags(RerankFlags, Settings)
def rerank(
    *,
    latency: Annotated[
        float, typer.Option(help="Seconds that one call takes.", metavar="S", rich_help_panel="Output")
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel="Output")] = False,
    output: Annotated[str | None, typer.Option(hidden=True)] = None,
    report: Annotated[str | None, typer.Option(hidden=True)] = None,
    manifest: Annotated[str | None, typer.Option(hidden=True)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", hidden=True)] = False,
    **given: Any,
) -> None:
    """Price a reranking job: the flags are those of `llmrank rerank`.

    First attempts against an empty ledger; with --ledger given, what it holds is subtracted. One number where the
    answers do not matter; else a range, with the mean of 20 simulated runs. --output, --report, --manifest and --quiet
    are taken and not used, so that a command line can be priced as it stands.

    Example: llmrank plan rerank --queries topics.tsv --corpus passages.jsonl --run bm25.trec
    --backend openai:gpt-4o-mini --price 0.15,0.6
    """
    from llmrank.llm.ledger import Ledger
    from llmrank.plan import plan

    if not 0 <= latency < math.inf:
        raise InputError(f"--latency {latency:g}: it must be a number of seconds, not below 0")
    ours, settings = split(given, RerankFlags, Settings)
    job = rerank_flags(ours)
    reranker = make_reranker(job, settings)
    named = settings.get("ledger")
    ledger = Ledger(named, read_only=True) if named not in (None, "none") and Path(named).exists() else None
    with open_inputs(job) as inputs:
        check_sizes(reranker, inputs)
        planned = plan(reranker, inputs, ledger=ledger, latency=latency)
    print(json.dumps(planned.json())) if as_json else _print(planned, reranker, latency)


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
    lines.append(("seconds", planned.seconds))
    for name, estimate in lines:
        print(f"  {name + ':':18} {_text(estimate)}")
    if planned.reused:
        print(f"  {'from the ledger:':18} {planned.reused:,} answers")
    if planned.does_not_fit:
        print(f"  {'do not fit:':18} {planned.does_not_fit:,} questions; they will fail without a call")
    print(f"Seconds at {latency:g} s a call and {reranker.settings.concurrency} calls at once (--latency).")
    note = f"{planned.note[:1].upper()}{planned.note[1:]}"
    print(f"{note}{'.' if planned.cost is not None else '; give --price IN,OUT for the cost.'}")


def _text(estimate: Estimate) -> str:
    if estimate.exact:
        return _number(estimate.expected)
    return f"about {_number(estimate.expected)} ({_number(estimate.low)} to {_number(estimate.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.4g}"
