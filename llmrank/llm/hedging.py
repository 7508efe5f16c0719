"""Hedging: a request that takes longer than most is sent a second time, and the first reply counts."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from llmrank.errors import InputError
from llmrank.llm.limits import Slots
from llmrank.llm.types import Failure, Reply

REMEMBERED = 200  # latencies
ENOUGH = 20  # latencies before any is called long
AGAIN = 1.0  # seconds between looks at whether a slow request can be doubled now

Outcome = Reply | Failure | None


class Hedging:
    """Doubles what is slower than a share of the latest replies, where a slot is free that nobody waits for."""

    def __init__(self, quantile: float, slots: Slots) -> None:
        if not 0 < quantile < 1:
            raise InputError(f"--hedge {quantile:g}: it must lie between 0 and 1, like 0.95")
        self.latencies = Latencies(quantile)
        self._slots = slots

    async def first(self, attempt: Callable[[], Coroutine[Any, Any, Outcome]], allowed: Callable[[], bool]) -> Outcome:
        """The outcome of an attempt, or of a second one begun beside it if that replies first.

        allowed: whether a second attempt may be made now.
        """
        tasks = [asyncio.ensure_future(attempt())]
        began = asyncio.get_running_loop().time()
        try:
            while (patience := self._patience(began, allowed)) > 0 and not tasks[0].done():
                await asyncio.wait(tasks, timeout=patience)
            if tasks[0].done():
                return tasks[0].result()
            await self._slots.acquire(0.0)  # there is one: it is granted at once
            try:
                tasks.append(asyncio.ensure_future(attempt()))
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                winner, other = tasks if tasks[0].done() else reversed(tasks)
                return await (winner if isinstance(winner.result(), Reply) else other)
            finally:
                self._slots.release()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # until they have settled with the budget

    def _patience(self, began: float, allowed: Callable[[], bool]) -> float:
        """Seconds to wait before an attempt that began then may be doubled, or before that is asked again; 0: now."""
        long = self.latencies.long
        left = AGAIN if long is None else began + long - asyncio.get_running_loop().time()
        if left > 0:
            return left
        return 0.0 if self._slots.in_use < self._slots.size and allowed() else AGAIN


class Latencies:
    """The latencies of the last replies, and the one that so many of them stay below."""

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        if len(self._recent) > REMEMBERED:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    @property
    def long(self) -> float | None:
        """Seconds after which a request is one of the slowest; None while too few are known."""
        n = len(self._sorted)
        return None if n < ENOUGH else self._sorted[min(n - 1, math.ceil(self._quantile * n) - 1)]
