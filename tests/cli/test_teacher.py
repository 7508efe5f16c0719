"""`llmrank rerank --teacher` and `--uncertainty`: what stands in their files, and when they are refused."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import JOB, RUN, Program


def test_the_teacher_file_has_one_line_a_query_in_input_order(llmrank: Program, folder: Path) -> None:
    outcome = llmrank("rerank", *JOB, "--method", "heapsort", "--teacher", "teach.jsonl")
    assert outcome.code == 0
    lines = [json.loads(line) for line in Path("teach.jsonl").read_text().splitlines()]
    assert {line["query"]["qid"]: len(line["order"]) for line in lines} == RUN
    first = next(line for line in lines if line["query"]["qid"] == "q2")
    assert first["documents"][0]["text"].startswith("text of")
    assert first["pairs"]
    assert first["order"] == [x.split()[2] for x in Path("out.trec").read_text().splitlines() if x.startswith("q2 ")]


def test_the_report_tells_how_sure_each_place_is(llmrank: Program, folder: Path) -> None:
    wanted = ("--report", "report.json", "--uncertainty", "--option", "k=3")
    assert llmrank("rerank", *JOB, "--method", "heapsort", *wanted).code == 0
    told = json.loads(Path("report.json").read_text())["queries"]["q1"]["documents"]
    assert len(told) == RUN["q1"]
    assert all(0 <= belief["p_top"] <= 1 and belief["low"] < belief["high"] for belief in told.values())
    plain = llmrank("rerank", *JOB, "--method", "heapsort", "--report", "plain.json")
    assert plain.code == 0
    assert "documents" not in json.loads(Path("plain.json").read_text())["queries"]["q1"]


def test_of_what_was_only_graded_nothing_is_said(llmrank: Program, folder: Path) -> None:
    wanted = ("--report", "report.json", "--uncertainty")
    outcome = llmrank("rerank", *JOB, "--method", "yes-no", *wanted)
    assert outcome.code == 2
    assert "compares none" in outcome.error
    assert llmrank("rerank", *JOB, "--method", "cascade", *wanted).code == 0
    told = json.loads(Path("report.json").read_text())["queries"]["q1"]["documents"]
    assert len(told) == 10 < RUN["q1"]  # its second stage compares ten
    assert all(belief["comparisons"] for belief in told.values())


def test_the_spread_of_several_replies_stands_in_the_report(llmrank: Program, folder: Path) -> None:
    wanted = ("--report", "report.json", "--uncertainty")
    assert llmrank("rerank", *JOB, "--method", "rubric-score", *wanted).code == 0
    told = json.loads(Path("report.json").read_text())["queries"]["q1"]["documents"]
    assert len(told) == RUN["q1"]
    assert all(document.keys() == {"spread"} and document["spread"] >= 0 for document in told.values())


def test_uncertainty_without_a_report_has_nowhere_to_go(llmrank: Program, folder: Path) -> None:
    outcome = llmrank("rerank", *JOB, "--uncertainty")
    assert outcome.code == 2
    assert "--report" in outcome.error


def test_a_command_line_with_both_can_be_priced_as_it_stands(llmrank: Program, folder: Path) -> None:
    outcome = llmrank("plan", "rerank", *JOB, "--teacher", "teach.jsonl", "--report", "r.json", "--uncertainty")
    assert outcome.code == 0, outcome.err
    assert not Path("teach.jsonl").exists()
