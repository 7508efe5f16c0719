"""Many questions at once: the answers, the counts and the requests are those of asking them one by one."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.ask.base import Ask, BothOrders, By, OneOrder, Remember, Routed
from llmrank.ask.manner import Manner
from llmrank.ask.tally import Tally
from llmrank.ask.templated import PORTIONS, TemplateAsk
from llmrank.ask.virtual import VirtualLoop
from llmrank.data.types import Document, Query
from llmrank.llm.budget import Budget
from llmrank.llm.client import Client
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import Failure, Reply, Request
from llmrank.questions import Answer, Grade, Question
from llmrank.templates import load

SAID = ["yes", "no", "well, it depends", "", "YES.", None]
"""What the model says of a document, by its number; None: it has a fault."""
QUERY = Query("q", "which one?")
GRADE, COMPARE = load("pointwise/yes-no"), load("pairwise/prefer")
Wrapped = Callable[[Ask], Ask]


class Model:
    """Says of each prompt what its document's number tells, the same every time."""

    model = "mine"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def complete(self, request: Request) -> Reply | Failure:
        prompt = "\n".join(content for _, content in request.messages)
        self.asked.append(prompt)
        await asyncio.sleep(1)
        if "Passage A" in prompt or "pair" in prompt:
            return Reply("A" if len(prompt) % 3 else "neither of them", "stop", None, None, 10, 1)
        said = SAID[int(prompt.rpartition("number ")[2].split()[0]) % len(SAID)]
        return Failure("bad-request") if said is None else Reply(said, "stop", None, None, 10, 1)


class Outcome(NamedTuple):
    """What came of asking."""

    answers: list[list[Answer]]
    tallies: list[tuple[Any, ...]]
    asked: Counter[str]
    reused: int


def document(i: int) -> Document:
    return Document(f"d{i}", f"a text of the number {i} ")


async def one_by_one(ask: Ask, questions: Sequence[Question]) -> list[Answer]:
    return await asyncio.gather(*map(ask.answer, questions))


async def at_once(ask: Ask, questions: Sequence[Question]) -> list[Answer]:
    return await ask.every(questions)


def outcome(
    way: Callable[[Ask, Sequence[Question]], Coroutine[Any, Any, list[Answer]]],
    askers: Sequence[Sequence[Question]],
    known: Sequence[Question],
    wrapped: Wrapped = Remember,
    *,
    max_calls: int | None = None,
    ends: float | None = None,
    **manner: Any,
) -> Outcome:
    """What comes of several askers of the same query at once, where the ledger holds some answers."""
    template = COMPARE if any(q.kind == "compare" for q in [*known, *(q for qs in askers for q in qs)]) else GRADE
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "replies.ledger"

        def client(budget: Budget | None = None) -> Client:
            return Client(Model(), Ledger(path), budget=budget, concurrency=4, retries=0)

        filling = client()
        before = TemplateAsk(Manner(template=template, client=filling), QUERY, Tally())
        VirtualLoop().run(one_by_one(Remember(before), known))
        VirtualLoop().run(filling.aclose())
        asking = client(Budget.of(max_calls))
        tallies = [Tally(ends=ends) for _ in askers]
        how = Manner(template=template, client=asking, **manner)

        async def work() -> list[list[Answer]]:
            asks = [wrapped(TemplateAsk(how, QUERY, tally)) for tally in tallies]
            return await asyncio.gather(*map(way, asks, askers))

        answers = VirtualLoop().run(work())
        VirtualLoop().run(asking.aclose())
        backend = asking.backend
        assert isinstance(backend, Model)
        return Outcome(answers, [astuple(t) for t in tallies], Counter(backend.asked), asking.totals.reused)


def grades(numbers: Sequence[int]) -> list[Question]:
    return [Question("grade", (document(i),)) for i in numbers]


numbers = st.lists(st.integers(0, 120), max_size=110)
manners = st.fixed_dictionaries({"retry_format": st.booleans(), "retry_failed": st.booleans()})


@settings(max_examples=40, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=3), numbers, manners)
def test_every_gives_the_answers_and_counts_of_one_by_one(
    asked: list[list[int]], known: list[int], manner: dict[str, bool]
) -> None:
    # A fault is in no ledger: whether the next asker of the same meets it in flight or asks anew is a matter of time.
    lasting = [[i for i in of_one if len(asked) == 1 or SAID[i % len(SAID)] is not None] for of_one in asked]
    askers = list(map(grades, lasting))
    one, every = (outcome(way, askers, grades(known), **manner) for way in (one_by_one, at_once))
    assert every.answers == one.answers
    assert every.asked == one.asked
    # Which of two askers of one question was first is no part of the promise; what they did together is.
    assert (together(every.tallies), every.reused) == (together(one.tallies), one.reused)


