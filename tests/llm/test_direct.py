"""Connections of our own: used again while the server keeps them, and never for somebody else's answer."""

from __future__ import annotations

import asyncio
import gc
import gzip
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.llm.backends.servers import servers
from llmrank.llm.backends.transports import TRANSPORTS, Aiohttp
from llmrank.llm.backends.wire import Answer
from llmrank.llm.types import Failure

T = TypeVar("T")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


class Peer:
    """A server that says exactly what it is told to: `says(request, nth on this connection)`; None closes."""

    def __init__(self, says: Callable[[bytes, int], bytes | None]) -> None:
        self.says = says
        self.connections = 0
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        nth = 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0"
                )
                request = head + await reader.readexactly(int(length.partition(b":")[2]))
                self.requests.append(request)
                said = self.says(request, nth)
                nth += 1
                if said is None:
                    break
                writer.write(said)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def with_peer(peer: Peer, work: Callable[[str], Awaitable[T]]) -> T:
    async def run() -> T:
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with asyncio.timeout(20):
                return await work(f"http://127.0.0.1:{port}/v1")
        finally:
            server.close()

    return asyncio.run(run())


def post(peer: Peer, *rounds: int, path: str = "/chat/completions") -> list[Answer | Failure]:
    """So many requests at once, round after round, over one transport."""

    async def work(url: str) -> list[Answer | Failure]:
        transport = TRANSPORTS["direct"](servers(url, "a-key-of-mine")[0])
        answers: list[Answer | Failure] = []
        for n in rounds:
            answers += await asyncio.gather(*(transport.post(path, b"%d" % (len(answers) + i)) for i in range(n)))
        await transport.close()
        return answers

    return with_peer(peer, work)


def echo(request: bytes, _: int = 0) -> bytes:
    body = request.partition(b"\r\n\r\n")[2]
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def test_connections_are_used_again_and_each_request_gets_its_own_answer() -> None:
    peer = Peer(echo)
    answers = post(peer, 5, 3, 5, 1)
    assert [a.body for a in answers if isinstance(a, Answer)] == [
        b"%d" % i for i in [*range(5), *range(5, 8), *range(8, 13), 13]
    ]
    assert peer.connections == 5


def test_what_is_sent() -> None:
    peer = Peer(echo)
    post(peer, 1, path="/chat/completions")
    head = peer.requests[0].decode().partition("\r\n\r\n")[0].split("\r\n")
    assert head[0] == "POST /v1/chat/completions HTTP/1.1"
    told = dict(line.split(": ", 1) for line in head[1:])
    assert told["Host"].startswith("127.0.0.1:")
    assert told["Authorization"] == "Bearer a-key-of-mine"
    assert told["Content-Type"] == "application/json"
    assert told["Content-Length"] == "1"
    assert told["User-Agent"] == "llmrank"


def test_a_get_has_no_body() -> None:
    async def work(url: str) -> Answer | Failure:
        transport = TRANSPORTS["direct"](servers(url + "?version=2", "")[0])
        try:
            return await transport.post("/models", None)
        finally:
            await transport.close()

    peer = Peer(echo)
    answer = with_peer(peer, work)
    assert isinstance(answer, Answer)
    assert peer.requests[0].startswith(b"GET /v1/models?version=2 HTTP/1.1\r\n")
    assert b"Content-Length" not in peer.requests[0]


@pytest.mark.parametrize(
    "says",
    [
        lambda request, _: echo(request).replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
        lambda request, nth: echo(request) if nth == 0 else None,
    ],
)
def test_a_connection_that_the_server_will_not_keep_is_not_used_again(
    says: Callable[[bytes, int], bytes | None],
) -> None:
    peer = Peer(says)
    answers = post(peer, 1, 1, 1)
    kept = [answer.body for answer in answers if isinstance(answer, Answer)]
    assert kept in ([b"0", b"1", b"2"], [b"0", b"2"])  # it may close just when it is asked again
    for failure in answers:
        assert isinstance(failure, Answer) or failure.kind == "connection"


def test_a_connection_that_was_closed_while_idle_is_noticed() -> None:
    async def work(url: str) -> list[Answer | Failure]:
        transport = TRANSPORTS["direct"](servers(url, "")[0])
        answers = []
        for i in range(3):
            answers.append(await transport.post("/x", b"%d" % i))
            while peer.open:  # its end of the connection is closed
                await asyncio.sleep(0)
            for _ in range(5):  # and ours has been told
                await asyncio.sleep(0)
        await transport.close()
        return answers

    class Closing(Peer):
        open = 0

        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.open += 1
            self.connections += 1
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head + await reader.readexactly(1))
            writer.write(echo(self.requests[-1]))
            writer.close()
            await writer.wait_closed()
            self.open -= 1

    peer = Closing(echo)
    answers = with_peer(peer, work)
    assert [a.body for a in answers if isinstance(a, Answer)] == [b"0", b"1", b"2"]
    assert peer.connections == 3


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "closed the connection without an answer"),
        (b"", "closed the connection without an answer"),
        (OK + b"h", "in the midst of its answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "in the midst of its answer"),
        (b"220 mail.example ESMTP\r\n\r\n", "it begins with '220 mail"),
    ],
)
def test_half_an_answer_is_a_failure_of_the_connection(said: bytes | None, why: str) -> None:
    class Rude(Peer):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1)
            writer.write(said or b"")
            writer.close()

    (failure,) = post(Rude(echo), 1)
    assert isinstance(failure, Failure)
    assert failure.kind == "connection"
    assert failure.retry
    assert why in failure.detail


