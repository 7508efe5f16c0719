"""`llmrank aggregate`: comparisons to a table of scores with intervals, and what the comparisons can support."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from llmrank.errors import InputError

if TYPE_CHECKING:
    from llmrank.aggregate.comparisons import Comparisons
    from llmrank.aggregate.results import Scores
    from llmrank.data.comparisons import ComparisonTable

Results = Mapping[str | None, "Scores"]
"""Scores by query; by None where all queries are pooled."""


def aggregate(
    comparisons: Annotated[
        str,
        typer.Argument(
            metavar="COMPARISONS",
            help="CSV or JSONL with left, right, winner (left, right, tie, or left's share of the win in [0, 1]) and "
            "optional weight and query_id. May be .gz; - is standard input.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="bradley-terry, newman, trueskill, pagerank, eigenvector, rank-centrality, counting, "
            "win-rate, average-win-rate, copeland or elo.",
        ),
    ] = "bradley-terry",
    by: Annotated[
        str | None,
        typer.Option(
            metavar="query|all",
            help="Within each query (the default where the file has several), or over all of them pooled.",
        ),
    ] = None,
    ties: Annotated[
        str | None,
        typer.Option(
            metavar="half|davidson",
            help="Of bradley-terry: a tie counts half a win to each (the default), or has a probability of its own.",
        ),
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Resamples for the 95% intervals, 0: none; default 1000 (trueskill: 0, it has intervals of its own).",
        ),
    ] = None,
    resample: Annotated[
        str | None,
        typer.Option(
            metavar="comparisons|queries",
            help="What is resampled: queries (the default where several are pooled) or comparisons.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    output: Annotated[
        str | None,
        typer.Option(metavar="OUT.csv", help="Write item, score, low, high, rank here, best first; - is stdout."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing on stderr but errors.")] = False,
) -> None:
    """Turn comparisons of items into scores with intervals, and say what the comparisons can support.

    Example:

    llmrank aggregate votes.csv --method bradley-terry --ties davidson --output scores.csv
    """
    _check("--by", by, ("query", "all"))
    _check("--ties", ties, ("half", "davidson"))
    _check("--resample", resample, ("comparisons", "queries"))
    if ties is not None and method != "bradley-terry":
        raise InputError(f"--ties belongs to --method bradley-terry: {method} has its own way with ties, leave it out")

    from llmrank.aggregate.methods import method_named
    from llmrank.data.comparisons import read_comparisons
    from llmrank.jobs.outputs import Outputs

    if output is not None:
        Outputs(output).check([comparisons], as_json=as_json)
    score = method_named(method)
    table = read_comparisons(comparisons)
    resamples = bootstrap if bootstrap is not None else 0 if method == "trueskill" else 1000
    settings = {"bootstrap": resamples, "seed": seed} | ({"ties": ties} if ties else {})
    results = {query: score(rows, **settings) for query, rows in _groups(table, by, resample).items()}
    if output is not None:
        from llmrank.data.files import writing

        with writing(output) as stream:
            _write_csv(stream, results)
    if not quiet:
        for remark in _remarks(table, results if output is not None else {}):
            typer.echo(remark, err=True)
    if as_json:
        summary = {"file": comparisons, "method": method, "settings": settings | {"level": 0.95}}
        typer.echo(json.dumps(summary | _json(table, results), allow_nan=False))
    elif output is None:
        _print_tables(results)


def _check(flag: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise InputError(f"{flag} {value}: it must be {' or '.join(allowed)}")


def _groups(table: ComparisonTable, by: str | None, resample: str | None) -> dict[str | None, Comparisons]:
    """The comparisons of each query, in the order in which the queries appear; under None where they are pooled."""
    from llmrank.aggregate.comparisons import Comparisons

    queries = dict.fromkeys(table.query_id)
    several = len(queries) > 1
    within = by == "query" or (by is None and several)
    if (within or resample == "queries") and None in queries:
        if table.query_id and set(queries) == {None}:
            raise InputError(f"{table.path}: there is no query_id to go by: use --by all without --resample queries")
        if within or resample == "queries":
            line = table.line[table.query_id.index(None)]
            raise InputError.at(table.path, line, "there is no query_id, where other rows have one: use --by all")
    if within and resample == "queries":
        raise InputError("--resample queries belongs to --by all: within one query only comparisons can be resampled")
    if within:
        rows: dict[str | None, list[int]] = {query: [] for query in queries}
        for row, query in enumerate(table.query_id):
            rows[query].append(row)
        return {query: _chosen(table, chosen) for query, chosen in rows.items()}
    clustered = resample == "queries" or (resample is None and several and None not in queries)
    cluster = table.query_id if clustered else None
    return {None: Comparisons(table.left, table.right, table.share, table.weight, cluster)}


def _chosen(table: ComparisonTable, rows: list[int]) -> Comparisons:
    from llmrank.aggregate.comparisons import Comparisons

    left, right = [table.left[i] for i in rows], [table.right[i] for i in rows]
    return Comparisons(left, right, [table.share[i] for i in rows], [table.weight[i] for i in rows])


def _rows(scores: Scores) -> Iterator[tuple[Any, float | None, float | None, float | None, int | None]]:
    """(item, score, low, high, rank), best first; items without a score have only their id."""
    if scores.value is None or scores.ranks is None:
        yield from ((item, None, None, None, None) for item in scores.items)
        return
    place = {item: i for i, item in enumerate(scores.items)}
    for item in scores.ranking:
        i = place[item]
        low, high = (None if side is None else _finite(side[i]) for side in (scores.low, scores.high))
        yield item, _finite(scores.value[i]), low, high, int(scores.ranks[i])


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _write_csv(stream: TextIO, results: Results) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    pooled = list(results) == [None]
    writer.writerow(([] if pooled else ["query_id"]) + ["item", "score", "low", "high", "rank"])
    for query, scores in results.items():
        for item, *figures in _rows(scores):
            cells = ["" if figure is None else repr(figure) for figure in figures]
            writer.writerow(([] if pooled else [query]) + [item, *cells])


def _json(table: ComparisonTable, results: Results) -> dict[str, Any]:
    return {
        "skipped": len(table.skipped),
        "results": [{"query_id": query} | _result(scores) for query, scores in results.items()],
    }


def _result(scores: Scores) -> dict[str, Any]:
    diagnosis = scores.diagnosis
    assert diagnosis is not None
    return {
        "n": scores.n,
        "note": scores.note,
        "scores": [dict(zip(("item", "score", "low", "high", "rank"), row, strict=True)) for row in _rows(scores)],
        "diagnosis": {
            "sentences": list(diagnosis.sentences),
            "items": diagnosis.items,
            "comparisons": diagnosis.comparisons,
            "self_comparisons": diagnosis.self_comparisons,
            "components": [list(group) for group in diagnosis.components],
            "only_win": list(diagnosis.only_win),
            "only_lose": list(diagnosis.only_lose),
            "all_ties": diagnosis.all_ties,
            "triads": diagnosis.triads,
            "cyclic_triads": diagnosis.cyclic_triads,
            "cyclic_share": diagnosis.cyclic_share,
            "order_pairs": diagnosis.order_pairs,
            "order_inconsistent": diagnosis.order_inconsistent,
            "comparisons_per_item": list(diagnosis.comparisons_per_item),
        },
    }


def _remarks(table: ComparisonTable, results: Results) -> Iterator[str]:
    """What a person should know: rows without a winner, and the notes of results that go to a file."""
    if table.skipped:
        rows = "row has" if len(table.skipped) == 1 else "rows have"
        yield f"{len(table.skipped)} {rows} no winner (the first on line {table.skipped[0]}) and were skipped"
    for query, scores in results.items():
        if scores.note:
            yield scores.note if query is None else f"query {query}: {scores.note}"


def _print_tables(results: Results) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False, emoji=False)
    for query, scores in results.items():
        if query is not None:
            console.print(f"query {query}")
        grid = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
        for name in ("rank", "item", "score", "low", "high"):
            grid.add_column(name, justify="left" if name == "item" else "right", overflow="fold")
        for item, *figures, rank in _rows(scores):
            grid.add_row("-" if rank is None else str(rank), str(item), *(_number(figure) for figure in figures))
        console.print(grid)
        for sentence in filter(None, (scores.note, *(scores.diagnosis.sentences if scores.diagnosis else ()))):
            console.print(sentence, soft_wrap=True)


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.4g}" if abs(number) < 1000 else f"{number:.1f}"
