"""Recorded replies of real models, through a real server, the openai backend, template, parser and strategy."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmrank.cli.main import run
from llmrank.data.qrels import read_qrels
from llmrank.data.run import read_run
from llmrank.evaluation import evaluate
from tests.stub import Stub, prompt_of

SETS = ["rankvicuna_7b", "rankvicuna_7b_noaug", "vicuna7b_ckpt800"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> dict[str, str]:
    """BM25's run, its topics, and texts made up of the ids, by which the server knows what it is shown."""
    folder = tmp_path_factory.mktemp("dl19")
    bm25 = shared_data / "runs" / "dl19.BM25.trec.gz"
    ids = {doc.doc_id for ranking in read_run(str(bm25)).values() for doc in ranking}
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"docid": i, "contents": f"The passage called D{i}."}) + "\n" for i in sorted(ids))
    return {
        "run": str(bm25),
        "queries": str(shared_data / "qrels" / "dl19.topics.tsv"),
        "corpus": str(folder / "corpus.jsonl.gz"),
        "qrels": str(shared_data / "qrels" / "dl19.qrels"),
    }


def recorded(shared_data: Path, name: str) -> dict[str, list[dict[str, Any]]]:
    """The calls of each query, by its text, in their order."""
    topics = dict(line.split("\t", 1) for line in (shared_data / "qrels" / "dl19.topics.tsv").read_text().splitlines())
    calls: dict[str, list[dict[str, Any]]] = {}
    with gzip.open(shared_data / "listwise_replay" / f"{name}.jsonl.gz", "rt") as file:
        for line in file:
            call = json.loads(line)
            calls.setdefault(topics[call["qid"]], []).append(call)
    return calls


def rerank_recorded(
    shared_data: Path, files: dict[str, str], name: str, folder: Path, *more: str
) -> tuple[int, str, Stub]:
    """Every query is given its recorded replies in turn; `same` counts windows as the recorded model saw them."""
    calls = {query: iter(of_query) for query, of_query in recorded(shared_data, name).items()}

    def answer(body: dict[str, Any], number: int) -> str:
        prompt = prompt_of(body)
        call = next(calls[re.search(r"^Search query: (.*)$", prompt, re.M)[1]])  # type: ignore[index]
        stub.same += re.findall(r"^\[\d+\] The passage called D(\d+)\.$", prompt, re.M) == call["docids"]
        reply: str = call["response"]
        return reply

    output = str(folder / f"{name}.trec")
    stub = Stub(answer)
    with stub:
        code = run(
            [
                "rerank",
                "--queries",
                files["queries"],
                "--corpus",
                files["corpus"],
                "--run",
                files["run"],
                "--output",
                output,
            ]
            + ["--backend", "openai:recorded", "--base-url", stub.url, "--ledger", str(folder / "l"), "--quiet", *more]
        )
    return code, output, stub


@pytest.mark.parametrize("name", SETS)
def test_replaying_gives_the_published_run_exactly(
    shared_data: Path, files: dict[str, str], name: str, tmp_path: Path
) -> None:
    code, output, stub = rerank_recorded(shared_data, files, name, tmp_path)
    assert code == 0
    assert len(stub.bodies) == stub.same == 387
    ours = {query: [doc.doc_id for doc in docs] for query, docs in read_run(output).items()}
    theirs = read_run(str(shared_data / "listwise_replay" / f"{name}.recorded.trec.gz"))
    assert ours == {query: [doc.doc_id for doc in docs] for query, docs in theirs.items()}
    assert len(ours) == 43


def test_a_model_that_says_nothing_of_use_leaves_the_run_alone(
    shared_data: Path, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`20 passages are provided.` is no ranking: published code took it as passage 20 first."""
    report = tmp_path / "report.json"
    code, output, _ = rerank_recorded(shared_data, files, "vicuna13b_v15", tmp_path, "--report", str(report))
    assert code == 3
    told = capsys.readouterr().err
    assert re.search(r"38\d of 387 questions failed, more than --max-failure-rate 0.05", told)
    assert len(told.splitlines()) == 1
    totals = json.loads(report.read_text())["totals"]
    assert totals["failed"] >= 380
    assert totals["questions"] == totals["ok"] + totals["repaired"] + totals["failed"] == 387
    figure = (
        evaluate(read_qrels(files["qrels"]), {"ours": read_run(output)}, ["nDCG@10"]).runs["ours"].measures["nDCG@10"]
    )
    assert figure.value == pytest.approx(0.5058, abs=0.003)


def test_a_list_that_numbers_its_lines_is_read_by_its_identifiers(
    shared_data: Path, files: dict[str, str], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    code, _, _ = rerank_recorded(shared_data, files, "vicuna7b_v15", tmp_path, "--report", str(report))
    assert code == 0
    totals = json.loads(report.read_text())["totals"]
    assert totals["failed"] == 3  # `[] > []`
    assert totals["ok"] >= 365


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(
    shared_data: Path, files: dict[str, str], tmp_path: Path
) -> None:
    _, output, _ = rerank_recorded(shared_data, files, SETS[0], tmp_path)
    first = Path(output).read_bytes()
    _, output, stub = rerank_recorded(shared_data, files, SETS[0], tmp_path)
    assert stub.bodies == []
    assert Path(output).read_bytes() == first
