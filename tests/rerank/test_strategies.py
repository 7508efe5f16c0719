"""What holds for every strategy, at every n, whatever is answered and in whatever order the answers arrive."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.questions import Answer, Choice, Grade, Order, Preference, Question, failed, unasked
from llmrank.rerank.listwise import starts
from llmrank.rerank.methods import Count, all_methods, find
from llmrank.rerank.pairwise import connected_sample
from tests.oracles import erratic, perfect, run

METHODS = all_methods()
SIZES = range(106)

# What takes long at its largest is drawn smaller in tests with many examples.
LARGEST = {"all-pairs": 40, "active": 30, "permutation-consistency": 30}

options = {
    "window": st.integers(2, 40),
    "k": st.integers(1, 120),
    "children": st.integers(1, 19),
    "passes": st.integers(1, 3),
    "swap": st.booleans(),
    "lazy": st.booleans(),
    "focus": st.booleans(),
    "sample": st.sampled_from([0.02, 0.3, 1.0]),
    "beam": st.integers(1, 4),
    "aggregate": st.sampled_from(["wins", "pagerank", "bradley-terry", "elo"]),
    "block_size": st.integers(2, 40),
    "repeats": st.integers(1, 4),
    "group_size": st.integers(1, 30),
    "pool": st.integers(2, 40),
    "rounds": st.integers(1, 12),
    "shuffles": st.integers(1, 6),
    "consensus": st.sampled_from(["kemeny", "borda"]),
    "budget": st.integers(1, 200),
    "level": st.sampled_from([0.5, 0.95]),
    "inner": st.sampled_from(["sliding-window", "setwise-heapsort", "heapsort", "top-down", "pointwise"]),
}


@st.composite
def drawn_options(draw: st.DrawFn, name: str) -> dict[str, object]:
    values = {option: draw(options[option]) for option in METHODS[name].options if option in options}
    if "lazy" in METHODS[name].options:
        values["lazy"] = values["lazy"] and values["swap"]
    if "stride" in METHODS[name].options:
        values["stride"] = draw(st.integers(1, values["window"]))
    if "r" in METHODS[name].options:
        values["m"] = draw(st.integers(2, 9))
        values["r"] = draw(st.integers(1, values["m"] // 2))
    return values


def shuffled_worths(n: int, seed: int) -> dict[int, float]:
    return dict(enumerate(random.Random(seed).sample(range(n), n)))


def ends(count: Count) -> tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_documents_out_are_documents_in_and_calls_and_rounds_are_as_planned(
    name: str, data: st.DataObject, seed: int
) -> None:
    """Any replies at all, failures among them, arriving in any order."""
    method, values = METHODS[name], data.draw(drawn_options(name))
    n = data.draw(st.integers(0, LARGEST.get(name, 105)))
    one, asked, time = run(method, n, erratic(seed), **values)
    other, asked_again, _ = run(method, n, erratic(seed), latency=random.Random(seed), **values)
    assert sorted(one.items) == list(range(n))
    assert (one.items, one.scores, asked) == (other.items, other.scores, asked_again)
    assert one.scores is None or one.score_kind
    method = method.given(values)
    calls, rounds = map(ends, method.expected(n, method.checked(values)))
    assert calls[0] <= asked <= calls[1]
    assert rounds[0] <= time <= rounds[1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 19, 20, 21, 25, 100])
def test_calls_and_rounds_are_as_declared_with_a_judge_that_is_right(name: str, n: int) -> None:
    method, n = METHODS[name], min(n, LARGEST.get(name, n))
    calls, rounds = map(ends, method.expected(n, method.checked({})))
    for seed in range(1 if name in LARGEST else 4):
        _, asked, time = run(method, n, perfect(shuffled_worths(n, seed)))
        assert calls[0] <= asked <= calls[1]
        assert rounds[0] <= time <= rounds[1]


WHOLE_ORDER = ["full-list", "all-pairs", "mergesort", "pointwise", "yes-no", "graded"]


@pytest.mark.parametrize("name", WHOLE_ORDER)
def test_a_perfect_judge_gives_the_whole_order(name: str) -> None:
    for n in SIZES:
        # Twice as many questions would show no more of every size.
        more = {"swap": n < 20} if "swap" in METHODS[name].options else {}
        worth = shuffled_worths(n, n)
        ranked, _, _ = run(METHODS[name], n, perfect(worth), **more)
        assert ranked.items == sorted(range(n), key=lambda i: -worth[i]), n


TOP_K = ["heapsort", "bubblesort", "quicksort", "setwise-heapsort", "setwise-bubblesort", "setwise-insertion"]
TOP_K += ["tournament-sort"]


@pytest.mark.parametrize("name", TOP_K)
def test_a_perfect_judge_gives_the_top_k_and_the_rest_stays(name: str) -> None:
    for n in SIZES:
        worth = shuffled_worths(n, n)
        more = {"swap": n % 3 == 0} if "swap" in METHODS[name].options else {}
        for k in (1, 3, 10, n + 1) if n % 5 == 0 else (1 + n % 12,):
            ranked, _, _ = run(METHODS[name], n, perfect(worth), k=k, **more)
            top = sorted(range(n), key=lambda i: -worth[i])[:k]
            assert ranked.items == top + [i for i in range(n) if i not in top], (n, k)


@pytest.mark.parametrize("name", ["setwise-heapsort", "setwise-bubblesort", "setwise-insertion"])
@pytest.mark.parametrize("children", [1, 2, 3, 9, 19])
def test_setwise_is_exact_for_sets_of_any_size(name: str, children: int) -> None:
    for n in (2, 7, 20, 50, 105):
        worth = shuffled_worths(n, n)
        ranked, _, _ = run(METHODS[name], n, perfect(worth), children=children)
        assert ranked.items[:10] == sorted(range(n), key=lambda i: -worth[i])[:10]


@pytest.mark.parametrize("name", ["sliding-window", "first-token", "setwise-likelihood"])
def test_sliding_windows_are_exact_as_deep_as_they_overlap(name: str) -> None:
    for n in SIZES:
        worth = shuffled_worths(n, n)
        best = sorted(range(n), key=lambda i: -worth[i])
        for window, stride, passes in ((20, 10, 1), (20, 10, 2), (4, 1, 1), (10, 10, 1)):
            ranked, _, _ = run(METHODS[name], n, perfect(worth), window=window, stride=stride, passes=passes)
            exact = n if n <= window else passes * (window - stride)
            assert ranked.items[:exact] == best[:exact], (n, window, stride, passes)


def test_windows_start_from_the_bottom_and_the_last_is_full_size() -> None:
    assert starts(100, 20, 10) == [80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert starts(25, 20, 10) == [5, 0]
    assert starts(10, 10, 10) == [0]
    assert starts(1, 1, 1) == starts(0, 1, 1) == []


def test_ten_documents_are_asked_about_once_and_of_25_the_top_five_are_seen() -> None:
    """Two mistakes of other tools: no call at all for a short list, and a top that no window reaches."""
    _, asked, _ = run(METHODS["sliding-window"], 10, perfect(shuffled_worths(10, 1)))
    assert asked == 1
    worth = {i: float(i == 2) for i in range(25)}
    ranked, _, _ = run(METHODS["sliding-window"], 25, perfect(worth))
    assert ranked.items[0] == 2


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("answer", [failed, unasked])
@pytest.mark.parametrize("n", [3, 11, 30, 64])
def test_when_nothing_is_answered_the_order_stays(name: str, answer: object, n: int) -> None:
    ranked, _, _ = run(METHODS[name], n, lambda question: answer(question.kind, "x"))  # type: ignore[operator]
    assert ranked.items == list(range(n))


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].question in ("compare", "choose", "order")])
@pytest.mark.parametrize("n", [3, 7, 40])
def test_a_judge_that_always_says_the_first_changes_nothing(name: str, n: int) -> None:
    """Both orders of a pair disagree, so it is a tie, and ties are first-stage order's to decide."""
    if METHODS[name].worst or "blocks" in name:
        pytest.skip("the first shown is then the worst" if METHODS[name].worst else "blocks look at random pairs")

    def first(question: Question) -> Answer:
        if question.kind == "compare":
            return Preference(share=1.0, p_left=0.9)
        return Choice(index=0) if question.kind == "choose" else Order(permutation=tuple(range(len(question.items))))

    ranked, _, _ = run(METHODS[name], n, first)
    assert ranked.items == list(range(n))


