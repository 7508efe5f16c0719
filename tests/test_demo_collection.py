"""The collection behind `llmrank demo`: complete, fully judged, and with a first stage that anyone can recompute."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import ir_measures
import pytest
from ir_measures import nDCG

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "llmrank" / "demo"
SCRIPT = ROOT / "experiments" / "demo_run" / "make_run.py"


@pytest.fixture(scope="module")
def queries() -> dict[str, str]:
    rows = [line.split("\t") for line in (DEMO / "queries.tsv").read_text(encoding="utf-8").splitlines()]
    assert all(len(row) == 2 for row in rows)
    assert len({qid for qid, _ in rows}) == len(rows)
    return dict(rows)


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, str]]:
    return [json.loads(line) for line in (DEMO / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def qrels() -> list[ir_measures.Qrel]:
    return list(ir_measures.read_trec_qrels(str(DEMO / "qrels.txt")))


@pytest.fixture(scope="module")
def run() -> list[ir_measures.ScoredDoc]:
    return list(ir_measures.read_trec_run(str(DEMO / "run.trec")))


def test_twelve_queries_with_twenty_candidates_each(queries, run):
    assert len(queries) == 12
    assert Counter(row.query_id for row in run) == dict.fromkeys(queries, 20)


def test_every_text_is_there_once(queries, corpus):
    assert all(text.strip() for text in queries.values())
    assert len(set(queries.values())) == len(queries)
    assert len(corpus) == 240
    assert all(set(row) == {"doc_id", "title", "text"} for row in corpus)
    for key in ("doc_id", "title", "text"):
        assert len({row[key].strip().lower() for row in corpus}) == 240


def test_passages_are_short_plain_prose(corpus):
    assert {row["doc_id"] for row in corpus if not 35 <= len(row["text"].split()) <= 70} == set()
    assert {row["doc_id"] for row in corpus if any(mark in row["title"] + row["text"] for mark in "<>*#`_|\n")} == set()


def test_every_candidate_is_judged_and_every_judged_passage_is_a_candidate(corpus, qrels, run):
    pairs = {(row.query_id, row.doc_id) for row in qrels}
    assert len(pairs) == len(qrels) == 240
    assert {(row.query_id, row.doc_id) for row in run} == pairs
    assert {doc_id for _, doc_id in pairs} == {row["doc_id"] for row in corpus}


def test_every_query_has_all_four_grades(queries, qrels):
    for qid in queries:
        grades = Counter(row.relevance for row in qrels if row.query_id == qid)
        assert set(grades) == {0, 1, 2, 3}
        assert grades[3] in (2, 3)
        assert grades[2] in (3, 4)
        assert grades[1] in (5, 6)


def test_document_ids_do_not_give_the_grades_away(queries, qrels):
    for qid in queries:
        by_id = [row.relevance for row in sorted(qrels, key=lambda row: row.doc_id) if row.query_id == qid]
        assert by_id not in (sorted(by_id), sorted(by_id, reverse=True))


def test_the_script_writes_the_bundled_run_byte_for_byte(tmp_path):
    output = tmp_path / "run.trec"
    subprocess.run([sys.executable, str(SCRIPT), "--output", str(output)], check=True, cwd=tmp_path)
    assert output.read_bytes() == (DEMO / "run.trec").read_bytes()


def test_the_ranks_are_those_an_evaluator_gives(queries):
    lines = [line.split() for line in (DEMO / "run.trec").read_text(encoding="utf-8").splitlines()]
    for qid in queries:
        rows = [(float(score), doc_id, int(rank)) for topic, _, doc_id, rank, score, _ in lines if topic == qid]
        assert [rank for _, _, rank in sorted(rows, reverse=True)] == list(range(1, 21))
        assert min(rows)[0] > 0


def test_the_first_stage_leaves_room_for_reranking(qrels, run):
    assert ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10] == pytest.approx(0.6167, abs=5e-5)
