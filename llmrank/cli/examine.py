"""`llmrank examine`: models examine models, and it is told how far their scores and orders can be trusted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from llmrank.cli.ending import telling_how_to_go_on
from llmrank.cli.flags import flags, split
from llmrank.cli.given import AsJson, Manifest, Quiet, checked, flag_of, out_of, read_by
from llmrank.cli.progress import Progress
from llmrank.cli.talks import cells, conclude, counting, print_table
from llmrank.errors import InputError
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.agree.results import Figure
    from llmrank.judge.examiner import Exam
    from llmrank.judge.marks import Own, Results


class ExamineFlags(BaseModel):
    """The flags that say who examines whom, and on what."""

    subjects: Annotated[str | None, flag_of("Subjects: TSV, JSONL or TREC topics, as queries are.")] = None
    system: Annotated[list[str], flag_of("A model to examine; repeat it.", "NAME=SPEC")] = []
    examiner: Annotated[list[str], flag_of("A model that examines; repeat it.", "NAME=SPEC")] = []
    peer: Annotated[bool, Field(description="Every system examines all systems, itself too.")] = False
    questions: Annotated[int, Field(ge=1, description="Questions of each examiner on a subject.")] = 3
    rounds: Annotated[int, Field(ge=1, description="Turns of a question: 1 for no follow-ups.")] = 2
    mark_all: Annotated[
        bool, Field(description="Every examiner marks all answers, not only those to its own questions.")
    ] = False
    without_self: Annotated[
        bool, Field(description="Leave a model's marks of itself out of the means of the systems.")
    ] = False


@flags(ExamineFlags, Settings)
def examine(
    *,
    output: Annotated[str, out_of("Every question, answer, score and order with its reply.", "OUT.jsonl")],
    report: Annotated[str | None, out_of("All figures, as JSON.", "OUT.json")] = None,
    manifest: Manifest = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **given: Any,
) -> int:
    """Examine models by models: questions with follow-ups, scores and orders.

    All systems answer every question, and each examiner follows up on each answer. The answers are scored 1 to 5,
    and those to the same question are put in order, shown in an order drawn by --seed. Told are the means of each
    judge and system, with and without marks of a model by itself, and how far scores and orders agree: Kendall's
    tau-b and the share of pairs put in the same order. Subjects are drawn again for the 95% intervals.

    Exit codes: 0 done; 2 bad usage or bad input; 3 too many questions failed; 4 a budget ended the job; 5 the backend
    refused; 130 interrupted. After 5 and 130 what is done is in OUT.partial, and the same command goes on from there.

    Example: llmrank examine --subjects subjects.tsv --system small=openai:gpt-4o-mini --system large=openai:gpt-4o
    --peer --output exam.jsonl --report exam.json
    """
    from llmrank.agree.resampling import Resampling
    from llmrank.data.queries import iter_queries
    from llmrank.jobs.outputs import Outputs, write
    from llmrank.judge.examiner import Examination
    from llmrank.judge.marks import results
    from llmrank.judge.talk import parse_models, rows_text
    from llmrank.judge.talkjob import ask_all, describe

    ours, settings = split(given, ExamineFlags, Settings)
    job = checked(ExamineFlags, ours, ("subjects", "system"))
    assert job.subjects is not None
    if job.peer == bool(job.examiner):
        raise InputError("who examines? Give either --examiner NAME=SPEC, once or more, or --peer")
    files = Outputs(output, manifest=manifest, report=report).check(read_by(given), as_json=as_json)
    examination = Examination(
        parse_models(job.system, "--system"),
        parse_models(job.examiner, "--examiner") or None,
        questions=job.questions,
        rounds=job.rounds,
        mark_all=job.mark_all,
        **settings,
    )
    exams: list[Exam] = []

    def take(of_subject: tuple[Exam, ...]) -> str:
        exams.extend(exam.without_evidence() for exam in of_subject)
        return rows_text(row for exam in of_subject for row in exam.rows())

    subjects = list(iter_queries(job.subjects))
    described = describe(examination, job.model_dump(), [job.subjects])
    progress = Progress(len(subjects), len(subjects) * examination.calls_per_subject, quiet, "subjects")
    with telling_how_to_go_on(files, progress, examination.settings):
        end, lines = ask_all(examination, subjects, files, take, counting(progress))
        files.finish(lines)
        judges, systems = list(examination.examiners), list(examination.systems)
        seed = examination.settings.seed
        found = results(exams, judges, systems, examination.own, Resampling(seed=seed))
        repeated = sum(exam.repeated for exam in exams)
        asked = sum(exam.question is not None for exam in exams)
        told = {"subjects": len(subjects), "questions_written": asked, "repeated": repeated, **found.json()}
        if report is not None:
            write(report, [json.dumps({**told, "totals": end.json(), "manifest": described}) + "\n"])
        files.write_manifest(described)
    if as_json:
        print(json.dumps({**told, **end.json(), "output": output}))
    elif not quiet and output != "-":
        _print(found, examination.own if job.without_self else lambda judge, system: False, job.without_self)
    lost = "what failed is neither scored nor ranked in it"
    left = f"{end.totals.sums['unasked']} questions to models were not asked"
    summary = f"{len(subjects)} subjects: {asked} questions written, {repeated} of them repeated and left out"
    return conclude(end, examination.settings.max_failure_rate, output, lost, left, summary, quiet)


def _print(found: Results, left_out: Own, without_self: bool) -> None:
    means = found.without_self if without_self else found.systems
    print_table(
        f"mean score of each system ({'marked by others' if without_self else 'marked by all'}), and its share of wins",
        "system",
        ("n", "score", "low", "high", "orders", "wins"),
        ((name, *cells(marks.score), *cells(marks.wins)[:2]) for name, marks in means.items()),
    )
    print_table(
        "mean score by judge (rows) and system, and n",
        "judge",
        list(means),
        (
            (judge, *("-" if left_out(judge, system) else _cell(row[system].score) for system in means))
            for judge, row in found.matrix.items()
        ),
    )
    print_table(
        "how far scores and orders of the same answers agree: tau-b over n questions, pairs put in the same order",
        "judge",
        ("n", "tau-b", "low", "high", "pairs", "same", "low", "high", "tied"),
        (
            (name, *cells(one.tau_b), *cells(one.pairs), str(one.tied))
            for name, one in (*found.consistency.items(), ("all", found.overall))
        ),
    )


def _cell(figure: Figure) -> str:
    return "-" if figure.value is None else f"{figure.value:.2f} ({figure.n})"
