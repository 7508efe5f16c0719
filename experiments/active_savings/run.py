"""How many questions `active` saves against heapsort at equal nDCG@10, on judges that err more and more.

For each judge and number of candidates heapsort is run, then `active` with larger and larger budgets; what counts
is the least budget at which it is as good on average. Run `python experiments/active_savings/run.py`.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: more threads only get in each other's way

import numpy as np

from llmrank import Candidates, Document, Query, Reranker
from llmrank.agree.results import Figure
from llmrank.agree.significance import mean
from llmrank.data.run import ScoredDoc
from llmrank.evaluation import score
from llmrank.llm.backends.simulated import Errors, SimulatedBackend

LEVELS = 20  # grades 0 to 20, many low and few high ones
FIRST_STAGE = 0.75  # noise that gives the first stage the nDCG@10 that BM25 has on TREC DL19, about .5 at n=100
SIZES = (20, 50, 100)
NOISE = (0.0, 0.1, 0.25, 0.5)
QUERIES = 20
BUDGETS = (2, 3, 4, 5, 7, 10)  # of `active`, in questions for each candidate
# fmt: off
COLUMNS: tuple[str, ...] = (
    "n", "noise", "method", "questions_each", "queries", "nDCG@10", "low", "high", "calls", "rounds",
    "difference", "difference_low", "difference_high",
)
# fmt: on


class Outcome(NamedTuple):
    """What a method did on every query."""

    values: list[float]
    """nDCG@10."""
    calls: float
    rounds: float


def collection(queries: int, n: int, seed: int = 0) -> tuple[list[Candidates], dict[str, dict[str, int]]]:
    draw = random.Random(f"{seed} {n}")
    requests, grades = [], {}
    for number in range(queries):
        worths = [draw.random() ** 4 for _ in range(n)]
        order = sorted(range(n), key=lambda i: -(worths[i] + draw.gauss(0, FIRST_STAGE)))
        requests.append(Candidates(Query(f"q{number}", "query"), tuple(Document(f"d{i}", "text") for i in order)))
        grades[f"q{number}"] = {f"d{i}": int((LEVELS + 1) * worths[i]) for i in range(n)}
    return requests, grades


def outcome(
    name: str, options: dict[str, Any], requests: list[Candidates], grades: dict[str, dict[str, int]], noise: float
) -> Outcome:
    backend = SimulatedBackend(grades, Errors(noise=noise))
    with Reranker(name, backend=backend, options=options, ledger="none") as reranker:
        rankings = list(reranker.rank_many(requests))
    run = {r.query.id: [ScoredDoc(i, float(len(r) - place)) for place, i in enumerate(r.ids)] for r in rankings}
    values = score(grades, {"run": run}, ["nDCG@10"])["run"]["nDCG@10"]
    rows = [ranking.row for ranking in rankings]
    return Outcome(
        [values[q] for q in grades], *(float(np.mean([getattr(r, c) for r in rows])) for c in ("calls", "rounds"))
    )


def study(
    queries: int, sizes: Sequence[int], noises: Sequence[float], budgets: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Heapsort's row, then those of `active` at each budget with its paired difference from heapsort."""
    for n in sizes:
        requests, grades = collection(queries, n)
        for noise in noises:
            about = {"n": n, "noise": noise}
            against = outcome("heapsort", {}, requests, grades, noise)
            yield about | row("heapsort", "", against, None)
            for each in budgets:
                if each <= n - 1:
                    found = outcome("active", {"budget": each * n}, requests, grades, noise)
                    yield about | row("active", each, found, against)


def row(method: str, each: object, found: Outcome, against: Outcome | None) -> dict[str, Any]:
    figure = told("nDCG@10", "", mean(found.values))
    said = {
        "method": method,
        "questions_each": each,
        "queries": len(found.values),
        **figure,
        "calls": f"{found.calls:.1f}",
        "rounds": f"{found.rounds:.1f}",
    }
    if against is None:
        return said | dict.fromkeys(COLUMNS[-3:], "")
    differences = [one - other for one, other in zip(found.values, against.values, strict=True)]
    return said | told("difference", "difference_", mean(differences))


def told(name: str, prefix: str, figure: Figure) -> dict[str, str]:
    values = {name: figure.value, f"{prefix}low": figure.low, f"{prefix}high": figure.high}
    return {key: "" if value is None else f"{value:.4f}" for key, value in values.items()}


def summary(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """For each judge the least budget at which `active` is no worse than heapsort, and what it saves."""
    for at, heap in enumerate(rows):
        if heap["method"] != "heapsort":
            continue
        rest = rows[at + 1 :]
        end = next((i for i, other in enumerate(rest) if other["method"] == "heapsort"), len(rest))
        equal = next((a for a in rest[:end] if float(a["difference"]) >= 0), None)
        judge = f"n={heap['n']:<4} noise {heap['noise']:<5}"
        text = f"{judge} heapsort {heap['nDCG@10']} with {heap['calls']:>6} calls; active "
        if equal is None:
            best = max(rest[:end], key=lambda a: float(a["difference"]))
            yield f"{text}never as good, at best {best['nDCG@10']} with {best['calls']} calls"
        else:
            saved = 1 - float(equal["calls"]) / float(heap["calls"])
            share = f"{abs(saved):.0%} {'saved' if saved > 0 else 'more'}"
            yield f"{text}{equal['nDCG@10']} with {equal['calls']} calls, {share}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="2 queries of 20 candidates, 2 judges, 2 budgets")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results.csv")
    given = parser.parse_args(arguments)
    size = (2, (20,), (0.0, 0.25), (2, 5)) if given.small else (QUERIES, SIZES, NOISE, BUDGETS)
    rows = []
    for found in study(*size):
        print(*(found[name] for name in COLUMNS[:9]), file=sys.stderr, flush=True)
        rows.append(found)
    with given.output.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(*summary(rows), sep="\n")


if __name__ == "__main__":
    main()
