"""The client asks once, keeps within budgets and limits, retries what is worth it, and types what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from llmrank.ask.virtual import VirtualLoop
from llmrank.errors import InputError
from llmrank.llm.budget import Amount, Budget, Price
from llmrank.llm.client import BackendRefused, Client
from llmrank.llm.ledger import Ledger
from llmrank.llm.limits import Rate, Slots
from llmrank.llm.types import Failure, Reply, Request, Sampling
from llmrank.questions import Token

T = TypeVar("T")


def request(text: str, **more: Any) -> Request:
    return Request((("user", text),), **more)


class Model:
    """A backend of one's own in a few lines."""

    model = "mine"

    def __init__(self, answer: Callable[[str, int], Reply | Failure], seconds: float = 1.0) -> None:
        self.answer, self.seconds, self.asked = answer, seconds, list[str]()
        self.in_flight = self.most = 0

    async def complete(self, request: Request) -> Reply | Failure:
        text = request.messages[0][1]
        self.asked.append(text)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self.seconds)
            return self.answer(text, self.asked.count(text))
        finally:
            self.in_flight -= 1


def echo(text: str, _: int) -> Reply:
    return Reply(text.upper(), prompt_tokens=10, completion_tokens=2)


def virtually(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """The result, and the virtual seconds that it took."""
    loop = VirtualLoop()
    return loop.run(work), loop.time()


def test_a_backend_is_one_coroutine() -> None:
    exchange, _ = virtually(Client(Model(echo)).ask(request("a")))
    assert exchange.reply is not None
    assert (exchange.reply.text, exchange.calls, exchange.reused) == ("A", 1, False)


def test_the_same_request_in_flight_is_sent_once() -> None:
    model = Model(echo)
    client = Client(model)

    async def work() -> list[Any]:
        return await asyncio.gather(*(client.ask(request("a")) for _ in range(5)))

    exchanges, _ = virtually(work())
    assert model.asked == ["a"]
    assert [e.reused for e in exchanges] == [False, True, True, True, True]
    assert {e.reply.text for e in exchanges} == {"A"}


def test_when_the_first_asker_is_cancelled_the_next_asks_itself() -> None:
    model = Model(echo)
    client = Client(model)

    async def work() -> Any:
        first = asyncio.create_task(client.ask(request("a")))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(client.ask(request("a")))
        await asyncio.sleep(0.1)
        first.cancel()
        return await second

    exchange, _ = virtually(work())
    assert exchange.reply.text == "A"
    assert model.asked == ["a", "a"]
    assert client.slots.in_use == 0


def test_a_repeated_run_is_answered_by_the_ledger(tmp_path: Path) -> None:
    def ask(model: Model, **more: Any) -> Any:
        async def work() -> Any:
            client = Client(model, ledger=Ledger(tmp_path / "l"), **more)
            exchange = await client.ask(request("a"))
            await client.aclose()
            return exchange

        return asyncio.run(work())

    first, second = Model(echo, 0), Model(echo, 0)
    assert not ask(first).reused
    assert ask(second).reused
    assert second.asked == []
    third = Model(echo, 0)
    assert not ask(third, model_id="another").reused  # told apart by name


def test_the_key_holds_everything_that_can_change_the_reply() -> None:
    client = Client(Model(echo))
    variants = [
        request("a"),
        request("b"),
        Request(prompt="a"),
        request("a", sampling=Sampling(max_tokens=9)),
        request("a", sampling=Sampling(temperature=0.5, seed=1)),
        request("a", sampling=Sampling(temperature=0.5, seed=2)),
        request("a", sampling=Sampling(logprobs=5)),
        request("a", sampling=Sampling(stop=("x",))),
        request("a", sample=1),
    ]
    keys = {variant.canonical(client.identity) for variant in variants}
    assert len(keys) == len(variants)
    same = request("a", sampling=Sampling(seed=5)).canonical(client.identity)
    assert same == request("a").canonical(client.identity)  # at temperature 0 a seed is not sent


@pytest.mark.parametrize("kind", ["rate-limited", "server", "timeout", "connection", "bad-body", "no-choices"])
def test_what_is_worth_retrying_is_retried(kind: str) -> None:
    model = Model(lambda text, times: Failure(kind) if times < 4 else echo(text, times))
    exchange, _ = virtually(Client(model).ask(request("a")))
    assert (exchange.reply.text, exchange.calls) == ("A", 4)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["bad-request", "context-length", "not-in-ledger"])
def test_what_is_not_worth_retrying_is_not(kind: str) -> None:
    model = Model(lambda *_: Failure(kind, "why"))
    exchange, _ = virtually(Client(model).ask(request("a")))
    assert (exchange.reply, exchange.failure, exchange.calls) == (None, Failure(kind, "why"), 1)


