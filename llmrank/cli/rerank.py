"""`llmrank rerank`: a run in, a better run out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.cli.flags import flags, split
from llmrank.cli.jobs import RerankFlags, make_reranker, open_inputs, rerank_flags
from llmrank.cli.progress import Progress, say
from llmrank.errors import InputError, LlmrankError
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.rerank.job import JobResult
    from llmrank.rerank.reranker import Reranker


@flags(RerankFlags, Settings)
def rerank(
    *,
    output: Annotated[str, typer.Option(help="The new run, TREC six columns; - for standard output.", metavar="OUT.trec")],
    report: Annotated[str | None, typer.Option(help="How each query came about, as JSON.", metavar="OUT.json")] = None,
    manifest: Annotated[str | None, typer.Option(help="Everything needed to repeat the job.", metavar="OUT.json")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as one JSON object.")] = False,
    **given: Any,
) -> int:
    """Rerank a run with a large language model.

    Example: llmrank rerank --queries topics.tsv --corpus passages.jsonl --run bm25.trec --backend openai:gpt-4o-mini --output better.trec

    Exit codes: 0 done; 2 bad usage or input, nothing sent; 3 done, but too many questions failed (--max-failure-rate); 4 a budget ended it, the result so far is written; 5 the backend refused; 130 interrupted.
    """
    ours, settings = split(given, RerankFlags, Settings)
    job = rerank_flags(ours)
    for flag, path in (("--output", output), ("--report", report), ("--manifest", manifest)):
        if path is not None and path != "-" and not Path(path).resolve().parent.is_dir():
            raise InputError(f"{flag} {path}: the folder {Path(path).parent} does not exist; make it first")
    if as_json and output == "-":
        raise InputError("--json and --output -: both would write to standard output; name a file for one")
    reranker = make_reranker(job, settings)
    return _run(job, reranker, output, report, manifest, quiet, as_json)


def _run(
    job: RerankFlags, reranker: Reranker, output: str, report: str | None, manifest: str | None, quiet: bool, as_json: bool
) -> int:
    from llmrank.data.files import writing
    from llmrank.rerank.job import run_job
    from llmrank.rerank.manifest import describe

    def described() -> dict[str, Any]:
        inputs = [job.requests] if job.requests else [job.queries, job.corpus, job.run]
        return describe(reranker, [path for path in inputs if path], depth=job.depth, backend=job.backend or "")

    with open_inputs(job) as inputs:
        progress = Progress(len(inputs), quiet)
        try:
            with progress:
                result = asyncio.run(
                    run_job(reranker, inputs, output, report=report, manifest=described, on_done=progress.advance)
                )
        except KeyboardInterrupt:
            say(f"llmrank: interrupted; {_go_on(output, progress, reranker)}")
            return 130
        except LlmrankError as error:
            if error.exit_code == 5:
                say(f"llmrank: the backend refused: {error}; {_go_on(output, progress, reranker)}")
                return 5
            raise
        if manifest is not None:
            with writing(manifest) as file:
                file.write(json.dumps(described(), indent=2) + "\n")
    return _conclude(result, reranker, output, quiet, as_json)


def _conclude(result: JobResult, reranker: Reranker, output: str, quiet: bool, as_json: bool) -> int:
    totals, limit = result.totals, reranker.settings.max_failure_rate
    if as_json:
        summary = totals.json() | {"failure_rate": totals.failure_rate, "ended_by": result.ended_by, "output": output}
        print(json.dumps(summary))
    if not quiet:
        say(_summary(result, output))
        for origin in sorted(result.other_origins):
            say(f"note: some replies in the ledger came from {origin or 'another address'} under the same model name; tell models apart with --model-id")
    code = 0
    if totals.failure_rate > limit:
        reasons = ", ".join(f"{reason} {count}" for reason, count in totals.reasons.most_common(4))
        say(
            f"llmrank: {totals.sums['failed']} of {totals.sums['questions']} questions failed, more than "
            f"--max-failure-rate {limit:g} ({reasons}); {output} is written, with those left as they were"
        )
        code = 3
    if result.ended_by is not None:
        partial = totals.statuses["partial"]
        say(
            f"llmrank: the budget {result.ended_by} ended the job: {partial} of {totals.queries} queries were left unfinished; "
            f"{output} holds every document, those not reached in first-stage order; run it again with more to go on"
        )
        code = 4
    return code


def _summary(result: JobResult, output: str) -> str:
    totals, sums = result.totals, result.totals.sums
    cost = "" if totals.cost is None else f", {totals.cost:.4f} USD"
    return (
        f"{totals.queries} queries, {sums['questions']} questions: {sums['ok']} ok, {sums['repaired']} repaired, "
        f"{sums['failed']} failed; {sums['calls']} calls, {sums['reused']} answers reused, "
        f"{sums['prompt_tokens']} + {sums['completion_tokens']} tokens{cost} -> {output}"
    )


def _go_on(output: str, progress: Progress, reranker: Reranker) -> str:
    where = "" if output == "-" else f"{output}.partial holds {progress.done} of {progress.total} queries; "
    ledger = reranker.settings.ledger_path
    kept = "no ledger is kept, so a new run asks everything again" if ledger is None else f"run the same command to go on: the replies so far are kept in {ledger}"
    return where + kept

