"""Judging on real data: recorded labels through a real server, and real texts through the judges that need no model."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmrank.agree import kappa
from llmrank.cli.main import run
from llmrank.data.qrels import read_qrels, write_qrels
from tests.stub import Stub, prompt_of

UNREADABLE = "I cannot judge this passage as it was published in 2019."
Grades = dict[str, dict[str, int]]


class Collection(NamedTuple):
    """A collection as files."""

    flags: tuple[str, ...]
    """Queries, corpus, and the judged pairs."""
    human: str
    """The human judgments."""


def agreement(capsys: pytest.CaptureFixture[str], truth: str, judged: str, *more: str) -> dict[str, Any]:
    """The figures of `llmrank agree`."""
    capsys.readouterr()
    assert run(["agree", truth, f"ours={judged}", "--json", *more]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)["judges"]["ours"]
    return told


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> dict[tuple[str, str], dict[str, int]]:
    """Every column's label of each pair."""
    with gzip.open(shared_data / "judge_labels" / "llmjudge.shared.tsv.gz", "rt") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {
        (row["qid"], row["docid"]): {name: int(label) for name, label in row.items() if name not in ("qid", "docid")}
        for row in rows
    }


@pytest.mark.parametrize("judge", ["willia-umbrela1", "OUT-OF-RANGE"])
def test_recorded_labels_come_back_as_they_are(
    shared_data: Path,
    recorded: dict[tuple[str, str], dict[str, int]],
    judge: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if judge == "OUT-OF-RANGE":  # a judge that left the scale
        judge = next(name for labels in recorded.values() for name, label in labels.items() if label > 3)
    queries = shared_data / "judge_labels" / "llmjudge.queries.tsv"
    topics = {text.strip(): query for query, text in (line.split("\t") for line in queries.read_text().splitlines())}
    (tmp_path / "pairs").write_text("".join(f"{query} {doc}\n" for query, doc in recorded))
    (tmp_path / "corpus").write_text("".join(f"{doc}\tThe passage called {doc}.\n" for doc in {d for _, d in recorded}))
    unreadable = set(list(recorded)[7::100])

    def says(body: dict[str, Any], number: int) -> str:
        prompt = prompt_of(body)
        query = topics[re.search(r"^Query: (.*)$", prompt, re.M)[1].strip()]  # type: ignore[index]
        pair = query, re.search(r"The passage called (\w+)\.", prompt)[1]  # type: ignore[index]
        return UNREADABLE if pair in unreadable else f"##final score: {recorded[pair][judge]}"

    with Stub(says) as stub:
        files = ["--queries", str(queries), "--corpus", str(tmp_path / "corpus"), "--pairs", str(tmp_path / "pairs")]
        outputs = ["--output", str(tmp_path / "out.qrels"), "--judgments", str(tmp_path / "out.jsonl")]
        backend = ["--backend", "openai:recorded", "--base-url", stub.url, "--ledger", str(tmp_path / "l"), "--json"]
        assert run(["judge", *files, *outputs, *backend, "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = {pair: labels[judge] for pair, labels in recorded.items() if pair not in unreadable}
    outside = {pair for pair, label in expected.items() if not 0 <= label <= 3}
    found = {
        (query, doc): grade for query, of in read_qrels(tmp_path / "out.qrels").items() for doc, grade in of.items()
    }
    assert found == {pair: label for pair, label in expected.items() if pair not in outside}
    assert told["label_reasons"] == {
        reason: count for reason, count in (("refused", len(unreadable)), ("out-of-range", len(outside))) if count
    }
    assert told["calls"] == len(recorded) + len(unreadable) + len(outside)  # each failed one was asked once more
    judged = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {(j["query_id"], j["doc_id"]) for j in judged if j["grade"] is None} == unreadable | outside

    human: Grades = {}
    for (query, doc), labels in recorded.items():
        human.setdefault(query, {})[doc] = labels["human"]
    write_qrels(tmp_path / "human", human)
    figures = agreement(capsys, str(tmp_path / "human"), str(tmp_path / "out.qrels"), "--bootstrap", "0")
    direct = kappa([recorded[pair]["human"] for pair in found], list(found.values()), bootstrap=0)
    assert figures["labels"]["kappa"]["value"] == pytest.approx(direct.value, abs=1e-12)
    assert figures["pairs"] == len(found)
    assert figures["coverage"] == pytest.approx(len(found) / len(recorded))


def unpacked(shared_data: Path, name: str) -> Mapping[str, str]:
    """The text files of a corpus by name."""
    with tarfile.open(shared_data / "corpora" / f"{name}.tar.gz") as archive:
        read = {Path(m.name).name: archive.extractfile(m) for m in archive.getmembers() if m.isfile()}
        return {name: io.TextIOWrapper(file, errors="replace").read() for name, file in read.items() if file}


def cranfield(shared_data: Path, folder: Path) -> Collection:
    """Cranfield; its codes run from 1, a complete answer, to 4; queries are known by their place in the file."""
    files = unpacked(shared_data, "cranfield")

    def entries(name: str) -> list[dict[str, str]]:
        blocks = re.split(r"^\.I ", files[name], flags=re.M)[1:]
        return [
            {"I": b.split()[0]} | dict(re.findall(r"^\.([TW])\n(.*?)(?=^\.[A-Z]\n|\Z)", b, re.M | re.S)) for b in blocks
        ]

    queries = {str(place): " ".join(entry["W"].split()) for place, entry in enumerate(entries("cran.qry"), 1)}
    corpus = {entry["I"]: " ".join(entry["W"].split()) for entry in entries("cran.all.1400")}
    grades: Grades = {}
    for query, doc, code in (line.split()[:3] for line in files["cranqrel"].splitlines() if line.strip()):
        if query in queries and doc in corpus:
            grades.setdefault(query, {})[doc] = 4 - int(code) if 1 <= int(code) <= 4 else 0
    return written(folder, queries, corpus, grades)


def noveleval(shared_data: Path, folder: Path) -> Collection:
    files = unpacked(shared_data, "noveleval")
    queries, corpus = (
        dict(line.split("\t", 1) for line in files[f"{n}.tsv"].splitlines()) for n in ("queries", "corpus")
    )
    grades: Grades = {}
    for query, _, doc, grade in map(str.split, files["qrels.txt"].splitlines()):
        grades.setdefault(query, {})[doc] = int(grade)
    return written(folder, queries, corpus, grades)


def written(folder: Path, queries: Mapping[str, str], corpus: Mapping[str, str], grades: Grades) -> Collection:
    for name, texts in (("queries", queries), ("corpus", corpus)):
        (folder / name).write_text("".join(f"{i}\t{text}\n" for i, text in texts.items()))
    write_qrels(folder / "human", grades)
    files = ("--queries", str(folder / "queries"), "--corpus", str(folder / "corpus"), "--qrels", str(folder / "human"))
    return Collection(files, str(folder / "human"))


@pytest.mark.parametrize("read", [cranfield, noveleval])
def test_label_noise_is_recovered_from_the_agreement_on_real_texts(
    shared_data: Path, read: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collection = read(shared_data, tmp_path)

    def judged(name: str, backend: str) -> str:
        output = str(tmp_path / name)
        flags = ["--backend", backend, "--template", "relevance/basic", "--ledger", "none", "--quiet"]
        assert run(["judge", *collection.flags, *flags, "--output", output]) == 0
        return output

    exact = judged("exact", f"simulated:{collection.human}")  # the human grades, spread over the template's scale
    pairs = sum(map(len, read_qrels(collection.human).values()))
    assert sum(map(len, read_qrels(exact).values())) == pairs > 400
    noisy = judged("noisy", f"simulated:{collection.human}?label_noise=0.25&seed=3")
    figures = agreement(capsys, exact, noisy, "--scale", "0-3", "--bootstrap", "2000")
    accuracy = figures["labels"]["accuracy"]
    assert accuracy["n"] == pairs
    assert 1 - accuracy["high"] <= 0.25 <= 1 - accuracy["low"]
    assert accuracy["high"] - accuracy["low"] < 0.15

    to_human = ("--scale", "0-3", "--bootstrap", "0")
    lexical = agreement(capsys, collection.human, judged("lexical", "lexical"), *to_human)
    simulated = agreement(capsys, collection.human, noisy, *to_human)
    for found in (lexical, simulated):
        assert found["coverage"] == 1
    values = [found["labels"]["kappa_quadratic"]["value"] for found in (lexical, simulated)]
    assert values[0] < values[1]