def test_retries_are_bounded_in_number_and_time() -> None:
    model = Model(lambda *_: Failure("server"), seconds=0)
    exchange, seconds = virtually(Client(model, retries=8).ask(request("a")))
    assert exchange.calls == 9
    assert exchange.failure == Failure("server")
    assert seconds <= 0.5 + 1 + 2 + 4 + 8 * 4


def test_a_named_pause_is_kept_by_all_requests() -> None:
    model = Model(
        lambda text, times: Failure("rate-limited", "", 30.0) if text == "a" and times == 1 else echo(text, times), 1
    )

    async def work() -> list[float]:
        client, clock = Client(model), asyncio.get_running_loop().time
        first = asyncio.create_task(client.ask(request("a")))
        await asyncio.sleep(2)
        await client.ask(request("b"))
        second = clock()
        await first
        return [second, clock()]

    (b_done, a_done), _ = virtually(work())
    assert b_done == 32  # told at 1 s, waits to 31 s, takes 1 s
    assert 32 <= a_done <= 33


def test_a_pause_of_an_hour_is_a_refusal() -> None:
    model = Model(lambda *_: Failure("rate-limited", "", 3600.0))
    with pytest.raises(BackendRefused, match="it asks for a pause of 3600 s"):
        virtually(Client(model).ask(request("a")))
    assert model.asked == ["a"]


def test_a_stalled_reply_times_out() -> None:
    model = Model(echo, seconds=100)
    exchange, seconds = virtually(Client(model, timeout=5, retries=1).ask(request("a")))
    assert exchange.failure is not None
    assert exchange.failure.kind == "timeout"
    assert 10 <= seconds < 20


def test_an_exception_of_ones_own_backend_is_a_typed_failure() -> None:
    def broken(*_: Any) -> Reply:
        raise KeyError("choices")

    exchange, _ = virtually(Client(Model(broken)).ask(request("a")))
    assert exchange.failure == Failure("backend-error", "KeyError: 'choices'")


@pytest.mark.parametrize("kind", ["auth", "unknown-model", "quota"])
def test_a_bad_key_is_found_out_with_one_request(kind: str) -> None:
    model = Model(lambda *_: Failure(kind))
    model.remote = True  # type: ignore[attr-defined]
    client = Client(model)

    async def work() -> list[Any]:
        return await asyncio.gather(*(client.ask(request(str(i))) for i in range(20)), return_exceptions=True)

    outcomes, _ = virtually(work())
    assert all(isinstance(outcome, BackendRefused) for outcome in outcomes)
    assert len(model.asked) == 1


def test_no_more_requests_than_slots() -> None:
    model = Model(echo)
    client = Client(model, concurrency=7)

    async def work() -> None:
        await asyncio.gather(*(client.ask(request(str(i))) for i in range(50)))

    _, seconds = virtually(work())
    assert model.most == 7
    assert seconds == 8  # ceil(50 / 7) rounds of a second


def test_who_has_the_longest_way_to_go_goes_first() -> None:
    model = Model(echo)
    client = Client(model, concurrency=1)

    async def work() -> None:
        await asyncio.gather(
            *(client.ask(request(name), remaining=left) for name, left in (("x", 0), ("a", 1), ("b", 5), ("c", 3)))
        )

    virtually(work())
    assert model.asked == ["x", "b", "c", "a"]


def test_requests_a_minute_are_spread_evenly() -> None:
    model = Model(echo, seconds=0)
    client = Client(model, rpm=60)

    async def work() -> None:
        await asyncio.gather(*(client.ask(request(str(i))) for i in range(31)))

    _, seconds = virtually(work())
    assert seconds == pytest.approx(30)


def test_tokens_a_minute_hold_back() -> None:
    async def work() -> None:
        rate = Rate(600)  # ten a second, ten at once
        for _ in range(5):
            await rate.take(10)

    _, seconds = virtually(work())
    assert seconds == pytest.approx(4)


