"""What is judged: listed pairs, pools, holes and samples; checked to their end before anything is asked."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from llmrank import InputError
from llmrank.data.run import read_run
from llmrank.judge.inputs import JudgeInputs, Wanted

Open = Callable[[Wanted], JudgeInputs]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """A collection of 3 queries and 40 documents with 3 runs, in the working folder."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(4)
    Path("queries").write_text("".join(f"q{q}\tquery {q}\n" for q in (1, 2, 3)))
    Path("corpus").write_text("".join(f"d{d}\ttext {d}\n" for d in range(40)))
    for run in "abc":
        lines = [f"q{q} Q0 d{d} 1 {draw.randint(0, 12)} x\n" for q in (2, 1, 3) for d in draw.sample(range(40), 25)]
        Path(run).write_text("".join(lines))
    return lambda wanted: JudgeInputs.open("queries", "corpus", wanted)


def pairs(inputs: JudgeInputs) -> list[tuple[str, str]]:
    with inputs:
        listed = [(query, doc) for _, query, doc in inputs.names()]
        units = list(inputs.units())
        assert [(u.query.id, d.id) for u in units for d in u.documents] == listed
        places = [place for u in units for place in u.places]
        assert places == sorted(places)
        assert all(d.text == f"text {d.id[1:]}" for u in units for d in u.documents)
        assert len(inputs) == len(listed)
        return listed


@pytest.mark.parametrize("depth", [1, 7, 100])
def test_a_pool_is_the_union_of_the_runs_first_documents(opened: Open, depth: int) -> None:
    found = pairs(opened(Wanted(runs=["a", "b", "c"], depth=depth)))
    expected = {
        (query, doc.doc_id) for run in "abc" for query, ranking in read_run(run).items() for doc in ranking[:depth]
    }
    assert set(found) == expected
    assert len(found) == len(expected)
    assert list(dict.fromkeys(query for query, _ in found)) == ["q2", "q1", "q3"]  # as in the first run
    firsts = [read_run(run)["q2"][0].doc_id for run in "abc"]
    assert [doc for query, doc in found if query == "q2"][: len(set(firsts))] == list(dict.fromkeys(firsts))


def test_pairs_are_judged_once_in_the_order_of_the_file(opened: Open) -> None:
    Path("pairs").write_text("q1 d3\nq2 d1\nq1 d3\n\nq1 d0\n")
    inputs = opened(Wanted(pairs="pairs"))
    assert inputs.repeated == 1
    assert pairs(inputs) == [("q1", "d3"), ("q2", "d1"), ("q1", "d0")]
    inputs = opened(Wanted(pairs="pairs"))
    together = [(u.query.id, [d.id for d in u.documents]) for u in inputs.units(together=True)]
    assert together == [("q1", ["d3", "d0"]), ("q2", ["d1"])]


def test_holes_are_what_the_qrels_lack_and_a_grade_below_0_is_a_judgment(opened: Open) -> None:
    pool = pairs(opened(Wanted(runs=["a", "b"], depth=5)))
    human = b"".join(f"{q} 0 {d} {-1 if i % 2 else 2}\r\n".encode() for i, (q, d) in enumerate(pool[::3]))
    human += b"q1\t0  d39 1"
    Path("human").write_bytes(human)
    inputs = opened(Wanted(runs=["a", "b"], depth=5, qrels="human", holes_only=True))
    assert "".join(inputs.human_lines()).encode() == human + b"\n"
    judged = {*pool[::3], ("q1", "d39")}
    assert pairs(inputs) == [pair for pair in pool if pair not in judged]
    alone = opened(Wanted(qrels="human"))
    assert alone.human is None
    assert pairs(alone) == [*pool[::3], ("q1", "d39")]


