"""`llmrank rerank`: a run in, a better run out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.cli.commands import say
from llmrank.cli.ending import by_questions, conclude, place_of, tell_origins, telling_how_to_go_on
from llmrank.cli.flags import flags, split
from llmrank.cli.given import AsJson, Manifest, Quiet, out_of, read_by
from llmrank.cli.jobs import RerankFlags, check_sizes, make_reranker, open_inputs, rerank_flags
from llmrank.cli.progress import Progress, expected_questions
from llmrank.errors import InputError
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.jobs.outputs import Outputs
    from llmrank.rerank.job import JobResult
    from llmrank.rerank.reranker import Reranker


@flags(RerankFlags, Settings)
def rerank(
    *,
    output: Annotated[str, out_of("The new run, TREC six columns; - for standard output.", "OUT.trec")],
    report: Annotated[str | None, out_of("How each query came about, as JSON.", "OUT.json")] = None,
    manifest: Manifest = None,
    teacher: Annotated[
        str | None, out_of("Order, scores and asked pairs of each query, to train a student from.", "OUT.jsonl")
    ] = None,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="In the report each document's strength with its interval, and P(top k), or its replies' spread.",
            rich_help_panel="Output",
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
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
    from llmrank.jobs.outputs import Outputs

    ours, settings = split(given, RerankFlags, Settings)
    job = rerank_flags(ours)
    outputs = Outputs(output, report, manifest, teacher).check(read_by(given), as_json=as_json)
    if uncertainty and report is None:
        raise InputError("--uncertainty tells of each document in the report; name one with --report OUT.json")
    reranker = make_reranker(job, settings, keep_answers=uncertainty or teacher is not None)
    if uncertainty:
        _check_compares(reranker)
    result = _run(job, reranker, outputs, uncertainty, quiet)
    if as_json:
        print(json.dumps(result.json() | {"output": output}))
    return _conclude(result, reranker, output, quiet)


def _check_compares(reranker: Reranker) -> None:
    """Raises InputError where nothing would tell how sure a place is."""
    asked = {voice.template.question for voice in reranker.voices.values()}
    if asked <= {"grade", "write"} and "samples" not in reranker.options:
        raise InputError(
            f"--uncertainty: the method {reranker.method.name} grades each document once and compares none; take one "
            "that compares, such as heapsort, or rubric-score, whose replies have a spread"
        )


def _run(job: RerankFlags, reranker: Reranker, outputs: Outputs, uncertainty: bool, quiet: bool) -> JobResult:
    from llmrank.rerank.job import run_job
    from llmrank.rerank.manifest import describe

    with open_inputs(job) as inputs:
        check_sizes(reranker, inputs)
        described = None
        if outputs.report is not None or outputs.manifest is not None:
            files = (job.queries, job.corpus, job.run, job.requests)
            described = describe(reranker, job.model_dump(), [path for path in files if path is not None])
        progress = Progress(len(inputs), expected_questions(reranker, inputs), quiet)
        with telling_how_to_go_on(outputs, progress, reranker.settings):
            return run_job(
                reranker,
                inputs,
                outputs,
                manifest=described,
                uncertainty=uncertainty,
                on_progress=progress.update,
            )


def _conclude(result: JobResult, reranker: Reranker, output: str, quiet: bool) -> int:
    totals, place = result.totals, place_of(output)
    if not quiet:
        say(by_questions(totals, place))
        tell_origins(result.other_origins)
        late = totals.statuses["partial"] if result.ended_by is None else 0
        if late:
            say(
                f"note: --deadline {reranker.settings.deadline:g} ended {late} of {totals.queries} queries early; they "
                "have the best order so far"
            )
        if kept_out := totals.sums["kept_out"]:
            say(
                f"note: {kept_out} times an example was kept out of a prompt, since it is the query itself or shares a "
                "document with it"
            )
    lost = f"what they asked about is left as it was in {place}"
    left = (
        f"{totals.statuses['partial']} of {totals.queries} queries are unfinished; {place} holds every document, those "
        "not reached in first-stage order"
    )
    return conclude(result, reranker.settings.max_failure_rate, lost, left)
