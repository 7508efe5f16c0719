"""`llmrank judge`: pairs in, relevance judgments out, each with the words that made it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from llmrank.cli.commands import say
from llmrank.cli.ending import bill, conclude, place_of, tell_origins, telling_how_to_go_on
from llmrank.cli.flags import flags, key_values, split
from llmrank.cli.given import BACKEND, AsJson, Manifest, Quiet, checked, flag_of, one_stdin, out_of, read_by
from llmrank.cli.jobs import variables
from llmrank.cli.progress import Progress
from llmrank.errors import InputError
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.jobs.outputs import Outputs
    from llmrank.judge.inputs import JudgeInputs
    from llmrank.judge.job import JudgeResult
    from llmrank.judge.judge import Labeller


class JudgeFlags(BaseModel):
    """The flags that say what is judged, and how."""

    queries: Annotated[str | None, flag_of("Queries: TSV, JSONL or TREC topics.")] = None
    corpus: Annotated[str | None, flag_of("Documents: TSV or JSONL.")] = None
    pairs: Annotated[str | None, flag_of("Pairs to judge: `qid docid` a line, TSV or JSONL.")] = None
    run: Annotated[list[str], flag_of("Run whose first documents are judged; repeat it to pool several.")] = []
    pool_depth: Annotated[int | None, flag_of("How many of a topic's first documents of each run are pooled.", "K")] = (
        None
    )
    qrels: Annotated[
        str | None,
        flag_of("Existing judgments, for --holes-only and --strata grade; alone, their pairs are judged."),
    ] = None
    holes_only: Annotated[
        bool, Field(description="Judge only what --qrels lacks; its own lines come out as they are.")
    ] = False
    sample: Annotated[int | None, flag_of("Judge only so many of the pairs, drawn by --seed.", "N")] = None
    strata: Annotated[
        str | None, flag_of("Draw as many of each rank, grade or disagreement of the runs.", "rank|grade|disagreement")
    ] = None
    backend: Annotated[str | None, flag_of(BACKEND, "SPEC")] = None
    template: Annotated[str, Field(description="Recipe, or template that grades: a name or a path.")] = (
        "relevance/umbrela"
    )
    template_variable: Annotated[list[str], flag_of("A variable of the template's own.", "KEY=VALUE")] = []
    option: Annotated[list[str], flag_of("Option of the recipe.", "KEY=VALUE")] = []
    constrain: Annotated[
        bool, Field(description="Hold the reply to the labels, where the backend can: nothing fails to parse.")
    ] = False
    on_failure: Annotated[
        str,
        flag_of(
            "A failed label is left out (drop), makes the job exit with 3 (error), or is written as this grade.",
            "drop|error|GRADE",
        ),
    ] = "drop"
    judge: Annotated[
        list[str], flag_of("A judge of a panel, in place of --backend; repeat it.", "NAME=BACKEND[@TEMPLATE]")
    ] = []
    panel: Annotated[
        str | None,
        flag_of(
            "How the judges' labels become one: majority (the default), strict, mean, median, dawid-skene, glad, exam, "
            "peer-rank, discussion.",
            "RULE",
        ),
    ] = None
    escalate: Annotated[
        float | None,
        flag_of("Ask the judges in their order, each only where those before are less sure than this.", "MARGIN"),
    ] = None
    exam: Annotated[str | None, flag_of("Human judgments that judges must pass, for --panel exam.", "QRELS")] = None
    pass_mark: Annotated[
        float | None, Field(ge=0, le=1, description="Share of right answers that passes; else above chance.")
    ] = None


@flags(JudgeFlags, Settings)
def judge(
    *,
    output: Annotated[str, out_of("The judgments, TREC qrels.", "OUT.qrels")],
    judgments: Annotated[str | None, out_of("Every label with its reply, key and distribution.", "OUT.jsonl")] = None,
    report: Annotated[str | None, out_of("Counts by query and template, as JSON.", "OUT.json")] = None,
    manifest: Manifest = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **given: Any,
) -> int:
    """Judge relevance with a large language model, and write qrels.

    A label that cannot be read is asked for once more with the format restated (--no-retry-format: not); one that
    still cannot is never a 0: it is left out of the qrels, and the judgments say why. Grades are whole numbers: the
    value of the label that the reply names, else the number nearest to its score, halves going down.

    Exit codes: 0 done; 2 bad usage or bad input, nothing was sent; 3 done, but more than --max-failure-rate of the
    questions failed; 4 a budget ended the job, the result so far is written; 5 the backend refused; 130 interrupted.
    After 5 and 130 what is done is in OUT.partial, and the same command goes on from there. 1 is any other fault, such
    as a full disk.

    Example: llmrank judge --queries topics.tsv --corpus passages.jsonl --run bm25.trec --pool-depth 10
    --backend openai:gpt-4o-mini --output llm.qrels --judgments llm.jsonl
    """
    from llmrank.jobs.outputs import Outputs

    ours, settings = split(given, JudgeFlags, Settings)
    job = judge_flags(ours)
    on_failure = _on_failure(job.on_failure)
    # A qrels may be filled up in place: its own lines stay.
    read = {name: value for name, value in given.items() if not (job.holes_only and name == "qrels")}
    outputs = Outputs(output, report, manifest, judgments=judgments).check(read_by(read), as_json=as_json)
    labeller = make_labeller(job, settings)
    with open_inputs(job, settings, labeller) as inputs:
        result = _run(job, labeller, inputs, outputs, on_failure, quiet)
    if as_json:
        print(json.dumps(result.json() | {"output": output}))
    return _conclude(result, labeller, on_failure, output, quiet)


def judge_flags(given: dict[str, Any]) -> JudgeFlags:
    """The flags as given. Raises InputError where they do not go together."""
    job = checked(JudgeFlags, given, ("queries", "corpus", *(() if given.get("judge") else ("backend",))))
    if job.strata not in (None, "rank", "grade", "disagreement"):
        raise InputError(f"--strata {job.strata}: there are rank, grade and disagreement")
    if job.judge and job.backend is not None:
        raise InputError("--judge names the models of a panel; leave out --backend, or add it as one more --judge")
    if len(job.judge) < 2 and (
        alone := [f"--{n}" for n in ("panel", "escalate", "exam") if getattr(job, n) is not None]
    ):
        raise InputError(f"{alone[0]} is about a panel: name at least two judges with --judge NAME=BACKEND")
    one_stdin(given)
    return job


def open_inputs(job: JudgeFlags, settings: dict[str, Any], labeller: Labeller) -> JudgeInputs:
    """The inputs, read and checked to their end; a panel gets its exam from them."""
    from llmrank.judge.inputs import JudgeInputs, Wanted
    from llmrank.judge.panels import Panel

    wanted = Wanted(
        pairs=job.pairs,
        runs=job.run,
        depth=job.pool_depth,
        qrels=job.qrels,
        holes_only=job.holes_only,
        sample=job.sample,
        strata=job.strata,  # type: ignore[arg-type]  # checked with the flags
        seed=settings.get("seed", 0),
    )
    wanted.check()
    assert job.queries is not None
    assert job.corpus is not None
    inputs = JudgeInputs.open(job.queries, job.corpus, wanted, job.exam)
    if job.exam is not None and isinstance(labeller, Panel):
        labeller.exam = list(inputs.exam(job.exam))
    return inputs


def make_labeller(job: JudgeFlags, settings: dict[str, Any]) -> Labeller:
    """The judge or the panel that the flags ask for."""
    from llmrank.judge.judge import Judge
    from llmrank.judge.panels import Member, Panel

    how: dict[str, Any] = {"options": key_values(job.option, "--option"), "constrain": job.constrain}
    how["variables"] = variables(job.template_variable)
    members = [Member.parse(text, job.template) for text in job.judge]
    if len(members) < 2:
        backend, template = (members[0].backend, members[0].template) if members else (job.backend or "", job.template)
        return Judge(template, backend=backend, **how, **settings)
    return Panel(
        members,
        job.panel or "majority",
        escalate=job.escalate,
        exam=None if job.exam is None else (),
        pass_mark=job.pass_mark,
        **how,
        **settings,
    )


def expected_questions(labeller: Labeller, inputs: JudgeInputs) -> float:
    """How many questions a job will ask: the middle, where that depends on the answers."""
    total = 0.0
    for size in inputs.sizes():
        for grader in labeller.graders.values():
            calls, _ = grader.expected(size)
            total += calls if isinstance(calls, int) else sum(calls) / 2
    return total * labeller.settings.samples


def _on_failure(text: str) -> str | int:
    if text in ("drop", "error"):
        return text
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f"--on-failure {text}: write drop, error, or a whole number to stand for failed labels"
        ) from None


def _run(
    job: JudgeFlags, labeller: Labeller, inputs: JudgeInputs, outputs: Outputs, on_failure: str | int, quiet: bool
) -> JudgeResult:
    from llmrank.judge.job import run_judging
    from llmrank.judge.manifest import describe

    described = None
    if outputs.report is not None or outputs.manifest is not None:
        files = (job.queries, job.corpus, job.pairs, *job.run, job.qrels, job.exam)
        described = describe(labeller, job.model_dump(), [path for path in files if path is not None])
    progress = Progress(len(inputs), expected_questions(labeller, inputs), quiet, "pairs")
    with telling_how_to_go_on(outputs, progress, labeller.settings):
        return run_judging(
            labeller, inputs, outputs, on_failure=on_failure, manifest=described, on_progress=progress.update
        )


def _conclude(result: JudgeResult, labeller: Labeller, on_failure: str | int, output: str, quiet: bool) -> int:
    totals, place = result.totals, place_of(output)
    if not quiet:
        say(_summary(result, place))
        tell_origins(result.other_origins)
    lost, otherwise = _without(result, place), None
    if on_failure == "error" and (first := totals.first_failure) is not None:
        otherwise = (
            f"{totals.labels['failed']} labels failed, the first that of query {first.query_id}, document "
            f"{first.doc_id} ({first.reason}); {lost}"
        )
    left = f"{totals.labels['unasked']} of {totals.pairs} pairs are not judged; {place} holds the others"
    return conclude(result, labeller.settings.max_failure_rate, lost, left, otherwise)


def _without(result: JudgeResult, place: str) -> str:
    if result.filled:
        return f"{result.filled} labels in {place} are the grade that --on-failure names"
    return f"{result.totals.labels['failed']} labels are missing in {place}"


def _summary(result: JudgeResult, place: str) -> str:
    totals, labels = result.totals, result.totals.labels
    unasked = f", {labels['unasked']} not asked" if labels["unasked"] else ""
    why = ", ".join(f"{reason} {count}" for reason, count in totals.why.most_common(4))
    failed = f"{labels['failed']} failed" + (f" ({why})" if why else "")
    return (
        f"{totals.pairs} pairs: {labels['ok']} ok, {labels['repaired']} repaired, {failed}{unasked}; "
        f"{totals.sums['questions']} questions, {bill(totals, place)}"
    )