def test_who_gave_up_leaves_no_answer_behind_for_the_next() -> None:
    release = asyncio.Event()

    class Slow(Peer):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            head = await reader.readuntil(b"\r\n\r\n")
            request = head + await reader.readexactly(1)
            self.requests.append(request)
            if len(self.requests) == 1:
                await release.wait()
            writer.write(echo(request))

    peer = Slow(echo)

    async def work(url: str) -> Answer | Failure:
        transport = TRANSPORTS["direct"](servers(url, "")[0])
        first = asyncio.create_task(transport.post("/x", b"1"))
        while not peer.requests:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        release.set()
        answer = await transport.post("/x", b"2")
        await transport.close()
        return answer

    answer = with_peer(peer, work)
    assert isinstance(answer, Answer)
    assert answer.body == b"2"
    assert peer.connections == 2


def test_an_answer_that_comes_before_all_was_sent_ends_the_connection() -> None:
    class Early(Peer):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK.replace(b"200 OK", b"413 Too Large") + b"no")
            await writer.drain()
            await reader.read()

    async def work(url: str) -> list[Answer | Failure]:
        transport = TRANSPORTS["direct"](servers(url, "")[0])
        answers = [await transport.post("/x", b"x" * 30_000_000) for _ in range(2)]
        await transport.close()
        return answers

    peer = Early(echo)
    answers = with_peer(peer, work)
    assert [a.status if isinstance(a, Answer) else a.kind for a in answers] == [413, 413]
    assert peer.connections == 2


def test_a_refusal_that_ends_with_the_connection_is_read_while_the_request_is_still_going_out() -> None:
    done = asyncio.Event()

    class Early(Peer):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\n\r\ntoo much")
            writer.write_eof()
            await done.wait()  # and reads no more
            writer.close()

    async def work(url: str) -> Answer | Failure:
        transport = TRANSPORTS["direct"](servers(url, "")[0])
        answer = await transport.post("/x", b"x" * 30_000_000)
        done.set()
        await transport.close()
        return answer

    answer = with_peer(Early(echo), work)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (413, b"too much")


def test_what_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(echo)
    monkeypatch.setattr("llmrank.llm.backends.direct.LONGEST_IDLE", 0.0)
    assert [a.body for a in post(peer, 1, 1, 1) if isinstance(a, Answer)] == [b"0", b"1", b"2"]
    assert peer.connections == 3


def test_whoever_gives_up_while_it_connects_leaves_no_connection_open() -> None:
    class Counting(Peer):
        open = 0

        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            self.open += 1
            try:
                await reader.read()  # to the end, which comes once the other side is closed
            except ConnectionError:
                pass
            finally:
                self.open -= 1
                writer.close()

    peer = Counting(echo)

    async def work(url: str) -> None:
        transport = TRANSPORTS["direct"](servers(url.replace("127.0.0.1", "localhost"), "")[0])
        for steps in range(60):
            asking = asyncio.create_task(transport.post("/x", b"1"))
            before = peer.connections
            while steps < 30 and peer.connections == before and not asking.done():
                await asyncio.sleep(0)
            for _ in range(steps % 30):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        for _ in range(100):
            await asyncio.sleep(0)
        while peer.open:
            await asyncio.sleep(0)
        await transport.close()

    gc.disable()  # it would close what was forgotten
    try:
        with_peer(peer, work)
    finally:
        gc.enable()
    assert peer.connections


def test_event_loops_that_know_fewer_options_will_do() -> None:
    class Plain(asyncio.SelectorEventLoop):
        """As uvloop's, whose `create_connection` takes these alone."""

        async def create_connection(  # type: ignore[override]
            self, factory: Any, host: Any = None, port: Any = None, *, ssl: Any = None, family: int = 0, proto: int = 0,
            flags: int = 0, sock: Any = None, local_addr: Any = None, server_hostname: Any = None,
            ssl_handshake_timeout: Any = None, ssl_shutdown_timeout: Any = None,
        ) -> Any:  # fmt: skip
            return await super().create_connection(
                factory, host, port, ssl=ssl, sock=sock, server_hostname=server_hostname
            )

    async def work() -> Answer | Failure:
        server = await asyncio.start_server(Peer(echo).serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        transport = TRANSPORTS["direct"](servers(url, "")[0])
        try:
            async with asyncio.timeout(20):
                return await transport.post("/x", b"1")
        finally:
            await transport.close()
            server.close()

    with asyncio.Runner(loop_factory=Plain) as runner:
        answer = runner.run(work())
    assert isinstance(answer, Answer)
    assert answer.body == b"1"


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
    "utf-8": bytes,
}


