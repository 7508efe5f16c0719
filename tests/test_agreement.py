"""Agreement of files: matching, policy, coverage, systems, and preferences of real judges."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from llmrank.agree.resampling import Resampling
from llmrank.agreement import LabelFile, LabelSettings, Scale, agree_labels, agree_preferences, parse_scale, read_labels
from llmrank.agreement.systems import SystemScores
from llmrank.data.comparisons import read_comparisons
from llmrank.data.qrels import read_qrels
from llmrank.data.run import ScoredDoc, read_run
from llmrank.errors import InputError

LABELS = {"kappa", "kappa_linear", "kappa_quadratic", "scott_pi", "alpha_nominal", "alpha_ordinal", "alpha_interval"}
LABELS |= {"ac1", "ac2", "brennan_prediger", "accuracy", "mae", "bias"}
PREFERENCES = {"accuracy", "accuracy_no_ties", "kappa", "order_consistency", "position_bias", "length_bias"}


@pytest.fixture
def qrels(tmp_path: Path, shared_data: Path) -> dict[str, Path]:
    """The real judges' labels, a qrels file each."""
    with gzip.open(shared_data / "judge_labels" / "llmjudge.shared.tsv.gz", "rt") as stream:
        header, *rows = [line.rstrip("\n").split("\t") for line in stream]
    files = {}
    for column, name in enumerate(header[2:], start=2):
        files[name] = tmp_path / f"{name}.qrels"
        files[name].write_text("".join(f"{row[0]} 0 {row[1]} {row[column]}\n" for row in rows if row[column]))
    return files


