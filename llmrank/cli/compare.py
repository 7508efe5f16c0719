"""`llmrank compare`: items in, comparisons out, which `llmrank aggregate` takes as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from llmrank.cli.commands import say
from llmrank.cli.ending import by_questions, conclude, place_of, tell_origins, telling_how_to_go_on
from llmrank.cli.flags import flags, key_values, split
from llmrank.cli.given import BACKEND, AsJson, Manifest, Quiet, checked, flag_of, one_stdin, out_of, read_by
from llmrank.cli.jobs import variables
from llmrank.cli.progress import Progress
from llmrank.settings import Settings

if TYPE_CHECKING:
    from llmrank.comparing import Comparer, CompareResult


class CompareFlags(BaseModel):
    """The flags that say what is compared, and how."""

    queries: Annotated[str | None, flag_of("Queries: TSV, JSONL or TREC topics.")] = None
    items: Annotated[str | None, flag_of("JSONL of query_id, item_id, text: documents, or answers of systems.")] = None
    pairs: Annotated[str, flag_of("Which pairs of a query's items.", "all|sample|bracket|active")] = "all"
    swap: Annotated[bool, Field(description="Ask every pair in both orders.")] = True
    backend: Annotated[str | None, flag_of(BACKEND, "SPEC")] = None
    template: Annotated[str, Field(description="Template that compares: a name or a path.")] = (
        "preference/answers-short"
    )
    template_variable: Annotated[list[str], flag_of("A variable of the template's own.", "KEY=VALUE")] = []
    constrain: Annotated[
        bool, Field(description="Hold replies to what was asked for, where the backend can: nothing fails to parse.")
    ] = False
    option: Annotated[
        list[str], flag_of("How pairs are picked: sample=SHARE, or k, level and budget of active.", "KEY=VALUE")
    ] = []


@flags(CompareFlags, Settings)
def compare(
    *,
    output: Annotated[str, out_of("The comparisons, a JSON line an answer; CSV for a name in .csv.", "OUT.jsonl")],
    manifest: Manifest = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
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
    job = checked(CompareFlags, ours, ("queries", "items", "backend"))
    one_stdin(given)
    outputs = Outputs(output, manifest=manifest).check(read_by(given), as_json=as_json)
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
    left = f"{result.totals.sums['unasked']} questions were not asked; {place} holds the others"
    return conclude(result, comparer.settings.max_failure_rate, f"their winner is empty in {place}", left)
