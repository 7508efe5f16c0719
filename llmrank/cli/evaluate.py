"""`llmrank evaluate`: runs measured against qrels, with intervals and tests against a baseline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.errors import InputError
from llmrank.flops import per_petaflop, queries_per_petaflop

if TYPE_CHECKING:
    from rich.table import Table

    from llmrank.evaluation import Evaluation, PairedTest

RUN_EXTENSIONS = (".trec", ".txt", ".run")
MEASURES_PER_TABLE = 5
"""As many columns as fit 80 characters beside the topic."""


def evaluate(
    qrels: Annotated[str, typer.Argument(metavar="QRELS", help="Judgments, TREC four columns.")],
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Runs, TREC six columns, each named by its file (without folder, .gz and .trec, .txt or .run), "
            "or as NAME=FILE.",
        ),
    ],
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            "-m",
            metavar="MEASURE",
            help="A measure as you would write it: nDCG@10, AP(rel=2)@100, RR@10, P@5, R@100, Judged@10. May be "
            "repeated; default nDCG@10, AP, RR@10 and R@100. Computed as trec_eval does (nDCG has linear gain).",
        ),
    ] = None,
    per_query: Annotated[bool, typer.Option("--per-query", help="Give each topic's value too.")] = False,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Test every other run against this one, the name of a run or a file: a paired t test and a paired "
            "randomisation test (10,000 seeded sign flips, p = (b+1)/(m+1); exact where fewer are possible), both "
            "two-sided. p Holm is the randomisation test's p, corrected over runs x measures.",
        ),
    ] = None,
    only_shared: Annotated[
        bool,
        typer.Option(
            "--only-shared",
            help="Means over the topics that the run has, trec_eval's default. Without it: over all topics of the "
            "qrels, one that a run lacks counting 0.",
        ),
    ] = False,
    reports: Annotated[
        list[str] | None,
        typer.Option(
            "--report",
            metavar="RUN=REPORT",
            help="The report of the `llmrank rerank` that made a run, with FLOPs (--architecture): quality and queries "
            "per PetaFLOP are told too. May be repeated.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the randomisation test.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing on stderr but errors.")] = False,
) -> None:
    """Measure runs against judgments, with intervals, and test them against a baseline.

    Example:

    llmrank evaluate dl19.qrels bm25.trec reranked.trec -m nDCG@10 -m "AP(rel=2)@100" --baseline bm25
    """
    files = named_files(runs, RUN_EXTENSIONS)
    if baseline is not None:
        files, baseline = _with_baseline(files, baseline)
    if [qrels, *files.values()].count("-") > 1:
        raise InputError("standard input (-) can be only one of the files")

    from llmrank import evaluation
    from llmrank.data.qrels import read_qrels
    from llmrank.data.run import read_run

    costs = _costs(reports or [], files)
    parsed = evaluation.parse_measures(measures or evaluation.DEFAULT_MEASURES)
    judged = read_qrels(qrels)
    ranked = {name: read_run(file) for name, file in files.items()}
    result = evaluation.evaluate(judged, ranked, parsed, baseline, only_shared, seed)
    if not quiet:
        for remark in _remarks(result):
            typer.echo(remark, err=True)
    if as_json:
        told = result.json(per_query=True)
        for name, flops in costs.items():
            told["runs"][name]["efficiency"] = _efficiency(result, name, flops)
        typer.echo(json.dumps(told, allow_nan=False))
    else:
        _print_tables(result, per_query)
        _print_costs(result, costs)


def named_files(arguments: Iterable[str], extensions: Sequence[str]) -> dict[str, str]:
    """Files by name: that of `NAME=FILE`, else the file's without its folder, `.gz` and one of the extensions."""
    files: dict[str, str] = {}
    for argument in arguments:
        name, file = _name_and_file(argument, extensions)
        if name in files:
            raise InputError(f"{files[name]} and {file} are both named {name!r}: name one of them by NAME=FILE")
        files[name] = file
    return files


def _name_and_file(argument: str, extensions: Sequence[str]) -> tuple[str, str]:
    name, equals, file = argument.partition("=")
    if not equals or Path(argument).exists():
        file = argument
        name = Path(file).name.removesuffix(".gz")
        name = next((name.removesuffix(end) for end in extensions if name.endswith(end)), name)
    if not name or not file:
        raise InputError(f"{argument!r} has no name: write it as NAME=FILE")
    return name, file


