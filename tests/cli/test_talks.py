"""`llmrank trace`, `crosscheck`, `examine` and `topics`: what they write and print, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.cli.conftest import Program
from tests.stub import Stub, prompt_of

ANSWERS = [
    {
        "query_id": f"q{i}",
        "question": f"what is thing {i}",
        "passages": [f"Thing {i} ranks. It counts words.", "Cats purr."],
        "response": f"Thing {i} ranks. It purrs.",
    }
    for i in range(6)
]
TRACED = {"relevant": ["0a", "0b"], "used": ["0a"], "supported": ["a"], "unsupported": ["b"]}
ITEMS = [
    {"query_id": q, "item_id": system, "text": f"Answer to {q}. System {system} says so."}
    for q in ("q1", "q2", "q3")
    for system in ("A", "B", "C")
]
COMMANDS: dict[str, tuple[str, ...]] = {
    "trace": ("trace", "--answers", "answers.jsonl"),
    "crosscheck": ("crosscheck", "--queries", "queries.tsv", "--items", "items.jsonl"),
    "examine": ("examine", "--subjects", "queries.tsv", "--peer"),
    "topics": ("topics", "--corpus", "docs.jsonl", "--documents", "10"),
}
MODEL = dict.fromkeys(COMMANDS, ("--backend", "{}")) | {"examine": ("--system", "a={}", "--system", "b={}")}
KEEPS = ["--timeout", "20", "--retries", "1"]


def model(body: dict[str, Any], number: int = 0) -> str:
    """Answers every kind of question that these commands ask."""
    prompt = prompt_of(body)
    if "four lists of keys" in prompt:
        return json.dumps(TRACED)
    if "Split the text into claims" in prompt:
        return "1. It is an answer.\n2. A system says so."
    if "Claim:" in prompt:
        return "supported"
    if "##final score" in prompt:
        return "Good.\n##final score: 4"
    if "Order all" in prompt:
        return "[2] > [1]"
    if "search query" in prompt:
        return " ".join(prompt.rpartition("Text: ")[2].split()[:4])
    return f"Something about {prompt.split()[-3]}?"


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(model) as server:
        yield server


@pytest.fixture(autouse=True)
def inputs(folder: Path) -> None:
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ANSWERS))
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ITEMS))
    documents = [
        {"docid": f"d{i}", "text": f"word{i} thing of some words that tell number{i} apart"} for i in range(30)
    ]
    (folder / "docs.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))


def job(name: str, server: Stub | None = None, *more: str, spec: str = "openai:m", output: str = "out") -> list[str]:
    named = [part.format(spec) for part in MODEL[name]]
    if name == "examine":
        named[3] = named[3] if server is None else "b=openai:n"
    at = [] if server is None else ["--base-url", server.url, *KEEPS]
    return [*COMMANDS[name], *named, *at, "--output", output, *more]


@pytest.mark.parametrize("name", COMMANDS)
class TestEveryCommand:
    def test_shows_an_example(self, llmrank: Program, name: str) -> None:
        shown = llmrank(name, "--help")
        assert shown.code == 0
        assert f"Example:\n    llmrank {name}" in shown.out

    def test_writes_rows_that_lead_back_to_the_reply(self, llmrank: Program, stub: Stub, name: str) -> None:
        row_file = "out" if name != "topics" else "rows"
        more = () if name != "topics" else ("--provenance", "rows")
        done = llmrank(*job(name, stub, *more))
        assert done.code == 0, done.err
        rows = [json.loads(line) for line in Path(row_file).read_text().splitlines()]
        assert rows
        keys = set(re.findall(r'"key":"([0-9a-f]{64})"', Path(row_file).read_text()))
        shown = json.loads(llmrank("ledger", "show", min(keys), "--json").out)
        assert shown
        assert {row["status"] for row in rows} == {"ok"}
        assert not Path("out.partial").exists()

    def test_asks_nothing_again(self, llmrank: Program, stub: Stub, name: str) -> None:
        first = json.loads(llmrank(*job(name, stub, "--json")).out)
        written, asked = Path("out").read_bytes(), len(stub.bodies)
        again = json.loads(llmrank(*job(name, stub, "--json", "--quiet")).out)
        assert first["calls"] == asked == len(stub.bodies) > 0
        assert (again["calls"], again["reused"]) == (0, again["questions"])
        assert Path("out").read_bytes() == written

    @pytest.mark.parametrize("spec", ["simulated:judged.qrels", "lexical"])
    def test_takes_local_judges(self, llmrank: Program, name: str, spec: str) -> None:
        done = llmrank(*job(name, None, "--json", "--quiet", spec=spec))
        told = json.loads(done.out)
        if name == "trace":  # these write no JSON object: every answer has failed, and none has a figure
            assert (done.code, told["failed_answers"], told["figures"]["relevance"]["value"]) == (3, 6, None)
        else:
            assert (done.code, told["failed"]) == (0, 0)
        assert Path("out").exists()

    def test_prints_nothing_when_quiet(self, llmrank: Program, stub: Stub, name: str) -> None:
        assert llmrank(*job(name, stub, "--quiet")) == (0, "", "")

    def test_that_meets_garbage_exits_with_3_and_has_no_zeros(self, llmrank: Program, stub: Stub, name: str) -> None:
        stub.handler = lambda body, number: ""
        done = llmrank(*job(name, stub, "--json"))
        assert done.code == 3
        assert "more than --max-failure-rate 0.05 (empty" in done.err
        told = json.loads(done.out)
        assert told["failed"] == told["questions"] > 0
        assert '"value": 0' not in done.out
        assert Path("out").exists()

    def test_ends_at_a_budget(self, llmrank: Program, stub: Stub, name: str) -> None:
        done = llmrank(*job(name, stub, "--max-calls", "3"))
        assert done.code == 4
        assert len(stub.bodies) == 3
        assert "the budget" in done.err
        assert Path("out").exists()
        assert not Path("out.partial").exists()

    def test_that_is_refused_sends_one_request(self, llmrank: Program, stub: Stub, name: str) -> None:
        stub.handler = lambda body, number: web.json_response({"error": {"message": "no"}}, status=401)
        done = llmrank(*job(name, stub))
        assert done.code == 5
        assert len(stub.bodies) <= 2  # one for each of two models
        assert "run the same command to go on" in done.error
        assert not Path("out").exists()

    @pytest.mark.parametrize(
        ("more", "problem"),
        [
            (("--samples", "0"), "--samples"),
            (("--passages", "max"), "--passages: "),
            (("--max-cost", "1"), "--max-cost needs to know what the model costs"),
            (("--manifest", "out"), "--output and --manifest are both out"),
            (("--manifest", "no/such/folder"), "the folder"),
            (("--json", "--manifest", "-"), "--json and --manifest -"),
        ],
    )
    def test_refuses_what_it_cannot_do(
        self, llmrank: Program, stub: Stub, name: str, more: tuple[str, ...], problem: str
    ) -> None:
        refused = llmrank(*job(name, stub, *more))
        assert refused.code == 2
        assert problem in refused.error
        assert stub.bodies == []

    def test_says_what_is_missing(self, llmrank: Program, name: str) -> None:
        refused = llmrank(name, "--output", "out")
        assert refused.code == 2
        assert refused.error.startswith(f"{COMMANDS[name][1]} is missing")
        absent = [part if not part.endswith((".tsv", ".jsonl")) else f"no-{part}" for part in COMMANDS[name]]
        missing = llmrank(*absent, *[part.format("lexical") for part in MODEL[name]], "--output", "out")
        assert missing.code == 2
        assert "no such file" in missing.error

    def test_leaves_a_manifest_with_which_it_can_be_repeated(self, llmrank: Program, stub: Stub, name: str) -> None:
        assert llmrank(*job(name, stub, "--manifest", "m.json")).code == 0
        manifest = json.loads(Path("m.json").read_text())
        assert all(part["template"]["hash"] for part in manifest["parts"].values())
        assert manifest["inputs"][COMMANDS[name][2]]
        config = {k: v for k, v in manifest["config"].items() if v is not None}
        Path("job.yaml").write_text(json.dumps(config))
        written = Path("out").read_bytes()
        again = llmrank(name, "--config", "job.yaml", "--output", "again", "--json")
        assert again.code == 0, again.err
        assert json.loads(again.out)["calls"] == 0
        assert Path("again").read_bytes() == written


class TestTrace:
    def test_prints_its_figures(self, llmrank: Program, stub: Stub) -> None:
        done = llmrank(*job("trace", stub))
        assert re.search(r"relevance +6 +0\.667 +0\.667 +0\.667", done.out)
        assert re.search(r"completeness +6 +0\.500", done.out)
        assert re.search(r"adherence +6 +0\.000", done.out)
        assert "6 answers: 6 with figures, 0 failed" in done.err
        told = json.loads(llmrank(*job("trace", stub, "--json", "--unit", "characters")).out)
        assert told["figures"]["relevance"]["value"] == pytest.approx(30 / 40)

    def test_reads_a_pipe(self, llmrank: Program, stub: Stub, folder: Path) -> None:
        arguments = [part if part != "answers.jsonl" else "-" for part in job("trace", stub, "--quiet", output="-")]
        done = llmrank(*arguments, stdin=(folder / "answers.jsonl").read_bytes())
        assert [json.loads(line)["query_id"] for line in done.out.splitlines()] == [a["query_id"] for a in ANSWERS]

    def test_names_the_line_that_is_wrong(self, llmrank: Program, stub: Stub, folder: Path) -> None:
        with (folder / "answers.jsonl").open("a") as file:
            file.write('{"query_id": "q9", "question": "?"}\n')
        refused = llmrank(*job("trace", stub))
        assert (refused.code, stub.bodies) == (2, [])
        assert refused.error.startswith("answers.jsonl:7: no list of passages")

    def test_leaves_whole_lines_when_it_is_interrupted(self, folder: Path, stub: Stub) -> None:
        def slow(body: dict[str, Any], number: int) -> Any:
            return model(body) if number < 3 else hang()

        async def hang() -> str:
            os.kill(process.pid, signal.SIGINT)
            await asyncio.sleep(30)
            return ""

        stub.handler = slow
        arguments = [sys.executable, "-m", "llmrank", *job("trace", stub, "--concurrency", "1")]
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
            _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        done = [json.loads(line)["query_id"] for line in (folder / "out.partial").read_text().splitlines()]
        assert len(done) in (2, 3)  # the fourth question may be on its way before the third answer is written
        assert f"{len(done)} of 6 answers are done, in out.partial" in said
        assert not (folder / "out").exists()


class TestCrosscheck:
    def test_prints_a_row_for_each_system(self, llmrank: Program, stub: Stub) -> None:
        done = llmrank(*job("crosscheck", stub))
        for system in "ABC":
            assert re.search(rf"{system} +3 +1\.000 +1\.000 +1\.000 +6 +0 +0 +12", done.out)
        rows = [json.loads(line) for line in Path("out").read_text().splitlines()]
        assert [(row["query_id"], row["item_id"]) for row in rows] == [(i["query_id"], i["item_id"]) for i in ITEMS]

    def test_needs_the_queries_of_all_items(self, llmrank: Program, stub: Stub, folder: Path) -> None:
        with (folder / "items.jsonl").open("a") as file:
            file.write('{"query_id": "elsewhere", "item_id": "A", "text": "t"}\n')
        refused = llmrank(*job("crosscheck", stub))
        assert refused.code == 2
        assert refused.error.startswith("items.jsonl:10: query elsewhere")


class TestExamine:
    def test_prints_means_matrix_and_agreement(self, llmrank: Program, stub: Stub) -> None:
        done = llmrank(*job("examine", stub, "--questions", "1", "--report", "r.json", "--without-self"))
        assert re.search(r"a +8 +4\.000", done.out)  # four subjects, two rounds, marked by the other
        assert re.search(r"a +- +4\.00 \(8\)", done.out)
        report = json.loads(Path("r.json").read_text())
        assert report["systems"]["a"]["score"]["n"] == 16
        assert report["without_self"]["a"]["score"]["n"] == 8
        assert report["overall"]["tau_b"] == {
            "value": None,
            "low": None,
            "high": None,
            "n": 0,
            "note": "there is nothing to take the mean of",
        }
        assert report["overall"]["tied"] == 8

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("--system", "a=lexical"), "who examines?"),
            (("--system", "a=lexical", "--peer", "--examiner", "b=lexical"), "who examines?"),
            (("--system", "lexical", "--peer"), "--system lexical: write it as NAME=SPEC"),
            (("--system", "a=lexical", "--system", "a=nano", "--peer"), "a is named already"),
            (("--system", "a b=lexical", "--peer"), "white space"),
            (("--system", "a=lexical", "--peer", "--questions", "0"), "--questions 0"),
        ],
    )
    def test_needs_to_know_who_examines_whom(self, llmrank: Program, arguments: tuple[str, ...], problem: str) -> None:
        refused = llmrank("examine", "--subjects", "queries.tsv", "--output", "out", *arguments)
        assert refused.code == 2
        assert problem in refused.error


class TestTopics:
    FILES = ("--qrels", "o.qrels", "--provenance", "o.jsonl", "--triples", "t.jsonl")

    def test_makes_a_test_collection(self, llmrank: Program, stub: Stub) -> None:
        done = llmrank(*job("topics", stub, *self.FILES, output="topics.tsv"))
        assert done.code == 0
        assert "10 documents: 10 queries written, 10 kept" in done.err
        # What it writes is what the other commands read.
        run = [f"{line.split()[0]} Q0 {line.split()[2]} 1 1 x" for line in Path("o.qrels").read_text().splitlines()]
        Path("r.trec").write_text("\n".join(run) + "\n")
        reranked = llmrank(
            *("rerank", "--queries", "topics.tsv", "--corpus", "docs.jsonl", "--run", "r.trec"),
            *("--backend", "lexical", "--output", "x.trec"),
        )
        assert reranked.code == 0, reranked.err
        told = json.loads(llmrank("evaluate", "o.qrels", "x.trec", "-m", "RR@10", "--json").out)
        assert told["runs"]["x"]["measures"]["RR@10"]["value"] == 1

    def test_may_be_filtered_by_a_run_made_of_them(self, llmrank: Program, stub: Stub) -> None:
        llmrank(*job("topics", stub, output="topics.jsonl"))
        rows = [json.loads(line) for line in Path("topics.jsonl").read_text().splitlines()]
        lines = [f"{row['query_id']} Q0 {row['doc_id'] if i % 2 else 'other'} 1 1 x" for i, row in enumerate(rows)]
        Path("own.trec").write_text("\n".join(lines) + "\n")
        asked = len(stub.bodies)
        told = json.loads(llmrank(*job("topics", stub, "--run", "own.trec", "--json", output="topics.jsonl")).out)
        assert told["queries"] == {"written": 10, "kept": 5, "dropped": {"run-rank": 5}}
        assert len(stub.bodies) == asked

    def test_shows_judged_queries(self, llmrank: Program, stub: Stub) -> None:
        Path("ex.tsv").write_text("e1\tgolden query one\ne2\tgolden query two\n")
        Path("ex.qrels").write_text("e1 0 d1 1\ne2 0 d2 1\n")
        pair = ("--example-queries", "ex.tsv", "--example-qrels", "ex.qrels", "--shots", "1")
        assert llmrank(*job("topics", stub, *pair)).code == 0
        assert all("golden query" in prompt_of(body) for body in stub.bodies)
        alone = llmrank(*job("topics", stub, *pair[:2]))
        assert alone.error == "--example-qrels is missing: examples from judgments need queries and qrels"
        Path("ex.qrels").write_text("e1 0 d1 0\n")
        assert "no query of ex.tsv has a relevant document" in llmrank(*job("topics", stub, *pair)).error

    def test_shows_examples_of_a_file(self, llmrank: Program, stub: Stub) -> None:
        row = {"query_id": "e", "query": "golden query", "document": "some text", "label": 1}
        Path("ex.jsonl").write_text(json.dumps(row) + "\n")
        assert llmrank(*job("topics", stub, "--examples", "ex.jsonl", "--shots", "1")).code == 0
        assert all("golden query" in prompt_of(body) for body in stub.bodies)
        both = llmrank(*job("topics", stub, "--examples", "ex.jsonl", "--example-queries", "a", "--example-qrels", "b"))
        assert both.error.startswith("--examples and --example-queries")

    def test_may_check_with_another_model(self, llmrank: Program, stub: Stub) -> None:
        check = ("--check", "pointwise/yes-no", "--check-backend", "lexical", "--check-depth", "3")
        done = llmrank(*job("topics", stub, *check, *self.FILES, "--manifest", "m.json", "--json"))
        assert json.loads(done.out)["queries"]["kept"] == 10
        assert json.loads(Path("m.json").read_text())["parts"]["check"]["model"]["kind"] == "lexical"
        triples = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
        assert all(t["score_kind"] == "grade" and t["negative_score"] < t["positive_score"] <= 1 for t in triples)
        bare = llmrank(*job("topics", stub, "--check-backend", "lexical"))
        assert "add --check" in bare.error
