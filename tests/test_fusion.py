"""Fused runs hold every document once, in the order that the formulas of the field give."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.cli.fuse import fuse as command
from llmrank.data.qrels import read_qrels
from llmrank.data.run import ScoredDoc, read_run
from llmrank.errors import InputError
from llmrank.evaluation import evaluate
from llmrank.fusion import METHODS, fuse

ONE = {"q1": [ScoredDoc("a", 9.0), ScoredDoc("b", 5.0), ScoredDoc("c", 1.0)], "q2": [ScoredDoc("x", 1.0)]}
OTHER = {"q3": [ScoredDoc("y", 1.0)], "q1": [ScoredDoc("c", 0.9), ScoredDoc("a", 0.5), ScoredDoc("d", 0.1)]}


def fused(method: str, **more: object) -> dict[str, dict[str, float]]:
    return {topic: dict(zip(ids, scores, strict=True)) for topic, ids, scores in fuse([ONE, OTHER], method, **more)}  # type: ignore[arg-type]


def test_reciprocal_ranks_are_added() -> None:
    q1 = fused("rrf")["q1"]
    assert q1 == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62, "d": 1 / 63})
    assert list(q1) == ["a", "c", "b", "d"]


def test_scores_are_brought_to_one_scale_and_added() -> None:
    assert fused("combsum")["q1"] == pytest.approx({"a": 1.5, "c": 1.0, "b": 0.5, "d": 0.0})
    assert fused("combmnz")["q1"] == pytest.approx({"a": 3.0, "c": 2.0, "b": 0.5, "d": 0.0})


def test_a_weight_counts_as_so_many_runs() -> None:
    thrice = {t: dict(zip(i, s, strict=True)) for t, i, s in fuse([ONE, OTHER, OTHER, OTHER], "rrf")}
    assert fused("rrf", weights=[1.0, 3.0])["q1"] == pytest.approx(thrice["q1"])


@pytest.mark.parametrize("method", METHODS)
def test_topics_of_any_run_are_there_in_order_of_appearance(method: str) -> None:
    assert list(fused(method)) == ["q1", "q2", "q3"]


@pytest.mark.parametrize("method", METHODS)
@given(lists=st.lists(st.lists(st.integers(0, 20), unique=True, min_size=1, max_size=15), min_size=1, max_size=4))
def test_documents_out_are_documents_in(method: str, lists: list[list[int]]) -> None:
    runs = [{"q": [ScoredDoc(f"d{i}", float(-place)) for place, i in enumerate(listed)]} for listed in lists]
    ((_, ids, scores),) = fuse(runs, method)
    assert sorted(ids) == sorted({f"d{i}" for listed in lists for i in listed})
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("method", METHODS)
def test_one_run_alone_keeps_its_order(method: str) -> None:
    assert next(fuse([ONE], method))[1] == ["a", "b", "c"]


def test_what_does_not_go_together_is_one_sentence() -> None:
    with pytest.raises(InputError, match="no such fusion; there are rrf"):
        list(fuse([ONE], "borda-ish"))
    with pytest.raises(InputError, match="2 runs have 1 weights"):
        list(fuse([ONE, OTHER], "rrf", [1.0]))


def test_real_first_stages_are_better_together(shared_data: Path, tmp_path: Path) -> None:
    names = ["BM25", "SPLADE_P_P_ENSEMBLE_DISTIL", "D_BERT_KD_TASB"]
    paths = [str(shared_data / "runs" / f"dl19.{name}.trec.gz") for name in names]
    command(paths, str(tmp_path / "fused"), "rrf", [], 100)
    qrels = read_qrels(str(shared_data / "qrels" / "dl19.qrels"))
    runs = {"bm25": read_run(paths[0]), "fused": read_run(str(tmp_path / "fused"))}
    measured = evaluate(qrels, runs, ["nDCG@10"])
    values = {name: measured.runs[name].measures["nDCG@10"].value or 0.0 for name in runs}
    assert values["fused"] > values["bm25"] + 0.1
    assert len(runs["fused"]) == 43
    assert max(map(len, runs["fused"].values())) <= 100
