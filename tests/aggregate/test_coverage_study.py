"""The coverage study of strengths runs, and its committed table holds what is promised."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "coverage"


def test_the_study_runs_small() -> None:
    study = runpy.run_path(str(FOLDER / "strengths.py"))
    rows = list(study["study"](data_sets=5, bootstrap=50))
    assert {row["interval"] for row in rows} == {"bootstrap", "analytic"}
    assert all(set(row) == set(study["COLUMNS"]) for row in rows)
    assert all(0.5 < row["covered"] <= 1 for row in rows)


def test_the_committed_intervals_cover() -> None:
    with (FOLDER / "strengths.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    for row in rows:
        assert 0.93 <= float(row["covered"]) <= 0.97, row
        assert int(row["data_sets"]) >= 2000
