"""Evaluation agrees with trec_eval's own output, pytrec_eval, scipy and statsmodels, and answers at every edge."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from llmrank.agree.significance import randomization
from llmrank.data.qrels import read_qrels
from llmrank.data.run import ScoredDoc, read_run, trec_order
from llmrank.errors import InputError
from llmrank.evaluation import evaluate, parse_measure, parse_measures, score

TREC_NAMES = {
    "nDCG@10": "ndcg_cut_10",
    "nDCG": "ndcg",
    "AP": "map",
    "AP@100": "map_cut_100",
    "RR": "recip_rank",
    "P@5": "P_5",
    "P@1000": "P_1000",
    "R@100": "recall_100",
    "Rprec": "Rprec",
    "Bpref": "bpref",
    "infAP": "infAP",
    "IPrec@0.5": "iprec_at_recall_0.50",
    "IPrec@0": "iprec_at_recall_0.00",
    "Success@10": "success_10",
    "SetP": "set_P",
    "SetR": "set_recall",
    "SetF": "set_F",
    "SetAP": "set_map",
}
COUNTS = {"NumRet": "num_ret", "NumRel": "num_rel", "NumRelRet": "num_rel_ret"}


def run_of(scores: Mapping[str, Mapping[str, float]]) -> dict[str, list[ScoredDoc]]:
    """A run as it is read from a file with these scores."""
    return {topic: trec_order(list(docs), list(docs.values())) for topic, docs in scores.items()}


QRELS = {"1": {"a": 2, "b": 0, "c": 1}, "2": {"a": 1}, "3": {"b": 1, "c": 0}, "4": {"d": 3}}
BASE = run_of({"1": {"b": 3, "a": 2, "c": 1}, "2": {"x": 2, "a": 1}, "3": {"b": 1}, "4": {"x": 2, "y": 1.5, "d": 1}})
BETTER = run_of({"1": {"a": 3, "c": 2, "b": 1}, "2": {"a": 1}, "4": {"d": 1}, "9": {"a": 1}})


# --- measures


def test_trec_evals_own_inputs_give_its_own_outputs(shared_data: Path) -> None:
    folder = shared_data / "trec_eval"
    qrels, run = read_qrels(folder / "qrels.test"), read_run(folder / "results.test")
    printed = [line.split() for line in (folder / "out.test.aq").read_text().splitlines()]
    expected = {(measure, topic): value for measure, topic, value in printed}
    result = evaluate(qrels, {"run": run}, [*TREC_NAMES, *COUNTS]).runs["run"]
    for typed, trec_name in (TREC_NAMES | COUNTS).items():
        name = str(parse_measure(typed))
        assert round(result.measures[name].value or 0, 4) == float(expected[trec_name, "all"]), typed
        for topic, value in result.per_query[name].items():
            assert round(value, 4) == float(expected[trec_name, topic]), (typed, topic)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_measures_of_any_run_are_pytrec_evals(data: st.DataObject) -> None:
    doc_ids = st.sampled_from([f"d{number}" for number in range(8)] + ["é", "z-1"])
    topics = st.sampled_from(["1", "2", "q-1", "q-2"])
    grades = st.dictionaries(topics, st.dictionaries(doc_ids, st.integers(-2, 4), min_size=1), min_size=1)
    values = st.one_of(st.integers(0, 3).map(float), st.sampled_from([0.1, 0.1 + 1e-9, 1e300, -5.0]))
    qrels = data.draw(grades)
    scores = data.draw(st.dictionaries(topics, st.dictionaries(doc_ids, values, min_size=1)))
    found = score(qrels, {"run": run_of(scores)}, TREC_NAMES)["run"]
    clipped = {topic: {doc_id: max(0, grade) for doc_id, grade in docs.items()} for topic, docs in qrels.items()}
    expected = pytrec_eval.RelevanceEvaluator(clipped, set(TREC_NAMES.values())).evaluate(scores)
    for typed, trec_name in TREC_NAMES.items():
        for topic in qrels:
            value = expected[topic][trec_name] if topic in expected else 0.0
            assert found[str(parse_measure(typed))][topic] == pytest.approx(value), (typed, topic)


def test_dl19_first_stage_and_five_reruns_of_one_model(shared_data: Path) -> None:
    qrels = read_qrels(shared_data / "qrels" / "dl19.qrels")
    files = {path.name: path for path in sorted((shared_data / "runs").glob("dl19.rerank.*"))}
    files["bm25"] = shared_data / "runs" / "dl19.BM25.trec.gz"
    result = evaluate(qrels, {name: read_run(path) for name, path in files.items()}, ["nDCG@10"])
    means = {name: run.measures["nDCG@10"].value or 0 for name, run in result.runs.items()}
    assert round(means.pop("bm25"), 4) == 0.5058
    assert len(means) == 5
    assert max(means.values()) - min(means.values()) == pytest.approx(0.02, abs=0.002)
    assert {run.measures["nDCG@10"].n for run in result.runs.values()} == {43}


@pytest.mark.parametrize("measure", ["RR@10", "Judged@1", "RR", "P@1", "Compat(p=0.5)"])
def test_every_provider_breaks_ties_by_document_id_falling(measure: str) -> None:
    qrels = {"1": {"b": 1}}
    tied = score(qrels, {"run": run_of({"1": {"a": 1.0, "b": 1.0, "c": 0.5}})}, [measure])
    strict = score(qrels, {"run": run_of({"1": {"b": 2.0, "a": 1.0, "c": 0.5}})}, [measure])
    assert tied == strict
    assert tied["run"][measure]["1"] == 1.0 or measure.startswith("Compat")


def test_scores_that_are_one_32_bit_float_tie() -> None:
    run = run_of({"1": {"a": 1.00000001, "b": 1.0}})
    assert score({"1": {"b": 1}}, {"run": run}, ["RR@10"])["run"]["RR@10"] == {"1": 1.0}


def test_grades_below_0_count_as_0_and_are_judged() -> None:
    found = score({"1": {"a": -1, "b": 1}}, {"run": run_of({"1": {"a": 2, "b": 1}})}, ["Judged@2", "RR@10", "nDCG@10"])
    assert found["run"] == {"Judged@2": {"1": 1.0}, "RR@10": {"1": 0.5}, "nDCG@10": {"1": 1 / math.log2(3)}}


def test_measures_that_differ_in_a_parameter_are_not_mixed_up() -> None:
    asked = ["nDCG(gains={1:0,2:9})@2", "nDCG@2", "AP(rel=2)", "AP", "SetF(beta=0.5)", "SetF"]
    together = score(QRELS, {"run": BASE}, asked)["run"]
    for measure in asked:
        assert together[measure] == score(QRELS, {"run": BASE}, [measure])["run"][measure]
    assert together["nDCG@2"] != together["nDCG(gains={1:0,2:9})@2"]


def test_a_measure_named_twice_counts_once_under_the_fields_name() -> None:
    assert [str(m) for m in parse_measures(["MAP", "AP", " nDCG@10", ir_measures.nDCG @ 10])] == ["AP", "nDCG@10"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not a measure"),
        ("nDCG@", "is not a measure"),
        ("nDCG 10", "is not a measure"),
        ("P@10is", "is not a measure"),
        ("AP(2)@5", "is not a measure"),
        ("os.system('x')", "is not a measure"),
        ("ndcg@10", "did you mean nDCG?"),
        ("foo@10", "there is no measure 'foo'"),
        ("P", "needs a cutoff, as in P@10"),
        ("nDCG@0", "must be a whole number from 1"),
        ("nDCG@-1", "must be a whole number from 1"),
        ("nDCG@1.5", "must be a whole number from 1"),
        ("P@True", "must be a whole number from 1"),
        ("AP(rel=0)", "must be a grade from 1"),
        ("AP(grade=2)", "has no parameter 'grade'; it takes cutoff, rel, judged_only"),
        ("IPrec@0.333", "between 0 and 1, in hundredths"),
        ("SetF(beta=1e-9)", "between 0.001 and 1000"),
        ("nDCG(gains={1:-3})@5", "whole numbers from 0"),
        ("nDCG(dcg='x')@5", "must be one of"),
        ("AP(judged_only=3)", "of type bool"),
    ],
)
def test_what_is_no_measure_is_told_in_one_sentence(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as problem:
        evaluate(QRELS, {"base": BASE}, [text])
    assert complaint in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("measure", ["NumRel(rel=2)", "RR(judged_only=True)@3"])
def test_a_measure_that_nothing_here_computes_is_told_in_one_sentence(measure: str) -> None:
    with pytest.raises(InputError, match="cannot be computed here"):
        evaluate(QRELS, {"base": BASE}, [measure])


def test_a_provider_that_fails_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("ir_measures.evaluator", fail)
    with pytest.raises(InputError, match="nDCG@10 cannot be computed: first line second line"):
        evaluate(QRELS, {"base": BASE}, ["nDCG@10"])


@pytest.mark.skipif(shutil.which("perl") is None, reason="ERR is computed by a Perl script")
def test_err_has_the_topics_own_names_and_refuses_what_its_script_would(capfd: pytest.CaptureFixture[str]) -> None:
    run = run_of({"q-1": {"a": 3, "b": 2, "c": 1}, "q-2": {"c": 1}})
    found = score({"q-1": {"b": 4, "c": 1}, "q-2": {"c": 2}}, {"run": run}, ["ERR@20"])["run"]["ERR@20"]
    first = 15 / 16
    assert found == pytest.approx({"q-1": first / 2 + (1 - first) * (1 / 16) / 3, "q-2": 3 / 16}, abs=1e-5)
    with pytest.raises(InputError, match="takes grades to 4 only, and the qrels have 5"):
        score({"q-1": {"b": 5}}, {"run": run}, ["ERR@20"])
    assert capfd.readouterr() == ("", "")


def test_a_grade_that_can_be_none_is_refused_before_it_costs_all_memory() -> None:
    with pytest.raises(InputError, match=r"topic 1, document a: 2147483647 is too large"):
        evaluate({"1": {"a": 2**31 - 1}}, {"base": BASE})


def test_a_document_listed_twice_is_refused() -> None:
    with pytest.raises(InputError, match="run twice, topic 1: a document is listed twice"):
        evaluate(QRELS, {"twice": {"1": [ScoredDoc("a", 2.0), ScoredDoc("a", 1.0)]}})


# --- topics


def test_means_are_over_all_topics_of_the_qrels_unless_only_shared_ones_are_asked_for() -> None:
    run = evaluate(QRELS, {"better": BETTER}, ["RR@10"]).runs["better"]
    assert (run.measures["RR@10"].value, run.measures["RR@10"].n, run.missing, run.ignored) == (0.75, 4, 1, 1)
    assert run.per_query["RR@10"] == {"1": 1.0, "2": 1.0, "3": 0.0, "4": 1.0}
    shared = evaluate(QRELS, {"better": BETTER}, ["RR@10"], only_shared=True).runs["better"]
    assert (shared.measures["RR@10"].value, shared.measures["RR@10"].n, shared.missing) == (1.0, 3, 1)
    assert shared.per_query["RR@10"] == {"1": 1.0, "2": 1.0, "4": 1.0}


def test_a_topic_with_an_empty_ranking_is_one_that_the_run_lacks() -> None:
    empty = evaluate(QRELS, {"run": {**BASE, "1": []}}, ["Judged@10", "RR@10"])
    assert empty == evaluate(QRELS, {"run": {t: docs for t, docs in BASE.items() if t != "1"}}, ["Judged@10", "RR@10"])
    assert empty.runs["run"].missing == 1


def test_a_topic_without_a_relevant_document_counts() -> None:
    run = evaluate({"1": {"a": 1}, "2": {"a": 0}}, {"run": run_of({"1": {"a": 1}, "2": {"a": 1}})}).runs["run"]
    assert {name: figure.value for name, figure in run.measures.items()} == dict.fromkeys(run.measures, 0.5)


def test_measures_that_count_are_sums_without_interval() -> None:
    figure = evaluate(QRELS, {"base": BASE}, ["NumRet"]).runs["base"].measures["NumRet"]
    assert (figure.value, figure.low, figure.high, figure.n) == (9.0, None, None, 4)
    assert "sum" in (figure.note or "")


# --- tests against a baseline


def test_tests_against_a_baseline_are_those_of_scipy_and_statsmodels(shared_data: Path) -> None:
    qrels = read_qrels(shared_data / "qrels" / "dl19.qrels")
    names = ["BM25", "BM25_RM3", "OPEN_AI_ADA2"]
    runs = {name: read_run(shared_data / "runs" / f"dl19.{name}.trec.gz") for name in names}
    measures = ["nDCG@10", "AP(rel=2)@100", "RR@10"]
    result = evaluate(qrels, runs, measures, baseline="BM25", seed=3)
    assert result.runs["BM25"].tests is None
    seen = []
    for name in names[1:]:
        tests = result.runs[name].tests or {}
        for measure in measures:
            values, others = (list(result.runs[run].per_query[measure].values()) for run in (name, "BM25"))
            expected = stats.ttest_rel(values, others)
            assert tests[measure].difference.value == pytest.approx(np.mean(values) - np.mean(others))
            assert tests[measure].difference.low == pytest.approx(expected.confidence_interval().low)
            assert tests[measure].p_t == pytest.approx(expected.pvalue)
            assert tests[measure].p_randomization == randomization(np.subtract(values, others), seed=3)
            seen.append(tests[measure])
    holm = multipletests([test.p_randomization for test in seen], method="holm")[1]
    assert [test.p_holm for test in seen] == pytest.approx(list(holm))


def test_the_order_of_topics_and_the_company_of_other_runs_change_no_p() -> None:
    topics = {str(number): {"a": 1} for number in range(30)}
    base = run_of({topic: {"a": 1.0, **dict.fromkeys("zyx"[: int(topic) % 4], 2.0)} for topic in topics})
    other = run_of({topic: {"a": 1.0, **dict.fromkeys("zyx"[: int(topic) % 3], 2.0)} for topic in topics})
    alone = evaluate(topics, {"base": base, "other": other}, ["RR@10"], "base")
    reversed_topics = dict(reversed(topics.items()))
    company = evaluate(reversed_topics, {"third": other, "other": other, "base": base}, ["RR@10", "AP"], "base")
    left, right = (found.runs["other"].tests or {} for found in (alone, company))
    assert left["RR@10"].p_randomization == right["RR@10"].p_randomization
    assert left["RR@10"].p_holm != right["RR@10"].p_holm


def test_only_topics_of_both_runs_are_paired_where_only_shared_ones_are_asked_for() -> None:
    base = {topic: docs for topic, docs in BASE.items() if topic != "4"}
    test = (evaluate(QRELS, {"base": base, "run": BETTER}, ["RR@10"], "base", True).runs["run"].tests or {})["RR@10"]
    assert (test.difference.value, test.difference.n) == (0.5, 2)


def test_a_baseline_that_is_no_run_is_refused() -> None:
    with pytest.raises(InputError, match="the baseline 'other' is not among the runs: base"):
        evaluate(QRELS, {"base": BASE}, baseline="other")


# --- edges: numbers or None with a sentence, never NaN

EDGES = {
    "same run twice": (QRELS, {"base": BASE, "run": BASE}),
    "empty run": (QRELS, {"base": BASE, "run": {}}),
    "both empty": (QRELS, {"base": {}, "run": {}}),
    "no shared topic": (QRELS, {"base": BASE, "run": run_of({"9": {"a": 1}})}),
    "one topic": ({"1": {"a": 1}}, {"base": BASE, "run": BETTER}),
    "no qrels": ({}, {"base": BASE, "run": BETTER}),
    "nothing relevant": ({"1": {"a": 0}, "2": {"a": 0}}, {"base": BASE, "run": BETTER}),
    "a topic without judgments": ({"1": {}, "2": {"a": 1}}, {"base": BASE, "run": BETTER}),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("only_shared", [False, True])
def test_every_edge_has_numbers_or_a_note(edge: str, only_shared: bool) -> None:
    qrels, runs = EDGES[edge]
    measures = ["nDCG@10", "AP", "RR@10", "R@100", "Judged@10", "Bpref", "SetF", "NumRet", "Compat"]
    result = evaluate(qrels, runs, measures, "base", only_shared)
    printed = json.loads(json.dumps(result.json(per_query=True), allow_nan=False))
    for run in printed["runs"].values():
        assert list(run["measures"]) == [str(m) for m in parse_measures(measures)]
        for figure in [*run["measures"].values(), *(test["difference"] for test in run.get("tests", {}).values())]:
            assert figure["value"] is not None or figure["note"]
            assert figure["low"] is not None or figure["note"]
        for test in run.get("tests", {}).values():
            assert test["p_t"] is not None or test["difference"]["note"]
            assert (test["p_randomization"] is None) == (test["p_holm"] is None) == (test["difference"]["n"] == 0)


def test_a_run_against_itself_differs_by_0_and_has_no_t_test() -> None:
    test = (evaluate(QRELS, {"base": BASE, "run": BASE}, ["AP"], "base").runs["run"].tests or {})["AP"]
    assert (test.difference.value, test.p_t, test.p_randomization, test.p_holm) == (0.0, None, 1.0, 1.0)
    assert "there is no t test" in (test.difference.note or "")