def write(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    path.write_text("".join(f"{topic} 0 {doc} {label}\n" for topic, doc, label in rows))
    return path


def agreement(truth: Path, *judges: Path, policy: str = "error", scale: Scale | None = None, **kwargs: object) -> dict:
    true, known = read_labels(truth, scale, policy)  # type: ignore[arg-type]
    setting = LabelSettings(known, **({"bootstrap": 200} | kwargs))  # type: ignore[arg-type]
    files = {judge.stem: read_labels(judge, known, policy)[0] for judge in judges}  # type: ignore[arg-type]
    return json.loads(json.dumps(agree_labels(true, files, setting).json(), allow_nan=False))


def test_the_promised_shape(qrels: dict[str, Path]) -> None:
    found = agreement(qrels["human"], qrels["Olz-gpt4o"])
    assert found["truth"] | {"notes": [], "out_of_range": 0} == {
        "file": str(qrels["human"]),
        "pairs": 1751,
        "topics": 12,
        "notes": [],
        "out_of_range": 0,
    }
    assert found["settings"] == {
        "scale": [0, 3],
        "out_of_range": "error",
        "bootstrap": 200,
        "resample": "topics",
        "seed": 0,
        "level": 0.95,
    }
    judge = found["judges"]["Olz-gpt4o"]
    assert set(judge["labels"]) == LABELS
    assert set(judge["binarized"]) == {"1", "2", "3"}
    assert set(judge["binarized"]["1"]) == {"kappa", "alpha_nominal", "ac1", "accuracy", "precision", "recall"}
    assert len(judge["topics_detail"]) == 12
    assert "systems" not in judge
    assert (judge["pairs"], judge["topics"], judge["coverage"]) == (1751, 12, 1)
    assert set(judge["labels"]["kappa"]) == {"value", "low", "high", "n", "note"}
    truth, said = (read_qrels(qrels[name]) for name in ("human", "Olz-gpt4o"))
    pairs = [(topic, doc) for topic in truth for doc in truth[topic]]
    expected = metrics.confusion_matrix([truth[q][d] for q, d in pairs], [said[q][d] for q, d in pairs])
    assert judge["confusion"] == expected.tolist()
    for topic, figures in judge["topics_detail"].items():
        rows = [(truth[q][d], said[q][d]) for q, d in pairs if q == topic]
        assert figures["kappa"]["n"] == len(rows)
        assert figures["kappa"]["value"] == pytest.approx(metrics.cohen_kappa_score(*zip(*rows, strict=True)))


def test_missing_labels_are_left_out_never_zero(qrels: dict[str, Path], tmp_path: Path) -> None:
    lines = qrels["Olz-gpt4o"].read_text().splitlines(keepends=True)
    kept = [line for place, line in enumerate(lines) if place % 4]
    fewer = tmp_path / "fewer.qrels"
    fewer.write_text("".join(kept) + "q0 0 a-document-the-truth-lacks 1\n")
    judge = agreement(qrels["human"], fewer)["judges"]["fewer"]
    truth, said = read_qrels(qrels["human"]), read_qrels(fewer)
    both = [(truth[q][d], said[q][d]) for q in truth for d in truth[q] if d in said[q]]
    assert judge["pairs"] == len(kept) == len(both)
    assert judge["coverage"] == pytest.approx(len(kept) / 1751)
    assert judge["labels"]["kappa"]["value"] == pytest.approx(metrics.cohen_kappa_score(*zip(*both, strict=True)))
    assert any("no predicted label" in note for note in judge["notes"])


def test_labels_outside_the_scale(qrels: dict[str, Path]) -> None:
    outside = qrels["h2oloo-zeroshot2"]
    line = next(n for n, text in enumerate(outside.read_text().splitlines(), 1) if text.endswith(" 10"))
    with pytest.raises(InputError, match=rf"h2oloo-zeroshot2.qrels:{line}: the label 10 is outside the scale 0-3"):
        agreement(qrels["human"], outside)
    clipped = agreement(qrels["human"], outside, policy="clip")["judges"]["h2oloo-zeroshot2"]
    dropped = agreement(qrels["human"], outside, policy="drop")["judges"]["h2oloo-zeroshot2"]
    assert clipped["out_of_range"] == {"policy": "clip", "labels": 1, "values": {"10": 1}}
    assert dropped["out_of_range"] == {"policy": "drop", "labels": 1, "values": {"10": 1}}
    assert (clipped["pairs"], clipped["coverage"]) == (1751, 1)
    assert (dropped["pairs"], dropped["coverage"]) == (1750, pytest.approx(1750 / 1751))
    assert any("10 (1)" in note for note in clipped["notes"])
    wide = agreement(qrels["human"], outside, scale=Scale(0, 10))["judges"]["h2oloo-zeroshot2"]
    assert len(wide["confusion"]) == 11


def test_the_policy_holds_for_the_truth_too(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.qrels", [("q", "a", -1), ("q", "b", 2), ("q", "c", 0)])
    judge = write(tmp_path / "judge.qrels", [("q", "a", 0), ("q", "b", 2), ("q", "c", 1)])
    assert agreement(truth, judge)["settings"]["scale"] == [-1, 2]
    with pytest.raises(InputError, match=r"truth.qrels:1: the label -1 is outside the scale 0-3"):
        agreement(truth, judge, scale=Scale(0, 3))
    dropped = agreement(truth, judge, scale=Scale(0, 3), policy="drop")
    assert (dropped["truth"]["pairs"], dropped["judges"]["judge"]["pairs"]) == (2, 2)
    assert dropped["truth"]["out_of_range"]["values"] == {"-1": 1}
    assert "-1 (1)" in dropped["truth"]["notes"][0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no pair in common"),
        ([("other", "a", 1)], "no pair in common"),
        ([("q", "a", 1), ("q", "b", 1), ("r", "a", 1)], "every pair the label 1"),
        ([("q", "a", 0), ("q", "b", 0), ("r", "a", 1)], "gives one label only (1): q"),
    ],
    ids=["never answers", "no overlap", "one label", "one label in a topic"],
)
def test_degenerate_judges_get_a_sentence(rows: list[tuple[str, str, int]], said: str, tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.qrels", [("q", "a", 0), ("q", "b", 1), ("r", "a", 0)])
    judge = agreement(truth, write(tmp_path / "judge.qrels", rows))["judges"]["judge"]
    assert any(said in note for note in judge["notes"])
    for figure in judge["labels"].values():
        assert figure["value"] is not None or figure["note"]


def test_a_truth_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no labels"):
        read_labels(write(tmp_path / "truth.qrels", []))


def test_scales_as_people_write_them() -> None:
    assert parse_scale("0-3") == Scale(0, 3)
    assert parse_scale(" -2 - -1 ") == Scale(-2, -1)
    for wrong in ("3-0", "0..3", "three", "0-5000", ""):
        with pytest.raises(InputError):
            parse_scale(wrong)
    with pytest.raises(InputError, match="the cut 0 leaves no label"):
        LabelSettings(Scale(0, 3), cuts=[0])


def test_a_reversed_judge_is_named(qrels: dict[str, Path], tmp_path: Path) -> None:
    rows = [line.split() for line in qrels["Olz-gpt4o"].read_text().splitlines()]
    turned = write(tmp_path / "turned.qrels", [(q, d, 3 - int(label)) for q, _, d, label in rows])
    assert any("reversed polarity" in note for note in agreement(qrels["human"], turned)["judges"]["turned"]["notes"])


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from("pqr"), st.sampled_from("abcdef")),
        st.tuples(st.integers(0, 2), st.none() | st.integers(0, 2)),
        min_size=1,
    ),
    st.randoms(),
)
def test_order_and_names_change_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    labels: dict[tuple[str, str], tuple[int, int | None]],
    shuffler: random.Random,
) -> None:
    folder = tmp_path_factory.mktemp("orders")
    rows = [(q, d, true, said) for (q, d), (true, said) in labels.items()]

    def found(rows: list[tuple[str, str, int, int | None]]) -> dict:
        truth = write(folder / "truth", [(q, d, true) for q, d, true, _ in rows])
        judge = write(folder / "judge", [(q, d, said) for q, d, _, said in rows if said is not None])
        return agreement(truth, judge, scale=Scale(0, 2))["judges"]["judge"]

    first = found(rows)
    shuffler.shuffle(rows)
    second = found(rows)
    renamed = found([({"p": "r", "q": "p", "r": "q"}[q], f"z{d}", true, said) for q, d, true, said in rows])
    for other in (second, renamed):
        assert other["labels"] == first["labels"]
        assert other["binarized"] == first["binarized"]
        assert other["confusion"] == first["confusion"]
    assert second["topics_detail"] == first["topics_detail"]


