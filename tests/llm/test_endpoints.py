"""Several servers as one backend: shared out by load, with limits of each, and without those that are down."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from llmrank.ask.virtual import VirtualLoop
from llmrank.errors import InputError
from llmrank.llm.backends import endpoints
from llmrank.llm.backends.endpoints import Pool
from llmrank.llm.backends.openai import OpenAIBackend
from llmrank.llm.backends.servers import Limits, Server, servers
from llmrank.llm.backends.wire import Answer
from llmrank.llm.client import BackendRefused, Client
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import Failure, Identity, Reply, Request
from tests.stub import Stub, completion

T = TypeVar("T")
OK = Answer(200, {}, json.dumps(completion("ok")).encode())


def run(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """The result, and the virtual seconds that it took."""
    loop = VirtualLoop()
    return loop.run(work), loop.time()


class Machine:
    """A server that takes so many seconds for a request, so many at once, and is down when it is told to be."""

    def __init__(self, seconds: float = 1.0, at_once: int = 10**6) -> None:
        self.seconds, self.free = seconds, at_once
        self.asked = self.in_flight = self.most = 0
        self.down: Answer | Failure | None = None
        self.hangs = False
        self._queue: list[asyncio.Future[None]] = []

    async def post(self, path: str, body: bytes) -> Answer | Failure:
        self.asked += 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            if self.hangs:
                await asyncio.get_running_loop().create_future()
            if self.down is not None:
                return self.down
            if self.free == 0:
                self._queue.append(asyncio.get_running_loop().create_future())
                await self._queue[-1]
            else:
                self.free -= 1
            await asyncio.sleep(self.seconds)
            if self._queue:
                self._queue.pop(0).set_result(None)
            else:
                self.free += 1
            return OK
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        pass


class Machines:
    """A backend over made-up servers."""

    remote = True
    identity = Identity("openai", "m")

    def __init__(self, *machines: Machine, limits: tuple[int | None, ...] = ()) -> None:
        self.machines = machines
        named = [Server(f"http://{i}/v1", "", "", (), False) for i in range(len(machines))]
        self._servers = [
            s._replace(limits=Limits(limit)) for s, limit in zip(named, limits or [None] * len(named), strict=True)
        ]
        self._each = 0
        self._pool: Pool | None = None

    def spread(self, concurrency: int) -> int:
        self._each = concurrency
        return sum(server.limits.concurrency or concurrency for server in self._servers)

    @property
    def pool(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(self._servers, lambda server: self.machines[self._servers.index(server)], self._each)
        return self._pool

    async def admit(self) -> None:
        await self.pool.admit()

    async def complete(self, request: Request) -> Reply | Failure:
        from llmrank.llm.backends.wire import read_answer

        answer = await self.pool.post("/chat/completions", b"")
        return answer if isinstance(answer, Failure) else read_answer(answer)


async def asked(client: Client, n: int, start: int = 0) -> list[Any]:
    return await asyncio.gather(*(client.ask(Request((("user", str(i)),))) for i in range(start, start + n)))


def replies(exchanges: list[Any]) -> int:
    return sum(exchange.reply is not None for exchange in exchanges)


def test_unequal_servers_reach_the_sum_of_both() -> None:
    fast, slow = Machine(1.0, at_once=8), Machine(3.0, at_once=8)
    client = Client(Machines(fast, slow), concurrency=16)
    exchanges, seconds = run(asked(client, 1001))
    assert replies(exchanges) == 1001
    assert 1000 / (seconds - 1) > 0.95 * (8 / 1 + 8 / 3)  # less the first, which goes alone


def test_each_server_takes_the_concurrency_of_the_job_or_its_own() -> None:
    for limits, most in (((None, None), [5, 5]), ((2, None), [2, 5]), ((2, 9), [2, 9])):
        machines = Machine(), Machine(3.0)
        client = Client(Machines(*machines, limits=limits), concurrency=5)
        run(asked(client, 200))
        assert [m.most for m in machines] == most


def test_a_single_question_goes_to_the_faster_server() -> None:
    slow, fast = Machine(5.0), Machine(1.0)

    async def work() -> None:
        client = Client(Machines(slow, fast))
        for i in range(20):
            await asked(client, 1, i)

    run(work())
    assert slow.asked == 1


UNREACHABLE = Failure("unreachable", "nobody there")
FAULTS = [UNREACHABLE, Failure("connection", "hung up"), Answer(503, {"Retry-After": "60"}, b"loading")]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_dead_server_is_taken_out_and_brought_back(fault: Answer | Failure) -> None:
    one, other = Machine(), Machine()

    async def work() -> list[int]:
        client = Client(Machines(one, other), concurrency=4, retries=2)
        assert replies(await asked(client, 40)) == 40
        one.down = fault
        while_down = one.asked
        assert replies(await asked(client, 400, 1000)) == 400  # none is lost, and the server's own pause is its own
        while_down = one.asked - while_down
        one.down = None
        await asyncio.sleep(endpoints.OUT_LONGEST)
        before = one.asked
        assert replies(await asked(client, 40, 9000)) == 40
        return [while_down, one.asked - before]

    (while_down, after), seconds = run(work())
    assert while_down <= 4 + 10  # those in flight, and a single one after each pause
    assert after >= 18  # its share again
    assert seconds < 60 + 400 / 4 + endpoints.OUT_LONGEST


def test_a_server_that_is_back_gets_one_request_first() -> None:
    one, other = Machine(), Machine()
    one.down = UNREACHABLE

    async def work() -> int:
        client = Client(Machines(one, other), concurrency=8)
        await asked(client, 30)
        one.down, one.most = None, 0
        one.hangs = True  # it accepts again, and says nothing
        await asyncio.sleep(endpoints.OUT_LONGEST)
        await asyncio.wait([asyncio.create_task(asked(client, 50, 100))], timeout=30)
        return one.most

    assert run(work())[0] == 1


def test_where_all_are_down_the_job_ends_as_with_one() -> None:
    machines = Machine(), Machine()
    for machine in machines:
        machine.down = UNREACHABLE
    client = Client(Machines(*machines), retries=3)
    with pytest.raises(BackendRefused, match="nobody there"):
        run(asked(client, 1))
    assert sum(machine.asked for machine in machines) == 4


def test_one_server_that_asks_for_a_pause_does_not_stop_the_other() -> None:
    one, other = Machine(), Machine()

    async def work() -> float:
        client = Client(Machines(one, other), concurrency=4)
        await asked(client, 9)
        one.down = Answer(429, {"Retry-After": "100"}, b"{}")
        began = asyncio.get_running_loop().time()
        assert replies(await asked(client, 40, 100)) == 40
        one.down = None
        return asyncio.get_running_loop().time() - began

    assert run(work())[0] <= 40 / 4 + 2
    assert one.asked <= 9 + 4


def test_a_server_without_quota_ends_the_job() -> None:
    one, other = Machine(), Machine()
    one.down = Answer(429, {}, b'{"error": {"message": "broke", "code": "insufficient_quota"}}')
    with pytest.raises(BackendRefused, match="no quota"):
        run(asked(Client(Machines(one, other)), 8))


def test_a_server_that_hangs_is_taken_out() -> None:
    one, other = Machine(), Machine()

    async def work() -> int:
        client = Client(Machines(one, other), concurrency=4, timeout=20)
        await asked(client, 9)
        one.hangs = True
        assert replies(await asked(client, 300, 100)) == 300
        return one.asked

    assert run(work())[0] <= 9 + 4 + 10


# --- over the wire


def test_addresses_are_read_with_their_limits_and_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://a/v1#concurrency=16, https://u:secret-word@b:8000/v1/,")
    one, other = servers(None, "key-in-common")
    assert (one.url, one.limits, one.authorization) == ("http://a/v1", (16,), "Bearer key-in-common")
    assert (other.url, other.limits) == ("https://b:8000/v1", (None,))
    assert other.authorization.startswith("Basic ")
    assert "secret-word" in other.secrets


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://a/v1,http://a/v1/", "an address is given twice"),
        ("http://a/v1#concurrency=0", "#concurrency=0 is no limit"),
        ("http://a/v1#color=3", "#color=3 is no limit"),
        ("http://a/v1,ftp://user:hidden@b/v1", "ftp://b/v1: this is no address"),
    ],
)
def test_addresses_that_cannot_be_used(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        servers(text, "")
    assert "hidden" not in str(raised.value)


def test_two_servers_share_a_job_and_its_ledger(tmp_path: Path) -> None:
    async def work(url: str, n: int) -> tuple[list[Any], str]:
        client = Client(OpenAIBackend("m", base_url=url), ledger=Ledger(tmp_path / "ledger"), concurrency=2)
        exchanges = await asked(client, n)
        await client.aclose()
        return exchanges, client.origin

    with Stub(lambda *_: "one") as one, Stub(lambda *_: "two") as two:
        exchanges, origin = asyncio.run(work(f"{one.url},{two.url}", 40))
        assert replies(exchanges) == 40
        assert len(one.bodies) + len(two.bodies) == 40
        assert min(len(one.bodies), len(two.bodies)) >= 1
        assert max(one.most_in_flight, two.most_in_flight) <= 2
        assert origin == f"{one.url},{two.url}"
        # The address is no part of the key: a server alone answers from the same ledger.
        exchanges, _ = asyncio.run(work(two.url, 40))
        assert all(exchange.reused for exchange in exchanges)


def test_the_questions_of_a_server_that_is_gone_go_to_the_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"

    async def work(url: str) -> list[Any]:
        client = Client(OpenAIBackend("m", base_url=url), retries=2, concurrency=4)
        exchanges = await asked(client, 20)
        await client.aclose()
        return exchanges

    with Stub(lambda *_: "ok") as stub:
        assert replies(asyncio.run(work(f"{gone},{stub.url}"))) == 20


def test_no_key_of_any_server_is_told() -> None:
    def handler(body: dict[str, Any], _: int) -> web.Response:
        return web.json_response({"error": {"message": "bad first-secret and other-secret"}}, status=400)

    async def work(url: str) -> list[Failure | Reply]:
        backend = OpenAIBackend("m", base_url=url, api_key="")
        assert "secret" not in backend.origin
        outcomes = [await backend.complete(Request((("user", "hi"),))) for _ in range(2)]
        await backend.aclose()
        return outcomes

    with Stub(handler) as one, Stub(handler) as two:
        hosts = [stub.url.removeprefix("http://") for stub in (one, two)]
        outcomes = asyncio.run(work(f"http://u:first-secret@{hosts[0]},http://u:other-secret@{hosts[1]}"))
    assert {o.detail for o in outcomes if isinstance(o, Failure)} == {"HTTP 400: bad *** and ***"}