def together(tallies: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The sums of what is counted, by name where it has names."""
    return [summed(column) for column in zip(*tallies, strict=True)]


def summed(column: Sequence[Any]) -> Any:
    if isinstance(column[0], Counter):  # of (name, how often), as `astuple` makes it
        names: Counter[str] = Counter()
        for counted in column:
            for (name, number), times in counted.items():
                names[name] += number * times
        return names
    return sum(column) if isinstance(column[0], int) else set(map(str, column))


@settings(max_examples=25, deadline=None)
@given(numbers, numbers, st.integers(0, 40))
def test_a_budget_leaves_the_same_questions_unasked(asked: list[int], known: list[int], most: int) -> None:
    one, every = (outcome(way, [grades(asked)], grades(known), max_calls=most) for way in (one_by_one, at_once))
    assert every.answers == one.answers
    assert every.asked == one.asked
    assert every.asked.total() <= most


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40),
    st.sampled_from([lambda ask: BothOrders(Remember(ask)), lambda ask: OneOrder(Remember(ask)), BothOrders]),
)
def test_wrappers_of_pairs_ask_the_same_at_once(
    asked: list[tuple[int, int]], known: list[tuple[int, int]], wrapped: Wrapped
) -> None:
    def pairs(of: list[tuple[int, int]]) -> list[Question]:
        return [Question("compare", (document(a), document(b))) for a, b in of if a != b]

    one, every = (outcome(way, [pairs(asked)], pairs(known), wrapped) for way in (one_by_one, at_once))
    assert every.answers == one.answers
    assert (every.asked, every.tallies) == (one.asked, one.tallies)


@pytest.mark.parametrize("held", [0, PORTIONS[0], 200])
def test_parts_of_a_method_are_asked_each_by_its_own_source(held: int) -> None:
    questions = grades(range(200))

    def parted(ask: Ask) -> Ask:
        return By(Remember(Routed({"a": ask, "b": ask})), "a")

    mixed = [question._replace(by="b") if i % 3 else question for i, question in enumerate(questions)]
    one, every = (outcome(way, [mixed], questions[:held], parted) for way in (one_by_one, at_once))
    assert every == one


def test_what_the_ledger_holds_is_not_asked_and_the_rest_is_asked_once() -> None:
    questions = grades([i for i in range(150) if SAID[i % len(SAID)] is not None])
    found = outcome(at_once, [questions, questions[::-1]], questions[::2])
    assert found.asked.total() == len(questions) - len(questions[::2])
    assert found.answers[0] == found.answers[1][::-1]


def test_a_ledger_without_them_is_hardly_looked_into() -> None:
    looked: list[int] = []

    class Watched(Ledger):
        def several(self, keys: Sequence[bytes]) -> dict[bytes, tuple[Reply, str]]:
            looked.append(len(keys))
            return super().several(keys)

    with tempfile.TemporaryDirectory() as folder:
        client = Client(Model(), Watched(Path(folder) / "replies.ledger"))
        ask = Remember(TemplateAsk(Manner(template=GRADE, client=client), QUERY, Tally()))
        questions = grades(range(500))
        VirtualLoop().run(ask.every(questions))
        assert looked == [PORTIONS[0]]
        looked.clear()
        again = Remember(TemplateAsk(Manner(template=GRADE, client=client), QUERY, Tally()))
        VirtualLoop().run(again.every(questions))
        assert sum(looked) == 500
        assert max(looked) <= max(PORTIONS)
        VirtualLoop().run(client.aclose())


def test_after_the_deadline_nothing_is_answered_from_the_ledger_either() -> None:
    questions = grades(range(30))
    one, every = (outcome(way, [questions], questions, ends=0.0) for way in (one_by_one, at_once))
    assert every == one
    assert {answer.status for answer in every.answers[0]} == {"unasked"}


def test_one_who_asks_the_same_meanwhile_waits_for_the_answer() -> None:
    questions = grades([0, 1, 0, 6])

    async def both(ask: Ask, asked: Sequence[Question]) -> list[Answer]:
        first, *alone = await asyncio.gather(ask.every(asked), *(ask.answer(q) for q in asked))
        assert first == alone
        return first

    for known in ([], questions[:1], questions):
        found = outcome(both, [questions], known)
        assert found.asked.total() == len({q.items for q in questions} - {q.items for q in known})
        assert found.tallies[0] == outcome(one_by_one, [questions], known).tallies[0]


def test_an_asker_that_is_cancelled_lets_others_ask() -> None:
    class SlowAtFirst(Ask):
        seconds = 10.0

        async def answer(self, question: Question) -> Answer:
            await asyncio.sleep(self.seconds)
            return Grade(value=1.0)

    async def work() -> list[Answer]:
        source, questions = SlowAtFirst(), grades(range(5))
        ask = Remember(source)
        asking = asyncio.ensure_future(ask.every(questions))
        waiting = asyncio.ensure_future(ask.answer(questions[2]))
        await asyncio.sleep(1)
        asking.cancel()
        source.seconds = 0.0
        return [await waiting, *await ask.every(questions)]

    assert VirtualLoop().run(work()) == [Grade(value=1.0)] * 6
