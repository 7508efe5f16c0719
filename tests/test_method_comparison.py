"""The studies of methods run small, and their committed tables hold what the methods promise."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path
from typing import Any

import pytest

from llmrank.rerank.methods import all_methods

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
COMPARISON, SAVINGS = EXPERIMENTS / "method_comparison", EXPERIMENTS / "active_savings"
EXACT = ("heapsort", "bubblesort", "quicksort", "mergesort", "all-pairs", "setwise-heapsort", "setwise-bubblesort")
EXACT += ("setwise-insertion", "tournament-sort", "sliding-window", "top-down", "full-list", "pointwise", "yes-no")
"""What a perfect judge leaves no error in at depth 10."""


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    runpy.run_path(str(COMPARISON / "run.py"))["main"](["--small", "--output", str(folder)])
    return folder


def test_every_method_is_in_the_small_table_or_named_as_left_out(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = runpy.run_path(str(COMPARISON / "run.py"))
    left_out: dict[str, str] = dict(study["SAME"])
    rows = list(study["study"](2, 12, study["CONDITIONS"][:1], left_out))
    assert {row["method"] for row in rows} | set(left_out) >= {*all_methods(), "first-stage"}
    assert {row["method"] for row in table(small / "results.csv")} == {row["method"] for row in rows}


@pytest.mark.parametrize("folder", ["small", "committed"])
def test_a_perfect_judge_leaves_exact_methods_without_error(folder: str, small: Path) -> None:
    rows = table((small if folder == "small" else COMPARISON) / "results.csv")
    perfect = [r for r in rows if (r["noise"], r["order_bias"], r["malformed"]) == ("0.0", "0.0", "0.0")]
    found = {r["method"]: float(r["nDCG@10"]) for r in perfect if not r["options"]}
    assert {name: found[name] for name in EXACT} == dict.fromkeys(EXACT, 1.0)
    assert found["first-stage"] < 0.8


def test_the_committed_table_is_whole() -> None:
    rows = table(COMPARISON / "results.csv")
    conditions = {(r["noise"], r["order_bias"], r["malformed"]) for r in rows}
    assert len(conditions) == 12
    assert len(rows) % 12 == 0
    assert {r["method"] for r in rows} - {"first-stage"} <= set(all_methods())
    for row in rows:
        assert float(row["low"]) <= float(row["nDCG@10"]) <= float(row["high"]), row
        assert int(row["queries"]) >= 5
        assert row["method"] == "first-stage" or 0 < float(row["rounds"]) <= float(row["calls"])
        assert float(row["failed"]) == 0 or row["malformed"] != "0.0"


def test_the_picture_is_drawn_from_the_table(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib (extra `report`)")
    draw: Any = runpy.run_path(str(COMPARISON / "plot.py"))["main"]
    for name in ("one.svg", "two.svg"):
        draw(["--output", str(tmp_path / name)])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_the_front_holds_what_nothing_cheaper_beats() -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib (extra `report`)")
    plot = runpy.run_path(str(COMPARISON / "plot.py"))
    points = [plot["Point"](n, "order", c, c, q, q, q) for n, c, q in (("a", 9, 0.8), ("b", 9, 0.7), ("c", 5, 0.6))]
    points += [plot["Point"](n, "order", c, c, q, q, q) for n, c, q in (("d", 20, 0.8), ("e", 30, 0.9))]
    assert [point.name for point in plot["front"](points)] == ["c", "a", "e"]


def test_the_savings_study_runs_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = runpy.run_path(str(SAVINGS / "run.py"))
    study["main"](["--small", "--output", str(tmp_path / "results.csv")])
    rows = table(tmp_path / "results.csv")
    assert tuple(rows[0]) == study["COLUMNS"]
    assert sum(row["method"] == "heapsort" for row in rows) == len(capsys.readouterr().out.splitlines()) == 2
    for row in rows:
        assert row["method"] == "heapsort" or float(row["calls"]) <= int(row["questions_each"]) * int(row["n"])


def test_the_committed_savings_are_as_the_table_says() -> None:
    rows = table(SAVINGS / "results.csv")
    told = list(runpy.run_path(str(SAVINGS / "run.py"))["summary"](rows))
    readme = (SAVINGS / "README.md").read_text()
    for line in told:
        assert line in readme
