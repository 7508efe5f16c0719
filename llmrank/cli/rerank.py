"""`llmrank rerank`: a run in, a better run out."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.cli.commands import Interrupted, say
from llmrank.cli.flags import flags, split
from llmrank.cli.jobs import RerankFlags, check_sizes, make_reranker, open_inputs, rerank_flags
from llmrank.cli.progress import Progress, expected_questions
from llmrank.errors import InputError, LlmrankError
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.rerank.job import JobResult, Outputs
    from llmrank.rerank.reranker import Reranker


@flags(RerankFlags, Settings)
def rerank(
    *,
    output: Annotated[
        str,
        typer.Option(
            help="The new run, TREC six columns; - for standard output.", metavar="OUT.trec", rich_help_panel="Output"
        ),
    ],
    report: Annotated[
        str | None,
        typer.Option(help="How each query came about, as JSON.", metavar="OUT.json", rich_help_panel="Output"),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(help="Everything needed to repeat the job.", metavar="OUT.json", rich_help_panel="Output"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the totals as one JSON object.", rich_help_panel="Output")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="No progress and no summary; errors still show.", rich_help_panel="Output"),
    ] = False,
    **given: Any,
) -> int:
    """Rerank a run with a large language model.

    Exit codes: 0 done; 2 bad usage or bad input, nothing was sent; 3 done, but more than --max-failure-rate of the
    questions failed; 4 a budget ended the job, the result so far is written; 5 the backend refused; 130 interrupted.
    After 5 and 130 what is done is in OUT.partial, and the same command goes on from there. 1 is any other fault, such
    as a full disk.

    Example: llmrank rerank --queries topics.tsv --corpus passages.jsonl --run bm25.trec
    --backend openai:gpt-4o-mini --output better.trec
    """
    from llmrank.rerank.job import Outputs

    ours, settings = split(given, RerankFlags, Settings)
    job = rerank_flags(ours)
    outputs = Outputs(output, report, manifest)
    outputs.check()
    if as_json and (taken := [flag for flag, path in zip(FILE_FLAGS, outputs, strict=True) if path == "-"]):
        raise InputError(f"--json and {taken[0]} -: both would write to standard output; name a file for one")
    reranker = make_reranker(job, settings)
    result = _run(job, reranker, outputs, quiet)
    if as_json:
        print(json.dumps(result.json() | {"output": output}))
    return _conclude(result, reranker, output, quiet)


FILE_FLAGS = ("--output", "--report", "--manifest")


def _run(job: RerankFlags, reranker: Reranker, outputs: Outputs, quiet: bool) -> JobResult:
    from llmrank.rerank.job import run_job
    from llmrank.rerank.manifest import describe

    with open_inputs(job) as inputs:
        check_sizes(reranker, inputs)
        described = None
        if outputs.report is not None or outputs.manifest is not None:
            files = (job.queries, job.corpus, job.run, job.requests)
            described = describe(reranker, job.model_dump(), [path for path in files if path is not None])
        progress = Progress(len(inputs), expected_questions(reranker, inputs), quiet)
        try:
            with progress:
                return run_job(reranker, inputs, outputs, manifest=described, on_progress=progress.update)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {_go_on(outputs, progress, reranker)}") from None
        except LlmrankError as error:
            if error.exit_code == InputError.exit_code:
                raise
            refused = "the backend refused: " if error.exit_code == 5 else ""
            error.args = (f"{refused}{error}; put that right, then {_go_on(outputs, progress, reranker)}",)
            raise


def _conclude(result: JobResult, reranker: Reranker, output: str, quiet: bool) -> int:
    totals, limit = result.totals, reranker.settings.max_failure_rate
    place = "standard output" if output == "-" else output
    if not quiet:
        say(_summary(result, place))
        for origin in sorted(result.other_origins):
            say(
                f"note: replies found in the ledger came from {origin or 'elsewhere'} under the same model name, and "
                "were used; tell models apart with --model-id"
            )
    code, told = 0, []
    if totals.failure_rate > limit:
        reasons = ", ".join(f"{reason} {count}" for reason, count in totals.reasons.most_common(4))
        told.append(
            f"{totals.sums['failed']} of {totals.sums['questions']} questions failed, more than "
            f"--max-failure-rate {limit:g} ({reasons}); what they asked about is left as it was in {place}"
        )
        code = 3
    if result.ended_by is not None:
        told.insert(
            0,
            f"the budget {result.ended_by} ended the job: {totals.statuses['partial']} of {totals.queries} queries are "
            f"unfinished; {place} holds every document, those not reached in first-stage order; run it again with "
            "more to go on",
        )
        code = 4
    if told:
        say(f"llmrank: {'; also, '.join(told)}")
    return code


def _summary(result: JobResult, place: str) -> str:
    totals, sums = result.totals, result.totals.sums
    cost = "" if totals.cost is None else f", {totals.cost:.4f} USD"
    return (
        f"{totals.queries} queries, {sums['questions']} questions: {sums['ok']} ok, {sums['repaired']} repaired, "
        f"{sums['failed']} failed; {sums['calls']} calls, {sums['reused']} answers reused, "
        f"{sums['prompt_tokens']} + {sums['completion_tokens']} tokens{cost} -> {place}"
    )


def _go_on(outputs: Outputs, progress: Progress, reranker: Reranker) -> str:
    """How to go on after a job that broke off."""
    ledger = reranker.settings.ledger_path
    kept = f"the replies so far are kept in {ledger}" if ledger else "no ledger is kept, so all is asked again"
    where = f", in {outputs.partial}" if outputs.partial and os.path.exists(outputs.partial) else ""
    return f"run the same command to go on: {progress.done} of {progress.total} queries are done{where}, and {kept}"
