"""Pairwise methods: what each promises beyond what all strategies do."""

from __future__ import annotations

import math
import random
from itertools import combinations, permutations

import pytest

from llmrank.aggregate import Comparisons, pagerank
from llmrank.ask.base import BothOrders, Remember
from llmrank.ask.virtual import VirtualLoop
from llmrank.questions import Answer, Preference, Question, failed
from llmrank.rerank.methods import all_methods
from tests.oracles import Asked, erratic, from_first_stage, noisy, perfect, run

METHODS = all_methods()


def first_shown(question: Question) -> Answer:
    return Preference(share=1.0)


def shuffled_worths(n: int, seed: int) -> dict[int, float]:
    return dict(enumerate(random.Random(seed).sample(range(n), n)))


def test_one_letter_from_a_model_costs_one_pass_and_changes_nothing() -> None:
    """99 comparisons, 198 questions: the pairs of a pass that changes nothing are not asked again."""
    ranked, asked, rounds = run(METHODS["bubblesort"], 100, first_shown)
    assert (asked, rounds) == (198, 99)
    assert ranked.items == list(range(100))


def test_bubblesort_asks_as_often_as_shrinking_passes_have_pairs() -> None:
    ranked, asked, rounds = run(METHODS["bubblesort"], 100, perfect({i: i for i in range(100)}))
    assert (asked, rounds) == (1890, 108)
    assert ranked.items[:10] == list(range(99, 89, -1))
    assert METHODS["sliding-pairs"].strategy is METHODS["bubblesort"].strategy


def test_quicksort_leaves_little_more_than_k_after_the_first_round_of_a_good_start() -> None:
    _, asked, rounds = run(METHODS["quicksort"], 100, perfect({i: -i for i in range(100)}), swap=False)
    assert asked <= 120
    assert rounds <= 5
    for seed in range(10):
        _, asked, rounds = run(METHODS["quicksort"], 100, perfect(shuffled_worths(100, seed)), swap=False)
        assert rounds <= 20


def test_a_long_way_down_is_no_deep_recursion() -> None:
    """Everything beats every pivot: the part shrinks by one a round, at any n."""
    asked: set[frozenset[object]] = set()

    def later(question: Question) -> Answer:
        asked.add(frozenset(question.items))
        a, b = question.items
        return Preference(share=float(a > b))  # type: ignore[operator]

    ranked, _, _ = run(METHODS["quicksort"], 300, later, k=300, swap=False)
    assert ranked.items == list(range(299, -1, -1))


def chances(known: dict[tuple[int, int], float]) -> object:
    def answer(question: Question) -> Answer:
        a, b = question.items
        p = known[a, b] if (a, b) in known else 1 - known[b, a]  # type: ignore[index]
        return Preference(share=float(p > 0.5), p_left=p)

    return answer


def test_a_beam_takes_back_what_a_close_call_got_wrong() -> None:
    """2 comes first by a hair; that 1, which stands below 0, clearly beats it speaks against that."""
    judge = chances({(0, 1): 0.9, (0, 2): 0.48, (1, 2): 0.99})
    assert run(METHODS["mergesort"], 3, judge)[0].items == [2, 0, 1]  # type: ignore[arg-type]
    assert run(METHODS["mergesort"], 3, judge, beam=2)[0].items == [0, 1, 2]  # type: ignore[arg-type]


def test_a_beam_asks_only_where_it_is_close() -> None:
    worth = shuffled_worths(40, 1)
    assert run(METHODS["mergesort"], 40, perfect(worth), beam=8)[1] == run(METHODS["mergesort"], 40, perfect(worth))[1]


def test_mergesort_asks_n_log_n() -> None:
    for seed in range(5):
        _, asked, rounds = run(METHODS["mergesort"], 100, perfect(shuffled_worths(100, seed)), swap=False)
        assert asked <= 100 * math.log2(100)
        assert rounds <= 200


def test_the_best_wins_the_bracket_and_swiss() -> None:
    for n in range(1, 106):
        worth = shuffled_worths(n, n)
        best = max(worth, key=lambda i: worth[i])
        assert run(METHODS["bracket"], n, perfect(worth))[0].items[0] == best
        needed = max(1, math.ceil(math.log2(n)))
        for rounds in (needed, needed + 3):
            assert run(METHODS["swiss"], n, perfect(worth), rounds=rounds, swap=False)[0].items[0] == best


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_best_wins_whatever_the_start(n: int) -> None:
    for worths in permutations(range(n)):
        worth = dict(enumerate(worths))
        for rounds in range(math.ceil(math.log2(n)), n + 2):
            ranked, _, _ = run(METHODS["swiss"], n, perfect(worth), rounds=rounds, swap=False)
            assert ranked.items[0] == worths.index(n - 1)
        assert run(METHODS["bracket"], n, perfect(worth), swap=False)[0].items[0] == worths.index(n - 1)


def test_a_bracket_plays_every_match_once() -> None:
    for n in (2, 3, 64, 100):
        _, asked, rounds = run(METHODS["bracket"], n, perfect(shuffled_worths(n, 1)))
        assert (asked, rounds) == (2 * (n - 1), math.ceil(math.log2(n)))


