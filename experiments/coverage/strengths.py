"""How often the intervals of Bradley-Terry strengths contain the truth: bootstrap and analytic, ties and clusters.

Comparisons are drawn from known strengths; the coverage is the mean over items of the share of data sets whose nominal
95% interval contains the item's strength. Run `python experiments/coverage/strengths.py`; `--help` makes it shorter.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llmrank.aggregate import Comparisons, bradley_terry

COLUMNS = ("design", "interval", "items", "comparisons", "data_sets", "covered", "least_item", "most_item")


class Design(NamedTuple):
    """How comparisons come about."""

    items: int
    comparisons: int
    spread: float
    """Half the range of the logarithms of the strengths."""
    ties: str = "half"
    """`davidson` draws ties too; `half` draws none."""
    cluster: int = 1
    """So many comparisons are one vote repeated, as by one rater."""

    @property
    def strengths(self) -> np.ndarray:
        """Shape (items,), summing to 1."""
        weights = np.exp(np.linspace(-self.spread, self.spread, self.items))
        return weights / weights.sum()

    def draw(self, generator: np.random.Generator) -> Comparisons:
        groups = self.comparisons // self.cluster
        left = generator.integers(0, self.items, groups)
        right = (left + generator.integers(1, self.items, groups)) % self.items
        root = np.sqrt(self.strengths)
        a, b = root[left] / root[right], root[right] / root[left]
        tie = 1.0 if self.ties == "davidson" else 0.0
        draw = generator.random(groups) * (a + b + tie)
        share = np.where(draw < a, 1.0, np.where(draw < a + tie, 0.5, 0.0))
        if self.cluster == 1:
            return Comparisons(left, right, share)
        votes = [np.repeat(column, self.cluster) for column in (left, right, share, np.arange(groups))]
        return Comparisons(votes[0], votes[1], votes[2], None, votes[3])


DESIGNS = {
    "few items, well compared": Design(6, 600, 1.0),
    "more items": Design(12, 1200, 1.2),
    "ties": Design(8, 600, 1.0, ties="davidson"),
    "votes of four": Design(8, 1600, 1.0, cluster=4),
}


def coverage(design: Design, data_sets: int, settings: dict[str, Any]) -> dict[str, object]:
    held = np.zeros(design.items)
    for seed in range(data_sets):
        found = bradley_terry(design.draw(np.random.default_rng(seed)), ties=design.ties, **settings)
        assert found.low is not None
        assert found.high is not None
        held += (found.low <= design.strengths) & (design.strengths <= found.high)
    shares = held / data_sets
    return {
        "data_sets": data_sets,
        "covered": round(float(shares.mean()), 4),
        "least_item": round(float(shares.min()), 4),
        "most_item": round(float(shares.max()), 4),
    }


def study(data_sets: int, bootstrap: int) -> Iterator[dict[str, object]]:
    """One row for each design and kind of interval."""
    kinds: dict[str, dict[str, Any]] = {"bootstrap": {"bootstrap": bootstrap}, "analytic": {"analytic": True}}
    for name, design in DESIGNS.items():
        for kind, settings in kinds.items():
            row = {"design": name, "interval": kind, "items": design.items, "comparisons": design.comparisons}
            yield row | coverage(design, data_sets, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=2000, help="data sets for each row")
    parser.add_argument("--bootstrap", type=int, default=400, help="resamples for each interval")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "strengths.csv")
    arguments = parser.parse_args()
    rows = []
    for row in study(arguments.data_sets, arguments.bootstrap):
        print(*(row[name] for name in COLUMNS), sep=", ", file=sys.stderr, flush=True)
        rows.append(row)
    with arguments.output.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
