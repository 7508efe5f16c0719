"""`llmrank aggregate` as a user meets it: tables, CSV, JSON, queries, and errors of one line."""

from __future__ import annotations

import csv
import io
import json

import pytest
import typer
from typer.testing import CliRunner

from llmrank.aggregate import Comparisons, bradley_terry
from llmrank.cli.aggregate import aggregate
from llmrank.errors import InputError

app = typer.Typer()
app.command()(aggregate)

VOTES = "left,right,winner\na,b,left\nb,a,left\nb,c,left\nc,b,tie\nc,a,left\na,c,left\na,c,\n"
QUERIES = "query_id,left,right,winner\nq2,a,b,left\nq2,b,a,left\nq1,x,y,left\nq1,x,y,tie\n"


@pytest.fixture
def votes(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "votes.csv"
        path.write_text(text)
        return str(path)

    return write


def run(*arguments: str):
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_the_csv_holds_the_scores_in_full_precision_best_first(votes, tmp_path):
    out = tmp_path / "scores.csv"
    result = run(votes(VOTES), "--output", str(out), "--bootstrap", "50", "--ties", "davidson")
    assert result.stdout == ""
    assert "1 row has no winner (the first on line 8)" in result.stderr
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["item", "score", "low", "high", "rank"]
    expected = bradley_terry(Comparisons.read(votes(VOTES)), ties="davidson", bootstrap=50)
    assert [row["item"] for row in rows] == expected.ranking
    assert {row["item"]: float(row["score"]) for row in rows} == expected.as_dict()
    assert [int(row["rank"]) for row in rows] == sorted(expected.ranks.tolist())
    assert all(float(row["low"]) <= float(row["score"]) <= float(row["high"]) for row in rows)


def test_several_queries_are_scored_apart_and_pooled_on_request(votes):
    path = votes(QUERIES)
    rows = list(csv.DictReader(io.StringIO(run(path, "--output", "-", "--bootstrap", "0", "--quiet").stdout)))
    assert [(row["query_id"], row["item"]) for row in rows] == [("q2", "a"), ("q2", "b"), ("q1", "x"), ("q1", "y")]
    assert {row["low"] for row in rows} == {""}
    pooled = run(path, "--output", "-", "--bootstrap", "10", "--by", "all", "--quiet").stdout
    assert pooled.startswith("item,score,low,high,rank\n")
    one = run(votes(VOTES), "--output", "-", "--quiet", "--bootstrap", "0").stdout
    assert one.startswith("item,score,low,high,rank\n")


def test_json_is_one_object_with_notes_and_diagnosis(votes):
    result = run(votes(QUERIES), "--json", "--bootstrap", "20", "--method", "pagerank")
    said = json.loads(result.stdout)
    assert said["method"] == "pagerank"
    assert said["settings"] == {"bootstrap": 20, "seed": 0, "level": 0.95}
    second = said["results"][1]
    assert second["query_id"] == "q1"
    assert [row["item"] for row in second["scores"]] == ["x", "y"]
    assert second["diagnosis"]["comparisons"] == 2
    assert second["diagnosis"]["components"] == [["x", "y"]]
    assert said["skipped"] == 0


def test_the_table_ends_in_what_limits_it(votes):
    shown = run(votes("left,right,winner\na,b,left\nb,a,left\nc,d,left\n"), "--bootstrap", "20").stdout
    assert "disconnected" in shown
    assert "MAP" in shown
    assert "c won every comparison." in shown


def test_rows_without_any_winner_give_an_empty_table_and_a_sentence(votes):
    result = run(votes("left,right,winner\na,b,\n"), "--output", "-")
    assert result.stdout == "item,score,low,high,rank\n"
    assert "There are no comparisons" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "elo-rating"], "there are bradley-terry, newman"),
        (["--by", "topic"], "--by topic: it must be query or all"),
        (["--ties", "third"], "--ties third"),
        (["--method", "newman", "--ties", "half"], "--ties belongs to"),
        (["--method", "bradly-terry"], "did you mean bradley-terry"),
        (["--json", "--output", "-"], "both would write to standard output"),
        (["--by", "query"], "no query_id"),
        (["--resample", "queries"], "no query_id"),
    ],
)
def test_bad_usage_is_one_sentence(votes, arguments, said):
    with pytest.raises(InputError, match=said):
        run(votes(VOTES), *arguments)


def test_a_row_without_its_query_is_named_with_its_line(votes):
    with pytest.raises(InputError, match=r"votes.csv:6: there is no query_id"):
        run(votes(QUERIES + ",a,b,left\n"))


def test_every_published_method_runs_on_the_crowd_votes(shared_data):
    path = str(shared_data / "preferences" / "gpt4-crowd-comparisons.csv")
    from llmrank.aggregate import METHODS

    for method in METHODS:
        shown = json.loads(run(path, "--method", method, "--json", "--bootstrap", "2").stdout)
        rows = shown["results"][0]["scores"]
        assert len(rows) == 59
        assert all(row["low"] is not None and row["score"] is not None for row in rows)
