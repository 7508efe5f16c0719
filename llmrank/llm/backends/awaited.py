"""Work that coroutines of any event loop wait for, and a thread does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any


class Awaited:
    """A piece of work, and the coroutine that waits for its outcome."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()


def deliver(outcomes: Iterable[tuple[Awaited, Any]]) -> None:
    """Gives each waiting coroutine its outcome or its exception: one call into each event loop, however many wait."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Awaited, Any]]] = {}
    for awaited, outcome in outcomes:
        by_loop.setdefault(awaited.loop, []).append((awaited, outcome))
    for loop, of_loop in by_loop.items():
        with contextlib.suppress(RuntimeError):  # a loop that was closed has nobody waiting
            loop.call_soon_threadsafe(_settle, of_loop)


def _settle(outcomes: Iterable[tuple[Awaited, Any]]) -> None:
    for awaited, outcome in outcomes:
        if not awaited.future.done():
            if isinstance(outcome, BaseException):
                awaited.future.set_exception(outcome)
            else:
                awaited.future.set_result(outcome)
