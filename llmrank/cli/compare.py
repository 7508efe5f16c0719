"""`llmrank compare`: items in, comparisons out, which `llmrank aggregate` takes as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, Field, ValidationError

from llmrank.cli.commands import say
from llmrank.cli.ending import by_questions, conclude, place_of, tell_origins, telling_how_to_go_on
from llmrank.cli.flags import flags, key_values, split
from llmrank.cli.jobs import variables
from llmrank.cli.progress import Progress
from llmrank.errors import InputError
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.comparing import Comparer, CompareResult


def _file(text: str, metavar: str = "FILE") -> Any:
    return Field(description=text, json_schema_extra={"metavar": metavar})


class CompareFlags(BaseModel):
    """The flags that say what is compared, and how."""

    queries: Annotated[str | None, _file("Queries: TSV, JSONL or TREC topics.")] = None
    items: Annotated[str | None, _file("JSONL of query_id, item_id and text: documents, or answers of systems.")] = None
    pairs: Annotated[str, _file("Which pairs of a query's items.", "all|sample|bracket|active")] = "all"
    swap: Annotated[bool, Field(description="Ask every pair in both orders.")] = True
    backend: Annotated[str | None, _file("openai:MODEL, simulated:QRELS, lexical, replay:LEDGER.", "SPEC")] = None
    template: Annotated[str, Field(description="Template that compares: a name or a path.")] = (
        "preference/answers-short"
    )
    template_variable: Annotated[list[str], _file("A variable of the template's own.", "KEY=VALUE")] = []
    constrain: Annotated[
        bool, Field(description="Hold replies to what was asked for, where the backend can: nothing fails to parse.")
    ] = False
    option: Annotated[
        list[str], _file("How pairs are picked: sample=SHARE, or k, level and budget of active.", "KEY=VALUE")
    ] = []


@flags(CompareFlags, Settings)
def compare(
    *,
    output: Annotated[
        str,
        typer.Option(
            help="The comparisons, a JSON line an answer; CSV for a name in .csv.",
            metavar="OUT.jsonl",
            rich_help_panel="Output",
        ),
    ],
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
    """Compare items two by two with a large language model.

    Writes a row for each order that was asked (left is what was shown first) with the winner, P(left) where the model
    gives probabilities, the lengths of both and the key of the reply. What could not be read, once more with the
    format restated, has an empty winner, which `llmrank aggregate` skips and counts. Exit codes as for `llmrank judge`.

    Example: llmrank compare --queries questions.tsv --items answers.jsonl --backend openai:gpt-4o-mini
    --output comparisons.jsonl && llmrank aggregate comparisons.jsonl --method bradley-terry --by all
    """
    from llmrank.comparing import Comparer
    from llmrank.data.items import ItemInputs
    from llmrank.jobs.outputs import Outputs

    ours, settings = split(given, CompareFlags, Settings)
    job = _checked(ours)
    outputs = Outputs(output, manifest=manifest)
    outputs.check()
    outputs.spare([job.queries, job.items])
    if as_json:
        outputs.leave_stdout()
    comparer = Comparer(
        job.template,
        backend=job.backend or "",
        pairs=job.pairs,
        swap=job.swap,
        options=key_values(job.option, "--option"),
        variables=variables(job.template_variable),
        constrain=job.constrain,
        **settings,
    )
    assert job.queries is not None
    assert job.items is not None
    with ItemInputs.open(job.queries, job.items) as inputs:
        result = _run(job, comparer, inputs, outputs, quiet)
    if as_json:
        print(json.dumps(result.json() | {"output": output}))
    return _conclude(result, comparer, output, quiet)


def _checked(given: dict[str, Any]) -> CompareFlags:
    try:
        job = CompareFlags(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--{first['loc'][0]} {first['input']}: {first['msg']}") from None
    if missing := [f"--{name}" for name in ("queries", "items") if getattr(job, name) is None]:
        raise InputError(f"{missing[0]} is missing: name --queries and --items")
    if job.backend is None:
        raise InputError("--backend is missing: name the model, for example --backend openai:gpt-4o-mini")
    return job


def _run(job: CompareFlags, comparer: Comparer, inputs: Any, outputs: Any, quiet: bool) -> CompareResult:
    from llmrank.comparing import run_comparing
    from llmrank.rerank.manifest import describe

    for request in inputs:
        comparer.reranker.check_size(request.query.id, len(request.documents))
    files = [path for path in (job.queries, job.items) if path is not None]
    described = describe(comparer.reranker, job.model_dump(), files) if outputs.manifest is not None else None
    method, options, questions = comparer.reranker.method, comparer.reranker.options, 0.0
    for size in inputs.sizes():
        calls, _ = method.expected(size, options)
        questions += calls if isinstance(calls, int) else sum(calls) / 2
    progress = Progress(len(inputs), questions * comparer.settings.samples, quiet)
    with telling_how_to_go_on(outputs, progress, comparer.settings):
        return run_comparing(comparer, inputs, outputs, manifest=described, on_progress=progress.update)


def _conclude(result: CompareResult, comparer: Comparer, output: str, quiet: bool) -> int:
    place = place_of(output)
    if not quiet:
        say(by_questions(result.totals, place))
        tell_origins(result.other_origins)
    left = f"{result.totals.unasked} questions were not asked; {place} holds the others"
    return conclude(result, comparer.settings.max_failure_rate, f"their winner is empty in {place}", left)
