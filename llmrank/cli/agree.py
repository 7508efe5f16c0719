"""`llmrank agree`: how far judges' labels or preferences agree with true ones, and rank systems alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from llmrank.cli.evaluate import RUN_EXTENSIONS, named_files, numbers_table
from llmrank.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from llmrank.agree.resampling import Resampling
    from llmrank.agree.results import Figure
    from llmrank.agreement import Agreement, JudgeAgreement, LabelSettings
    from llmrank.agreement.preferences import PreferencesAgreement

EXTENSIONS = (".qrels", ".txt", ".tsv", ".csv", ".jsonl")
COMPARISONS = (".csv", ".jsonl")
SUMMARY = {"kappa": "kappa", "kappa_quadratic": "quad", "alpha_ordinal": "alpha", "bias": "bias"}
"""The figures in the table of several judges, with what stands above them."""


class OutOfRange(StrEnum):
    error = "error"
    drop = "drop"
    clip = "clip"


class Resampled(StrEnum):
    topics = "topics"
    pairs = "pairs"


def agree(
    truth: Annotated[
        str,
        typer.Argument(metavar="TRUTH", help="What counts as true: qrels, or comparisons (.csv, .jsonl, also .gz)."),
    ],
    predicted: Annotated[
        list[str],
        typer.Argument(
            metavar="PREDICTED",
            help="The judges' files, of the same kind as TRUTH, each named by its file (without folder, .gz and "
            ".qrels, .txt, .tsv, .csv or .jsonl), or as NAME=FILE.",
        ),
    ],
    scale: Annotated[
        str | None,
        typer.Option(metavar="LOW-HIGH", help="The labels there are, as 0-3; by default the range of TRUTH's."),
    ] = None,
    out_of_range: Annotated[
        OutOfRange,
        typer.Option(
            "--out-of-range",
            help="What to do with a label outside the scale: stop, leave the pair out, or take the nearest label.",
        ),
    ] = OutOfRange.error,
    binarize: Annotated[
        list[int] | None,
        typer.Option(
            metavar="CUT", help="Count labels from CUT on as relevant. May be repeated; by default every cut."
        ),
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN", help="A run to score under every file's labels, to compare the orders. May be repeated."
        ),
    ] = None,
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measure", "-m", metavar="MEASURE", help="What runs are scored by; default nDCG@10. Repeatable."
        ),
    ] = None,
    resample: Annotated[
        Resampled,
        typer.Option(help="What is drawn again for the intervals: whole topics, or single pairs as if independent."),
    ] = Resampled.topics,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the intervals; 0 for no intervals.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing on stderr but errors.")] = False,
) -> None:
    """Measure how far judges agree with the truth, each figure with its n and a 95% interval.

    Example:

    llmrank agree human.qrels gpt.qrels llama=labels/llama3.txt --out-of-range clip --runs bm25.trec --runs dense.trec
    """
    files = named_files(predicted, EXTENSIONS)
    run_files = named_files(runs or [], RUN_EXTENSIONS)
    if [truth, *files.values(), *run_files.values()].count("-") > 1:
        raise InputError("standard input (-) can be only one of the files")
    kinds = {_is_comparisons(file) for file in (truth, *files.values())}
    if len(kinds) > 1:
        raise InputError("TRUTH and PREDICTED must all be qrels or all be comparisons (.csv, .jsonl)")

    from llmrank.agree.resampling import Resampling

    settings = Resampling(bootstrap, resample.value, seed)
    result: Agreement | PreferencesAgreement
    if kinds == {True}:
        if scale or binarize or run_files:
            raise InputError("--scale, --binarize and --runs are for qrels; comparisons have no grades")
        result = _preferences(truth, files, settings)
    else:
        result = _labels(truth, files, settings, scale, out_of_range, binarize, run_files, measures, as_json)
    if as_json:
        typer.echo(json.dumps(result.json(), allow_nan=False))
    else:
        _print(result)


def _is_comparisons(file: str) -> bool:
    return PurePath(file.removesuffix(".gz")).suffix in COMPARISONS


def _labels(
    truth: str,
    files: Mapping[str, str],
    settings: Resampling,
    scale: str | None,
    policy: OutOfRange,
    cuts: Sequence[int] | None,
    run_files: Mapping[str, str],
    measures: Sequence[str] | None,
    topics_detail: bool,
) -> Agreement:
    from llmrank.agreement import LabelSettings, agree_labels, parse_scale, read_labels
    from llmrank.data.run import read_run
    from llmrank.evaluation import parse_measures

    wanted = [str(measure) for measure in parse_measures(measures or ["nDCG@10"])]
    true, known = read_labels(truth, parse_scale(scale) if scale else None, policy.value)
    label_settings = LabelSettings(
        known, settings.replicates, settings.resample, settings.seed, settings.level, cuts, wanted, topics_detail
    )
    judges = {name: read_labels(file, known, policy.value)[0] for name, file in files.items()}
    runs = {name: read_run(file) for name, file in run_files.items()}
    return agree_labels(true, judges, label_settings, runs or None)


def _preferences(truth: str, files: Mapping[str, str], settings: Resampling) -> PreferencesAgreement:
    from llmrank.agreement import agree_preferences
    from llmrank.data.comparisons import read_comparisons

    true = read_comparisons(truth)
    return agree_preferences(true, {name: read_comparisons(file) for name, file in files.items()}, settings)


def _print(result: Agreement | PreferencesAgreement) -> None:
    """Tables for people: one judge in full, several side by side; then what has to be known of each."""
    from rich.console import Console

    from llmrank.agreement import Agreement

    console = Console(markup=False, highlight=False, emoji=False)
    document = result.json()
    truth, settings = document["truth"], document["settings"]
    over = "" if truth["topics"] is None else f" over {truth['topics']} topics"
    console.print(f"truth {truth['file']}: {truth['pairs']} pairs{over}")
    if isinstance(result, Agreement):
        console.print(f"scale {result.settings.scale}, labels outside it: {settings['out_of_range']}")
    if settings["bootstrap"]:
        units = f" of {settings['resample']}" if isinstance(result, Agreement) else ""
        console.print(f"{settings['level']:.0%} intervals from {settings['bootstrap']:,} resamples{units}")
    for note in truth["notes"]:
        console.print(f"note: {note}")
    if isinstance(result, Agreement):
        _print_labels(console, result)
    else:
        _print_preferences(console, result)


def _print_labels(console: Console, result: Agreement) -> None:
    if len(result.judges) > 1:
        console.print(_summary(result.judges))
        console.print("kappa with its interval; quad: quadratic kappa; alpha: ordinal; bias: predicted less true")
    for name, judge in result.judges.items():
        if len(result.judges) == 1:
            console.print(f"\n{name}: {judge.pairs} pairs over {judge.topics} topics, coverage {judge.coverage:.1%}")
            console.print(_figure_table("labels", judge.labels))
            for cut, figures in judge.binarized.items():
                console.print(_figure_table(f"relevant from {cut}", figures))
            console.print(_confusion(judge, result.settings))
        for measure, figures in (judge.systems or {}).items():
            console.print(_figure_table(f"{name}: systems by {measure}", figures))
        _print_notes(console, name, judge.notes)


def _print_preferences(console: Console, result: PreferencesAgreement) -> None:
    for name, judge in result.judges.items():
        console.print(f"\n{name}: {judge.pairs} pairs, coverage {judge.coverage:.1%}")
        console.print(_figure_table("preferences", judge.figures, judge.notes))
        _print_notes(console, name, judge.notes)


def _print_notes(console: Console, name: str, notes: Iterable[str]) -> None:
    for note in notes:
        console.print(f"{name}: {note}")


def _summary(judges: Mapping[str, JudgeAgreement]) -> Table:
    table = numbers_table("judge", "pairs", "cover", "kappa", "low", "high", *list(SUMMARY.values())[1:])
    for name, judge in judges.items():
        kappa, *others = (judge.labels[figure] for figure in SUMMARY)
        row = [str(judge.pairs), f"{judge.coverage:.0%}", *_cells(kappa)]
        table.add_row(name, *row, *(_number(figure.value) for figure in others))
    return table


def _figure_table(title: str, figures: Mapping[str, Figure], said: Sequence[str] = ()) -> Table:
    """Figures with their notes, but for what is said elsewhere."""
    table = numbers_table(title, "value", "low", "high", "n")
    table.add_column("", overflow="fold", ratio=1)
    for name, figure in figures.items():
        notes = [note for note in (figure.note or "").split("; ") if note not in said]
        table.add_row(name, *_cells(figure), str(figure.n), "; ".join(notes))
    return table


def _confusion(judge: JudgeAgreement, settings: LabelSettings) -> Table:
    table = numbers_table("truth \\ judge", *map(str, settings.scale.labels))
    for label, row in zip(settings.scale.labels, judge.confusion.tolist(), strict=True):
        table.add_row(str(label), *map(str, row))
    return table


def _cells(figure: Figure) -> list[str]:
    return [_number(number) for number in (figure.value, figure.low, figure.high)]


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"