RUNS = ("BM25", "BM25_RM3", "D_BERT_KD_TASB", "OPEN_AI_ADA2", "REP_LLAMA", "SPLADE_P_P_ENSEMBLE_DISTIL")


def real_runs(shared_data: Path) -> dict[str, dict[str, list[ScoredDoc]]]:
    return {name: read_run(shared_data / "runs" / f"dl19.{name}.trec.gz") for name in RUNS}


def test_systems_are_scored_as_trec_eval_does(shared_data: Path) -> None:
    truth, runs = read_qrels(shared_data / "qrels" / "dl19.qrels"), real_runs(shared_data)
    generator = random.Random(0)
    some = {
        topic: {d: generator.choice((grade, grade, -1, 3)) for d, grade in judged.items() if generator.random() < 0.8}
        for topic, judged in list(truth.items())[:30]
    }
    del runs["BM25"]["264014"]
    scores = SystemScores(truth, runs, ["nDCG@10", "nDCG@1000", "AP(rel=2)@100", "P@5"])
    for labels in (truth, some):
        for measure, name in (("nDCG@10", "ndcg_cut_10"), ("nDCG@1000", "ndcg_cut_1000"), ("P@5", "P_5")):
            found = scores.scores(labels, measure)
            kept = {topic: {d: max(0, grade) for d, grade in judged.items()} for topic, judged in labels.items()}
            oracle = pytrec_eval.RelevanceEvaluator(kept, {"ndcg_cut.10,1000", "P.5"})
            for row, (_, run) in zip(found, sorted(runs.items()), strict=True):
                # Scores by place, so that documents that tie are where read_run has put them.
                places = {t: {h.doc_id: -float(i) for i, h in enumerate(hits)} for t, hits in run.items()}
                values = oracle.evaluate(places)
                expected = [values.get(topic, {}).get(name, 0.0) for topic in truth]
                assert row.tolist() == pytest.approx(expected, abs=1e-9)


def test_a_judge_equal_to_the_truth_ranks_systems_alike(shared_data: Path) -> None:
    path = shared_data / "qrels" / "dl19.qrels"
    truth, scale = read_labels(path)
    runs = real_runs(shared_data)
    lenient = {topic: {d: min(3, grade + 1) for d, grade in judged.items()} for topic, judged in truth.labels.items()}
    turned = {topic: {d: 3 - grade for d, grade in judged.items()} for topic, judged in truth.labels.items()}
    judges = {"same": truth} | {
        name: LabelFile(name, labels, "error", {}) for name, labels in (("lenient", lenient), ("turned", turned))
    }
    setting = LabelSettings(scale, bootstrap=200, topics_detail=False, measures=["nDCG@10", "AP"])
    found = agree_labels(truth, judges, setting, runs).json()["judges"]
    assert set(found["same"]["systems"]) == {"nDCG@10", "AP"}
    same, other = found["same"]["systems"]["nDCG@10"], found["lenient"]["systems"]["nDCG@10"]
    assert {"tau_b", "rho", "tau_ap", "rbo", "inflation", "top10_tau_b"} <= set(same)
    for name in ("tau_b", "rho", "tau_ap", "rbo"):
        assert same[name]["value"] == pytest.approx(1)
        assert same[name]["n"] == len(RUNS)
    assert same["inflation"]["value"] == 0
    assert 0 < other["inflation"]["low"] < other["inflation"]["value"]
    assert found["turned"]["systems"]["nDCG@10"]["tau_b"]["value"] < 0.5
    assert 0 < same["judged"]["value"] <= 1


