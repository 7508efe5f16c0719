"""Who may send now: slots given to whoever has the longest way still to go, and requests and tokens per minute."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count


class Slots:
    """At most `size` requests in flight; the waiting one with the most remaining rounds goes first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.in_use = 0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._low_water = 0
        self._signal: Callable[[], None] | None = None

    def when_below(self, load: int, signal: Callable[[], None] | None) -> None:
        """Calls `signal` whenever a slot is given back and the load is below this."""
        self._low_water, self._signal = load, signal

    @property
    def load(self) -> int:
        """Requests in flight and waiting."""
        return self.in_use + len(self._waiting)

    def resize(self, size: int) -> None:
        """So many slots from now on. Of fewer, those in use beyond them go as they are given back."""
        self.size = size
        while self._waiting and self.in_use < self.size:
            granted = heapq.heappop(self._waiting)[2]
            if not granted.done():
                self.in_use += 1
                granted.set_result(None)

    async def acquire(self, remaining: float) -> None:
        """Waits for a slot. `remaining`: rounds that the asking query still has before it, this one included."""
        if self.in_use < self.size:
            self.in_use += 1
            return
        granted = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-remaining, next(self._order), granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.release()
            raise

    def release(self) -> None:
        if self._signal is not None and self.load <= self._low_water:
            self._signal()
        while self._waiting and self.in_use <= self.size:
            granted = heapq.heappop(self._waiting)[2]
            if not granted.done():  # a cancelled one stays in the heap until its turn
                granted.set_result(None)
                return
        self.in_use -= 1


class Rate:
    """At most `per_minute` units, spread evenly; a second's worth may come at once."""

    def __init__(self, per_minute: float) -> None:
        self.per_second = per_minute / 60
        self.burst = max(1.0, self.per_second)
        self._available = self.burst
        self._seen: float | None = None

    async def take(self, units: float) -> None:
        """Waits until `units` are free. More than the burst is let through once the debt is paid off."""
        now = asyncio.get_running_loop().time()
        if self._seen is not None:
            self._available = min(self.burst, self._available + (now - self._seen) * self.per_second)
        self._seen = now
        self._available -= units
        if self._available < 0:
            await asyncio.sleep(-self._available / self.per_second)

    def give(self, units: float) -> None:
        """Gives back what was taken and not needed after all."""
        self._available += units
