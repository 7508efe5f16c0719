"""Blocks, their designs, and groups with scores of their own."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.questions import Answer, Order, Question, failed
from llmrank.rerank.designs import design, design_problem
from llmrank.rerank.methods import all_methods
from tests.oracles import from_first_stage, noisy, perfect, run

METHODS = all_methods()


@given(n=st.integers(2, 120), block_size=st.integers(2, 40), repeats=st.integers(1, 5))
def test_everybody_stands_in_as_many_blocks(n: int, block_size: int, repeats: int) -> None:
    blocks = design("equireplicate", n, block_size, repeats)
    sizes = [len(block) for block in blocks]
    assert max(sizes) <= max(block_size, 2)
    assert all(len(set(block)) == len(block) for block in blocks)
    if n <= block_size:
        assert blocks == (tuple(range(n)),)
        return
    assert len(blocks) <= -(-n * repeats // block_size)
    counts = Counter(i for block in blocks for i in block)
    assert max(counts.values()) <= repeats
    if len(blocks) == -(-n * repeats // block_size):  # no block came twice, and none was of one
        assert set(counts.values()) == {repeats}
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("repeats", "blocks"), [(2, 10), (4, 20)])
def test_blocks_are_as_many_as_published(repeats: int, blocks: int) -> None:
    assert len(design("equireplicate", 100, 20, repeats)) == blocks
    assert run(METHODS["blocks"], 100, perfect({i: i for i in range(100)}), repeats=repeats)[1:] == (blocks, 1)
    ranked, asked, rounds = run(METHODS["blocks-refine"], 100, perfect({i: i for i in range(100)}), repeats=repeats)
    assert (asked, rounds) == (blocks + 1, 2)
    assert ranked.scores is None


@pytest.mark.parametrize(
    ("name", "n", "repeats", "blocks", "size"),
    [
        ("latin-square", 100, 2, 20, 10),
        ("latin-square", 100, 3, 30, 10),
        ("latin-square", 49, 8, 56, 7),
        ("latin-square", 4, 3, 6, 2),
        ("triangular", 10, 2, 5, 4),
        ("triangular", 105, 2, 15, 14),
        ("triangular", 3, 2, 3, 2),
    ],
)
def test_in_square_and_triangle_any_two_meet_at_most_once(
    name: str, n: int, repeats: int, blocks: int, size: int
) -> None:
    made = design(name, n, 20, repeats)
    assert [len(block) for block in made] == [size] * blocks
    assert set(Counter(i for block in made for i in block).values()) == {repeats}
    assert max(Counter(pair for block in made for pair in combinations(block, 2)).values()) == 1


@pytest.mark.parametrize(
    ("name", "n", "repeats", "problem"),
    [
        ("latin-square", 99, 2, "needs a square number of candidates, such as 81 or 100, not 99"),
        ("latin-square", 2, 2, "such as 1 or 4, not 2"),
        ("latin-square", 100, 4, "shows 100 candidates at most 3 times each, not 4"),
        ("triangular", 100, 2, "needs a triangular number of candidates, such as 91 or 105, not 100"),
    ],
)
def test_a_design_that_does_not_exist_is_one_sentence(name: str, n: int, repeats: int, problem: str) -> None:
    method = METHODS["blocks"]
    values = method.checked({"design": name, "repeats": repeats})
    assert problem in (method.problem(n, **values) or "")
    with pytest.raises(InputError, match="the design"):
        method.expected(n, values)
    with pytest.raises(InputError, match="the design"):
        run(method, n, perfect({i: i for i in range(n)}), design=name, repeats=repeats)


@pytest.mark.parametrize("name", ["equireplicate", "latin-square", "triangular"])
@pytest.mark.parametrize("n", [0, 1])
def test_where_there_is_nothing_to_compare_every_design_will_do(name: str, n: int) -> None:
    assert design_problem(name, n, 2) is None
    assert run(METHODS["blocks-refine"], n, perfect({0: 1}), design=name)[1] == 0


def test_one_block_is_in_the_order_that_was_answered() -> None:
    for n in range(21):
        worth = dict(enumerate(random.Random(n).sample(range(n), n)))
        for name in ("blocks", "blocks-refine"):
            ranked, asked, _ = run(METHODS[name], n, perfect(worth))
            assert ranked.items == sorted(range(n), key=lambda i: -worth[i])
            assert asked == int(n > 1)


def test_a_second_look_is_as_good_as_nine_windows_one_after_the_other() -> None:
    found = {"blocks": 0.0, "blocks-refine": 0.0, "sliding-window": 0.0}
    for seed in range(30):
        worth = from_first_stage(100, 0.3, seed)
        best = sorted(worth, key=lambda i: -worth[i])[:10]
        for name in found:
            ranked, _, _ = run(METHODS[name], 100, noisy(worth, 0.1, seed))
            found[name] += len(set(best) & set(ranked.items[:10])) / 30
    assert found["blocks-refine"] > found["blocks"]
    assert found["blocks-refine"] > found["sliding-window"] - 0.5


def test_the_top_block_is_asked_about_anew_even_where_it_was_a_block() -> None:
    """Three candidates in blocks of two: the top two have met, and are shown the other way round."""
    seen: list[tuple[object, ...]] = []

    def judge(question: Question) -> Answer:
        seen.append(question.items)
        return Order(permutation=(0, 1))

    ranked, asked, rounds = run(METHODS["blocks-refine"], 3, judge, block_size=2)
    assert (asked, rounds) == (4, 2)
    assert seen[-1] == (1, 0)
    assert ranked.items == [1, 0, 2]


def test_a_block_that_failed_counts_for_nobody_and_a_tie_for_both() -> None:
    told = run(METHODS["blocks"], 4, lambda q: Order(permutation=(1, 0, 2, 3), ties=((1, 0), (2,), (3,))))[0]
    assert told.items == [0, 1, 2, 3]
    assert told.scores is not None
    assert told.scores[0] == told.scores[1]
    assert run(METHODS["blocks"], 30, lambda q: failed("order", "x"))[0].scores is None


def test_groups_are_merged_by_score_and_equal_scores_stay() -> None:
    worth = {i: float(i % 3) for i in range(25)}
    ranked, asked, rounds = run(METHODS["groupwise"], 25, perfect(worth))
    assert (asked, rounds) == (3, 1)
    assert ranked.items == sorted(range(25), key=lambda i: (-worth[i], i))
    assert ranked.score_kind == "group-score"


def test_whom_a_group_gave_no_score_keeps_its_place() -> None:
    def judge(question: Question) -> Answer:
        if 1 in question.items:
            return failed("order", "x")
        return Order(permutation=(0, 1, 2), scores=tuple(float(item) for item in question.items))  # type: ignore[arg-type]

    assert run(METHODS["groupwise"], 6, judge, group_size=3)[0].items == [4, 1, 2, 3, 0, 5]


def test_groups_without_scores_are_merged_by_place() -> None:
    answer = Order(permutation=(2, 1, 0))
    assert run(METHODS["groupwise"], 6, lambda q: answer, group_size=3)[0].items == [4, 5, 2, 3, 0, 1]
