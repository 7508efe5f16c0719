"""Clients and event loops: one client for each loop, closed with it, and a loop in a thread for callers without one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary, finalize

from llmrank.llm.client import Client

T = TypeVar("T")


class Clients:
    """The client of the running loop, made when it is first wanted. Nobody has to close it: its loop's end does."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._open: WeakKeyDictionary[asyncio.AbstractEventLoop, Client] = WeakKeyDictionary()
        self._guards: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = WeakKeyDictionary()

    def current(self) -> Client:
        loop = asyncio.get_running_loop()
        client = self._open.get(loop)
        if client is None:
            client = self._open[loop] = self._make()
            self._guards[loop] = _begun(_guard(client))
        client.revive()
        return client

    async def aclose(self) -> None:
        """Closes the running loop's client now: its connections and its ledger."""
        loop = asyncio.get_running_loop()
        self._open.pop(loop, None)
        guard = self._guards.pop(loop, None)
        if guard is not None:
            await guard.aclose()


class Closing(Protocol):
    """What a loop's end closes."""

    async def aclose(self) -> None: ...


class Background:
    """An event loop in a thread of its own: it works under any caller, a running loop or a notebook too."""

    def __init__(self, clients: Closing) -> None:
        self._clients = clients
        self._lock = threading.Lock()
        self._stop: Callable[[], object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of the coroutine; connections last from one call to the next."""
        with self._lock:
            if self._loop is None or self._process != os.getpid():  # a forked child has the loop but not its thread
                self._process = os.getpid()
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_serve, args=(self._loop,), name="llmrank", daemon=True).start()
                # Also when it is forgotten, and at the interpreter's end.
                self._stop = finalize(self, _stop, self._loop, self._clients)
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def close(self) -> None:
        """Closes what was opened; a later `run` opens it again."""
        with self._lock:
            if self._stop is not None:
                self._stop()
            self._loop = self._stop = None


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _stop(loop: asyncio.AbstractEventLoop, clients: Closing) -> None:
    closing = asyncio.run_coroutine_threadsafe(clients.aclose(), loop)
    closing.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
    with contextlib.suppress(Exception):
        if loop is not asyncio._get_running_loop():  # it may be the loop's own thread that collects the garbage
            closing.result(timeout=10)


async def _guard(client: Client) -> AsyncGenerator[None, None]:
    """Closes the client when it is closed itself, which `asyncio.run` does with all such generators at its end."""
    try:
        yield
    finally:
        await client.aclose()


def _begun(guard: AsyncGenerator[None, None]) -> AsyncGenerator[None, None]:
    """The generator, run to its `yield`: from there on the running loop knows of it."""
    with contextlib.suppress(StopIteration):
        guard.__anext__().__await__().__next__()
    return guard
