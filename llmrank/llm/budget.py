"""Budgets in calls, tokens and money: reserved before a request is sent, settled on its reply, never exceeded."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import NamedTuple


class Price(NamedTuple):
    """USD per million tokens."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """USD."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


class Amount(NamedTuple):
    """Calls, tokens and USD: of one request, of all so far, or of a limit."""

    calls: float = 0
    tokens: float = 0
    cost: float = 0.0

    def plus(self, other: Amount, sign: int = 1) -> Amount:
        return Amount(self.calls + sign * other.calls, self.tokens + sign * other.tokens, self.cost + sign * other.cost)

    def within(self, limit: Amount) -> bool:
        # Sums of prices are not exact; a hundred-millionth of a cent is not what a budget is about.
        return self.calls <= limit.calls and self.tokens <= limit.tokens and self.cost <= limit.cost + 1e-10


@dataclass(slots=True)
class Budget:
    """What one invocation may spend. `spent` is settled, `reserved` is in flight; their sum never passes the limit.

    One budget may serve clients on several event loops and in several threads.
    """

    limit: Amount
    spent: Amount = Amount()
    reserved: Amount = Amount()
    ended: str | None = None
    """The limit that ended the job, in words, once there is one."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list)

    @classmethod
    def of(
        cls, max_calls: int | None = None, max_tokens: int | None = None, max_cost: float | None = None
    ) -> Budget | None:
        """A budget, or None where nothing is limited."""
        if max_calls is None and max_tokens is None and max_cost is None:
            return None
        return cls(Amount(*(float("inf") if m is None else m for m in (max_calls, max_tokens, max_cost))))

    async def reserve(self, amount: Amount) -> bool:
        """Sets the amount aside; False where it does not fit even when everything in flight has been settled."""
        while True:
            with self._lock:
                if self.ended is not None:
                    return False
                wanted = self.spent.plus(amount)
                if not wanted.within(self.limit):
                    self.ended = self._reason(wanted)
                    return False
                if wanted.plus(self.reserved).within(self.limit):
                    self.reserved = self.reserved.plus(amount)
                    return True
                changed = asyncio.Event()
                self._waiting.append((asyncio.get_running_loop(), changed))
            await changed.wait()

    def settle(self, reserved: Amount, actual: Amount) -> None:
        """Replaces a reservation by what it came to; never less than one call where one was sent."""
        with self._lock:
            self.reserved = self.reserved.plus(reserved, -1)
            self.spent = self.spent.plus(actual)
            waiting, self._waiting = self._waiting, []
        for loop, changed in waiting:
            with contextlib.suppress(RuntimeError):  # a loop that was closed meanwhile waits for nothing
                loop.call_soon_threadsafe(changed.set)

    def _reason(self, wanted: Amount) -> str:
        if wanted.calls > self.limit.calls:
            return f"--max-calls {self.limit.calls:.0f}"
        if wanted.tokens > self.limit.tokens:
            return f"--max-tokens {self.limit.tokens:.0f}"
        return f"--max-cost {self.limit.cost:g}"
