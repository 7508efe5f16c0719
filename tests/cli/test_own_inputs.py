"""No command writes over a file that it reads, however that file is reached."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmrank.templates import load
from tests.cli.conftest import FILES, JOB, Program

LEXICAL = ("--backend", "lexical", "--ledger", "own.ledger")
SIMULATED = ("--backend", "simulated:judged.qrels?noise=0.1")
TOPICS = ("topics", "--corpus", "corpus.jsonl", "--documents", "3")
EXAMINE = ("examine", "--subjects", "queries.tsv", "--system", "a=lexical", "--system", "b=simulated:judged.qrels")

JOBS: list[tuple[str, tuple[str, ...]]] = [
    *((path, ("rerank", *FILES, *LEXICAL)) for path in ("queries.tsv", "corpus.jsonl", "first.trec", "own.ledger")),
    ("requests.jsonl", ("rerank", "--requests", "requests.jsonl", *LEXICAL)),
    ("judged.qrels", ("rerank", *FILES, *SIMULATED)),
    ("replies.ledger", ("rerank", *FILES, *SIMULATED)),
    ("replies.ledger", ("rerank", *FILES, "--backend", "replay:replies.ledger?model=m", "--ledger", "none")),
    ("own.md", ("rerank", *FILES, *LEXICAL, "--method", "pointwise", "--template", "own.md")),
    ("job.yaml", ("rerank", *FILES, *LEXICAL, "--config", "job.yaml")),
    ("stages.yaml", ("rerank", *FILES, *LEXICAL, "--method", "cascade", "--option", "stages=stages.yaml")),
    ("first.trec", ("judge", *FILES, "--pool-depth", "2", *LEXICAL)),
    ("judged.qrels", ("judge", *FILES[:4], "--qrels", "judged.qrels", *LEXICAL)),
    ("own.md", ("judge", *FILES, "--pool-depth", "2", "--judge", "a=lexical", "--judge", "b=lexical@own.md")),
    ("items.jsonl", ("compare", "--queries", "queries.tsv", "--items", "items.jsonl", *LEXICAL)),
    ("items.jsonl", ("crosscheck", "--queries", "queries.tsv", "--items", "items.jsonl", *LEXICAL)),
    ("answers.jsonl", ("trace", "--answers", "answers.jsonl", *LEXICAL)),
    ("queries.tsv", (*EXAMINE, "--peer")),
    ("judged.qrels", (*EXAMINE, "--peer")),
    ("corpus.jsonl", (*TOPICS, *LEXICAL)),
    ("first.trec", (*TOPICS, *LEXICAL, "--run", "first.trec")),
    ("judged.qrels", (*TOPICS, *LEXICAL, "--example-queries", "queries.tsv", "--example-qrels", "judged.qrels")),
    ("first.trec", ("fuse", "other.trec", "first.trec")),
    ("votes.csv", ("aggregate", "votes.csv")),
    ("own.ledger", ("ledger", "export", "--ledger", "own.ledger")),
]
OTHER_OUTPUTS = [
    ("rerank", "--report", ()),
    ("rerank", "--manifest", ()),
    ("rerank", "--teacher", ()),
    ("judge", "--judgments", ("--pool-depth", "2")),
]


@pytest.fixture(autouse=True)
def more_inputs(folder: Path, llmrank: Program) -> None:
    (folder / "own.md").write_text(load("pointwise/yes-no").text)
    (folder / "job.yaml").write_text("concurrency: 3\n")
    (folder / "stages.yaml").write_text("- method: yes-no\n")
    (folder / "votes.csv").write_text("left,right,winner\na,b,left\n")
    (folder / "other.trec").write_bytes((folder / "first.trec").read_bytes())
    items = [{"query_id": "q1", "item_id": name, "text": f"Answer of {name}."} for name in "ab"]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    answer = {"query_id": "q1", "question": "what", "passages": ["One."], "response": "One."}
    (folder / "answers.jsonl").write_text(json.dumps(answer) + "\n")
    request = {"query": {"qid": "q1", "text": "what"}, "candidates": [{"docid": "d", "doc": {"text": "One."}}]}
    (folder / "requests.jsonl").write_text(json.dumps(request) + "\n")
    for name in ("own.ledger", "replies.ledger"):
        made = ("rerank", "--requests", "requests.jsonl", "--backend", "simulated:judged.qrels", "--ledger", name)
        assert llmrank(*made, "--method", "pointwise", "--output", "-", "--quiet").code == 0


def reached(path: str, how: str) -> str:
    if how == "link":
        os.symlink(path, "link")
        return "link"
    return {"plain": path, "dot": f"./{path}", "absolute": os.path.abspath(path)}[how]


@pytest.mark.parametrize("how", ["plain", "dot", "absolute", "link"])
def test_an_output_is_known_to_be_an_input_however_it_is_reached(llmrank: Program, how: str) -> None:
    before = Path("corpus.jsonl").read_bytes()
    output = reached("corpus.jsonl", how)
    done = llmrank("rerank", *FILES, *LEXICAL, "--output", output)
    assert done.code == 2
    assert done.error == f"--output {output}: this file is read as well, and would be lost; name another"
    assert Path("corpus.jsonl").read_bytes() == before


@pytest.mark.parametrize("how", ["plain", "link"])
@pytest.mark.parametrize(("path", "words"), JOBS, ids=lambda part: part if isinstance(part, str) else part[0])
def test_no_command_writes_over_what_it_reads(llmrank: Program, path: str, words: tuple[str, ...], how: str) -> None:
    before = Path(path).read_bytes()
    done = llmrank(*words, "--output", reached(path, how))
    assert done.code == 2
    assert "is read as well, and would be lost; name another" in done.error
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(("command", "flag", "more"), OTHER_OUTPUTS)
def test_nor_by_another_output(llmrank: Program, command: str, flag: str, more: tuple[str, ...]) -> None:
    done = llmrank(command, *FILES, *LEXICAL, *more, "--output", "out", flag, "./queries.tsv")
    assert done.code == 2
    assert done.error.startswith(f"{flag} ./queries.tsv: this file is read as well")


def test_nor_by_the_results_so_far(llmrank: Program) -> None:
    os.rename("first.trec", "out.trec.partial")
    done = llmrank("rerank", *FILES[:4], "--run", "out.trec.partial", *LEXICAL, "--output", "out.trec")
    assert done.code == 2
    assert "out.trec.partial, where the results so far stand, is read as well" in done.error
    assert Path("out.trec.partial").stat().st_size > 0


@pytest.mark.parametrize("how", ["plain", "link"])
def test_a_ledger_is_not_merged_into_itself(llmrank: Program, how: str) -> None:
    done = llmrank("ledger", "merge", "replies.ledger", "own.ledger", "--ledger", reached("own.ledger", how))
    assert done.code == 2
    assert "own.ledger is the same file" in done.error


def test_a_plan_takes_the_flags_of_the_job_and_writes_nothing(llmrank: Program) -> None:
    before = Path("first.trec").read_bytes()
    assert llmrank("plan", "rerank", *JOB[:-1], "first.trec").code == 0
    assert Path("first.trec").read_bytes() == before
