"""Draws `results.csv`: nDCG@10 against calls and rounds, the Pareto front marked. Needs matplotlib (extra `report`).

Run `python experiments/method_comparison/plot.py` after `run.py`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams |= {"svg.hashsalt": "llmrank", "svg.fonttype": "none"}  # the same table gives the same small file
from matplotlib import pyplot  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

FOLDER = Path(__file__).parent
COLOURS = {"order": "#1b6ca8", "choose": "#c8553d", "compare": "#3c8d53", "grade": "#8a5aa8"}
PANELS = (("0.1", "0.0", "0.0"), ("0.25", "0.1", "0.05"))
"""Noise, order bias and malformed replies of the judges shown."""
AXES = {"calls": "calls a query", "rounds": "rounds a query (front of the methods with at most 100 calls)"}
AT_MOST = {"calls": float("inf"), "rounds": 100.0}
"""Calls of the methods among which the front is drawn: all pairs at once take one round, which says little."""


class Point(NamedTuple):
    """A method with its settings."""

    name: str
    question: str
    calls: float
    cost: float
    quality: float
    low: float
    high: float


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in quality at the same cost or less."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if not best or point.quality > best[-1].quality:
            best.append(point)
    return best


def draw(axes: Any, points: Sequence[Point], most: float) -> None:
    marked = front([point for point in points if point.calls <= most])
    steps = [(p.cost, p.quality) for p in marked] + [(max(p.cost for p in points), marked[-1].quality)]
    axes.step(*zip(*steps, strict=True), where="post", color="0.75", linewidth=1.2, zorder=1)
    for point in points:
        colour, on_front = COLOURS[point.question], point in marked
        axes.errorbar(
            point.cost,
            point.quality,
            yerr=[[point.quality - point.low], [point.high - point.quality]],
            fmt="o",
            markersize=6 if on_front else 4,
            color=colour,
            markerfacecolor=colour if on_front else "white",
            elinewidth=0.6,
            alpha=1 if on_front else 0.55,
            zorder=3 if on_front else 2,
        )
    for number, point in enumerate(marked):
        above = number % 2 == 0
        axes.annotate(
            point.name,
            (point.cost, point.high if above else point.low),
            xytext=(0, 4 if above else -4),
            textcoords="offset points",
            rotation=35,
            fontsize=7.5,
            ha="left" if above else "right",
            va="bottom" if above else "top",
        )
    axes.set_xscale("log")
    axes.grid(alpha=0.2)


def picture(rows: Sequence[dict[str, str]]) -> Any:
    figure, grid = pyplot.subplots(2, 2, figsize=(12, 10), sharey="row", layout="constrained")
    for (noise, bias, malformed), line in zip(PANELS, grid, strict=True):
        here = [r for r in rows if (r["noise"], r["order_bias"], r["malformed"]) == (noise, bias, malformed)]
        start = next(float(r["nDCG@10"]) for r in here if r["method"] == "first-stage")
        for (cost, label), axes in zip(AXES.items(), line, strict=True):
            points = [
                Point(f"{r['method']} {r['options']}".strip(), r["question"], *(float(r[c]) for c in _columns(cost)))
                for r in here
                if r["method"] != "first-stage"
            ]
            draw(axes, points, AT_MOST[cost])
            axes.set_xlabel(label)
            judge = f"noise {noise}, order bias {bias}, malformed {malformed}"
            axes.set_title(f"{judge} (first stage: {start:.2f})", fontsize=10)
        line[0].set_ylabel("nDCG@10, 95% interval")
        low, high = line[0].get_ylim()
        line[0].set_yticks([tick for tick in line[0].get_yticks() if low < tick <= 1])
        line[0].set_ylim(low, high + 0.4 * (high - low))  # room for the names
    handles = [Line2D([], [], color=c, marker="o", linestyle="", label=q) for q, c in COLOURS.items()]
    handles.append(Line2D([], [], color="0.75", label="Pareto front (filled)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _columns(cost: str) -> tuple[str, ...]:
    return "calls", cost, "nDCG@10", "low", "high"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, default=FOLDER / "results.csv")
    parser.add_argument("--output", type=Path, default=FOLDER / "results.svg", help=".svg, .png or .pdf")
    given = parser.parse_args(arguments)
    with given.input.open(newline="") as stream:
        figure = picture(list(csv.DictReader(stream)))
    vector = given.output.suffix == ".svg"
    figure.savefig(given.output, dpi=130, metadata={"Date": None} if vector else None)


if __name__ == "__main__":
    main()