def test_a_cancelled_waiter_leaves_no_hole() -> None:
    async def work() -> tuple[int, int]:
        slots = Slots(1)
        await slots.acquire(0)
        waiting = [asyncio.create_task(slots.acquire(0)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        slots.release()
        await waiting[1]
        slots.release()
        await waiting[2]
        slots.release()
        return slots.in_use, slots.load

    assert virtually(work())[0] == (0, 0)


@pytest.mark.parametrize("faults", [0, 3])
def test_the_budget_of_calls_is_used_up_and_never_passed(faults: int) -> None:
    model = Model(lambda text, times: Failure("server") if times <= faults else echo(text, times))
    client = Client(model, concurrency=64, budget=Budget.of(max_calls=100))

    async def work() -> list[Any]:
        return await asyncio.gather(*(client.ask(request(str(i))) for i in range(300)))

    exchanges, _ = virtually(work())
    assert len(model.asked) == 100
    assert sum(e.calls for e in exchanges) == 100
    assert any(e.unasked for e in exchanges)
    assert client.budget is not None
    assert client.budget.ended == "--max-calls 100"


def test_the_budget_of_money_is_never_passed_and_goes_to_the_last_affordable_call() -> None:
    model = Model(echo)  # settles at 10 + 2 tokens, however much was set aside
    price = Price(1_000_000, 1_000_000)  # a dollar a token
    client = Client(model, concurrency=64, price=price, budget=Budget.of(max_cost=2000))

    async def work() -> list[Any]:
        return await asyncio.gather(*(client.ask(request(f"{i:03}")) for i in range(400)))

    virtually(work())
    assert client.budget is not None
    assert client.budget.spent.cost <= 2000
    assert client.budget.spent.cost == 12 * len(model.asked)
    most_of_one = request("000").prompt_bytes() + 256
    assert client.budget.spent.cost > 2000 - most_of_one  # it stopped only when not even one more was sure to fit


def test_a_failed_call_that_may_have_been_billed_counts_in_full() -> None:
    model = Model(lambda *_: Failure("timeout"))
    client = Client(model, price=Price(1e6, 1e6), budget=Budget.of(max_cost=10_000), retries=2)
    virtually(client.ask(request("a")))
    assert client.budget is not None
    assert client.budget.spent == Amount(3, 3 * (1 + 16 + 16 + 256), 3.0 * (1 + 16 + 16 + 256))


def test_money_needs_a_price() -> None:
    with pytest.raises(InputError, match="--price IN,OUT"):
        Client(Model(echo), budget=Budget.of(max_cost=1))


def test_a_reply_is_committed_before_it_is_used(tmp_path: Path) -> None:
    """A call keeps its slot until its reply is in the ledger."""

    async def work() -> list[int]:
        ledger = Ledger(tmp_path / "l")
        client = Client(Model(echo, 0), ledger=ledger, concurrency=1)
        counts = []

        async def one(name: str) -> None:
            await client.ask(request(name))
            counts.append(ledger.query("SELECT count(*) FROM replies")[0][0])

        await asyncio.gather(*(one(str(i)) for i in range(5)))
        return counts

    assert asyncio.run(work()) == [1, 2, 3, 4, 5]


def test_replies_from_another_address_are_used_and_told(tmp_path: Path) -> None:
    async def ask(origin: str) -> Client:
        model = Model(echo, 0)
        model.origin = origin  # type: ignore[attr-defined]
        client = Client(model, ledger=Ledger(tmp_path / "l"))
        await client.ask(request("a"))
        return client

    asyncio.run(ask("http://one/v1"))
    client = asyncio.run(ask("http://two/v1"))
    assert client.totals.reused == 1
    assert client.totals.other_origins == {"http://one/v1"}


@pytest.mark.parametrize(
    "given",
    [None, "text", 7, Failure("oops", "x"), object()],
)
def test_what_is_no_reply_is_a_typed_failure(given: Any) -> None:
    exchange, _ = virtually(Client(Model(lambda *_: given)).ask(request("a")))
    assert exchange.failure is not None
    assert exchange.failure.kind == "backend-error"


def test_a_reply_read_again_is_the_reply_that_was_read(tmp_path: Path) -> None:
    """Lone surrogates and infinite log-probabilities cannot be stored; they are mended before anyone reads them."""
    tops = (("a", 0.0), ("b", float("-inf")), ("c", float("nan")))

    async def twice() -> list[Any]:
        backend = Model(lambda *_: Reply("\ud800 ok", tokens=(Token("a", float("nan"), tops),)), 0)
        client = Client(backend, ledger=Ledger(tmp_path / "l"))
        return [(await client.ask(request("a"))).reply for _ in range(2)]

    first, second = asyncio.run(twice())
    assert (first.text, first.tokens) == (second.text, tuple(second.tokens))
    assert first.text == "? ok"
    assert first.tokens == (Token("a", -9999.0, (("a", 0.0), ("b", -9999.0))),)


def test_a_server_that_is_back_is_asked_again() -> None:
    model = Model(lambda text, times: Failure("unreachable") if text == "a" else echo(text, times))
    client = Client(model, retries=0)

    async def work() -> Any:
        with pytest.raises(BackendRefused):
            await client.ask(request("a"))
        client.revive()
        return await client.ask(request("b"))

    exchange, _ = virtually(work())
    assert exchange.reply.text == "B"
