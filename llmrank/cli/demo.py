"""`llmrank demo`: the main job on the bundled collection, with no key, no network and no GPU."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llmrank.rerank.ranking import RowTotals

JUDGE = "simulated:{qrels}?noise=0.15&malformed=0.02&seed=1"
JOBS = (
    ("pointwise", "lexical"),
    ("pointwise", JUDGE),
    ("setwise-heapsort", JUDGE),
    ("sliding-window", JUDGE),
)


def demo(
    keep: Annotated[str | None, typer.Option(help="Folder for the runs that are made.", metavar="FOLDER")] = None,
) -> None:
    """Rerank a small bundled collection with several methods, and compare them. No key, no network, no GPU.

    Example: llmrank demo
    """
    from rich.console import Console
    from rich.table import Table

    from llmrank import demo as collection
    from llmrank.data.inputs import RerankInputs
    from llmrank.data.qrels import read_qrels
    from llmrank.data.run import read_run
    from llmrank.evaluation import evaluate

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("run", overflow="fold")
    for column in ("nDCG@10", "95% interval", "calls", "failed"):
        table.add_column(column, justify="right")
    runs = {"first stage (BM25)": read_run(str(collection.RUN))}
    totals: dict[str, RowTotals] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(keep or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for method, judge in JOBS:
            with RerankInputs.from_files(str(collection.QUERIES), str(collection.CORPUS), str(collection.RUN), 100) as inputs:
                name = f"{method}, {judge.partition(':')[0]} judge"
                output = folder / f"{name.replace(', ', '.').replace(' ', '-')}.trec"
                totals[name] = _rerank(method, judge.format(qrels=collection.QRELS), inputs, output)
                runs[name] = read_run(str(output))
        measured = evaluate(read_qrels(str(collection.QRELS)), runs, ["nDCG@10"])
    for name in runs:
        figure = measured.runs[name].measures["nDCG@10"]
        counts = totals.get(name)
        calls, failed = ("", "") if counts is None else (str(counts.sums["calls"]), str(counts.sums["failed"]))
        table.add_row(name, f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}", calls, failed)
    console = Console()
    console.print("12 queries, 20 passages each, written for llmrank; grades 0 to 3.", style="dim")
    console.print(table)
    console.print(
        "The simulated judge knows the grades and errs (noise 0.15, one reply in fifty unreadable), so that the whole "
        "path runs without a model; the lexical judge counts shared words. Intervals: Student's t over the 12 queries.",
        style="dim",
    )
    if keep:
        console.print(f"The runs are in {keep}.", style="dim")


def _rerank(method: str, judge: str, inputs: object, output: Path) -> RowTotals:
    from llmrank.rerank.job import run_job
    from llmrank.rerank.reranker import Reranker

    reranker = Reranker(method, backend=judge, ledger="none")
    return asyncio.run(run_job(reranker, inputs, str(output))).totals  # type: ignore[arg-type]
