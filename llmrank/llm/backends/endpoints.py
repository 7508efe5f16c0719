"""Several servers of one model as one transport: each request goes to the least loaded that is in service.

A server that does not answer is taken out, and brought back when one request, sent after a pause, succeeds. One that
asks for a pause has it, while the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llmrank.llm.backends.servers import Server
from llmrank.llm.backends.transports import Transport
from llmrank.llm.backends.wire import Answer, retry_after
from llmrank.llm.types import Failure

OUT_SHORTEST, OUT_LONGEST = 0.5, 30.0  # seconds that a server stays out, doubling
HUNG = 5.0  # seconds without any answer, while others answer, after which a request given up speaks against a server
OUT_OF_SERVICE = frozenset({502, 503, 504})
SMOOTHING = 0.2  # weight of the newest latency
AT_ONCE: Mapping[str, str] = {"Retry-After": "0"}
"""Stands for the headers of a refusal that concerns one server only: another may be asked at once."""


@dataclass(slots=True)
class Endpoint:
    """One server, and how it is doing."""

    server: Server
    transport: Transport
    concurrency: int
    """Requests in flight at most; 0 for any number."""
    in_flight: int = 0
    latency: float = 0.0
    answered: float = float("-inf")
    """When it last answered anything."""
    faults: int = 0
    """In a row."""
    back: float = float("-inf")
    """When it may be asked again."""

    @property
    def load(self) -> float:
        return self.in_flight / (self.concurrency or 1)

    @property
    def has_room(self) -> bool:
        """One that had a fault is tried with a single request first."""
        return not self.in_flight if self.faults else not self.concurrency or self.in_flight < self.concurrency


class Pool:
    """A transport over several servers, for one event loop."""

    def __init__(self, servers: Sequence[Server], make: Callable[[Server], Transport], concurrency: int = 0) -> None:
        self.endpoints = [Endpoint(s, make(s), s.limits.concurrency or concurrency) for s in servers]
        self._waiting: list[asyncio.Future[None]] = []

    async def admit(self) -> None:
        """Waits until a server has room; where none is in service there is nothing to wait for."""
        while (usable := self._in_service()) and not any(endpoint.has_room for endpoint in usable):
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting

    async def post(self, path: str, body: bytes | None) -> Answer | Failure:
        clock = asyncio.get_running_loop().time
        endpoint, began = self._chosen(), clock()
        endpoint.in_flight += 1
        try:
            answer = await endpoint.transport.post(path, body)
        except asyncio.CancelledError:
            others = any(other.answered > began for other in self.endpoints)
            if clock() - began >= HUNG and endpoint.answered < began and others:
                self._take_out(endpoint)
            raise
        finally:
            endpoint.in_flight -= 1
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)
        return self._judged(endpoint, answer, clock() - began)

    async def close(self) -> None:
        for endpoint in self.endpoints:
            await endpoint.transport.close()

    def _in_service(self) -> list[Endpoint]:
        now = asyncio.get_running_loop().time()
        return [endpoint for endpoint in self.endpoints if endpoint.back <= now]

    def _chosen(self) -> Endpoint:
        """The least loaded server, of equally loaded ones the faster; where none is in service the next to be."""
        usable = self._in_service()
        if not usable:
            return min(self.endpoints, key=lambda endpoint: endpoint.back)
        with_room = [endpoint for endpoint in usable if endpoint.has_room]
        return min(with_room or usable, key=lambda endpoint: (endpoint.load, endpoint.latency))

    def _judged(self, endpoint: Endpoint, answer: Answer | Failure, seconds: float) -> Answer | Failure:
        """The answer as the job should see it: what concerns one server only is a reason to ask another at once."""
        now = asyncio.get_running_loop().time()
        if isinstance(answer, Answer) and answer.status not in OUT_OF_SERVICE:
            endpoint.answered, endpoint.faults = now, 0
            endpoint.latency += (seconds - endpoint.latency) * (SMOOTHING if endpoint.latency else 1.0)
            if answer.status == 429:
                endpoint.back = now + (retry_after(answer.headers) or OUT_SHORTEST)
                return answer._replace(headers=AT_ONCE) if self._in_service() else answer
            return answer
        self._take_out(endpoint)
        sound = [other for other in self.endpoints if not other.faults]
        if not sound:  # the job's own retries decide how long this may go on
            return answer
        wait = max(0.0, min(other.back for other in sound) - now)
        if isinstance(answer, Answer):
            return answer._replace(headers={"Retry-After": f"{wait:g}"})
        kind = "server" if answer.kind == "unreachable" else answer.kind
        return Failure(kind, f"{endpoint.server.url}: {answer.detail}; asking another server", wait)

    def _take_out(self, endpoint: Endpoint) -> None:
        endpoint.faults += 1
        pause = min(OUT_LONGEST, OUT_SHORTEST * 2 ** min(endpoint.faults - 1, 10))
        endpoint.back = asyncio.get_running_loop().time() + pause
