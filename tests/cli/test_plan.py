"""`llmrank plan rerank`: what it prints, and that it sends and writes nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.cli.conftest import FILES, JOB, Program
from tests.stub import Stub

FIELDS = {"calls", "rounds", "prompt_tokens", "completion_tokens", "cost", "seconds", "queries", "reused"}


def test_is_what_the_job_then_does(llmrank: Program) -> None:
    method = ("--method", "pointwise", "--price", "1,2")
    planned = json.loads(llmrank("plan", "rerank", *JOB, *method, "--json").out)
    done = json.loads(llmrank("rerank", *JOB, *method, "--json").out)
    assert planned.keys() >= FIELDS
    for count in ("queries", "calls", "prompt_tokens", "completion_tokens"):
        assert planned[count] == done[count]
    assert planned["cost"] == pytest.approx(done["cost"], abs=1e-6)
    assert planned["rounds"] == 1


def test_is_a_range_where_answers_matter(llmrank: Program) -> None:
    method = ("--method", "setwise-heapsort")
    planned = json.loads(llmrank("plan", "rerank", *JOB, *method, "--json").out)["calls"]
    assert set(planned) == {"min", "expected", "max"}
    done = json.loads(llmrank("rerank", *JOB, *method, "--json").out)
    assert planned["min"] <= done["calls"] <= planned["max"]


def test_takes_the_command_line_of_the_job_and_does_none_of_it(llmrank: Program, folder: Path) -> None:
    with Stub(lambda *_: "[1]") as stub:
        before = set(os.listdir(folder))
        planned = llmrank(
            *("plan", "rerank", *FILES, "--backend", "openai:m", "--base-url", stub.url, "--output", "no/such/out"),
            *("--report", "r.json", "--manifest", "m.json", "--quiet", "--ledger", "new.ledger", "--json"),
        )
        assert stub.bodies == []
    assert (planned.code, planned.err) == (0, "")
    assert planned.out.count("\n") == 1
    assert json.loads(planned.out)["calls"] == 3
    assert set(os.listdir(folder)) == before


def test_subtracts_what_a_named_ledger_holds_and_no_other(llmrank: Program) -> None:
    done = json.loads(llmrank("rerank", *JOB, "--max-calls", "1", "--json").out)
    assert done["calls"] == 1
    named = json.loads(llmrank("plan", "rerank", *JOB, "--ledger", "replies.ledger", "--json").out)
    assert (named["calls"], named["reused"]) == (2, 1)
    assert json.loads(llmrank("plan", "rerank", *JOB, "--json").out)["calls"] == 3
    assert json.loads(llmrank("plan", "rerank", *JOB, "--ledger", "none", "--json").out)["calls"] == 3


@pytest.mark.parametrize("method", ["pointwise", "setwise-heapsort"])
def test_reads_well(llmrank: Program, method: str) -> None:
    planned = llmrank("plan", "rerank", *JOB, "--method", method, "--price", "1,2")
    assert planned.code == 0
    assert all(len(line) <= 80 for line in planned.out.splitlines())
    found = dict(re.findall(r"^  ([\w ]+): +(.*)$", planned.out, re.M))
    assert list(found) == ["calls", "rounds", "prompt tokens", "completion tokens", "USD", "seconds"]
    assert found["calls"] == "38" if method == "pointwise" else found["calls"].startswith("about ")


def test_names_the_templates_of_all_stages(llmrank: Program) -> None:
    planned = llmrank("plan", "rerank", *JOB, "--method", "cascade")
    assert planned.out.startswith("cascade over 3 queries, templates pointwise/yes-no, pairwise/prefer\n")


def test_tells_of_questions_that_do_not_fit(llmrank: Program) -> None:
    small = ("--method", "full-list", "--context", "300")
    assert "2 questions; they will fail without a call" in llmrank("plan", "rerank", *JOB, *small).out
    planned = json.loads(llmrank("plan", "rerank", *JOB, *small, "--json").out)
    assert (planned["calls"], planned["does_not_fit"]) == (0, 2)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--latency", "-1"], "--latency -1"),
        (["--latency", "nan"], "--latency nan"),
        (["--latency", "inf"], "--latency inf"),
        (["--method", "magic"], "--method magic"),
        (["--ledger", "first.trec"], "first.trec: the ledger cannot be used"),
        (["--run", "absent"], "cannot read absent"),
        (["--max-cost", "1"], "give --price IN,OUT"),
    ],
)
def test_errors_are_one_line(llmrank: Program, flags: list[str], told: str) -> None:
    done = llmrank("plan", "rerank", *JOB, *flags)
    assert (done.code, done.out) == (2, "")
    assert told in done.error
