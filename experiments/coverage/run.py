"""How often the intervals of agreement contain the truth: kappa over topics, the PPI mean, and preference accuracy.

Data sets are drawn from populations whose true value is known; the share whose nominal 95% interval contains it is the
coverage. Run `python experiments/coverage/run.py`; `--help` tells how to make it shorter.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmrank.agree.label_agreement import kappa
from llmrank.agree.ppi import ppi_mean
from llmrank.agree.results import Figure

K = 4
GRADES = np.arange(K)
TOPICS = (10, 20, 40)
COLUMNS = ("figure", "population", "truth", "topics", "data_sets", "covered", "missed_low", "missed_high", "width")


class Population(NamedTuple):
    """Topics, each with its own mix of grades and its own kind of judge."""

    grades: tuple[float, ...]
    """Shares of the grades over all topics."""
    accuracy: float
    """How often the judge is simply right; else it errs to near grades and to frequent ones."""
    alike: tuple[float, float]
    """How alike topics are in their grades, and the judge from topic to topic (Dirichlet concentrations)."""
    pairs: tuple[float, float]
    """Median number of pairs a topic, and its spread on the log scale."""

    def confusion(self) -> np.ndarray:
        """Shape (k, k): the judge's labels for each grade, over all topics."""
        base = np.array(self.grades)
        near = np.exp(-np.abs(GRADES[:, None] - GRADES))
        near /= near.sum(1, keepdims=True)
        return self.accuracy * np.eye(K) + (1 - self.accuracy) * (near + base) / 2

    def draw(self, topics: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """One data set: true grades, predicted grades, topics."""
        base, rows = np.array(self.grades), self.confusion()
        pairs = np.maximum(5, np.rint(generator.lognormal(np.log(self.pairs[0]), self.pairs[1], topics))).astype(int)
        names = np.repeat(np.arange(topics), pairs)
        # Gamma draws divided by their sum are Dirichlet draws.
        mixes = generator.gamma(self.alike[0] * base, size=(topics, K)) + 1e-12
        judges = generator.gamma(self.alike[1] * rows, size=(topics, K, K)) + 1e-12
        truth = pick(mixes[names], generator)
        return truth, pick(judges[names, truth], generator), names.tolist()


def pick(shares: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One grade for each row of shares."""
    edges = np.cumsum(shares, axis=1)
    return (generator.random((len(shares), 1)) * edges[:, -1:] >= edges[:, :-1]).sum(1)


COMMON = (0.5, 0.25, 0.15, 0.1)
POPULATIONS = {
    "typical": Population(COMMON, 0.6, (8, 10), (40, 0.3)),
    "small topics": Population(COMMON, 0.55, (8, 20), (10, 0.0)),
    "good judge": Population(COMMON, 0.9, (4, 30), (70, 0.5)),
    "poor judge": Population(COMMON, 0.2, (4, 5), (70, 0.5)),
    "uneven topics": Population(COMMON, 0.6, (2, 2), (55, 0.8)),
    "rare relevance": Population((0.92, 0.04, 0.02, 0.02), 0.8, (3, 10), (50, 0.4)),
}
"""The last two are harder than most collections: topics that have little in common, and 92% of pairs not relevant."""


def true_kappa(population: Population, weights: str | None) -> float:
    """Kappa over infinitely many topics."""
    p = np.array(population.grades)[:, None] * population.confusion()
    gap = np.abs(GRADES[:, None] - GRADES).astype(float)
    distance = np.square(gap) if weights else (gap > 0).astype(float)
    return float(1 - (distance * p).sum() / (distance * np.outer(p.sum(1), p.sum(0))).sum())


def kappa_trial(population: Population, weights: str | None, topics: int, bootstrap: int) -> Callable[..., Figure]:
    def trial(seed: int) -> Figure:
        truth, said, names = population.draw(topics, np.random.default_rng(seed))
        return kappa(truth, said, names, weights, bootstrap, seed)

    return trial


def measures(n: int, rho: float, shape: str, generator: np.random.Generator) -> np.ndarray:
    """Shape (2, n): a measure under human and under LLM labels."""
    both = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n).T
    return both if shape == "normal" else 1 / (1 + np.exp(-1.5 * both + np.array([[0.8], [-0.2]])))


def ppi_trial(rho: float, shape: str, topics: int, others: int) -> Callable[[int], Figure]:
    def trial(seed: int) -> Figure:
        generator = np.random.default_rng(seed)
        human, predicted = measures(topics, rho, shape, generator)
        return ppi_mean(human, predicted, measures(others, rho, shape, generator)[1])

    return trial


def coverage(trial: Callable[[int], Figure], truth: float, data_sets: int) -> dict[str, object]:
    figures = [trial(seed) for seed in range(data_sets)]
    known = [(figure.low, figure.high) for figure in figures if figure.low is not None and figure.high is not None]
    low, high = np.array(known).T
    return {
        "truth": round(truth, 3),
        "data_sets": len(known),
        "covered": round(float(np.mean((low <= truth) & (truth <= high))), 4),
        "missed_low": round(float(np.mean(high < truth)), 4),
        "missed_high": round(float(np.mean(low > truth)), 4),
        "width": round(float(np.mean(high - low)), 4),
    }


def study(data_sets: int, bootstrap: int, sizes: tuple[int, ...] = TOPICS) -> Iterator[dict[str, object]]:
    """One row for each figure, population and number of topics."""
    for name, population in POPULATIONS.items():
        for weights in (None, "quadratic"):
            for topics in sizes:
                row = {"figure": f"kappa {weights}" if weights else "kappa", "population": name, "topics": topics}
                trial = kappa_trial(population, weights, topics, bootstrap)
                yield row | coverage(trial, true_kappa(population, weights), data_sets)
    logistic = float(measures(4_000_000, 0.0, "share", np.random.default_rng(0))[0].mean())
    for shape, truth in (("normal", 0.0), ("share", logistic)):
        for rho in (0.3, 0.6, 0.9):
            for topics in sizes:
                row = {"figure": "ppi_mean", "population": f"{shape}, rho {rho}, {10 * topics} more", "topics": topics}
                yield row | coverage(ppi_trial(rho, shape, topics, 10 * topics), truth, data_sets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=2000, help="data sets for each row")
    parser.add_argument("--bootstrap", type=int, default=2000, help="resamples for each interval of kappa")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results.csv")
    arguments = parser.parse_args()
    rows = []
    for row in study(arguments.data_sets, arguments.bootstrap):
        print(*(row[name] for name in COLUMNS), file=sys.stderr, flush=True)
        rows.append(row)
    with arguments.output.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
