"""The number of requests in flight finds its level, and slow requests are doubled; all of it in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.ask.virtual import VirtualLoop
from llmrank.errors import InputError
from llmrank.llm.budget import Budget
from llmrank.llm.client import Client
from llmrank.llm.hedging import ENOUGH, REMEMBERED, Latencies
from llmrank.llm.limits import Slots
from llmrank.llm.types import Failure, Reply, Request

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    loop = VirtualLoop()
    return loop.run(work), loop.time()


class Model:
    """Answers after a time of its own for each request; works on so many at once, and refuses more than so many."""

    model = "mine"

    def __init__(self, seconds: Any = 1.0, at_once: int = 10**6, refuses_from: int = 10**6) -> None:
        self.seconds = seconds if callable(seconds) else lambda number: seconds
        self.room = asyncio.Semaphore(at_once)
        self.refuses_from = refuses_from
        self.asked = self.in_flight = self.most = self.refused = self.cancelled = 0

    async def complete(self, request: Request) -> Reply | Failure:
        number, self.asked = self.asked, self.asked + 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            if self.in_flight >= self.refuses_from:
                self.refused += 1
                return Failure("rate-limited")
            async with self.room:
                await asyncio.sleep(self.seconds(number))
            return Reply("ok", prompt_tokens=10, completion_tokens=1)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1


async def asked(client: Client, n: int) -> list[Any]:
    return await asyncio.gather(*(client.ask(Request((("user", str(i)),))) for i in range(n)))


def test_it_grows_to_the_most_where_the_server_has_room() -> None:
    model = Model()
    client = Client(model, concurrency=64, adaptive=True)
    exchanges, seconds = run(asked(client, 1500))
    assert all(exchange.reply for exchange in exchanges)
    assert model.most == 64
    assert seconds < 1500 / 64 * 1.7


def test_it_stops_where_latency_says_that_the_server_is_full() -> None:
    model = Model(at_once=20)
    client = Client(model, concurrency=512, adaptive=True)
    _, seconds = run(asked(client, 3000))
    assert model.most <= 20 * 1.5**2 + 2  # the first step that gave nothing is taken back
    assert 20 / 1.5 <= client.slots.size <= 20 * 1.5 + 2
    assert seconds < 3000 / 20 * 1.2


def test_it_goes_down_where_the_server_refuses() -> None:
    model = Model(refuses_from=24)
    client = Client(model, concurrency=256, adaptive=True)
    exchanges, _ = run(asked(client, 2000))
    assert all(exchange.reply for exchange in exchanges)
    assert model.refused < 0.02 * model.asked
    assert client.slots.size >= 8


def test_without_it_the_number_is_the_one_given() -> None:
    model = Model()
    run(asked(Client(model, concurrency=40), 400))
    assert model.most == 40


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6)), max_size=60))
def test_slots_can_be_resized_at_any_time(steps: list[tuple[bool, int]]) -> None:
    """Nobody waits where there is room, and nobody gets in where there is none."""

    async def work() -> None:
        slots, held = Slots(2), 0
        waiting: list[asyncio.Task[None]] = []
        for take, size in steps:
            slots.resize(size)
            if take:
                waiting.append(asyncio.ensure_future(slots.acquire(0.0)))
            elif held:
                slots.release()
                held -= 1
            await asyncio.sleep(1)
            done = [task for task in waiting if task.done()]
            waiting = [task for task in waiting if not task.done()]
            held += len(done)
            assert slots.in_use == held
            assert not done or held <= size
            assert not waiting or held >= size
        for task in waiting:
            task.cancel()

    run(work())


# --- hedging


def slow_tail(number: int) -> float:
    """Every 50th request takes a hundred times as long."""
    return 100.0 if number % 50 == 37 else 1.0


def test_a_slow_request_is_doubled_and_the_first_reply_counts() -> None:
    plain, hedged = Model(slow_tail), Model(slow_tail)
    _, alone = run(asked(Client(plain, concurrency=8), 400))
    client = Client(hedged, concurrency=8, hedge=0.9)
    exchanges, together = run(asked(client, 400))
    assert all(exchange.reply.text == "ok" for exchange in exchanges)
    assert alone > 150
    assert together < 100  # the last slow one no longer holds up the end
    assert sum(exchange.calls for exchange in exchanges) == hedged.asked == client.totals.calls > 400
    assert hedged.cancelled == hedged.asked - 400  # the other one was given up
    assert client.slots.in_use == 0


def test_a_hedge_counts_as_a_call_and_stays_within_the_budget() -> None:
    for most in (100, 101, 120):
        model, budget = Model(slow_tail), Budget.of(max_calls=most)
        exchanges, _ = run(asked(Client(model, concurrency=4, hedge=0.9, budget=budget), 100))
        assert model.asked <= most
        assert budget is not None
        assert (budget.spent.calls, budget.reserved.calls) == (model.asked, 0)
        answered = sum(exchange.reply is not None for exchange in exchanges)
        assert answered >= 100 - (model.asked - answered)


def test_no_hedge_takes_a_slot_that_another_waits_for() -> None:
    model = Model(slow_tail)
    run(asked(Client(model, concurrency=4, hedge=0.9), 90))
    assert model.most <= 4


def test_a_hedge_that_fails_leaves_the_first_to_answer() -> None:
    class Failing(Model):
        async def complete(self, request: Request) -> Reply | Failure:
            outcome = await super().complete(request)
            return Failure("bad-request") if self.asked > 40 and request.messages[0][1] != "39" else outcome

    model = Failing(lambda number: 30.0 if number == 39 else 1.0)
    client = Client(model, concurrency=50, hedge=0.9)

    async def work() -> Any:
        await asked(client, 39)
        return await client.ask(Request((("user", "39"),)))

    exchange, _ = run(work())
    assert exchange.reply.text == "ok"


def test_being_given_up_ends_both_requests() -> None:
    model = Model(lambda number: 1.0 if number < 40 else 1e6)
    client = Client(model, concurrency=50, hedge=0.9, timeout=1e9)

    async def work() -> int:
        await asked(client, 40)
        last = asyncio.ensure_future(client.ask(Request((("user", "last"),))))
        await asyncio.sleep(10)
        assert model.in_flight == 2
        last.cancel()
        await asyncio.wait({last})
        return model.in_flight

    assert run(work())[0] == 0
    assert client.slots.in_use == 0


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, 2.0])
def test_a_quantile_lies_between_0_and_1(quantile: float) -> None:
    with pytest.raises(InputError, match="--hedge"):
        Client(Model(), hedge=quantile)


@given(st.lists(st.floats(0, 100), max_size=3 * REMEMBERED), st.floats(0.01, 0.99))
def test_long_is_the_quantile_of_the_latest(seconds: list[float], quantile: float) -> None:
    import math

    latencies = Latencies(quantile)
    for value in seconds:
        latencies.add(value)
    latest = sorted(seconds[-REMEMBERED:])
    if len(latest) < ENOUGH:
        assert latencies.long is None
    else:
        assert latencies.long == latest[math.ceil(quantile * len(latest)) - 1]
