"""Connections of our own to a server, kept alive, one request at a time on each: a fifth of what aiohttp takes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmrank.llm.backends.http1 import ENCODINGS, Malformed, Reading
from llmrank.llm.backends.servers import Server, tls
from llmrank.llm.backends.wire import Answer
from llmrank.llm.types import Failure

if TYPE_CHECKING:
    from llmrank.llm.backends.transports import Transport

LONGEST_IDLE = 4.0  # seconds; uvicorn, Node and cpp-httplib close after 5, when a request may be on its way
SECOND_FAMILY = 0.25  # seconds after which IPv4 is tried beside IPv6, as RFC 8305 has it
MOVED = frozenset({301, 302, 303, 307, 308})


class Direct:
    """The default transport, for servers that are reached without a proxy.

    `elsewhere` makes the transport that follows where a server sends its clients on.
    """

    def __init__(self, server: Server, elsewhere: Callable[[Server], Transport]) -> None:
        self._server, self._elsewhere = server, elsewhere
        self._loop = asyncio.get_running_loop()
        self._tls = _context(server)
        self._heads: dict[str, bytes] = {}
        self._idle: list[_Connection] = []
        self._open: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._moved: Transport | None = None
        weakref.finalize(self, _close_left_open, self._open, self._loop)

    async def post(self, path: str, body: bytes | None) -> Answer | Failure:
        connection = self._kept()
        if connection is None:
            made = await self._connected()
            if isinstance(made, Failure):
                return made
            connection = made
        try:
            answer = await connection.answered(self._head(path, body), body or b"")
        except (OSError, Malformed) as error:
            connection.close()
            return Failure("connection", f"{type(error).__name__}: {error}")
        except BaseException:  # whoever asked has given up: what comes now would answer somebody else
            connection.close()
            raise
        if connection.usable:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
        else:
            connection.close()
        if answer.status in MOVED and "location" in answer.headers:
            if self._moved is None:
                self._moved = self._elsewhere(self._server)
            return await self._moved.post(path, body)
        return answer

    async def close(self) -> None:
        for connection in list(self._open):
            connection.close()
        self._idle.clear()
        if self._moved is not None:
            await self._moved.close()
        await asyncio.sleep(0)  # in which the loop lets go of the sockets

    def _kept(self) -> _Connection | None:
        """The connection that was used last, if there is one that can be used again."""
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now - connection.idle_since < LONGEST_IDLE:
                return connection
            connection.close()
        return None

    async def _connected(self) -> _Connection | Failure:
        import aiohappyeyeballs  # asyncio's own option for this leaks sockets when cancelled, and uvloop lacks it
        import yarl

        try:
            url = yarl.URL(self._server.url)
            host = url.raw_host or ""
            addresses = await self._loop.getaddrinfo(host, url.port or 0, type=socket.SOCK_STREAM)
            reached = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=SECOND_FAMILY)
            _, connection = await self._loop.create_connection(
                _Connection, sock=reached, ssl=self._tls, server_hostname=host if self._tls else None
            )
        except ssl.SSLCertVerificationError as error:
            return Failure("unreachable", f"{error}; trust its issuer with SSL_CERT_FILE")
        except OSError as error:
            return Failure("unreachable", str(error) or type(error).__name__)  # a TLS handshake cut short says nothing
        except ValueError as error:  # a name that cannot be one, as with a label of more than 63 letters
            return Failure("unreachable", f"{self._server.url} is no address ({error})")
        self._open.add(connection)
        return connection

    def _head(self, path: str, body: bytes | None) -> bytes:
        """The request up to its body. Made once for each path, but for the length."""
        begun = self._heads.get(path)
        if begun is None:
            begun = self._heads[path] = _begun(self._server, path)
        if body is None:
            return b"GET%b\r\n" % begun
        return b"POST%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (begun, len(body))


class _Connection(asyncio.Protocol):
    """One connection, on which one request at a time waits for its answer."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.usable = True
        self._transport: Any = None
        self._reading: Reading | None = None
        self._waiting: asyncio.Future[Answer] | None = None

    async def answered(self, head: bytes, body: bytes) -> Answer:
        """What the server answers. Raises OSError or Malformed."""
        self._reading = Reading()
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(head + body)  # not `writelines`, which from Python 3.12 on spins over an empty body
        return await self._waiting

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._reading is None:  # out of turn: some servers tell that they close, and why
            self.close()
            return
        try:
            answer = self._reading.feed(data)
        except Malformed as error:
            self._end(error)
            return
        if answer is not None:
            self.usable = self._reading.keeps and not self._transport.get_write_buffer_size()
            self._end(answer)

    def eof_received(self) -> None:
        self._over(None)  # not only once all is sent: what ends here may be the refusal of a request that is too long

    def connection_lost(self, error: Exception | None) -> None:
        self._over(error)

    def _over(self, error: Exception | None) -> None:
        self.usable = False
        if self._reading is None:
            return
        whole: Answer | Exception | None
        try:
            whole = self._reading.end() if error is None else None
        except Malformed as malformed:
            whole = malformed
        if whole is None:
            told = "in the midst of its answer" if self._reading.begun else "without an answer"
            whole = ConnectionResetError(f"the server closed the connection {told}" + (f" ({error})" if error else ""))
        self._end(whole)

    def _end(self, outcome: Answer | Exception) -> None:
        waiting, self._waiting, self._reading = self._waiting, None, None
        if waiting is None or waiting.done():
            return
        if isinstance(outcome, Exception):
            waiting.set_exception(outcome)
        else:
            waiting.set_result(outcome)


def _begun(server: Server, path: str) -> bytes:
    import yarl

    url = yarl.URL(server.at(path))
    headers = {
        "Host": url.host_port_subcomponent or "",
        "User-Agent": "llmrank",
        "Accept": "application/json",
        "Accept-Encoding": ENCODINGS,
        "Authorization": server.authorization,
    }
    told = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
    return f" {url.raw_path_qs} HTTP/1.1\r\n{told}".encode("latin-1")


def _context(server: Server) -> ssl.SSLContext | None:
    if not server.url.startswith("https:"):
        return None
    context = tls(server)
    if context is None:
        context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _close_left_open(connections: weakref.WeakSet[_Connection], loop: asyncio.AbstractEventLoop) -> None:
    """Closes what nobody closed, where its loop still runs; else the sockets go with their objects."""
    with contextlib.suppress(RuntimeError):
        for connection in list(connections):
            loop.call_soon_threadsafe(connection.close)