def test_a_failed_grade_keeps_its_place_among_the_graded() -> None:
    grades = {0: 0.1, 1: None, 2: 0.9, 3: 0.5}
    ranked, _, _ = run(
        METHODS["pointwise"],
        4,
        lambda q: failed("grade", "x") if grades[q.items[0]] is None else Grade(value=grades[q.items[0]]),  # type: ignore[index]
    )
    assert ranked.items == [2, 1, 3, 0]
    assert ranked.scores == [0.9, None, 0.5, 0.1]


def test_a_failed_window_keeps_its_order() -> None:
    ranked, asked, _ = run(
        METHODS["sliding-window"],
        25,
        lambda q: failed("order", "x") if 24 in q.items else Order(permutation=tuple(reversed(range(len(q.items))))),
    )
    assert asked == 2
    assert ranked.items == list(range(19, -1, -1)) + [20, 21, 22, 23, 24]


@pytest.mark.parametrize(("children", "noisy", "rounds"), [(2, 123, 32), (3, 77, 28), (9, 30, 23), (19, 21, 20)])
def test_setwise_asks_as_often_as_published_in_far_fewer_rounds(children: int, noisy: float, rounds: int) -> None:
    asked, chains = [], []
    for seed in range(20):
        draw = random.Random(seed)
        worth = {i: (100 - i) / 100 + draw.gauss(0, 0.5) for i in range(100)}
        _, calls, time = run(METHODS["setwise-heapsort"], 100, perfect(worth), children=children)
        asked.append(calls)
        chains.append(time)
    assert sum(asked) / 20 == pytest.approx(noisy, rel=0.06)
    assert max(chains) <= rounds


