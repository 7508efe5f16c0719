"""`llmrank demo`: the main job on the bundled collection, with no key, no network and no GPU."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.errors import InputError

if TYPE_CHECKING:
    from llmrank.rerank.ranking import RowTotals

JUDGE = "simulated:{qrels}?noise=0.15&malformed=0.02&seed=1"
JOBS = (
    ("pointwise", "lexical"),
    ("pointwise", "nano"),
    ("pointwise", JUDGE),
    ("setwise-heapsort", JUDGE),
    ("sliding-window", JUDGE),
)
NOTE = (
    "The lexical judge counts shared words. The nano judge is a language model of 1.9 million parameters that ships "
    "with llmrank: for trying things out, below BM25 as a ranker. The simulated judge knows the grades and errs (noise "
    "0.15, one reply in fifty unreadable). Intervals: Student's t over the 12 queries."
)


def demo(
    keep: Annotated[str | None, typer.Option(help="Folder for the runs that are made.", metavar="FOLDER")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Rerank a small bundled collection with several methods, and compare them.

    It needs no key, no network and no GPU.

    Example: llmrank demo
    """
    from llmrank import demo as collection
    from llmrank.data.qrels import read_qrels
    from llmrank.data.run import read_run
    from llmrank.evaluation import evaluate

    runs = {"first stage (BM25)": read_run(str(collection.RUN))}
    totals: dict[str, RowTotals] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = _folder(keep) if keep is not None else Path(scratch)
        for method, judge in JOBS:
            name = f"{method}, {judge.partition(':')[0]} judge"
            output = str(folder / f"{name.replace(', ', '.').replace(' ', '-')}.trec")
            totals[name] = _rerank(method, judge.format(qrels=collection.QRELS), output)
            runs[name] = read_run(output)
        measured = evaluate(read_qrels(str(collection.QRELS)), runs, ["nDCG@10"])
    rows: list[dict[str, Any]] = []
    for name in runs:
        figure, sums = measured.runs[name].measures["nDCG@10"], totals[name].sums if name in totals else {}
        counts = {count: sums.get(count) for count in ("calls", "failed")}
        rows.append({"run": name, "nDCG@10": figure.value, "low": figure.low, "high": figure.high} | counts)
    if as_json:
        print(json.dumps({"queries": 12, "documents": 240, "runs": rows}))
    else:
        _print(rows, keep)


def _folder(keep: str) -> Path:
    """The folder that is to keep the runs, made where it is not there."""
    try:
        Path(keep).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"--keep {keep}: this is a file; name a folder") from None
    except OSError as error:
        raise InputError(f"--keep {keep}: the folder cannot be made ({error.strerror}); name another") from None
    return Path(keep)


def _rerank(method: str, judge: str, output: str) -> RowTotals:
    from llmrank import demo as collection
    from llmrank.data.inputs import RerankInputs
    from llmrank.jobs.outputs import Outputs
    from llmrank.rerank.job import run_job
    from llmrank.rerank.reranker import Reranker

    reranker = Reranker(method, backend=judge, ledger="none")
    with RerankInputs.from_files(collection.QUERIES, collection.CORPUS, collection.RUN, depth=100) as inputs:
        return run_job(reranker, inputs, Outputs(output)).totals


def _print(rows: list[dict[str, Any]], keep: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("run", overflow="fold")
    for column in ("nDCG@10", "95% interval", "calls", "failed"):
        table.add_column(column, justify="right")
    for row in rows:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        counts = ("" if row[name] is None else str(row[name]) for name in ("calls", "failed"))
        table.add_row(row["run"], f"{row['nDCG@10']:.3f}", interval, *counts)
    console = Console()
    console.print("12 queries, 20 passages each, written for llmrank; grades 0 to 3.", style="dim")
    console.print(table)
    console.print(NOTE, style="dim")
    if keep:
        console.print(f"The runs are in {keep}.", style="dim")
