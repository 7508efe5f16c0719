"""Setwise methods: what each promises beyond what all strategies do."""

from __future__ import annotations

from statistics import fmean

import pytest

from llmrank.questions import Answer, Choice, Question, failed
from llmrank.rerank.methods import all_methods
from llmrank.templates import load
from tests.oracles import from_first_stage, perfect, run

METHODS = all_methods()


@pytest.mark.parametrize(("children", "most", "noisy", "rounds"), [(2, 475, 344, 63), (19, 54, 23, 23)])
def test_setwise_bubblesort_asks_as_often_as_published(children: int, most: int, noisy: float, rounds: int) -> None:
    method = METHODS["setwise-bubblesort"]
    assert method.expected(100, method.checked({"children": children}))[0][1] == most  # type: ignore[index]
    runs = [run(method, 100, perfect(from_first_stage(100, 0.25, seed)), children=children) for seed in range(20)]
    assert fmean(asked for _, asked, _ in runs) == pytest.approx(noisy, rel=0.06)
    assert max(time for _, _, time in runs) <= rounds


def test_insertion_asks_less_than_heapsort_on_a_good_start() -> None:
    worths = [from_first_stage(100, 0.1, seed) for seed in range(10)]
    asked = {
        name: fmean(run(METHODS[name], 100, perfect(worth))[1] for worth in worths)
        for name in ("setwise-insertion", "setwise-heapsort")
    }
    assert asked["setwise-insertion"] < 0.9 * asked["setwise-heapsort"]
    _, least, _ = run(METHODS["setwise-insertion"], 100, perfect({i: -i for i in range(100)}))
    assert least == 9 + 45


def test_likelihood_orders_a_window_by_the_probabilities_and_without_them_by_the_choice() -> None:
    shares = (0.1, 0.4, 0.0, 0.4, 0.1)
    told = run(METHODS["setwise-likelihood"], 5, lambda q: Choice(index=1, distribution=shares))[0]
    assert told.items == [1, 3, 0, 4, 2]
    assert run(METHODS["setwise-likelihood"], 5, lambda q: Choice(index=3))[0].items == [3, 0, 1, 2, 4]


def test_elimination_is_exact_as_deep_as_the_pool_but_for_one() -> None:
    for n in range(106):
        worth = {i: (i * 37) % 106 for i in range(n)}
        best = sorted(range(n), key=lambda i: -worth[i])
        for pool in (20, 2, 7):
            ranked, asked, _ = run(METHODS["elimination"], n, perfect(worth), pool=pool)
            exact = n if n <= pool else pool - 1
            assert ranked.items[:exact] == best[:exact]
            assert asked == max(0, n - 1)


def test_elimination_asks_for_the_worst_and_a_failure_removes_the_last() -> None:
    seen: list[Question] = []

    def judge(question: Question) -> Answer:
        seen.append(question)
        return failed("choose", "x") if len(seen) == 1 else Choice(index=0)

    ranked, _, _ = run(METHODS["elimination"], 4, judge, pool=3)
    assert all(question.worst for question in seen)
    assert [question.items for question in seen] == [(1, 2, 3), (0, 1, 2), (1, 2)]
    assert ranked.items == [2, 1, 0, 3]


def test_methods_and_their_templates_ask_for_the_same_end() -> None:
    for method in METHODS.values():
        assert load(method.template).header.worst == method.worst, method.name
