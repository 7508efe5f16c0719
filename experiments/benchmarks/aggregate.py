"""Times of aggregation beside other libraries, side by side in one run; prints ratios. Needs evalica and choix.

    python experiments/benchmarks/aggregate.py [--rows 1000000] [--no-choix]

Every time is the least of a few runs on the same arrays, from the arrays to the scores: ours builds `Comparisons`
from them each time, evalica gets its list of winners and choix its list of (winner, loser) ready made.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrank.aggregate import Comparisons, bradley_terry, counting, kemeny

Array = NDArray[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--no-choix", action="store_true", help="leave out choix, which takes minutes")
    arguments = parser.parse_args()
    for size in (100, 1000):
        beside_others(size, arguments.rows, not arguments.no_choix)
    replicates_and_information(100, arguments.rows)
    replicates_and_information(1000, arguments.rows, bootstrap=0)
    local_search()


def beside_others(size: int, rows: int, with_choix: bool) -> None:
    import evalica

    left, right, share = drawn(size, rows)
    winners = [evalica.Winner.X if s else evalica.Winner.Y for s in share]
    print(f"{rows:,} comparisons, {size:,} items")
    ours = least(lambda: counting(Comparisons(left, right, share)), 5)
    theirs = least(lambda: evalica.counting(left, right, winners), 2)
    line("counting / evalica", ours, theirs, "at most 1/2")
    ours = least(lambda: bradley_terry(Comparisons(left, right, share)), 5)
    theirs = least(lambda: evalica.bradley_terry(left, right, winners), 2)
    line("Bradley-Terry / evalica", ours, theirs, "at most 1/2")
    if with_choix:
        import choix

        pairs = [(a, b) if s else (b, a) for a, b, s in zip(left.tolist(), right.tolist(), share, strict=True)]
        theirs = least(lambda: choix.ilsr_pairwise(size, pairs), 1)
        line("Bradley-Terry / choix.ilsr_pairwise", ours, theirs, "at most 1/10")


def replicates_and_information(size: int, rows: int, bootstrap: int = 1000) -> None:
    left, right, share = drawn(size, rows)
    print(f"{rows:,} comparisons, {size:,} items")
    fit = least(lambda: bradley_terry(Comparisons(left, right, share)), 10)
    analytic = least(lambda: bradley_terry(Comparisons(left, right, share), analytic=True), 5)
    line("fit with analytic intervals / fit", analytic, fit, "at most 3")
    if bootstrap:
        replicated = least(lambda: bradley_terry(Comparisons(left, right, share), bootstrap=bootstrap), 2)
        line(f"{bootstrap} replicates / {bootstrap} fits from the rows", replicated, bootstrap * fit, "at most 1/20")


def local_search() -> None:
    rng = np.random.default_rng(0)
    rankings = [rng.permutation(100).tolist() for _ in range(20)]
    print(f"Kemeny of 20 rankings of 100 items: {least(lambda: kemeny(rankings), 3):.3f} s (under 1 s)")


def drawn(size: int, rows: int) -> tuple[Array, Array, Array]:
    """Comparisons without ties, drawn from Bradley-Terry with normal log-strengths."""
    rng = np.random.default_rng(size)
    strength = rng.normal(size=size)
    left = rng.integers(0, size, rows)
    right = (left + rng.integers(1, size, rows)) % size
    share = (rng.random(rows) < 1 / (1 + np.exp(strength[right] - strength[left]))).astype(np.float64)
    return left, right, share


def least(job: Callable[[], object], times: int) -> float:
    """The least of the seconds that the job takes in several runs."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def line(what: str, ours: float, theirs: float, wanted: str) -> None:
    print(f"  {what}: {ours:.3f} s / {theirs:.3f} s = {ours / theirs:.3f} = 1/{theirs / ours:.1f} ({wanted})")


if __name__ == "__main__":
    main()
