"""`llmrank trace`: how generated answers stand to the passages that they were written from."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from llmrank.cli.ending import telling_how_to_go_on
from llmrank.cli.flags import flags, split
from llmrank.cli.given import BACKEND, AsJson, Manifest, Quiet, checked, flag_of, out_of, read_by
from llmrank.cli.progress import Progress
from llmrank.cli.talks import cells, conclude, counting, print_table
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.agree.results import Figure
    from llmrank.judge.rag import Trace, Traced


class TraceFlags(BaseModel):
    """The flags that say what is examined, and how."""

    answers: Annotated[str | None, flag_of("JSONL of query_id, question, passages, response, maybe item_id.")] = None
    backend: Annotated[str | None, flag_of(BACKEND, "SPEC")] = None
    template: Annotated[str, Field(description="Template that names sentences: a name or a path.")] = "rag/sentences"
    unit: Annotated[
        Literal["sentences", "characters"],
        flag_of("How long a sentence is: 1, or its characters.", "sentences|characters"),
    ] = "sentences"


@flags(TraceFlags, Settings)
def trace(
    *,
    output: Annotated[str, out_of("Every answer with its figures and reply.", "OUT.jsonl")],
    manifest: Manifest = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **given: Any,
) -> int:
    """Measure generated answers against the passages that they were written from (TRACe).

    The figures are relevance, utilisation, completeness and adherence. A model names the sentences of the passages
    that bear on the question and those that the answer used, and the sentences of the answer that the passages
    support. A figure that a reply does not tell is null, never 0. Means are over the answers that have the figure,
    questions drawn again for the 95% interval.

    Exit codes: 0 done; 2 bad usage or bad input; 3 too many questions failed; 4 a budget ended the job; 5 the backend
    refused; 130 interrupted. After 5 and 130 what is done is in OUT.partial, and the same command goes on from there.

    Example: llmrank trace --answers answers.jsonl --backend openai:gpt-4o-mini --output traced.jsonl
    """
    from llmrank.agree.resampling import Resampling
    from llmrank.data.files import spooled
    from llmrank.jobs.outputs import Outputs
    from llmrank.judge.rag import Tracer, iter_answers, trace_figures
    from llmrank.judge.talk import rows_text
    from llmrank.judge.talkjob import ask_all, describe

    ours, settings = split(given, TraceFlags, Settings)
    job = checked(TraceFlags, ours, ("answers", "backend"))
    assert job.answers is not None
    assert job.backend is not None
    files = Outputs(output, manifest=manifest).check(read_by(given), as_json=as_json)
    tracer = Tracer(backend=job.backend, template=job.template, unit=job.unit, **settings)
    statuses: Counter[str] = Counter()
    traces: list[tuple[str, Trace]] = []

    def take(traced: Traced) -> str:
        statuses[traced.status] += 1
        if traced.trace is not None:
            traces.append((traced.answer.id, traced.trace))
        return "" if traced.status == "unasked" else rows_text([traced.row()])

    with spooled(job.answers) as source:
        total = sum(1 for _ in iter_answers(source))
        described = describe(tracer, job.model_dump(), [job.answers])
        progress = Progress(total, total, quiet, "answers")
        with telling_how_to_go_on(files, progress, tracer.settings):
            end, lines = ask_all(tracer, iter_answers(source), files, take, counting(progress))
            files.finish(lines)
            files.write_manifest(described)
    figures = trace_figures(traces, Resampling(seed=tracer.settings.seed))
    failed = statuses["failed"]
    if as_json:
        told: dict[str, Any] = {"answers": total, "failed_answers": failed, "unit": job.unit}
        told["figures"] = {name: figure.json() for name, figure in figures.items()}
        print(json.dumps({**told, **end.json(), "output": output}))
    elif not quiet and output != "-":
        _print(figures)
    lost = f"{failed} answers in it have no figures"
    summary = f"{total} answers: {len(traces)} with figures, {failed} failed"
    left = f"{statuses['unasked']} of {total} answers were not asked about"
    return conclude(end, tracer.settings.max_failure_rate, output, lost, left, summary, quiet)


def _print(figures: dict[str, Figure]) -> None:
    rows = ((name, *cells(figure)) for name, figure in figures.items())
    print_table("mean over n answers, with its 95% interval", "figure", ("n", "mean", "low", "high"), rows)