def test_a_sample_draws_as_many_from_each_stratum(opened: Open) -> None:
    wanted = Wanted(runs=["a", "b", "c"], depth=20, sample=30, strata="rank", seed=1)
    inputs = opened(wanted)
    assert list(inputs.strata) == ["1", "2-3", "4-7", "8-15", "16-31"]
    drawn = [row["drawn"] for row in inputs.strata.values()]
    assert sum(drawn) == 30
    assert max(drawn) - min(drawn) <= 1 or all(
        row["drawn"] == row["pairs"] for row in inputs.strata.values() if row["drawn"] < max(drawn) - 1
    )
    first = pairs(inputs)
    assert pairs(opened(wanted)) == first
    assert pairs(opened(Wanted(runs=["a", "b", "c"], depth=20, sample=30, strata="rank", seed=2))) != first
    by_runs = opened(Wanted(runs=["a", "b", "c"], depth=20, sample=9, strata="disagreement"))
    counts = Counter(
        min(n, 3 - n)
        for n in Counter(
            (q, doc.doc_id) for run in "abc" for q, ranking in read_run(run).items() for doc in ranking[:20]
        ).values()
    )
    assert {name: row["pairs"] for name, row in by_runs.strata.items()} == {str(k): v for k, v in counts.items()}


def test_a_sample_does_not_hang_on_the_order_of_the_pairs(opened: Open) -> None:
    listed = [f"q{q} d{d}\n" for q in (1, 2, 3) for d in range(40)]
    drawn = []
    for seed in (1, 2):
        random.Random(seed).shuffle(listed)
        Path("pairs").write_text("".join(listed))
        drawn.append(set(pairs(opened(Wanted(pairs="pairs", sample=17)))))
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 17


def test_strata_by_grade_tell_the_unjudged_apart(opened: Open) -> None:
    Path("pairs").write_text("".join(f"q1 d{d}\n" for d in range(40)))
    Path("human").write_text("".join(f"q1 0 d{d} {d % 2}\n" for d in range(30)))
    inputs = opened(Wanted(pairs="pairs", qrels="human", sample=12, strata="grade"))
    assert inputs.strata == {
        "0": {"pairs": 15, "drawn": 4},
        "1": {"pairs": 15, "drawn": 4},
        "unjudged": {"pairs": 10, "drawn": 4},
    }


@pytest.mark.parametrize(
    ("file", "text", "wanted", "told"),
    [
        ("pairs", "q1 d1\nq9 d1\n", Wanted(pairs="pairs"), "pairs:2: topic q9 is not in queries"),
        ("pairs", "q1 d1\nq1 d99\n", Wanted(pairs="pairs"), "pairs:2: document d99 of query q1 is not in corpus"),
        ("pairs", "q1 d1 x\n", Wanted(pairs="pairs"), "pairs:1: expected two columns"),
        ("r", "q1 Q0 d1 1 2 x\nq9 Q0 d1 1 2 x\n", Wanted(runs=["a", "r"], depth=1), "r:2: topic q9 is not in queries"),
        (
            "r",
            "q1 Q0 d1 1 2 x\nq1 Q0 d1 2 1 x\n",
            Wanted(runs=["r"], depth=1),
            "r:2: document d1 is in query q1 already",
        ),
        ("h", "q1 0 d1 1\nq1 0 d1 2\n", Wanted(qrels="h"), "h:2: query q1, document d1 has grade 2 here and 1"),
        ("h", "", Wanted(), "nothing to judge is named"),
        ("h", "", Wanted(pairs="h", runs=["a"], depth=1), "--pairs and --run each say"),
        ("h", "", Wanted(runs=["a"]), "--run needs --pool-depth"),
        ("h", "", Wanted(runs=["a"], depth=0), "--pool-depth 0: it must be at least 1"),
        ("h", "", Wanted(runs=["a"], depth=3, holes_only=True), "--holes-only needs --qrels"),
        ("h", "", Wanted(runs=["a"], depth=3, qrels="h"), "goes with --holes-only"),
        ("h", "", Wanted(pairs="h", strata="rank", sample=3), "--strata rank needs runs"),
        ("h", "", Wanted(runs=["a"], depth=3, strata="rank"), "say how large with --sample"),
        ("h", "", Wanted(runs=["a"], depth=3, strata="disagreement", sample=3), "at least two runs"),
    ],
)
def test_what_cannot_be_judged_is_told_with_file_and_line(
    opened: Open, file: str, text: str, wanted: Wanted, told: str
) -> None:
    Path(file).write_text(text)
    with pytest.raises(InputError, match=told):
        opened(wanted)