def test_swiss_pairs_nobody_twice_and_everybody_every_round() -> None:
    for n, rounds in ((100, 10), (20, 10), (21, 10), (6, 3), (7, 3)):
        for seed in range(3):
            seen = []

            def judge(question: Question, seed: int = seed, seen: list[frozenset[object]] = seen) -> Answer:
                seen.append(frozenset(question.items))
                return erratic(seed)(question)

            run(METHODS["swiss"], n, judge, rounds=rounds, swap=False)
            assert len(seen) == len(set(seen)) == rounds * (n // 2)


def test_swiss_ranks_equal_wins_by_those_of_the_opponents() -> None:
    """0 and 2 win and lose one each; the one who met the winner of both its matches goes first."""
    ranked, _, _ = run(METHODS["swiss"], 4, perfect({0: 3, 1: 1, 2: 2, 3: 4}), rounds=2)
    assert ranked.items == [3, 0, 2, 1]
    assert ranked.scores == [2.0, 1.0, 1.0, 0.0]


def test_all_pairs_may_be_scored_by_any_aggregation() -> None:
    judge = noisy(from_first_stage(12, 0.2, 0), 0.3, 1)
    ranked, _, _ = run(METHODS["all-pairs"], 12, judge, aggregate="pagerank", swap=False)
    told = [(a, b, judge(Question("compare", (a, b))).share) for a, b in combinations(range(12), 2)]  # type: ignore[union-attr]
    expected = pagerank(Comparisons(*map(list, zip(*told, strict=True)))).as_dict()  # type: ignore[arg-type]
    assert ranked.score_kind == "pagerank"
    assert dict(zip(ranked.items, ranked.scores or [], strict=True)) == pytest.approx(expected)
    assert ranked.scores == sorted(ranked.scores or [], reverse=True)  # type: ignore[type-var]


def test_another_aggregation_of_the_same_pairs_asks_nothing() -> None:
    asked = Asked(perfect(shuffled_worths(15, 3)))
    ask = BothOrders(Remember(asked))
    method = METHODS["all-pairs"]
    kinds = []
    for name in ("bradley-terry", "pagerank", "wins"):
        values = method.checked({"aggregate": name})
        kinds.append(VirtualLoop().run(method.run(list(range(15)), ask, values)).score_kind)
    assert len(asked.questions) == 15 * 14
    assert kinds == ["strength", "pagerank", "wins"]


def test_active_beats_heapsort_for_as_many_questions_where_the_judge_errs() -> None:
    """Over noisy answers; with a perfect judge heapsort needs fewer and is exact."""
    right = {"active": 0, "heapsort": 0}
    for seed in range(4):
        worth = from_first_stage(40, 0.3, seed)
        top = set(sorted(worth, key=lambda i: -worth[i])[:5])
        for name in right:
            ranked, asked, rounds = run(METHODS[name], 40, noisy(worth, 0.4, seed), k=5)
            right[name] += len(top & set(ranked.items[:5]))
            assert name == "heapsort" or (asked <= 200 and rounds <= 13)
    assert right["active"] > right["heapsort"]


def test_active_stops_when_the_top_is_settled() -> None:
    worth = {i: -float(i) for i in range(20)}
    _, asked, _ = run(METHODS["active"], 20, perfect(worth), k=3, level=0.5, budget=400)
    _, more, _ = run(METHODS["active"], 20, perfect(worth), k=3, level=0.99, budget=400)
    assert asked < more
    ranked, all_of_them, _ = run(METHODS["active"], 20, perfect(worth), k=20)
    assert all_of_them == 40  # everybody is in the top 20
    assert ranked.score_kind == "skill"


@pytest.mark.parametrize("budget", [1, 2, 7, 50])
def test_active_keeps_to_its_budget(budget: int) -> None:
    _, asked, _ = run(METHODS["active"], 30, perfect(shuffled_worths(30, 1)), budget=budget)
    assert asked == budget - budget % 2


def test_active_learns_nothing_from_pairs_that_failed() -> None:
    worth = from_first_stage(20, 0.3, 1)
    ranked, _, _ = run(
        METHODS["active"], 20, lambda q: failed("compare", "x") if 0 in q.items else perfect(worth)(q), budget=200
    )
    assert ranked.items[0] == 0  # without a score it keeps its place
    assert (ranked.scores or [])[0] is None


@pytest.mark.parametrize("name", ["heapsort", "bubblesort", "sliding-pairs", "quicksort"])
def test_the_other_order_put_off_changes_nothing_but_the_bill(name: str) -> None:
    """Whatever is answered: a second order matters only where the first went against first-stage order."""
    for seed in range(30):
        for judge in (erratic(seed), noisy(from_first_stage(40, 0.3, seed), 0.2, seed)):
            both, asked, _ = run(METHODS[name], 40, judge)
            lazy, fewer, _ = run(METHODS[name], 40, judge, lazy=True)
            assert lazy.items == both.items
            assert fewer < asked


def test_a_model_that_always_prefers_what_is_shown_first_is_asked_each_pair_once() -> None:
    ranked, asked, _ = run(METHODS["bubblesort"], 100, first_shown, lazy=True)
    assert (asked, ranked.items) == (99, list(range(100)))
