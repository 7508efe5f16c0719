"""Runs are read as trec_eval reads them, and written so that every evaluator sees the order that was meant."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import example, given
from hypothesis import strategies as st

from llmrank.data.run import EXACT, SMALLEST, falling, format_ranking, iter_run, read_run
from llmrank.errors import InputError

Scores = list[float | None]
finite = st.floats(allow_nan=False, allow_infinity=False)
magnitudes = st.builds(lambda sign, power: sign * 10.0**power, st.sampled_from([-1, 1]), st.floats(-30, 30))
tied = st.sampled_from([0.0, -0.0, 0.5, 1.0, SMALLEST, -SMALLEST, 1e-45, -1e-45, 1e38, 1e300, math.inf, -math.inf])
any_scores = st.lists(st.one_of(finite, magnitudes, tied, st.none(), st.just(math.nan)), max_size=60)
own_scores = st.lists(st.one_of(magnitudes, st.floats(0, 1).filter(lambda x: x == 0 or x > 1e-30)), max_size=60)


def written(path: Path, doc_ids: list[str], scores: Scores | None) -> Path:
    path.write_text(format_ranking("q", doc_ids, scores, "tag"), encoding="utf-8")
    return path


def ids(n: int) -> list[str]:
    """Ids whose own order is neither that of the ranking nor its reverse."""
    return random.Random(n).sample([f"d{i}" for i in range(n)], n)


def order_seen_by_trec_eval(path: Path) -> list[str]:
    """Each document's rank is one over the reciprocal rank when it alone is relevant."""
    run: dict[str, dict[str, float]] = {}
    for scored in ir_measures.read_trec_run(str(path)):
        run.setdefault(scored.query_id, {})[scored.doc_id] = scored.score
    ranking = next(iter(run.values()), {})
    qrels = {f"only {doc_id}": {doc_id: 1} for doc_id in ranking}
    values = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(dict.fromkeys(qrels, ranking))
    return sorted(ranking, key=lambda doc_id: -values[f"only {doc_id}"]["recip_rank"])


def check_order(path: Path, doc_ids: list[str]) -> None:
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line[2] for line in lines] == doc_ids
    assert [int(line[3]) for line in lines] == list(range(1, len(doc_ids) + 1))
    seen = np.array([line[4] for line in lines], dtype=np.float64).astype(np.float32)
    assert (seen[1:] < seen[:-1]).all()
    assert np.isfinite(seen).all()
    assert ((seen == 0) | (np.abs(seen) >= np.finfo(np.float32).smallest_normal)).all()
    assert [scored.doc_id for scored in read_run(path).get("q", [])] == doc_ids


@given(any_scores)
@example([0.0] * 50)
@example([SMALLEST, SMALLEST, SMALLEST])
@example([None, None, 0.25, None, 0.5, None])
@example([-1e300, -1e300, -math.inf])
@example([10.0**-power for power in range(-30, 31)])
def test_the_written_order_is_what_every_reader_sees(tmp_path_factory: pytest.TempPathFactory, scores: Scores) -> None:
    doc_ids = ids(len(scores))
    path = written(tmp_path_factory.mktemp("run") / "out.trec", doc_ids, scores)
    check_order(path, doc_ids)
    assert order_seen_by_trec_eval(path) == doc_ids


@given(own_scores)
def test_own_scores_that_fall_keep_six_digits(scores: list[float]) -> None:
    scores = sorted(set(np.float32(scores).tolist()), reverse=True)
    for own, got in zip(scores, falling(scores), strict=True):
        assert got == pytest.approx(own, rel=1e-6, abs=0)
    block = format_ranking("q", ids(len(scores)), scores, "tag")
    for own, line in zip(scores, block.splitlines(), strict=True):
        assert float(line.split()[4]) == pytest.approx(own, rel=5e-7, abs=0)


def test_scores_are_lowered_by_the_smallest_step() -> None:
    step = np.float32(0.5)
    expected = [0.5]
    for _ in range(3):
        step = np.nextafter(step, np.float32(-1))
        expected.append(float(step))
    assert list(falling([0.5, 0.5, None, 0.9])) == expected
    assert list(falling([None, 0.5])) == expected[:2]
    assert list(falling([SMALLEST, SMALLEST, SMALLEST])) == [SMALLEST, 0, -SMALLEST]


def test_scores_are_written_as_people_would() -> None:
    block = format_ranking("q", ["a", "b", "c", "d"], [12, 0.9, 0.25, -1e-7], "me")
    assert block == "q Q0 a 1 12 me\nq Q0 b 2 0.9 me\nq Q0 c 3 0.25 me\nq Q0 d 4 -1e-07 me\n"


@pytest.mark.parametrize("scores", [None, [None, None, None]])
def test_without_scores_ranks_are_counted_down(scores: Scores | None) -> None:
    assert format_ranking("q", ["a", "b", "c"], scores, "me") == "q Q0 a 1 3 me\nq Q0 b 2 2 me\nq Q0 c 3 1 me\n"


def test_nothing_to_write_is_nothing() -> None:
    assert format_ranking("q", [], None, "me") == format_ranking("q", [], [], "me") == ""


