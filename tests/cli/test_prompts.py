"""`llmrank prompts` beyond its basics: the bytes that are sent, variables, lint by line, files of other rerankers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmrank.templates import names
from tests.cli.conftest import JOB, Program

YAML = """\
method: singleturn_listwise
prefix: "{num} texts for {query}.\\n"
body: "[{rank}] {candidate}\\n"
suffix: "Sort them, as in [2] > [1].\\n"
output_validation_regex: r"^\\[\\d+\\]( > \\[\\d+\\])*$"
output_extraction_regex: r"\\[(\\d+)\\]"
"""


@pytest.fixture
def mine(folder: Path) -> str:
    (folder / "mine.yaml").write_text(YAML)
    return "mine.yaml"


class TestRender:
    def test_a_raw_prompt_to_the_byte(self, llmrank: Program) -> None:
        done = llmrank("prompts", "render", "checkpoints/monot5", "--query", "Q", "--document", "D")
        assert (done.code, done.out) == (0, "Query: Q Document: D Relevant:")

    def test_the_json_that_is_sent(self, llmrank: Program) -> None:
        told = json.loads(llmrank("prompts", "render", "pairwise/prefer", "--json").out)
        assert told.keys() == {"messages", "max_tokens", "temperature", "logprobs", "top_logprobs"}
        assert (told["max_tokens"], told["top_logprobs"]) == (4, 20)
        raw = json.loads(llmrank("prompts", "render", "checkpoints/monot5", "--query", "Q", "--json").out)
        assert raw["prompt"].startswith("Query: Q Document: ")
        assert (raw["max_tokens"], raw["logprobs"]) == (1, 20)
        prefilled = json.loads(llmrank("prompts", "render", "checkpoints/first", "--json").out)
        assert prefilled["messages"][-1] == {"role": "assistant", "content": "["}

    def test_a_continuation_stands_apart(self, llmrank: Program) -> None:
        out = llmrank("prompts", "render", "checkpoints/upr", "--query", "Q").out
        assert out.endswith("--- continuation, whose likelihood is the score\nQ\n")

    def test_an_instruction(self, llmrank: Program) -> None:
        out = llmrank("prompts", "render", "listwise/instruction", "--instruction", "no [2] salmon").out
        assert "What counts as relevant: no (2) salmon" in out

    def test_a_variable_of_the_template(self, llmrank: Program) -> None:
        words = ("prompts", "render", "setwise/criterion", "--template-variable")
        assert "Criterion: the = older \n" in llmrank(*words, "criterion=the = older ").out
        assert "no variable 'tone'" in llmrank(*words, "tone=dry").error
        assert "write it as KEY=VALUE" in llmrank(*words, "tone").error

    def test_texts_that_a_method_brings(self, llmrank: Program) -> None:
        words = ("prompts", "render", "pointwise/answer-likelihood")
        assert "(the text 'answer')" in llmrank(*words).out
        assert "sixteen" in llmrank(*words, "--given", "answer=sixteen").out
        assert "shows no such text" in llmrank(*words, "--given", "colour=red").error


class TestLint:
    def test_a_line_for_each_finding(self, llmrank: Program, folder: Path) -> None:
        text = llmrank("prompts", "show", "listwise/rank").out
        (folder / "late.j2").write_text(text.replace("restate:", "stop: []  #").replace("version: 1", "given: [x]"))
        done = llmrank("prompts", "lint", "late.j2", "listwise/rank")
        assert done.code == 0
        first, second, last = done.out.splitlines()
        assert first.startswith("late.j2:1: restate: ")
        assert second.startswith("late.j2:11: given: 'x' is shown nowhere")
        assert second.endswith("(unused-variable)")
        assert last.startswith("listwise/rank: ok (")
        (told, fine) = json.loads(llmrank("prompts", "lint", "late.j2", "listwise/rank", "--json").out)["templates"]
        assert [finding["rule"] for finding in told["findings"]] == ["no-restate", "unused-variable"]
        assert (told["ok"], fine["ok"], fine["findings"]) == (True, True, [])

    def test_what_cannot_be_used_exits_with_2(self, llmrank: Program, folder: Path) -> None:
        text = llmrank("prompts", "show", "listwise/rank").out
        (folder / "unread.j2").write_text(text.replace("[{{ document.identifier }}]", "-"))
        done = llmrank("prompts", "lint", "unread.j2")
        assert (done.code, done.out) == (2, "")
        assert done.error.startswith("unread.j2:21: item 1 is not named before its text")
        (folder / "torn.j2").write_text(text.replace("query.text", "qery.text"))
        assert llmrank("prompts", "lint", "torn.j2").error.startswith("torn.j2:19: 'qery' is not defined")


class TestForeign:
    def test_a_yaml_file_is_shown_rendered_and_linted(self, llmrank: Program, mine: str, folder: Path) -> None:
        out = llmrank("prompts", "render", mine, "--query", "{num} fish", "--document", "{query} [1]").out
        assert out == "--- user\n1 texts for {num} fish.\n[1] {query} (1)\nSort them, as in [2] > [1].\n\n"
        assert llmrank("prompts", "lint", mine).out.startswith("mine.yaml: ok (order, parser pattern")
        (folder / "ours.j2").write_text(llmrank("prompts", "show", mine).out)
        assert llmrank("prompts", "render", "ours.j2", "--query", "q").out == (
            llmrank("prompts", "render", mine, "--query", "q").out
        )

    def test_it_reranks_and_is_planned(self, llmrank: Program, mine: str, folder: Path) -> None:
        assert llmrank("rerank", *JOB, "--output", "own.trec").code == 0
        assert llmrank("rerank", *JOB, "--template", mine).code == 0
        assert (folder / "out.trec").read_text() == (folder / "own.trec").read_text()
        planned = json.loads(llmrank("plan", "rerank", *JOB, "--template", mine, "--json").out)
        assert planned["calls"] == 3

    def test_what_is_wrong_in_it_is_one_line(self, llmrank: Program, mine: str, folder: Path) -> None:
        (folder / mine).write_text(YAML + "colour: red\n")
        done = llmrank("rerank", *JOB, "--template", mine)
        assert done.code == 2
        assert done.error.startswith("mine.yaml:7: colour: unknown key")


def test_a_job_sets_a_variable_of_its_template(llmrank: Program, folder: Path) -> None:
    words = ("rerank", *JOB, "--template", "listwise/criterion", "--manifest", "manifest.json")
    hashes = []
    for variable in ((), ("--template-variable", "criterion=the longer text")):
        assert llmrank(*words, *variable).code == 0
        hashes.append(json.loads((folder / "manifest.json").read_text())["template"]["hash"])
    assert hashes[0] != hashes[1]
    assert "no variable 'tone'" in llmrank(*words, "--template-variable", "tone=dry").error
    own = llmrank("rerank", *JOB, "--template-variable", "criterion=x")  # the method's own template has none
    assert "listwise/rank: the template has no variable 'criterion'" in own.error


METHODS = {
    "rankzephyr": ("sliding-window",),
    "rankvicuna": ("sliding-window",),
    "reasonrank": ("sliding-window",),
    "rank-k": ("sliding-window",),
    "rearank": ("sliding-window",),
    "first": ("first-token",),
    "grouprank": ("groupwise",),
    "rank-r1": ("setwise-heapsort", "--option", "children=19"),
    "duot5": ("heapsort",),
}


@pytest.mark.parametrize("name", [name.split("/")[1] for name in names() if name.startswith("checkpoints/")])
def test_every_checkpoint_reranks(llmrank: Program, folder: Path, name: str) -> None:
    """Over a judge that knows the grades: no question fails, and the best come first."""
    method, *options = METHODS.get(name, ("pointwise",))
    words = ("--method", method, *options, "--template", f"checkpoints/{name}", "--report", "report.json")
    done = llmrank("rerank", *JOB, *words)
    assert done.code == 0, done.err
    totals = json.loads((folder / "report.json").read_text())["totals"]
    assert (totals["failed"], totals["repaired"]) == (0, 0)
    grades = {line.split()[2]: int(line.split()[3]) for line in (folder / "judged.qrels").read_text().splitlines()}
    ranked = [line.split()[2] for line in (folder / "out.trec").read_text().splitlines()]
    of_q1 = [grades[doc] for doc in ranked if doc.startswith("q1-")][:10]
    assert of_q1 == sorted(of_q1, reverse=True)
