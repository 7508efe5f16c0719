"""Every method on one simulated judge: nDCG@10, calls, tokens, rounds and FLOPs, as the judge errs more and more.

Run `python experiments/method_comparison/run.py`; with `--small` it takes seconds. The real code asks the questions:
templates, client and parsers, and the `simulated` backend, which writes what a model would.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: more threads only get in each other's way

from llmrank import Candidates, Document, Query, Reranker
from llmrank.agree.results import Figure
from llmrank.data.run import ScoredDoc
from llmrank.errors import LlmrankError
from llmrank.evaluation import evaluate
from llmrank.flops import PETA, Architecture, per_petaflop
from llmrank.llm.backends.simulated import Errors, SimulatedBackend
from llmrank.rerank.methods import all_methods
from llmrank.rerank.ranking import Ranking

LEVELS = 20  # grades 0 to 20: a coarser scale would hide small errors in ties
FIRST_STAGE = 0.75  # noise of the first stage, which gives it the nDCG@10 that BM25 has on TREC DL19, about .5
QUERIES, DEPTH, WORDS = 20, 100, 60
FEWER: dict[str, float] = {"bubblesort": 0.5, "mergesort": 0.5, "permutation-consistency": 0.5, "all-pairs": 0.25}
"""What share of the queries the slowest methods get; a row says how many it has."""

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "sliding-window": [{"passes": 2}],
    "tournament": [{"rounds": 5}],
    "blocks": [{"repeats": 4}],
    "blocks-refine": [{"repeats": 4}],
    "setwise-heapsort": [{"children": 9}],
    "all-pairs": [{"sample": 0.1}],
    "permutation-consistency": [{"focus": True}],
    "heapsort": [{"swap": False}, {"lazy": True}],
    "quicksort": [{"lazy": True}],
    "active": [{"swap": False}],
}
"""Settings besides the defaults."""
SAME = {"sliding-pairs": "the same strategy as bubblesort under its other name"}

MODEL = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
MODEL |= {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256}
"""The shape of Llama 3.1 8B, for the FLOPs."""

CONDITIONS = [
    Errors(noise=noise, order_bias=bias, malformed=malformed)
    for noise in (0.0, 0.1, 0.25)
    for bias in (0.0, 0.1)
    for malformed in (0.0, 0.05)
]
# fmt: off
COLUMNS: tuple[str, ...] = (
    "noise", "order_bias", "malformed", "method", "options", "question", "queries", "nDCG@10", "low", "high", "calls",
    "rounds", "prompt_tokens", "completion_tokens", "failed", "petaflops", "nDCG@10_per_petaflop",
)
# fmt: on


class Collection(NamedTuple):
    """Queries with their candidates in first-stage order, and the grades."""

    requests: list[Candidates]
    grades: dict[str, dict[str, int]]


def collection(queries: int, depth: int, seed: int = 0) -> Collection:
    """A few candidates are very relevant and many hardly at all; the first stage sees that through noise."""
    draw = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(3000)]
    requests, grades = [], {}
    for number in range(queries):
        worths = [draw.random() ** 4 for _ in range(depth)]
        order = sorted(range(depth), key=lambda i: -(worths[i] + draw.gauss(0, FIRST_STAGE)))
        documents = tuple(Document(f"d{i}", " ".join(draw.choices(words, k=WORDS))) for i in order)
        requests.append(Candidates(Query(f"q{number}", " ".join(draw.choices(words, k=6))), documents))
        grades[f"q{number}"] = {f"d{i}": int((LEVELS + 1) * worths[i]) for i in range(depth)}
    return Collection(requests, grades)


def ndcg(rankings: dict[str, list[str]], grades: dict[str, dict[str, int]]) -> Figure:
    """The mean over the ranked queries with its interval by Student's t."""
    run = {
        query: [ScoredDoc(doc_id, float(len(ids) - place)) for place, doc_id in enumerate(ids)]
        for query, ids in rankings.items()
    }
    judged = {query: grades[query] for query in rankings}
    return evaluate(judged, {"run": run}, ["nDCG@10"]).runs["run"].measures["nDCG@10"]


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every method with its defaults, then with its other settings."""
    for name in all_methods():
        yield name, {}
        for options in VARIANTS.get(name, []):
            yield name, options


def study(queries: int, depth: int, conditions: Sequence[Errors], left_out: dict[str, str]) -> Iterator[dict[str, Any]]:
    """One row for each condition and method; `left_out` takes up what cannot run, and why."""
    data, architecture = collection(queries, depth), Architecture.from_config(MODEL)
    for errors in conditions:
        yield first_stage(data, errors)
        for name, options in settings():
            if name in left_out:
                continue
            share = FEWER.get(name, 1.0) if "sample" not in options else 1.0
            requests = data.requests[: max(2, round(share * queries))]
            try:
                backend = SimulatedBackend(data.grades, errors)
                with Reranker(name, backend=backend, options=options, ledger="none") as reranker:
                    rankings = list(reranker.rank_many(requests))
            except LlmrankError as error:
                left_out[name] = str(error)
                continue
            yield condition(errors) | row(name, options, reranker.method.question, rankings, data, architecture)


def condition(errors: Errors) -> dict[str, Any]:
    return {"noise": errors.noise, "order_bias": errors.order_bias, "malformed": errors.malformed}


def first_stage(data: Collection, errors: Errors) -> dict[str, Any]:
    figure = ndcg({r.query.id: [d.id for d in r.documents] for r in data.requests}, data.grades)
    nothing = dict.fromkeys(("calls", "rounds", "prompt_tokens", "completion_tokens", "failed"), 0)
    said = {"method": "first-stage", "options": "", "question": "", "petaflops": 0, "nDCG@10_per_petaflop": ""}
    return condition(errors) | said | quality(figure) | nothing


def quality(figure: Figure) -> dict[str, Any]:
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    values = {"nDCG@10": figure.value, "low": figure.low, "high": figure.high}
    return {"queries": figure.n, **{name: f"{value:.4f}" for name, value in values.items()}}


def row(
    name: str,
    options: dict[str, Any],
    question: str,
    rankings: list[Ranking],
    data: Collection,
    architecture: Architecture,
) -> dict[str, Any]:
    """Means over the queries."""
    figure = ndcg({ranking.query.id: ranking.ids for ranking in rankings}, data.grades)
    rows = [ranking.row for ranking in rankings]

    def mean(column: str) -> float:
        return float(sum(getattr(r, column) for r in rows) / len(rows))

    # All prompts of a method are nearly as long, so that the mean one stands for each.
    flops = sum(
        r.calls * architecture.flops(round(r.prompt_tokens / r.calls), round(r.completion_tokens / r.calls))
        for r in rows
        if r.calls
    ) / len(rows)
    counts = ("calls", "rounds", "prompt_tokens", "completion_tokens", "failed")
    rate = per_petaflop(figure.value or 0.0, flops)
    return {
        "method": name,
        "options": " ".join(f"{key}={_word(value)}" for key, value in options.items()),
        "question": question,
        **quality(figure),
        **{count: f"{mean(count):.1f}" for count in counts},
        "petaflops": f"{flops / PETA:.4f}",
        "nDCG@10_per_petaflop": "" if rate is None else f"{rate:.4f}",
    }


def _word(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="2 queries of 20 candidates, 2 conditions")
    parser.add_argument("--seed", type=int, default=0, help="of the judge")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder of table and picture")
    given = parser.parse_args(arguments)
    queries, depth, conditions = (
        (2, 20, [CONDITIONS[0], CONDITIONS[-1]]) if given.small else (QUERIES, DEPTH, CONDITIONS)
    )
    rows, left_out = [], dict(SAME)
    for found in study(queries, depth, [replace(errors, seed=given.seed) for errors in conditions], left_out):
        print(*(found[name] for name in COLUMNS[:11]), file=sys.stderr, flush=True)
        rows.append(found)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    with (given.output / "results.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
