"""`llmrank agree`: flags, names, one JSON object, output within 80 columns, errors of one sentence."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from llmrank.cli.agree import agree
from llmrank.errors import InputError

Call = Callable[..., Result]
JUDGE = "a-judge-with-quite-a-long-name-v2"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command in a folder with three label files, two comparisons files and two runs."""
    app = typer.Typer()
    app.command()(agree)
    draw = random.Random(0)
    pairs = [(f"q{topic}", f"d{doc}", draw.randrange(4)) for topic in range(12) for doc in range(8)]
    judged = {
        "human.qrels": pairs,
        f"{JUDGE}.qrels": [(q, d, min(3, max(0, g + draw.choice((-1, 0, 0, 1))))) for q, d, g in pairs],
        "half.txt": [(q, d, g) for q, d, g in pairs if draw.random() < 0.5],
        "wild.qrels": [(q, d, 7 if i == 4 else g) for i, (q, d, g) in enumerate(pairs)],
    }
    for name, rows in judged.items():
        (tmp_path / name).write_text("".join(f"{q} 0 {d} {g}\n" for q, d, g in rows))
    (tmp_path / "packed.qrels.gz").write_bytes(gzip.compress((tmp_path / "half.txt").read_bytes()))
    votes = [f"q{i},x,y,{draw.choice(('left', 'right', 'tie'))}\n" for i in range(20)]
    (tmp_path / "votes.csv").write_text("query_id,left,right,winner\n" + "".join(votes))
    (tmp_path / "said.csv").write_text("query_id,left,right,winner\n" + "".join(votes[:5] + votes[10:]))
    for name in ("one", "two"):
        ranked = sorted(pairs, key=lambda pair: draw.random())
        lines = [f"{q} Q0 {d} 1 {len(ranked) - place} {name}\n" for place, (q, d, _) in enumerate(ranked)]
        (tmp_path / f"{name}.trec").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str | None = None, bootstrap: str = "50") -> Result:
        result = CliRunner().invoke(app, [*arguments, "--bootstrap", bootstrap], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_json_is_one_object_and_names_the_judges(call: Call) -> None:
    result = call("human.qrels", f"{JUDGE}.qrels", "gz=packed.qrels.gz", "half.txt", "--json")
    found = json.loads(result.stdout)
    assert list(found["judges"]) == [JUDGE, "gz", "half"]
    assert found["judges"]["gz"]["labels"] == found["judges"]["half"]["labels"]
    assert found["judges"]["half"]["coverage"] < 1
    assert found["settings"]["bootstrap"] == 50
    assert result.stderr == ""
    assert call("human.qrels", f"{JUDGE}.qrels", "gz=packed.qrels.gz", "half.txt", "--json").stdout == result.stdout


def test_the_flags_reach_the_figures(call: Call) -> None:
    flags = ["--scale", "0-3", "--binarize", "2", "--resample", "pairs", "--seed", "5"]
    flags += ["--runs", "one.trec", "--runs", "other=two.trec", "-m", "P@5", "-m", "nDCG@10"]
    found = json.loads(call("human.qrels", "wild.qrels", "--out-of-range", "drop", *flags, "--json").stdout)
    judge = found["judges"]["wild"]
    assert list(judge["binarized"]) == ["2"]
    assert list(judge["systems"]) == ["P@5", "nDCG@10"]
    assert judge["systems"]["P@5"]["tau_b"]["n"] == 2
    assert judge["out_of_range"]["values"] == {"7": 1}
    settings = found["settings"]
    assert (settings["resample"], settings["seed"], settings["out_of_range"]) == ("pairs", 5, "drop")


def test_no_bootstrap_no_intervals(call: Call) -> None:
    found = json.loads(call("human.qrels", "half.txt", "--json", bootstrap="0").stdout)
    figure = found["judges"]["half"]["labels"]["kappa"]
    assert (figure["value"], figure["low"], figure["high"]) == (1, None, None)


def test_comparisons(call: Call) -> None:
    found = json.loads(call("votes.csv", "said.csv", "--json").stdout)
    judge = found["judges"]["said"]
    assert (found["truth"]["pairs"], judge["pairs"], judge["coverage"]) == (20, 15, 0.75)
    assert judge["preferences"]["accuracy"]["value"] == 1
    assert "labels" not in judge


@pytest.mark.parametrize(
    "arguments",
    [
        ["human.qrels", f"{JUDGE}.qrels", "--runs", "one.trec", "--runs", "two.trec"],
        ["human.qrels", f"{JUDGE}.qrels", "half.txt", "wild.qrels", "--out-of-range", "clip"],
        ["votes.csv", "said.csv"],
    ],
    ids=["one judge", "several", "preferences"],
)
def test_the_tables_fit_eighty_columns(call: Call, arguments: list[str]) -> None:
    shown = call(*arguments).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "kappa" in shown
    assert "96 pairs over 12 topics" in shown or "20 pairs over 20 topics" in shown
    if "clip" in arguments:
        assert "7 (1)" in shown


def test_standard_input(call: Call, tmp_path: Path) -> None:
    text = (tmp_path / "half.txt").read_text()
    found = json.loads(call("human.qrels", "piped=-", "--json", stdin=text).stdout)
    assert found["judges"]["piped"]["pairs"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["human.qrels", "wild.qrels"], "wild.qrels:5: the label 7 is outside the scale 0-3"),
        (["human.qrels", "nothing.qrels"], "no such file"),
        (["human.qrels", "half.txt", "half=wild.qrels"], "both named 'half'"),
        (["human.qrels", "votes.csv"], "all be qrels or all be comparisons"),
        (["votes.csv", "said.csv", "--scale", "0-3"], "comparisons have no grades"),
        (["human.qrels", "half.txt", "--scale", "3"], "not LOW-HIGH"),
        (["human.qrels", "half.txt", "--binarize", "4"], "the cut 4 leaves no label"),
        (["human.qrels", "half.txt", "-m", "nDGC@10"], "there is no measure"),
        (["-", "-"], "only one of the files"),
    ],
)
def test_errors_are_one_sentence(call: Call, arguments: list[str], said: str) -> None:
    with pytest.raises(InputError) as error:
        call(*arguments)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