def test_scores_must_be_as_many_as_documents() -> None:
    with pytest.raises(ValueError, match="2 documents, 1 scores"):
        format_ranking("q", ["a", "b"], [1.0], "me")


@pytest.mark.parametrize("scores", [None, [0.75] * 10_000, [1.0] + [None] * 9_999, [1e-30] * 5_000 + [0] * 5_000])
def test_long_rankings(tmp_path: Path, scores: Scores | None) -> None:
    check_order(written(tmp_path / "out.trec", ids(10_000), scores), ids(10_000))


def test_more_ranks_than_32_bit_floats_can_count() -> None:
    n = EXACT + 2_000
    # Beyond the first few thousand the scores are even numbers far below their ranks and can tie no more.
    start = np.array(list(itertools.islice(falling(range(n, 0, -1)), 6_000)))
    assert (np.diff(start.astype(np.float32)) < 0).all()
    assert start[-1] < EXACT


def test_order_is_by_32_bit_score_then_by_id_falling(tmp_path: Path) -> None:
    # 0.1 and 0.1 + 1e-12 are one number in 32 bits; é sorts after every ASCII letter, as bytes do.
    (tmp_path / "run").write_text(
        "q Q0 a 1 0.1 t\nq Q0 b 2 0.1000000000001 t\nq Q0 é 3 0.1 t\nq Q0 z 4 9e99 t\nq Q0 c 9 -inf t\n",
        encoding="utf-8",
    )
    assert [scored.doc_id for scored in read_run(tmp_path / "run")["q"]] == ["z", "é", "b", "a", "c"]
    assert order_seen_by_trec_eval(tmp_path / "run") == ["z", "é", "b", "a", "c"]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 1, width=16)), unique_by=lambda pair: pair[0]))
def test_reading_agrees_with_trec_eval(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, float]]
) -> None:
    path = tmp_path_factory.mktemp("run") / "run"
    path.write_text("".join(f"q 0 {doc_id} 7 {score / 1e6 + 1!r} t\n" for doc_id, score in pairs))
    assert [scored.doc_id for scored in read_run(path).get("q", [])] == order_seen_by_trec_eval(path)


def test_lines_of_a_query_need_not_stand_together(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("2 Q0 a 1 3 t\n\n1 Q0 a 1 2 t\n2\tQ0\tb\t1\t4\tt\n")
    run = read_run(tmp_path / "run")
    assert {query: [scored.doc_id for scored in ranking] for query, ranking in run.items()} == {
        "2": ["b", "a"],
        "1": ["a"],
    }
    assert list(run) == ["2", "1"]
    assert [line.line for line in iter_run(tmp_path / "run")] == [1, 3, 4]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("q Q0 d 1 2.5", "expected six columns .* found 5"),
        ("q Q0 d 1 2.5 my tag", "found 7"),
        ("q\td\t1", "found 3"),
        ("q Q0 d 1 high t", "the score 'high' is not a number"),
        ("q Q0 d 1 nan t", "the score 'nan' is not a number"),
        ("q Q0 d 1 1_0 t", "not a number"),
        ("q Q0 d 1 ３ t", "not a number"),
        ("q Q0 a 1 2.5 t", "document a is in query q already, in line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "run").write_text(f"q Q0 a 1 3 t\n\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"run:3: .*{problem}"):
        read_run(tmp_path / "run")


def test_real_runs_read_as_ir_measures_reads_them(shared_data: Path) -> None:
    for path in sorted((shared_data / "runs").glob("*.gz")):
        expected: dict[str, list[tuple[np.float32, str]]] = {}
        for scored in ir_measures.read_trec_run(str(path)):
            expected.setdefault(scored.query_id, []).append((np.float32(scored.score), scored.doc_id))
        run = read_run(path)
        assert list(run) == list(expected)
        for query_id, ranking in run.items():
            assert [scored.doc_id for scored in ranking] == [doc_id for _, doc_id in sorted(expected[query_id])[::-1]]


def test_a_real_run_written_again_scores_the_same(shared_data: Path, tmp_path: Path) -> None:
    qrels = list(ir_measures.read_trec_qrels(str(shared_data / "qrels" / "dl19.qrels")))
    measures = [ir_measures.nDCG @ 10, ir_measures.AP(rel=2), ir_measures.RR(rel=2)]
    source = shared_data / "runs" / "dl19.BM25.trec.gz"
    with_scores, with_ranks = tmp_path / "scores.trec", tmp_path / "ranks.trec"
    for path, keep in ((with_scores, True), (with_ranks, False)):
        path.write_text(
            "".join(
                format_ranking(
                    query_id,
                    [scored.doc_id for scored in ranking],
                    [scored.score for scored in ranking] if keep else None,
                    "t",
                )
                for query_id, ranking in read_run(source).items()
            )
        )
    figures = [
        ir_measures.calc_aggregate(measures, qrels, ir_measures.read_trec_run(str(path)))
        for path in (source, with_scores, with_ranks)
    ]
    assert figures[0] == figures[1] == figures[2]
    assert round(figures[0][ir_measures.nDCG @ 10], 4) == 0.5058