def _costs(reports: Iterable[str], runs: Mapping[str, str]) -> dict[str, tuple[int, float]]:
    """Queries and FLOPs of the runs whose reports are named."""
    found = {}
    for argument in reports:
        name, equals, path = argument.partition("=")
        if not equals or name not in runs:
            raise InputError(f"--report {argument}: write it as RUN=REPORT.json, with RUN one of {', '.join(runs)}")
        try:
            totals = json.loads(Path(path).read_text())["totals"]
            queries, flops = int(totals["queries"]), totals["flops"]
        except OSError as error:
            raise InputError(f"--report {path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError):
            raise InputError(f"--report {path}: this is no report of `llmrank rerank`") from None
        if not flops:
            raise InputError(f"--report {path}: it holds no FLOPs; rerank with --architecture config.json of the model")
        found[name] = queries, float(flops)
    return found


def _efficiency(result: Evaluation, run: str, cost: tuple[int, float]) -> dict[str, object]:
    """E2R-FLOPs (2507.06223): a measure's mean, and queries, for a PetaFLOP; the mean is over FLOPs per query."""
    queries, flops = cost
    of_query = flops / max(1, queries)
    measures = {
        name: per_petaflop(figure.value, of_query)
        for name, figure in result.runs[run].measures.items()
        if figure.value is not None
    }
    return {
        "queries": queries,
        "flops": flops,
        "per_petaflop": measures,
        "queries_per_petaflop": queries_per_petaflop(queries, flops),
    }


def _print_costs(result: Evaluation, costs: Mapping[str, tuple[int, float]]) -> None:
    if not costs:
        return
    from rich.console import Console

    names = list(next(iter(result.runs.values())).measures)[:3]
    table = numbers_table("run", "queries", "PFLOP", "queries/PFLOP", *(f"{name}/PFLOP" for name in names))
    for run, cost in costs.items():
        told = _efficiency(result, run, cost)
        per: Any = told["per_petaflop"]
        cells = [str(cost[0]), f"{cost[1] / 1e15:.4g}", f"{told['queries_per_petaflop']:.4g}"]
        table.add_row(run, *cells, *(f"{per[name]:.4g}" if name in per else "-" for name in names))
    console = Console(markup=False, highlight=False, emoji=False)
    console.print("For a PetaFLOP: queries, and each measure's mean over the FLOPs of one query")
    console.print(table)


def _with_baseline(files: Mapping[str, str], baseline: str) -> tuple[dict[str, str], str]:
    """The files with the baseline among them, and its name; what is given is a run's name, its file, or one more."""
    if baseline in files:
        return dict(files), baseline
    name, file = _name_and_file(baseline, RUN_EXTENSIONS)
    for known, known_file in files.items():
        if _same_file(known_file, file):
            return dict(files), known
    if name in files:
        raise InputError(f"{files[name]} and the baseline {file} are both named {name!r}: name one by NAME=FILE")
    return {name: file} | dict(files), name


def _same_file(left: str, right: str) -> bool:
    return left == right or (Path(left).exists() and Path(right).exists() and Path(left).samefile(right))


def _remarks(result: Evaluation) -> Iterator[str]:
    effect = "left out" if result.only_shared else "counted as 0"
    for name, run in result.runs.items():
        if run.missing:
            yield f"run {name}: {run.missing} of {result.topics} topics of the qrels missing, {effect}"
        if run.ignored:
            yield f"run {name}: {run.ignored} of its topics not in the qrels, ignored"


def _print_tables(result: Evaluation, per_query: bool) -> None:
    """Tables for people: one for each measure, then with `per_query` one or more for each run."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    names = list(next(iter(result.runs.values())).measures)
    for name in names:
        console.print(f"{name}: {_legend(result)}")
        console.print(_measure_table(result, name))
    for run in result.runs if per_query else ():
        for start in range(0, len(names), MEASURES_PER_TABLE):
            console.print(f"{run}, by topic")
            console.print(_topic_table(result, run, names[start : start + MEASURES_PER_TABLE]))


def _legend(result: Evaluation) -> str:
    if result.baseline is None:
        return "mean over n topics, with its 95% interval"
    return f"mean over n topics, and the difference from {result.baseline} with its 95% interval"


def _measure_table(result: Evaluation, measure: str) -> Table:
    if result.baseline is None:
        table = numbers_table("run", "n", "mean", "low", "high")
    else:
        table = numbers_table("run", "n", "mean", "diff", "low", "high", "p t", "p rand", "p Holm")
    for name, run in result.runs.items():
        figure = run.measures[measure]
        cells = [name, str(figure.n), _number(figure.value)]
        if run.tests is not None:
            cells += _test_cells(run.tests[measure])
        elif result.baseline is None:
            cells += [_number(figure.low), _number(figure.high)]
        table.add_row(*cells)
    return table


def _test_cells(test: PairedTest) -> list[str]:
    difference = test.difference
    numbers = [_number(number, "+.4f") for number in (difference.value, difference.low, difference.high)]
    return numbers + [_p_value(p) for p in (test.p_t, test.p_randomization, test.p_holm)]


def _topic_table(result: Evaluation, run: str, measures: Sequence[str]) -> Table:
    table = numbers_table("topic", *measures)
    values = [result.runs[run].per_query[measure] for measure in measures]
    for topic in values[0]:
        table.add_row(topic, *(_number(by_topic[topic]) for by_topic in values))
    return table


def numbers_table(first: str, *others: str) -> Table:
    """A table whose first column names rows and whose others hold numbers; fits 80 columns by folding."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first, overflow="fold")
    for other in others:
        table.add_column(other, justify="right", overflow="fold")
    return table


def _number(number: float | None, form: str = ".4f") -> str:
    return "-" if number is None else format(number, form)


def _p_value(p: float | None) -> str:
    return "-" if p is None else "<.0001" if p < 0.00005 else f"{p:.4f}"
