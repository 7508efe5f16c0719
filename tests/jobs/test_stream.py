"""Many queries at once: bounded in what is begun, what is held ready and what is made; and nothing lost on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmrank import Candidates, Document, LlmrankError, Query, Reranker
from llmrank.ask.virtual import VirtualLoop
from llmrank.jobs.stream import stream
from llmrank.llm import Failure, Reply, Request
from llmrank.llm.limits import Slots


def requests(queries: int, documents: int) -> list[Candidates]:
    texts = tuple(Document(f"d{i}", f"text {i}") for i in range(documents))
    return [Candidates(Query(f"q{q}", f"query {q}"), texts) for q in range(queries)]


class Counting:
    """Answers after a second, and knows how many prompts were made and not yet answered."""

    model = "counting"

    def __init__(self) -> None:
        self.prompts: Slots | None = None
        self.asked = 0
        self.most_waiting = 0

    async def complete(self, request: Request) -> Reply:
        self.asked += 1
        if self.prompts is not None:
            self.most_waiting = max(self.most_waiting, self.prompts.load)
        await asyncio.sleep(1)
        return Reply("A")


def test_a_method_that_asks_much_at_once_does_not_begin_all_queries() -> None:
    """All pairs of 24 documents are 552 questions: with 4 slots one such query is enough at a time."""
    backend = Counting()

    async def work() -> int:
        reranker = Reranker("all-pairs", backend=backend, ledger="none", concurrency=4, max_calls=50)
        backend.prompts = reranker.client().prompts
        return sum([1 async for _ in reranker.astream(requests(8, 24))])

    assert VirtualLoop().run(work()) == 8
    assert backend.asked == 50
    assert backend.most_waiting < 2 * 24 * 23


def test_results_that_nobody_takes_hold_back_the_next_queries() -> None:
    begun = 0

    async def work(place: int) -> int:
        nonlocal begun
        begun += 1
        return place

    async def slowly() -> list[int]:
        ahead = []
        async for place, _ in stream(range(500), work, Slots(4)):
            await asyncio.sleep(1)
            ahead.append(begun - place)
        return ahead

    assert max(VirtualLoop().run(slowly())) < 40


def test_the_first_error_ends_everything() -> None:
    ended: list[int] = []

    async def work(place: int) -> int:
        try:
            await asyncio.sleep(place)
            if place == 3:
                raise LlmrankError("it broke")
            await asyncio.sleep(100)
        finally:
            ended.append(place)
        return place

    async def all_of_them() -> None:
        async for _ in stream(range(8), work, Slots(20)):
            pass

    with pytest.raises(LlmrankError, match="it broke"):
        VirtualLoop().run(all_of_them())
    assert sorted(ended) == list(range(8))


def test_requests_that_cannot_be_read_are_an_error() -> None:
    def broken() -> Any:
        yield 1
        raise LlmrankError("line 2 is bad")

    async def work(place: int) -> int:
        return place

    async def all_of_them() -> list[int]:
        return [result async for _, result in stream(broken(), work, Slots(2))]

    with pytest.raises(LlmrankError, match="line 2 is bad"):
        VirtualLoop().run(all_of_them())


def test_a_backend_that_cancels_itself_loses_no_query() -> None:
    class Cancelling:
        model = "cancelling"
        times = 0

        async def complete(self, request: Request) -> Reply:
            self.times += 1
            if self.times == 3:
                raise asyncio.CancelledError
            return Reply("[2] > [1]")

    reranker = Reranker("sliding-window", backend=Cancelling(), ledger="none")
    assert [ranking.ids for ranking in reranker.rank_many(requests(10, 2))] == [["d1", "d0"]] * 10


def test_after_an_error_nothing_more_is_asked() -> None:
    class Broken:
        model = "broken"
        asked = 0

        async def complete(self, request: Request) -> Reply | Failure:
            self.asked += 1
            await asyncio.sleep(1)
            if self.asked == 3:
                raise LlmrankError("stop here")
            return Reply("A")

    backend = Broken()

    async def work() -> None:
        reranker = Reranker("all-pairs", backend=backend, ledger="none", concurrency=1)
        try:
            await reranker.rank_one(requests(1, 20)[0])
        finally:
            await asyncio.sleep(100)

    with pytest.raises(LlmrankError, match="stop here"):
        VirtualLoop().run(work())
    assert backend.asked <= 4  # one more may have been given the slot just then


def test_a_budget_is_the_rerankers_not_the_loops() -> None:
    reranker = Reranker("sliding-window", backend=Counting(), ledger="none", max_calls=2)
    statuses = [VirtualLoop().run(reranker.arank("q", [str(i), "b"])).row.status for i in range(4)]
    assert statuses == ["reranked", "reranked", "partial", "partial"] or statuses == [
        "failed",
        "failed",
        "partial",
        "partial",
    ]
    assert reranker.backend.asked == 2  # type: ignore[attr-defined]


def test_scores_of_nothing_are_no_scores() -> None:
    class Silent:
        capabilities = frozenset({"text", "logprobs"})

        async def complete(self, request: Request) -> Reply:
            return Reply("")

    ranking = Reranker("pointwise", backend=Silent(), ledger="none").rank("q", ["a", "b"])
    assert (ranking.row.status, ranking.row.score_kind, ranking.scores) == ("failed", None, None)
    assert ranking.ids == ["0", "1"]
