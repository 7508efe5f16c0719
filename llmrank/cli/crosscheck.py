"""`llmrank crosscheck`: what each system's answers claim, checked against the other systems' answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from llmrank.cli.ending import telling_how_to_go_on
from llmrank.cli.flags import flags, split
from llmrank.cli.given import BACKEND, AsJson, Manifest, Quiet, checked, flag_of, one_stdin, out_of, read_by
from llmrank.cli.progress import Progress
from llmrank.cli.talks import cells, conclude, counting, print_table
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.judge.crosscheck import CheckedAnswer, SystemFigures

CLAIMS = 5
"""Claims that an answer may have, for the bar."""


class CrossCheckFlags(BaseModel):
    """The flags that say what is checked, and how."""

    queries: Annotated[str | None, flag_of("Queries: TSV, JSONL or TREC topics.")] = None
    items: Annotated[str | None, flag_of("Answers: JSONL of query_id, item_id (the system) and text.")] = None
    backend: Annotated[str | None, flag_of(BACKEND, "SPEC")] = None
    by: Annotated[
        Literal["claims", "sentences"],
        flag_of("What is checked: claims that the model splits an answer into, or its sentences.", "claims|sentences"),
    ] = "claims"
    split: Annotated[str, Field(description="Template that splits an answer: a name or a path.")] = "claims/split"
    check: Annotated[str, Field(description="Template that checks a claim: a name or a path.")] = "claims/check"


@flags(CrossCheckFlags, Settings)
def crosscheck(
    *,
    output: Annotated[str, out_of("Every answer with its claims and checks.", "OUT.jsonl")],
    manifest: Manifest = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **given: Any,
) -> int:
    """Check what each system claims against what the other systems answered.

    The answers are those to the same query (CrossCheckGPT). A claim counts 1 for each other answer that bears it
    out, 0.5 for one that is silent, 0 for one that contradicts it. An answer's consistency is the mean over its
    claims, a system's the mean over its answers, queries drawn again for the 95% interval. A check that failed
    counts nowhere.

    Exit codes: 0 done; 2 bad usage or bad input; 3 too many questions failed; 4 a budget ended the job; 5 the backend
    refused; 130 interrupted. After 5 and 130 what is done is in OUT.partial, and the same command goes on from there.

    Example: llmrank crosscheck --queries topics.tsv --items answers.jsonl --backend openai:gpt-4o-mini
    --output checked.jsonl
    """
    from llmrank.agree.resampling import Resampling
    from llmrank.data.items import ItemInputs
    from llmrank.jobs.outputs import Outputs
    from llmrank.judge.crosscheck import CrossCheck, system_figures
    from llmrank.judge.talk import rows_text
    from llmrank.judge.talkjob import ask_all, describe

    ours, settings = split(given, CrossCheckFlags, Settings)
    job = checked(CrossCheckFlags, ours, ("queries", "items", "backend"))
    assert job.queries is not None
    assert job.items is not None
    assert job.backend is not None
    one_stdin(given)
    files = Outputs(output, manifest=manifest).check(read_by(given), as_json=as_json)
    checker = CrossCheck(backend=job.backend, by=job.by, split=job.split, check=job.check, **settings)
    statuses: Counter[str] = Counter()
    answers: list[CheckedAnswer] = []

    def take(of_query: tuple[CheckedAnswer, ...]) -> str:
        statuses.update(answer.status for answer in of_query)
        answers.extend(answer.without_evidence() for answer in of_query if answer.status != "unasked")
        return rows_text(answer.row() for answer in of_query if answer.status != "unasked")

    with ItemInputs.open(job.queries, job.items) as inputs:
        sizes = list(inputs.sizes())
        questions = sum(n * (job.by == "claims") + CLAIMS * n * (n - 1) for n in sizes) * checker.settings.samples
        described = describe(checker, job.model_dump(), [job.queries, job.items])
        progress = Progress(len(sizes), questions, quiet, "queries")
        with telling_how_to_go_on(files, progress, checker.settings):
            end, lines = ask_all(checker, inputs, files, take, counting(progress))
            files.finish(lines)
            files.write_manifest(described)
    figures = system_figures(answers, Resampling(seed=checker.settings.seed))
    failed = statuses["failed"]
    if as_json:
        told = {"queries": len(sizes), "answers": sum(sizes), "failed_answers": failed}
        systems = {name: found.json() for name, found in figures.items()}
        print(json.dumps({**told, "systems": systems, **end.json(), "output": output}))
    elif not quiet and output != "-":
        _print(figures, list(checker.voices["check"].template.header.labels))
    lost = f"{failed} answers in it have no consistency"
    left = f"{statuses['unasked']} of {sum(sizes)} answers were not checked"
    known = statuses["ok"] + statuses["repaired"]
    summary = f"{sum(sizes)} answers to {len(sizes)} queries: {known} checked, {failed} failed"
    return conclude(end, checker.settings.max_failure_rate, output, lost, left, summary, quiet)


def _print(figures: Mapping[str, SystemFigures], labels: list[str]) -> None:
    rows = (
        (name, *cells(found.consistency), str(found.claims), *(str(found.labels.get(label, 0)) for label in labels))
        for name, found in figures.items()
    )
    title = "mean consistency over n answers, with its 95% interval; claims, and how often they were ..."
    print_table(title, "system", ("n", "mean", "low", "high", "claims", *labels), rows)
