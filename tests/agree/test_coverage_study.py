"""The coverage study runs, and its committed table holds what is promised."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "coverage"


def test_the_study_runs_small() -> None:
    study = runpy.run_path(str(FOLDER / "run.py"))
    rows = list(study["study"](data_sets=4, bootstrap=50, sizes=(10,)))
    assert {row["figure"] for row in rows} == {"kappa", "kappa quadratic", "ppi_mean"}
    assert all(set(row) == set(study["COLUMNS"]) for row in rows)
    assert all(0 < row["width"] < 10 for row in rows)


def test_the_committed_intervals_cover() -> None:
    with (FOLDER / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["topics"] for row in rows} == {"10", "20", "40"}
    for row in rows:
        low, high = (0.92, 0.98) if row["topics"] == "10" else (0.93, 0.97)
        assert low <= float(row["covered"]) <= high, row
        assert int(row["data_sets"]) >= 1990
