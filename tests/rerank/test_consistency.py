"""Permutation self-consistency, around any method."""

from __future__ import annotations

import random

import pytest

from llmrank.errors import InputError
from llmrank.questions import Answer, Grade, Order, Preference, Question, failed
from llmrank.rerank.consistency import _shuffled
from llmrank.rerank.methods import all_methods
from tests.oracles import erratic, from_first_stage, noisy, perfect, run

METHODS = all_methods()
METHOD = METHODS["permutation-consistency"]
ORDERS = ["sliding-window", "full-list", "top-down", "blocks", "tournament"]
OTHERS = ["heapsort", "setwise-heapsort", "elimination", "pointwise", "swiss", "mergesort"]


def shuffled_worths(n: int, seed: int) -> dict[int, float]:
    return dict(enumerate(random.Random(seed).sample(range(n), n)))


@pytest.mark.parametrize("consensus", ["kemeny", "borda"])
def test_it_guarantees_what_its_inner_method_does(consensus: str) -> None:
    for n in range(0, 106, 7):
        worth = shuffled_worths(n, n)
        best = sorted(range(n), key=lambda i: -worth[i])
        ranked, _, _ = run(METHOD, n, perfect(worth), consensus=consensus)
        exact = n if n <= 20 else 10
        assert ranked.items[:exact] == best[:exact]


@pytest.mark.parametrize("inner", ORDERS + OTHERS)
def test_any_method_can_be_wrapped(inner: str) -> None:
    method = METHOD.given({"inner": inner})
    assert method.question == METHODS[inner].question
    assert method.template == METHODS[inner].template
    assert set(method.options) == {"shuffles", "inner", "consensus", "focus", *METHODS[inner].options}
    for n in (0, 1, 2, 12):
        expected, _ = method.expected(n, method.checked({"inner": inner}))
        least, most = (expected, expected) if isinstance(expected, int) else expected
        one, asked, _ = run(method, n, erratic(n), inner=inner)
        other, again, _ = run(method, n, erratic(n), latency=random.Random(n), inner=inner)
        assert (one.items, one.scores, asked) == (other.items, other.scores, again)
        assert sorted(one.items) == list(range(n))
        assert least <= asked <= most
    assert run(method, 12, lambda q: failed(q.kind, "x"), inner=inner)[0].items == list(range(12))


@pytest.mark.parametrize("swap", [True, False])
def test_below_the_k_of_its_inner_method_first_stage_order_stays(swap: bool) -> None:
    worth = shuffled_worths(30, 4)
    top = sorted(range(30), key=lambda i: -worth[i])[:5]
    method = METHOD.given({"inner": "heapsort"})
    ranked, _, _ = run(method, 30, perfect(worth), inner="heapsort", k=5, swap=swap)
    assert ranked.items == top + [i for i in range(30) if i not in top]


def test_it_costs_as_much_as_its_runs_and_they_go_at_once() -> None:
    assert run(METHOD, 100, perfect(shuffled_worths(100, 1)))[1:] == (45, 9)
    assert run(METHOD, 100, perfect(shuffled_worths(100, 1)), shuffles=1)[1:] == (9, 9)


@pytest.mark.parametrize(("swap", "focus"), [(True, False), (False, False), (True, True)])
def test_a_pair_is_one_question_for_all_runs(swap: bool, focus: bool) -> None:
    options = {"inner": "all-pairs", "swap": swap, "focus": focus}
    method = METHOD.given(options)
    assert method.expected(30, method.checked(options)) == (435 * (1 + swap), 1)
    assert run(method, 30, erratic(3), **options)[1:] == (435 * (1 + swap), 1)
    _, most = method.expected(30, method.checked(options | {"sample": 0.5}))[0]
    assert most == 435 * (1 + swap)


@pytest.mark.parametrize("shuffles", [2, 5, 6])
@pytest.mark.parametrize("consensus", ["kemeny", "borda"])
def test_what_a_model_says_of_places_cancels_out(shuffles: int, consensus: str) -> None:
    def last_first(question: Question) -> Answer:
        return Order(permutation=tuple(range(len(question.items)))[::-1])

    ranked, _, _ = run(METHOD, 15, last_first, shuffles=shuffles, consensus=consensus)
    assert ranked.items == (list(range(15)) if shuffles % 2 == 0 else list(range(14, -1, -1)))


def test_a_consensus_is_better_than_its_runs_where_the_judge_errs() -> None:
    found = {1: 0, 9: 0}
    for seed in range(10):
        worth = from_first_stage(40, 0.3, seed)
        best = set(sorted(worth, key=lambda i: -worth[i])[:10])
        for shuffles in found:
            ranked, _, _ = run(METHOD, 40, noisy(worth, 0.3, seed), shuffles=shuffles)
            found[shuffles] += len(best & set(ranked.items[:10]))
    assert found[9] > found[1]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 20])
@pytest.mark.parametrize("count", [1, 2, 5, 7, 30])
def test_shuffles_are_as_many_as_there_can_be_and_all_different(n: int, count: int) -> None:
    orders = _shuffled(n, count, random.Random(0))
    possible = [1, 1, 2, 6, 24, 10**9][min(n, 5)]
    assert len(orders) == len(set(map(tuple, orders))) == min(count, possible)
    assert all(sorted(order) == list(range(n)) for order in orders)


def test_it_wraps_no_other_than_known_methods_and_not_itself() -> None:
    with pytest.raises(InputError, match="cannot wrap itself"):
        METHOD.given({"inner": "permutation-consistency"})
    with pytest.raises(InputError, match=r"^--option inner=heapsrt: .* did you mean heapsort"):
        METHOD.given({"inner": "heapsrt"})
    with pytest.raises(InputError, match="consensus=mean: there are kemeny, borda"):
        METHOD.checked({"consensus": "mean"})


def test_a_cascade_within_still_asks_both_orders_of_its_pairs() -> None:
    def is_left(question: Question) -> Answer:
        return Grade(value=1.0) if question.kind == "grade" else Preference(share=1.0)

    ranked, asked, _ = run(METHOD, 8, is_left, inner="cascade")
    assert asked == 8 + 8 * 7  # asked in one order alone, what is shown first would win
    assert ranked.items == list(range(8))


def test_focus_asks_again_only_where_two_passes_disagree() -> None:
    """A judge that is sure of all but three neighbours: these alone are shuffled on."""
    unsure = {4, 5, 6}

    def judge(question: Question) -> Answer:
        def key(place: int) -> tuple[int, int]:
            item = question.items[place]
            return (4, place) if item in unsure else (item, 0)  # type: ignore[return-value]

        return Order(permutation=tuple(sorted(range(len(question.items)), key=key)))

    asked = []
    options = {"inner": "full-list", "shuffles": 6, "focus": True}
    ranked, count, rounds = run(METHOD, 12, lambda q: asked.append(q) or judge(q), **options)
    assert count == 2 + 4
    assert rounds == 2
    assert [set(question.items) for question in asked[2:]] == [unsure] * 4
    assert set(ranked.items[4:7]) == unsure
    assert [i for i in ranked.items if i not in unsure] == [i for i in range(12) if i not in unsure]


def test_focus_is_content_with_two_passes_that_agree() -> None:
    worth = shuffled_worths(15, 1)
    ranked, asked, rounds = run(METHOD, 15, perfect(worth), inner="full-list", focus=True)
    assert (asked, rounds) == (2, 1)
    assert ranked.items == sorted(range(15), key=lambda i: -worth[i])
