"""`llmrank plan`: what a job will cost, before anything is sent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.cli.flags import flags, split
from llmrank.cli.jobs import RerankFlags, check_sizes, make_reranker, open_inputs, rerank_flags
from llmrank.cli.judge import JudgeFlags
from llmrank.errors import InputError
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.judge.judge import Labeller
    from llmrank.llm.ledger import Ledger
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
    teacher: Annotated[str | None, typer.Option(hidden=True)] = None,
    uncertainty: Annotated[bool, typer.Option("--uncertainty", hidden=True)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", hidden=True)] = False,
    **given: Any,
) -> None:
    """Price a reranking job: its flags are those of `llmrank rerank`.

    First attempts against an empty ledger; with --ledger given, what it holds is subtracted. One number where the
    answers do not matter; else a range, with the mean of 20 simulated runs. --output, --report, --manifest, --teacher,
    --uncertainty and --quiet are taken and not used, so that a command line can be priced as it stands.

    Example: llmrank plan rerank --queries topics.tsv --corpus passages.jsonl --run bm25.trec
    --backend openai:gpt-4o-mini --price 0.15,0.6
    """
    from llmrank.plan import plan

    _check_latency(latency)
    ours, settings = split(given, RerankFlags, Settings)
    job = rerank_flags(ours)
    reranker = make_reranker(job, settings)
    ledger = _named_ledger(settings)
    with open_inputs(job) as inputs:
        check_sizes(reranker, inputs)
        planned = plan(reranker, inputs, ledger=ledger, latency=latency)
    templates = list(dict.fromkeys(voice.template.name for voice in reranker.voices.values()))
    named = f"template{'s' * (len(templates) > 1)} {', '.join(templates)}"
    title = f"{reranker.method.name} over {planned.queries} queries, {named}"
    print(json.dumps(planned.json())) if as_json else _print(planned, reranker, latency, title)


@flags(JudgeFlags, Settings)
def judge(
    *,
    latency: Annotated[
        float, typer.Option(help="Seconds that one call takes.", metavar="S", rich_help_panel="Output")
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel="Output")] = False,
    output: Annotated[str | None, typer.Option(hidden=True)] = None,
    judgments: Annotated[str | None, typer.Option(hidden=True)] = None,
    report: Annotated[str | None, typer.Option(hidden=True)] = None,
    manifest: Annotated[str | None, typer.Option(hidden=True)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", hidden=True)] = False,
    **given: Any,
) -> None:
    """Price a judging job: its flags are those of `llmrank judge`.

    First attempts against an empty ledger; with --ledger given, what it holds is subtracted. One number where the
    answers do not matter, else a range. An exam is not counted. --output, --judgments, --report, --manifest and
    --quiet are taken and not used, so that a command line can be priced as it stands.

    Example: llmrank plan judge --queries topics.tsv --corpus passages.jsonl --run bm25.trec --pool-depth 10
    --backend openai:gpt-4o-mini --price 0.15,0.6
    """
    from llmrank.cli.judge import judge_flags, make_labeller
    from llmrank.cli.judge import open_inputs as open_pairs
    from llmrank.plan import plan_judging

    _check_latency(latency)
    ours, settings = split(given, JudgeFlags, Settings)
    job = judge_flags(ours)
    labeller = make_labeller(job, settings)
    with open_pairs(job, settings, labeller) as inputs:
        planned = plan_judging(labeller, inputs, ledger=_named_ledger(settings), latency=latency)
        pairs = len(inputs)
    names = ", ".join(dict.fromkeys(grader.name for grader in labeller.graders.values()))
    title = f"judging {pairs} pairs of {planned.queries} queries with {names}"
    print(json.dumps(planned.json() | {"pairs": pairs})) if as_json else _print(planned, labeller, latency, title)


def _check_latency(latency: float) -> None:
    if not 0 <= latency < math.inf:
        raise InputError(f"--latency {latency:g}: it must be a number of seconds, not below 0")


def _named_ledger(settings: dict[str, Any]) -> Ledger | None:
    """The ledger that was named, where it is there: what it holds takes no call."""
    from llmrank.llm.ledger import Ledger

    named = settings.get("ledger")
    return Ledger(named, read_only=True) if named not in (None, "none") and Path(named).exists() else None


def _print(planned: Plan, job: Reranker | Labeller, latency: float, title: str) -> None:
    print(title)
    lines: list[tuple[str, Estimate]] = [
        ("calls", planned.calls),
        ("rounds", planned.rounds),
        ("prompt tokens", planned.prompt_tokens),
        ("completion tokens", planned.completion_tokens),
    ]
    if planned.cost is not None:
        lines.append(("USD", planned.cost))
    if planned.flops is not None:
        lines.append(("PetaFLOP", planned.flops.scaled(1e-15).rounded(3)))
    lines.append(("seconds", planned.seconds))
    for name, estimate in lines:
        print(f"  {name + ':':18} {_text(estimate)}")
    if planned.reused:
        print(f"  {'from the ledger:':18} {planned.reused:,} answers")
    if planned.does_not_fit:
        print(f"  {'do not fit:':18} {planned.does_not_fit:,} questions; they will fail without a call")
    print(f"Seconds at {latency:g} s a call and {job.settings.concurrency} calls at once (--latency).")
    note = f"{planned.note[:1].upper()}{planned.note[1:]}"
    print(f"{note}{'.' if planned.cost is not None else '; give --price IN,OUT for the cost.'}")


def _text(estimate: Estimate) -> str:
    if estimate.exact:
        return _number(estimate.expected)
    return f"about {_number(estimate.expected)} ({_number(estimate.low)} to {_number(estimate.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.4g}"
