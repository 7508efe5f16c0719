"""`llmrank evaluate`: what it prints, how runs are named, and what it refuses."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from llmrank.cli.evaluate import evaluate
from llmrank.errors import InputError

app = typer.Typer()
app.command()(evaluate)

QRELS = "q1 0 a 2\nq1 0 b 0\nq2 0 a 1\nq3 0 c 1\n"
BASE = "q1 Q0 b 1 2.0 x\nq1 Q0 a 2 1.0 x\nq2 Q0 a 1 1.0 x\nq3 Q0 c 1 1.0 x\n"
OTHER = "q1 Q0 a 1 2.0 x\nq2 Q0 a 1 1.0 x\nq9 Q0 a 1 1.0 x\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "judged.qrels").write_text(QRELS)
    (tmp_path / "base.trec").write_text(BASE)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "my.other.run.gz").write_bytes(gzip.compress(OTHER.encode()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["judged.qrels", *arguments], input=stdin)


def run_json(*arguments: str, stdin: str | None = None) -> dict[str, Any]:
    result = run(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def refusal(*arguments: str) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, InputError)
    assert result.exception.exit_code == 2
    assert result.stdout == ""
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.mark.usefixtures("folder")
class TestJson:
    def test_has_the_promised_shape(self) -> None:
        found = run_json(
            "base.trec", "runs/my.other.run.gz", "-m", "RR@10", "-m", "Judged@10", "--per-query", "--baseline", "base"
        )
        assert list(found["runs"]) == ["base", "my.other"]
        base, other = found["runs"].values()
        assert base["measures"]["RR@10"]["value"] == pytest.approx(2.5 / 3)
        assert set(base["measures"]["RR@10"]) == {"value", "low", "high", "n", "note"}
        assert "tests" not in base
        assert other["per_query"] == {
            "RR@10": {"q1": 1.0, "q2": 1.0, "q3": 0.0},
            "Judged@10": {"q1": 1.0, "q2": 1.0, "q3": 0.0},
        }
        assert (base["missing"], other["missing"], other["ignored"]) == (0, 1, 1)
        test = other["tests"]["RR@10"]
        assert set(test) == {"difference", "p_t", "p_randomization", "p_holm"}
        assert test["difference"]["value"] == pytest.approx(-0.5 / 3)
        # Of the four signs of (+1/2, -1) all are at least as far from 0 as the sum seen; so two tests give 1 and 1.
        assert (test["p_randomization"], test["p_holm"]) == (1.0, 1.0)

    def test_has_the_values_of_topics_and_tests_only_where_asked_for(self) -> None:
        (base,) = run_json("base.trec")["runs"].values()
        assert set(base) == {"measures", "per_query", "missing", "ignored"}
        assert list(base["measures"]) == ["nDCG@10", "AP", "RR@10", "R@100"]

    def test_counts_only_shared_topics_where_asked_for(self) -> None:
        (other,) = run_json("runs/my.other.run.gz", "-m", "RR@10", "--only-shared")["runs"].values()
        assert (other["measures"]["RR@10"]["value"], other["measures"]["RR@10"]["n"], other["missing"]) == (1.0, 2, 1)

    def test_is_all_there_is_on_stdout_while_stderr_tells_what_is_missing(self) -> None:
        result = run("base.trec", "runs/my.other.run.gz", "--json")
        json.loads(result.stdout)
        assert result.stderr.splitlines() == [
            "run my.other: 1 of 3 topics of the qrels missing, counted as 0",
            "run my.other: 1 of its topics not in the qrels, ignored",
        ]
        assert run("runs/my.other.run.gz", "--quiet").stderr == ""

    def test_depends_on_the_seed_alone(self, shared_data: Path) -> None:
        runs = [str(shared_data / "runs" / f"dl19.{name}.trec.gz") for name in ("BM25", "BM25_RM3")]
        arguments = [str(shared_data / "qrels" / "dl19.qrels"), *runs, "--baseline", "dl19.BM25", "--json"]
        first, again, other = (CliRunner().invoke(app, [*arguments, "--seed", seed]).stdout for seed in "001")
        assert first == again
        assert first != other


@pytest.mark.usefixtures("folder")
class TestNames:
    def test_come_from_the_file_or_from_the_user(self) -> None:
        runs = ["base.trec", "mine=base.trec", "runs/my.other.run.gz"]
        assert list(run_json(*runs)["runs"]) == ["base", "mine", "my.other"]

    def test_of_a_file_with_an_equals_sign_are_its_own(self, folder: Path) -> None:
        (folder / "k=10.txt").write_text(BASE)
        assert list(run_json("k=10.txt")["runs"]) == ["k=10"]

    def test_that_two_runs_share_are_refused(self, folder: Path) -> None:
        (folder / "runs" / "base.txt").write_text(BASE)
        message = "base.trec and runs/base.txt are both named 'base': name one of them by NAME=FILE"
        assert refusal("base.trec", "runs/base.txt") == message
        assert "both named 'base'" in refusal("base.trec", "--baseline", "runs/base.txt")
        assert len(run_json("base.trec", "b=runs/base.txt")["runs"]) == 2

    def test_that_are_empty_are_refused(self) -> None:
        assert "write it as NAME=FILE" in refusal("=base.trec")
        assert "write it as NAME=FILE" in refusal("base=")

    @pytest.mark.parametrize("baseline", ["my.other", "runs/my.other.run.gz", "./runs/my.other.run.gz"])
    def test_baseline_is_a_run_by_its_name_or_its_file(self, baseline: str) -> None:
        found = run_json("base.trec", "runs/my.other.run.gz", "--baseline", baseline)
        assert found["settings"]["baseline"] == "my.other"
        assert list(found["runs"]) == ["base", "my.other"]

    @pytest.mark.parametrize(("baseline", "name"), [("runs/my.other.run.gz", "my.other"), ("b=base.trec", "base")])
    def test_baseline_may_be_a_file_of_its_own(self, baseline: str, name: str) -> None:
        found = run_json("base.trec", "--baseline", baseline)
        assert found["settings"]["baseline"] == name
        assert [key for key, value in found["runs"].items() if "tests" not in value] == [name]

    def test_one_file_may_be_standard_input(self) -> None:
        found = run_json("base.trec", "-", "-m", "RR@10", stdin=OTHER)
        assert found["runs"]["-"]["measures"]["RR@10"]["value"] == pytest.approx(2 / 3)
        assert "only one" in refusal("-", "again=-")


@pytest.mark.usefixtures("folder")
class TestTables:
    def test_show_means_with_intervals(self) -> None:
        lines = run("base.trec", "-m", "P(rel=2)@1", "-m", "RR@10").stdout.splitlines()
        assert "P(rel=2)@1: mean over n topics, with its 95% interval" in lines
        assert ["base", "3", "0.8333", "0.1162", "1.5504"] in [line.split() for line in lines]

    def test_show_tests_and_topics(self) -> None:
        arguments = ["base.trec", "runs/my.other.run.gz", "-m", "RR@10", "--baseline", "base", "--per-query"]
        rows = [line.split() for line in run(*arguments).stdout.splitlines()]
        assert ["base", "3", "0.8333"] in rows
        assert ["my.other", "3", "0.6667", "-0.1667", "-2.0640", "+1.7306", "0.7418", "1.0000", "1.0000"] in rows
        assert rows.count(["q1", "1.0000"]) == 1
        assert rows.count(["q3", "0.0000"]) == 1

    def test_show_a_dash_for_what_there_is_not(self) -> None:
        lines = run("base.trec", "b=base.trec", "-m", "RR@10", "--baseline", "base").stdout.splitlines()
        assert ["b", "3", "0.8333", "+0.0000", "+0.0000", "+0.0000", "-", "1.0000", "1.0000"] in [
            line.split() for line in lines
        ]

    def test_fit_80_columns(self, folder: Path) -> None:
        long = "a-run-with-a-name-[that]-no-column-of-a-table-in-80-characters-could-ever-hold-in-one-line"
        (folder / "judged.qrels").write_text(QRELS.replace("q1", "a-topic-with-an-id-that-is-rather-long"))
        measures = [f"-m{m}" for m in ("nDCG(judged_only=True)@1000", "AP(rel=2)@100", "RR", "P@5", "R@5", "Judged@10")]
        result = run("base.trec", f"{long}=base.trec", *measures, "--per-query", "--baseline", "base")
        assert result.exit_code == 0
        assert max(map(len, result.stdout.splitlines())) <= 80
        assert "0.6667" in result.stdout


@pytest.mark.usefixtures("folder")
class TestRefusals:
    def test_name_the_file_and_the_line(self, folder: Path) -> None:
        (folder / "bad.trec").write_text(BASE + "q1 Q0 z 3 high x\n")
        assert refusal("bad.trec").startswith("bad.trec:5: ")
        assert "absent.trec" in refusal("absent.trec")

    def test_name_the_measure_before_any_file_is_read(self) -> None:
        assert refusal("absent.trec", "-m", "ndcg@10") == "there is no measure 'ndcg', did you mean nDCG?"

    def test_of_the_command_line_have_exit_code_2(self) -> None:
        assert run().exit_code == 2
        assert run("base.trec", "--seed", "x").exit_code == 2


def test_help_has_an_example() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "llmrank evaluate dl19.qrels" in result.stdout


def test_importing_the_command_imports_nothing_heavy() -> None:
    heavy = {"numpy", "scipy", "ir_measures", "pytrec_eval", "pandas"}
    code = f"import sys, llmrank.cli.evaluate; print(sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True).stdout == b"[]\n"