def comparisons(path: Path, rows: list[dict[str, object]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names or ["left", "right", "winner"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def preferences(truth: Path, judge: Path, bootstrap: int = 200, **kwargs: object) -> dict:
    settings = Resampling(bootstrap, **kwargs)  # type: ignore[arg-type]
    found = agree_preferences(read_comparisons(str(truth)), {"judge": read_comparisons(str(judge))}, settings)
    return json.loads(json.dumps(found.json(), allow_nan=False))


def crowd(shared_data: Path, name: str) -> list[dict[str, object]]:
    with (shared_data / "preferences" / name).open() as stream:
        rows = list(csv.DictReader(stream))
    return [{"query_id": row["prompt"]} | {key: row[key] for key in ("left", "right", "winner")} for row in rows]


def test_real_votes_and_a_real_judge(shared_data: Path, tmp_path: Path) -> None:
    votes, said = crowd(shared_data, "crowd-comparisons.csv"), crowd(shared_data, "gpt4-crowd-comparisons.csv")
    found = preferences(comparisons(tmp_path / "human.csv", votes), comparisons(tmp_path / "gpt4.csv", said))
    judge = found["judges"]["judge"]
    by_pair: dict[tuple[object, ...], Counter[object]] = {}
    for row in votes:
        by_pair.setdefault((row["query_id"], row["left"], row["right"]), Counter())[row["winner"]] += 1
    truth = {}
    for key, counts in by_pair.items():
        (first, n), *rest = counts.most_common()
        truth[key] = "tie" if rest and rest[0][1] == n else first
    answers = {(row["query_id"], row["left"], row["right"]): row["winner"] for row in said}
    both = [(truth[key], answers[key]) for key in truth if key in answers]
    assert (judge["pairs"], judge["coverage"]) == (len(both), pytest.approx(len(both) / len(truth)))
    figures = judge["preferences"]
    assert set(figures) == PREFERENCES
    assert figures["accuracy"]["value"] == pytest.approx(np.mean([one == two for one, two in both]))
    assert figures["kappa"]["value"] == pytest.approx(metrics.cohen_kappa_score(*zip(*both, strict=True)))
    untied = [one == two for one, two in both if "tie" not in (one, two)]
    assert figures["accuracy_no_ties"]["value"] == pytest.approx(np.mean(untied))
    assert figures["accuracy_no_ties"]["n"] == len(untied)
    assert figures["accuracy"]["low"] < figures["accuracy"]["value"] < figures["accuracy"]["high"]
    for name in ("order_consistency", "position_bias", "length_bias"):
        assert figures[name]["value"] is None
        assert figures[name]["note"]


def test_a_recorded_judge_in_both_orders(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "llmbar"
    items = json.loads((folder / "llmbar.Natural.dataset.json").read_text())
    with gzip.open(folder / "llmbar.Natural.results.jsonl.gz", "rt") as stream:
        results = [json.loads(line) for line in stream]
    one_judge = [row for row in results if (row["evaluator"], row["mode"]) == ("ChatGPT-0301", "CoT")]
    gold, said, answers = [], [], []
    for row in one_judge:
        item = items[row["i"]]
        gold.append({"query_id": row["i"], "left": "1", "right": "2", "winner": ("left", "right")[item["label"] - 1]})
        plain, swapped = (row["results"][0][f"swap = {swap}"]["winner"] for swap in (False, True))
        answers.append((str(item["label"]), plain, swapped))
        lengths = {n: len(item[f"output_{n}"]) for n in "12"}
        for (left, right), winner in (("12", plain), ("21", swapped)):
            said.append(
                {"query_id": row["i"], "left": left, "right": right, "left_length": lengths[left]}
                | {"right_length": lengths[right], "winner": {left: "left", right: "right"}.get(winner, "tie")}
            )
    found = preferences(comparisons(tmp_path / "gold.csv", gold), comparisons(tmp_path / "said.csv", said))
    figures = found["judges"]["judge"]["preferences"]
    consistent = [one == two for _, one, two in answers]
    right = [label == one == two for label, one, two in answers]
    assert figures["order_consistency"]["value"] == pytest.approx(np.mean(consistent))
    assert figures["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert figures["accuracy_no_ties"]["value"] == pytest.approx(sum(right) / sum(consistent))
    left = np.mean([(one == "1") + (two == "2") for _, one, two in answers]) / 2
    assert figures["position_bias"]["value"] == pytest.approx(left - 0.5, abs=0.02)
    assert figures["length_bias"]["low"] < figures["length_bias"]["value"] < figures["length_bias"]["high"]
    assert {figure["n"] for figure in figures.values()} >= {100, sum(consistent)}


def test_both_orders_of_a_judge(tmp_path: Path) -> None:
    """Ten queries worked out by hand: seven consistent, three in which whatever stands left wins."""
    gold = [{"query_id": q, "left": "a", "right": "b", "winner": "left"} for q in range(10)]
    said: list[dict[str, object]] = []
    for q in range(10):
        lengths = {"left_length": 10, "right_length": 5}, {"left_length": 5, "right_length": 10}
        said += [
            {"query_id": q, "left": "a", "right": "b", "winner": "left" if q != 0 else "right"} | lengths[0],
            {"query_id": q, "left": "b", "right": "a", "winner": "left" if q in (0, 7, 8, 9) else "right"} | lengths[1],
        ]
    random.Random(0).shuffle(said)
    found = preferences(comparisons(tmp_path / "gold.csv", gold), comparisons(tmp_path / "said.csv", said))
    judge = found["judges"]["judge"]
    assert (judge["pairs"], judge["topics"]) == (10, 10)
    figures = judge["preferences"]
    values = {name: figure["value"] for name, figure in figures.items()}
    assert values["accuracy"] == pytest.approx(6 / 10)  # q 0 is wrong, 7 to 9 are ties
    assert values["accuracy_no_ties"] == pytest.approx(6 / 7)
    assert values["order_consistency"] == pytest.approx(7 / 10)
    assert values["position_bias"] == pytest.approx(0.15)
    assert values["length_bias"] == pytest.approx((6 + 3 / 2) / 10 - 1)  # a is longer everywhere, and always wins
    assert figures["order_consistency"]["n"] == 10


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("pq"), st.sampled_from("abc"), st.sampled_from("abc"), st.sampled_from([0.0, 0.3, 0.5, 1.0])
        ),
        max_size=25,
    ),
    st.booleans(),
    st.randoms(),
)
def test_rows_in_any_order_or_turned_round(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str, float]],
    queries: bool,
    shuffler: random.Random,
) -> None:
    folder = tmp_path_factory.mktemp("votes")
    names = {"a": "c", "b": "x", "c": "a"}

    def found(rows: list[tuple[str, str, str, float]], renamed: bool = False) -> dict:
        files = []
        for name, part in (("truth", rows[::2]), ("judge", rows[1::2])):
            votes = [
                {
                    "left": names[left] if renamed else left,
                    "right": names[right] if renamed else right,
                    "winner": share,
                }
                | ({"query_id": query} if queries else {})
                for query, left, right, share in part
            ]
            files.append(comparisons(folder / f"{name}.csv", votes))
        return preferences(*files)["judges"]["judge"]

    first = found(rows)
    for figure in first["preferences"].values():
        assert figure["value"] is not None or figure["note"]
        if not queries:
            assert figure["n"] == 0 or "pairs are resampled" in figure["note"]
    halves = [rows[::2], rows[1::2]]
    for half in halves:
        shuffler.shuffle(half)
    mixed: list[tuple[str, str, str, float]] = []
    for place in range(len(rows)):
        mixed.append(halves[place % 2][place // 2])
    for other in (found(mixed), found(rows, renamed=True)):
        for name, figure in first["preferences"].items():
            for key in ("value", "low", "high"):
                assert other["preferences"][name][key] == pytest.approx(figure[key], abs=1e-9)


def test_votes_without_a_winner_or_against_itself_are_told(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"query_id": 1, "left": "a", "right": "b", "winner": "left"},
        {"query_id": 1, "left": "a", "right": "a", "winner": "left"},
        {"query_id": 2, "left": "a", "right": "b", "winner": "tie"},
    ]
    judged = [row | {"winner": "" if row["query_id"] == 2 else row["winner"]} for row in rows]
    found = preferences(comparisons(tmp_path / "truth.csv", rows), comparisons(tmp_path / "judge.csv", judged))
    judge = found["judges"]["judge"]
    assert (found["truth"]["pairs"], judge["pairs"], judge["coverage"]) == (2, 1, 0.5)
    said = " ".join(judge["notes"])
    assert "1 rows of" in said
    assert "an item with itself" in said
    assert all(value is None or math.isfinite(value) for value in (judge["preferences"]["kappa"]["value"],))
