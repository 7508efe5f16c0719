"""What the comparisons of a query say of each document, and the file that teaches a student."""

from __future__ import annotations

import json
import random
from itertools import permutations

import numpy as np
import pytest

from llmrank import Document, Reranker
from llmrank.aggregate import Comparisons, trueskill
from llmrank.llm.backends.simulated import Errors, SimulatedBackend
from llmrank.questions import Answer, Choice, Order, Preference, Question, failed
from llmrank.rerank.beliefs import beliefs
from llmrank.rerank.teacher import teacher_line

DOCUMENTS = [Document(f"d{i:02}", f"text {i}") for i in range(20)]
GRADES = {"query": {f"d{i:02}": i for i in range(20)}}
COMPARING = ["all-pairs", "heapsort", "active", "swiss", "setwise-heapsort", "sliding-window", "blocks", "elimination"]


def reranker(method: str, **options: object) -> Reranker:
    backend = SimulatedBackend(GRADES, Errors(noise=0.1))
    return Reranker(method, backend=backend, ledger="none", keep_answers=True, options=options)


@pytest.mark.parametrize("method", COMPARING)
def test_whatever_was_compared_gives_strengths_with_intervals_and_a_chance_of_the_top(method: str) -> None:
    with reranker(method) as ours:
        ranking = ours.rank("what", DOCUMENTS)
    told = ranking.beliefs(k=5)
    assert set(told) <= {d.id for d in DOCUMENTS}
    assert sum(belief.p_top for belief in told.values()) == pytest.approx(5)
    assert all(belief.low < belief.strength < belief.high for belief in told.values())
    best, worst = ranking.ids[0], min(told, key=lambda name: told[name].strength)
    assert told[best].strength > told[worst].strength
    assert told[best].p_top > told[worst].p_top


def test_strengths_are_those_of_trueskill_over_the_pairs_with_both_orders_put_together() -> None:
    with reranker("all-pairs") as ours:
        ranking = ours.rank("what", DOCUMENTS[:6])
    rows = []
    for a, b in permutations(DOCUMENTS[:6], 2):
        if a.id < b.id:
            forth, back = (ranking.answers[Question("compare", pair)].share for pair in ((a, b), (b, a)))
            rows.append((a.id, b.id, forth if forth == 1 - back else 0.5))
    expected = trueskill(Comparisons(*zip(*rows, strict=True)))
    told = ranking.beliefs(k=3)
    assert np.allclose([told[item].strength for item in expected.items], expected.value)
    assert np.allclose([told[item].low for item in expected.items], expected.low)


def test_a_set_weighs_as_many_votes_as_it_has_losers_to_tell_and_ties_are_heard() -> None:
    answers: dict[Question, Answer] = {
        Question("order", ("a", "b", "c")): Order(permutation=(0, 1, 2), ties=((0, 1), (2,))),
        Question("choose", ("c", "d", "e"), True): Choice(index=1),
        Question("compare", ("a", "z")): failed("compare", "x"),  # type: ignore[dict-item]
    }
    told = beliefs(["a", "b", "c", "d", "e", "f"], answers, 2)
    assert told["a"].strength == pytest.approx(told["b"].strength)
    assert told["d"].strength < told["e"].strength
    assert (told["a"].comparisons, told["c"].comparisons) == (pytest.approx(4 / 3), pytest.approx(4 / 3 + 2 / 3))
    assert (told["f"].strength, told["f"].comparisons) == (0, 0)


def test_intervals_cover_the_skills_that_the_comparisons_were_drawn_from() -> None:
    """The model's own data: about 95% of the true skills lie within, and P(top k) is calibrated on the whole."""
    draw, inside, count, hoped, hit = random.Random(5), 0, 0, 0.0, 0
    for _ in range(40):
        skills = [draw.gauss(0, 2**0.5) for _ in range(12)]
        answers: dict[Question, Answer] = {}
        for a in range(12):
            for b in range(a):
                share = float(skills[a] - skills[b] + draw.gauss(0, 1) > 0)
                answers[Question("compare", (a, b))] = Preference(share=share)
        told = beliefs(range(12), answers, 3)
        top = sorted(range(12), key=lambda i: -skills[i])[:3]
        inside += sum(told[i].low <= skills[i] <= told[i].high for i in range(12))
        count += 12
        hoped += sum(told[i].p_top for i in sorted(range(12), key=lambda i: -told[i].strength)[:3])
        hit += sum(i in top for i in sorted(range(12), key=lambda i: -told[i].strength)[:3])
    assert 0.92 < inside / count < 0.98
    assert hit == pytest.approx(hoped, abs=8)


def test_the_teacher_file_holds_what_a_student_learns_from() -> None:
    with reranker("heapsort", k=5) as ours:
        line = json.loads(teacher_line(ours.rank("what", DOCUMENTS)))
    assert line["query"] == {"qid": "query", "text": "what"}
    assert [d["docid"] for d in line["documents"]] == line["order"]
    assert len(line["order"]) == 20
    pairs = {frozenset((p["left"], p["right"])) for p in line["pairs"]}
    assert len(pairs) == len(line["pairs"]) > 20
    sure = [p for p in line["pairs"] if p["share"] != 0.5]
    assert all(0 < p["p_left"] < 1 for p in line["pairs"])
    right = sum((p["left"] > p["right"]) == (p["share"] > 0.5) for p in sure)
    assert right / len(sure) > 0.9
    with reranker("pointwise") as ours:
        line = json.loads(teacher_line(ours.rank("what", DOCUMENTS)))
    assert len(line["labels"]) == 20
    assert line["scores"] == sorted(line["scores"], reverse=True)
    with reranker("sliding-window") as ours:
        line = json.loads(teacher_line(ours.rank("what", DOCUMENTS)))
    assert sorted(line["lists"][0]["order"]) == sorted(line["lists"][0]["shown"])
