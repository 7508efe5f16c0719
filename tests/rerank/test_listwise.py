"""Listwise methods: what each promises beyond what all strategies do."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from llmrank.ask.virtual import VirtualLoop
from llmrank.llm.types import Reply
from llmrank.questions import Answer, Order, Question, Token, failed
from llmrank.rerank.methods import all_methods
from llmrank.rerank.tournaments import stages
from llmrank.templates import load
from tests.oracles import Asked, perfect, run

METHODS = all_methods()


def shuffled_worths(n: int, seed: int) -> dict[int, float]:
    return dict(enumerate(random.Random(seed).sample(range(n), n)))


def test_top_down_is_exact_and_the_rest_stays() -> None:
    for n in range(106):
        worth = shuffled_worths(n, n)
        best = sorted(range(n), key=lambda i: -worth[i])
        for k, window in ((10, 20), (1, 20), (19, 20), (1, 2), (3, 7)):
            ranked, _, _ = run(METHODS["top-down"], n, perfect(worth), k=k, window=window)
            top = best if n <= window else best[:k]
            assert ranked.items == top + [i for i in range(n) if i not in top], (n, k, window)


def test_top_down_asks_as_often_as_published() -> None:
    runs = [run(METHODS["top-down"], 100, perfect(shuffled_worths(100, seed))) for seed in range(20)]
    assert all(7 <= asked <= 14 and 3 <= rounds <= 8 for _, asked, rounds in runs)
    assert run(METHODS["top-down"], 100, perfect({i: -i for i in range(100)}))[1:] == (6, 2)
    assert run(METHODS["top-down"], 100, perfect({i: i for i in range(100)}))[1:] == (21, 11)


def test_top_down_passes_over_a_window_that_failed() -> None:
    worth = {i: float(i == 50) for i in range(100)}
    judge = perfect(worth)
    ranked, _, _ = run(METHODS["top-down"], 100, lambda q: failed("order", "x") if 50 in q.items else judge(q))
    assert ranked.items == list(range(100))


def test_tournament_has_the_stages_of_its_source() -> None:
    assert [size for size, _, _ in stages(100)] == [100, 50, 20, 10, 5]
    assert [groups for _, groups, _ in stages(100)] == [5, 5, 1, 1, 1]
    assert run(METHODS["tournament"], 100, perfect(shuffled_worths(100, 1)))[1:] == (13, 5)
    assert run(METHODS["tournament"], 100, perfect(shuffled_worths(100, 1)), rounds=10)[1:] == (130, 5)


def test_tournament_finds_the_two_best_as_a_set() -> None:
    for n in [*range(106), 110, 131, 250]:
        worth = shuffled_worths(n, n)
        ranked, _, _ = run(METHODS["tournament"], n, perfect(worth))
        assert set(ranked.items[:2]) == set(sorted(range(n), key=lambda i: -worth[i])[:2])
        assert n == 0 or ranked.score_kind == "points"


def test_runs_of_a_tournament_are_drawn_from_the_seed_and_the_first_is_not() -> None:
    method, worth = METHODS["tournament"], shuffled_worths(60, 2)
    shown: dict[tuple[int, int], set[tuple[object, ...]]] = {}
    for rounds in (1, 3):
        for seed in (0, 0, 1):
            seen: set[tuple[object, ...]] = set()

            def judge(question: Question, seen: set[tuple[object, ...]] = seen) -> Answer:
                seen.add(question.items)
                return perfect(worth)(question)

            VirtualLoop().run(method.run(list(range(60)), Asked(judge), {"rounds": rounds}, seed=seed))
            assert shown.setdefault((rounds, seed), seen) == seen
    assert shown[1, 0] == shown[1, 1] < shown[3, 0]
    assert shown[3, 0] != shown[3, 1]


@pytest.mark.parametrize(("m", "r"), [(5, 2), (5, 1), (2, 1), (4, 2), (9, 4)])
def test_tournament_sort_is_exact_for_groups_of_any_size(m: int, r: int) -> None:
    for n in (1, 2, 5, 6, 23, 64, 105):
        worth = shuffled_worths(n, n)
        ranked, _, _ = run(METHODS["tournament-sort"], n, perfect(worth), m=m, r=r)
        assert ranked.items[:10] == sorted(range(n), key=lambda i: -worth[i])[:10]


def test_tournament_sort_asks_a_group_again_only_when_somebody_new_is_in_it() -> None:
    """Of 5 candidates, a single group, everything is known after one question; of 100 far less than a tree a pop."""
    assert run(METHODS["tournament-sort"], 5, perfect(shuffled_worths(5, 1)), k=5)[1] == 1
    tree = METHODS["tournament-sort"].expected(100, {"k": 1, "m": 5, "r": 2})[0]
    asked = fmean(run(METHODS["tournament-sort"], 100, perfect(shuffled_worths(100, s)))[1] for s in range(10))
    assert asked < 2.5 * tree  # type: ignore[operator]


def test_a_first_token_orders_a_window_by_the_probabilities_of_its_letters() -> None:
    template = load("listwise/first-token")
    top = (("C", -0.3), ("A", -1.6), (" B", -3.0), ("The", -5.0))
    answer = template.read(Reply("C", tokens=(Token("C", -0.3, top),)), 3)
    assert answer == Order(permutation=(2, 0, 1))
    assert template.completion_tokens(20) == 1
    assert "[B] another" in template.render("what is bm25", ["one text", "another"]).messages[-1][1]
    unnamed = template.read(Reply("C", tokens=(Token("C", -0.3, top),)), 4)
    assert (unnamed.status, unnamed.repairs) == ("repaired", ("missing",))
    assert unnamed.permutation == (2, 0, 1, 3)  # type: ignore[union-attr]
