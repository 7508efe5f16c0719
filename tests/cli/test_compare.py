"""`llmrank compare`: what it writes, and how it ends."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from llmrank.aggregate import Comparisons, bradley_terry
from llmrank.data.comparisons import read_comparisons
from llmrank.data.items import ItemInputs
from tests.cli.conftest import Program

SYSTEMS = ["alpha", "beta two", "gamma", "delta", "epsilon"]
WORTH = {"alpha": 4, "beta two": 3, "gamma": 2, "delta": 1, "epsilon": 0}


@pytest.fixture(autouse=True)
def _files(folder: Path) -> None:
    draw = random.Random(4)
    lines = []
    for system in SYSTEMS:
        for query in ("q1", "q2"):
            text = f"answer of {system} to {query}" + " word" * draw.randint(0, 9)
            lines.append({"query_id": query, "item_id": system, "text": text})
    Path("items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("truth.qrels").write_text(
        "".join(f"{q} 0 {s} {WORTH[s]}\n" for q in ("q1", "q2") for s in SYSTEMS if " " not in s)
    )


JOB = ("--queries", "queries.tsv", "--items", "items.jsonl", "--output", "out.jsonl")
JUDGE = ("--backend", "simulated:truth.qrels")


def test_its_output_is_what_aggregate_takes(llmrank: Program) -> None:
    assert llmrank("compare", *JOB, *JUDGE).code == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    assert [row["query_id"] for row in rows] == ["q1"] * 20 + ["q2"] * 20
    outcome = llmrank("aggregate", "out.jsonl", "--method", "win-rate", "--by", "all", "--output", "scores.csv")
    assert outcome.code == 0
    ranked = [line.split(",")[0] for line in Path("scores.csv").read_text().splitlines()[1:]]
    assert ranked[:3] == ["alpha", "gamma", "delta"]
    assert bradley_terry(Comparisons.read("out.jsonl")).n == 40


def test_a_name_in_csv_makes_it_csv_with_the_same_rows(llmrank: Program) -> None:
    faulty = f"{JUDGE[1]}?malformed=0.1"
    job = (*JOB[:4], "--backend", faulty, "--no-retry-format", "--max-failure-rate", "1", "--quiet", "--output")
    for name in ("out.jsonl", "out.csv"):
        assert llmrank("compare", *job, name).code == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    with open("out.csv", newline="") as file:
        told = list(csv.DictReader(file))
    assert list(told[0]) == list(rows[0])
    assert [[r[c] for c in ("left", "right", "winner", "raw", "key")] for r in told] == [
        [str(r[c]) for c in ("left", "right", "winner", "raw", "key")] for r in rows
    ]
    tables = [read_comparisons(name) for name in ("out.jsonl", "out.csv")]
    assert tables[0].share == tables[1].share
    assert len(tables[0].skipped) == len(tables[1].skipped) > 0


def test_a_relative_rubric_is_given_as_a_variable(llmrank: Program) -> None:
    rubric = ("--template", "preference/rubric", "--template-variable", "rubric=Which is shorter?")
    job = (*JOB, *JUDGE, *rubric, "--ledger", "rubric.ledger")
    assert llmrank("compare", *job).code == 0
    key = json.loads(Path("out.jsonl").read_text().splitlines()[0])["key"]
    assert "Rubric: Which is shorter?" in llmrank("ledger", "show", key, "--ledger", "rubric.ledger").out


def test_no_input_is_written_over(llmrank: Program) -> None:
    before = Path("items.jsonl").read_bytes()
    outcome = llmrank("compare", *JOB[:4], *JUDGE, "--output", "./items.jsonl")
    assert outcome.code == 2
    assert "--output ./items.jsonl: this file is read as well" in outcome.error
    assert Path("items.jsonl").read_bytes() == before


def test_a_second_run_asks_nothing_and_writes_the_same(llmrank: Program) -> None:
    assert llmrank("compare", *JOB, *JUDGE).code == 0
    first = Path("out.jsonl").read_bytes()
    again = llmrank("compare", *JOB, *JUDGE, "--json", "--quiet")
    told = json.loads(again.out)
    assert (told["calls"], told["reused"], told["rows"]) == (0, 40, 40)
    assert Path("out.jsonl").read_bytes() == first


def test_a_budget_ends_it_with_what_was_asked(llmrank: Program) -> None:
    outcome = llmrank("compare", *JOB, *JUDGE, "--max-calls", "7", "--quiet")
    assert outcome.code == 4
    assert "7" in outcome.error
    assert len(Path("out.jsonl").read_text().splitlines()) == 7


def test_too_many_failures_are_3_and_counted(llmrank: Program) -> None:
    judge = ("--backend", "simulated:truth.qrels?malformed=1", "--no-retry-format")
    outcome = llmrank("compare", *JOB, *judge, "--quiet")
    assert outcome.code == 3
    assert "40 of 40 questions failed" in outcome.error
    skipped = llmrank("aggregate", "out.jsonl", "--method", "win-rate")
    assert "40" in skipped.out + skipped.err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"query_id": "q1", "text": "x"}', "items.jsonl:11: no item id"),
        ('{"query_id": "q1", "item_id": "alpha", "text": "x"}', "items.jsonl:11: item alpha of query q1"),
        ('{"query_id": "q7", "item_id": "alpha", "text": "x"}', "items.jsonl:11: query q7 is not in queries.tsv"),
        ('{"query_id": "q1", "item_id": "new"}', "items.jsonl:11: no text"),
        ("[1]", "items.jsonl:11: a line must be a JSON object"),
    ],
)
def test_bad_items_are_2_and_nothing_is_sent(llmrank: Program, line: str, told: str) -> None:
    with Path("items.jsonl").open("a") as file:
        file.write(line + "\n")
    outcome = llmrank("compare", *JOB, *JUDGE)
    assert outcome.code == 2
    assert told in outcome.error
    assert not Path("out.jsonl").exists()


def test_inputs_are_read_lazily_and_again() -> None:
    with ItemInputs.open("queries.tsv", "items.jsonl") as inputs:
        assert (len(inputs), list(inputs.sizes())) == (2, [5, 5])
        for _ in range(2):
            assert [c.query.id for c in inputs] == ["q1", "q2"]
            assert [d.id for c in inputs for d in c.documents] == SYSTEMS * 2