@st.composite
def said_by_a_server(draw: st.DrawFn) -> bytes:
    """Any answer that a server may give."""
    encoding = draw(st.sampled_from(list(COMPRESSED)))
    body = COMPRESSED[encoding](draw(st.binary(min_size=1, max_size=300)))
    framing = draw(st.sampled_from(["length", "chunked", "close", "none"]))
    status = 204 if framing == "none" else draw(st.sampled_from([200, 201, 400, 404, 413, 429, 500, 503]))
    headers = {"Retry-After": draw(st.sampled_from(["7", " 7 ", "\t0.5"])), "X-Other": "a: b"}
    headers |= {"Content-Encoding": encoding} if encoding else {}
    headers |= {"Connection": "close"} if framing == "close" or draw(st.booleans()) else {}
    if framing == "length":
        headers["Content-Length"] = str(len(body))
    elif framing == "chunked":
        headers["Transfer-Encoding"] = draw(st.sampled_from(["chunked", "Chunked"]))
        size = draw(st.integers(1, 100))
        parts = [body[i : i + size] for i in range(0, len(body), size)]
        body = b"".join(b"%X;q=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nA: 1\r\n\r\n"
    case: Callable[[str], str] = draw(st.sampled_from([str.lower, str.upper, str.title]))
    told = [f"{case(name)}:{value}" for name, value in draw(st.permutations(list(headers.items())))]
    before = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    head = "\r\n".join([f"HTTP/1.1 {status}{draw(st.sampled_from([' OK', ' ', '']))}", *told, "", ""])
    return before + head.encode() + (b"" if framing == "none" else body)


@settings(max_examples=60, deadline=None)
@given(said_by_a_server())
def test_whatever_a_server_says_is_read_as_aiohttp_reads_it(said: bytes) -> None:
    class Saying(Peer):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1)
            writer.write(said)
            writer.close()

    async def work(url: str) -> list[tuple[int, bytes, str | None]]:
        found = []
        for name in ("direct", "aiohttp"):
            transport = TRANSPORTS[name](servers(url, "")[0])
            answer = await transport.post("/x", b"1")
            await transport.close()
            assert isinstance(answer, Answer), (name, answer)
            found.append((answer.status, answer.body, answer.headers.get("retry-after")))
        return found

    ours, theirs = with_peer(Saying(echo), work)
    assert ours == theirs


def test_a_key_does_not_follow_to_another_server() -> None:
    other = Peer(echo)

    async def work(url: str) -> Answer | Failure:
        elsewhere = await asyncio.start_server(other.serve, "127.0.0.1", 0)
        port = elsewhere.sockets[0].getsockname()[1]
        moved = b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:%d/v1/x\r\nContent-Length: 0\r\n\r\n" % port
        peer.says = lambda *_: moved
        transport = TRANSPORTS["direct"](servers(url, "a-key-of-mine")[0])
        try:
            return await transport.post("/x", b"1")
        finally:
            await transport.close()
            elsewhere.close()

    peer = Peer(echo)
    answer = with_peer(peer, work)
    assert isinstance(answer, Answer)
    assert answer.body == b"1"
    assert b"a-key-of-mine" in peer.requests[0]
    assert [b"a-key-of-mine" in request for request in other.requests] == [False]


def test_where_a_server_sends_its_clients_on_is_followed() -> None:
    def says(request: bytes, _: int) -> bytes:
        if request.startswith(b"POST /v1/old"):
            return b"HTTP/1.1 307 Moved\r\nLocation: /v1/new\r\nContent-Length: 0\r\n\r\n"
        return echo(request)

    peer = Peer(says)
    answers = post(peer, 2, path="/old")
    assert [a.body for a in answers if isinstance(a, Answer)] == [b"0", b"1"]
    assert any(request.startswith(b"POST /v1/new") for request in peer.requests)


def test_nobody_there_is_unreachable() -> None:
    async def work(url: str) -> list[Answer | Failure]:
        told = []
        for address in ("http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://no-such-host.invalid/v1"):
            transport = TRANSPORTS["direct"](servers(address, "")[0])
            told.append(await transport.post("/x", b""))
            await transport.close()
        return told

    for failure in with_peer(Peer(echo), work):
        assert isinstance(failure, Failure)
        assert failure.kind == "unreachable"
        assert failure.detail


def test_through_a_proxy_aiohttp_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    async def work() -> bool:
        made = TRANSPORTS["direct"](servers("http://models.example/v1", "")[0])
        await made.close()
        return isinstance(made, Aiohttp)

    assert asyncio.run(work())
