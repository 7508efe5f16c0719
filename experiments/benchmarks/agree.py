"""Agreement against the libraries people use: bootstrapped kappa, many runs under many qrels, rank-biased overlap.

Everything runs in turn in one process on made-up data of real sizes. Prints medians and ratios, and what each ratio is
held to. The scikit-learn loop is timed over `LOOP` replicates and scaled to 10,000.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pytrec_eval
from sklearn.metrics import cohen_kappa_score

from llmrank.agree.label_agreement import kappa
from llmrank.agree.rankings import rbo
from llmrank.agreement.systems import SystemScores
from llmrank.data.run import ScoredDoc

PAIRS, TOPICS, REPLICATES, LOOP = 4_423, 43, 10_000, 100
RUNS, QRELS, DEPTH, JUDGED, CUT = 37, 10, 100, 215, 10
REPEATS = 7


def seconds(function: Callable[[], object], repeats: int = REPEATS) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def bootstrapped_kappa() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, PAIRS)
    said = np.where(generator.random(PAIRS) < 0.6, truth, generator.integers(0, 4, PAIRS))
    topics = generator.integers(0, TOPICS, PAIRS)
    rows = [np.flatnonzero(topics == topic) for topic in range(TOPICS)]

    def loop() -> None:
        for _ in range(LOOP):
            drawn = np.concatenate([rows[topic] for topic in generator.integers(0, TOPICS, TOPICS)])
            cohen_kappa_score(truth[drawn], said[drawn])

    names = topics.tolist()
    ours = seconds(lambda: kappa(truth, said, names, bootstrap=REPLICATES))
    theirs = seconds(loop, 3) * REPLICATES / LOOP
    print(f"kappa, {REPLICATES:,} replicates over {PAIRS:,} pairs: {ours * 1000:.1f} ms, scikit-learn {theirs:.1f} s")
    print(f"  ratio 1/{theirs / ours:.0f} (at most 1/500)")


def many_qrels() -> None:
    generator = np.random.default_rng(1)
    topics = [f"t{number}" for number in range(TOPICS)]
    documents = [f"d{number}" for number in range(1_000)]

    def labels() -> dict[str, int]:
        return {doc: int(generator.integers(4)) for doc in generator.permutation(documents)[:JUDGED].tolist()}

    qrels = [{topic: labels() for topic in topics} for _ in range(QRELS)]
    runs = {
        f"run{number}": {
            t: [
                ScoredDoc(doc, -float(place))
                for place, doc in enumerate(generator.permutation(documents)[:DEPTH].tolist())
            ]
            for t in topics
        }
        for number in range(RUNS)
    }

    def bare() -> list[float]:
        cut = {name: {t: dict(hits[:CUT]) for t, hits in run.items()} for name, run in runs.items()}
        found = []
        for labels in qrels:
            evaluator = pytrec_eval.RelevanceEvaluator(labels, {f"ndcg_cut.{CUT}"})
            for run in cut.values():
                found += [values[f"ndcg_cut_{CUT}"] for values in evaluator.evaluate(run).values()]
        return found

    def ours() -> list[float]:
        scores = SystemScores(qrels[0], runs, [f"nDCG@{CUT}"])
        return [scores.scores(labels, f"nDCG@{CUT}").sum() for labels in qrels]

    assert abs(sum(bare()) - sum(ours())) < 1e-6
    fast, slow = seconds(ours), seconds(bare)
    print(f"nDCG@{CUT} of {RUNS} runs x {TOPICS} topics under {QRELS} qrels: {fast * 1000:.0f} ms", end=", ")
    print(f"pytrec_eval {slow * 1000:.0f} ms\n  ratio {fast / slow:.2f} (at most 1.2)")


def overlap() -> None:
    generator = np.random.default_rng(2)
    lists = [[f"d{number}" for number in generator.permutation(1_200)[:1_000]] for _ in "ab"]
    print(f"RBO of two lists of 1,000: {seconds(lambda: rbo(*lists), 50) * 1000:.2f} ms (under 1 ms)")


if __name__ == "__main__":
    bootstrapped_kappa()
    many_qrels()
    overlap()