def test_pairwise_heapsort_asks_as_often_as_published_in_far_fewer_rounds() -> None:
    asked, chains = [], []
    for seed in range(20):
        worth = shuffled_worths(100, seed)
        _, calls, time = run(METHODS["heapsort"], 100, perfect(worth))
        asked.append(calls)
        chains.append(time)
    assert sum(asked) / 20 <= 556
    assert max(chains) <= 56


@given(n=st.integers(2, 60), size=st.integers(1, 400), seed=st.integers(0, 99))
def test_a_sample_of_pairs_hangs_together(n: int, size: int, seed: int) -> None:
    size = min(n * (n - 1) // 2, max(n - 1, size))
    pairs = connected_sample(n, size, seed)
    assert len(set(pairs)) == len(pairs) == size
    reached, ahead = {0}, [0]
    while ahead:
        at = ahead.pop()
        found = {b if a == at else a for a, b in pairs if at in (a, b)} - reached
        reached |= found
        ahead += found
    assert reached == set(range(n))


@pytest.mark.parametrize(
    ("name", "given_options", "problem"),
    [
        ("sliding-window", {"stride": "30"}, "stride=30: a stride beyond the window of 20"),
        (
            "sliding-window",
            {"window": "5"},
            "window=5: the stride is 10 unless another is given, and one beyond the window would leave documents out; "
            "give a smaller one too, for example --option stride=2",
        ),
        ("sliding-window", {"window": "1"}, "window=1: it must be at least 2"),
        ("sliding-window", {"stride": 0}, "stride=0: it must be at least 1"),
        ("sliding-window", {"window": "many"}, "window=many: it must be a whole number"),
        ("sliding-window", {"windw": 5}, "no such option; did you mean window?"),
        ("heapsort", {"k": "0"}, "k=0: it must be at least 1"),
        ("heapsort", {"swap": "perhaps"}, "swap=perhaps: it must be on or off"),
        ("heapsort", {"swap": "off", "lazy": "on"}, "lazy=on: it puts off the second order of a pair, and swap=off"),
        ("all-pairs", {"sample": "0"}, "sample=0.0: it must lie above 0"),
        ("all-pairs", {"aggregate": "pagerink"}, "aggregate=pagerink: there are wins, bradley-terry"),
        ("blocks", {"design": "latin"}, "design=latin: there are equireplicate, latin-square, triangular"),
        (
            "blocks",
            {"design": "triangular", "repeats": "3"},
            "repeats=3: the triangular design shows every document twice",
        ),
        ("blocks", {"block_size": "1"}, "block_size=1: it must be at least 2"),
        ("tournament-sort", {"r": "3"}, "r=3: at most half of a group, 2 of m, can go up"),
        ("active", {"level": "1"}, "level=1.0: it must lie between 0 and 1"),
        ("active", {"budget": "some"}, "budget=some: it must be a whole number"),
        ("elimination", {"pool": "1"}, "pool=1: it must be at least 2"),
        ("full-list", {"k": 3}, "no such option; it has none"),
    ],
)
def test_bad_options_are_one_sentence(name: str, given_options: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError) as error:
        METHODS[name].checked(given_options)
    assert problem in str(error.value)


def test_an_unknown_method_is_one_sentence_with_the_nearest_name() -> None:
    for name in ("sliding-windw", "Sliding-Window"):
        with pytest.raises(InputError, match="did you mean sliding-window"):
            find(name)


def test_options_beyond_a_query_are_cut_back_to_it() -> None:
    method = METHODS["sliding-window"]
    assert method.clamped(method.checked({}), 3) == {"window": 3, "stride": 3, "passes": 1}
