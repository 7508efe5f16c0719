"""The wrappers around a question: asked once, in both orders, several times; and rounds without clocks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import Reranker
from llmrank.ask.base import Ask, BothOrders, OneOrder, Remember, agreed, mirrored
from llmrank.ask.samples import Sampled
from llmrank.ask.virtual import OneUnitEach, VirtualLoop, outside_of_tasks, rounds_of
from llmrank.errors import InputError
from llmrank.questions import Answer, Choice, Grade, Order, Preference, Question, failed
from tests.oracles import Asked, perfect


class Fixed(Ask):
    """Gives one answer to everything."""

    def __init__(self, answer: Answer) -> None:
        self.given = answer

    async def answer(self, question: Question) -> Answer:
        return self.given


def virtually(work: Any) -> Any:
    return VirtualLoop().run(work)


def test_a_question_is_asked_once_also_while_it_is_under_way() -> None:
    asked = Asked(perfect({1: 1.0, 2: 2.0}))
    ask = Remember(asked)

    async def work() -> list[Answer]:
        return [*await asyncio.gather(ask.grade(1), ask.grade(1), ask.grade(2)), await ask.grade(1)]

    values = [answer.value for answer in virtually(work())]
    assert values == [1.0, 1.0, 2.0, 1.0]
    assert len(asked.questions) == 2


def test_a_set_is_asked_once_in_whatever_order_it_comes() -> None:
    asked = Asked(lambda q: Choice(index=0, distribution=(0.7, 0.2, 0.1)))
    ask = Remember(asked)

    async def work() -> tuple[Choice, Choice]:
        return await ask.choose("abc"), await ask.choose("cab")

    one, other = virtually(work())
    assert (one.of("abc"), other.of("cab")) == ("a", "a")
    assert other.distribution == (0.1, 0.7, 0.2)
    assert len(asked.questions) == 1


def test_best_and_worst_of_a_set_are_two_questions() -> None:
    asked = Asked(perfect({"a": 1.0, "b": 2.0}))
    ask = Remember(asked)

    async def work() -> list[Any]:
        return [(await ask.choose("ab")).of("ab"), (await ask.choose("ab", worst=True)).of("ab")]

    assert virtually(work()) == ["b", "a"]


@pytest.mark.parametrize(
    ("forth", "back", "share", "status"),
    [
        (1.0, 0.0, 1.0, "ok"),
        (0.0, 1.0, 0.0, "ok"),
        (1.0, 1.0, 0.5, "ok"),
        (0.5, 0.5, 0.5, "ok"),
        (1.0, 0.5, 0.5, "ok"),
        (None, 0.0, 1.0, "repaired"),
        (1.0, None, 1.0, "repaired"),
        (None, None, None, "failed"),
    ],
)
def test_both_orders_agree_or_tie_and_one_decides_where_the_other_failed(
    forth: float | None, back: float | None, share: float | None, status: str
) -> None:
    def judge(question: Question) -> Answer:
        said = forth if question.items == ("a", "b") else back
        return failed("compare", "x") if said is None else Preference(share=said)

    answer = virtually(BothOrders(Asked(judge)).compare("a", "b"))
    assert (answer.share, answer.status) == (share, status)
    assert answer.repairs == (("one-order",) if status == "repaired" else ())


def test_probabilities_of_both_orders_are_averaged() -> None:
    answer = agreed(Preference(share=1.0, p_left=0.9), mirrored(Preference(share=0.0, p_left=0.3)))
    assert answer.p_left == pytest.approx(0.8)


def test_with_one_order_a_pair_is_never_asked_the_other_way_round() -> None:
    asked = Asked(perfect({"a": 1.0, "b": 2.0}))
    ask = OneOrder(Remember(asked))

    async def work() -> list[Any]:
        return [(await ask.compare("a", "b")).winner, (await ask.compare("b", "a")).winner]

    assert virtually(work()) == ["right", "left"]
    assert len(asked.questions) == 1


def test_rounds_are_the_longest_chain() -> None:
    answers: dict[Question, Answer] = {Question("grade", (i,)): Grade(value=1.0) for i in range(6)}

    async def strategy(ask: Ask) -> None:
        async def chain(*items: int) -> None:
            for item in items:
                await ask.grade(item)

        await asyncio.gather(chain(0, 1, 2), chain(3), chain(4, 5))

    assert rounds_of(strategy, OneUnitEach(answers)) == 3


def test_a_loop_without_a_clock_runs_inside_another_loop() -> None:
    async def work() -> tuple[float, int]:
        async def inner() -> int:
            await asyncio.sleep(1000)
            return 7

        loop = VirtualLoop()
        value = await outside_of_tasks(lambda: loop.run(inner()))
        await asyncio.sleep(0)
        return loop.time(), value

    assert asyncio.run(work()) == (1000, 7)


def test_a_strategy_that_waits_for_nothing_is_found_out() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="no question"):
        VirtualLoop().run(stuck())


def test_an_error_in_a_strategy_comes_out() -> None:
    async def broken() -> None:
        await asyncio.gather(asyncio.sleep(1), asyncio.sleep(2))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        VirtualLoop().run(broken())


@pytest.mark.parametrize(
    ("question", "answers", "expected"),
    [
        ("grade", [Grade(value=1.0, label="a"), Grade(value=2.0, label="b"), Grade(value=2.0, label="b")], 5 / 3),
        ("compare", [Preference(share=1.0), Preference(share=0.0), Preference(share=1.0)], 2 / 3),
        ("choose", [Choice(index=1), Choice(index=0), Choice(index=1)], 1),
        (
            "order",
            [Order(permutation=(2, 0, 1)), Order(permutation=(2, 1, 0)), Order(permutation=(0, 2, 1))],
            (2, 0, 1),
        ),
    ],
)
def test_samples_are_put_together(question: Any, answers: list[Answer], expected: Any) -> None:
    asked = Question(question, tuple(range(3)))
    together = virtually(Sampled([Fixed(answer) for answer in answers]).answer(asked))
    value = {"grade": "value", "compare": "share", "choose": "index", "order": "permutation"}[question]
    assert getattr(together, value) == expected
    assert together.status == "ok"
    fewer = virtually(Sampled([*map(Fixed, answers), Fixed(failed(question, "x"))]).answer(asked))
    assert (getattr(fewer, value), fewer.status, fewer.repairs) == (expected, "repaired", ("fewer-samples",))
    none = virtually(Sampled([Fixed(failed(question, "x"))] * 3).answer(asked))
    assert (none.status, none.reason) == ("failed", "x")


def test_samples_need_a_temperature() -> None:
    with pytest.raises(InputError, match="--samples 3: all samples are one at temperature 0"):
        Reranker("sliding-window", backend="lexical", samples=3)


@given(st.permutations(range(6)))
def test_samples_that_agree_change_nothing(order: list[int]) -> None:
    answer = Order(permutation=tuple(order))
    assert virtually(Sampled([Fixed(answer)] * 3).answer(Question("order", tuple(range(6))))) == answer


def test_when_the_first_asker_fails_the_next_asks_for_itself() -> None:
    times = 0

    class Once(Ask):
        async def answer(self, question: Question) -> Answer:
            nonlocal times
            times += 1
            await asyncio.sleep(1)
            if times == 1:
                raise ZeroDivisionError
            return Grade(value=1.0)

    ask = Remember(Once())

    async def work() -> list[Any]:
        return [*await asyncio.gather(ask.grade(1), ask.grade(1), return_exceptions=True), await ask.grade(1)]

    first, second, third = virtually(work())
    assert isinstance(first, ZeroDivisionError)
    assert (second.value, third.value, times) == (1.0, 1.0, 2)
