"""How many requests to keep in flight, found out as the job goes."""

from __future__ import annotations

import math

from llmrank.llm.limits import Slots
from llmrank.llm.types import Failure, Reply

START = 8  # requests in flight at first
GROWTH, SHRINKING = 1.5, 0.7
WORTH_IT = 1.1  # a step up is kept where it gave at least so many times the replies a second
PATIENCE = 4  # steps that a level is kept, doubling, after a step up that was not worth it


class Adaptive:
    """Sets the number of slots by climbing: up while more in flight gives more replies a second, down on a 429.

    A server that has room answers in the same time however much it is asked; one that is full takes longer instead, and
    then more in flight gives no more replies.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._most = slots.size
        self._level = min(START, slots.size)
        self._before: tuple[int, float] | None = None
        """The level before the last step up, and its replies a second."""
        self._replies = 0
        self._began: float | None = None
        self._resting = self._rests = 0
        self._full = False
        slots.resize(self._level)

    @property
    def level(self) -> int:
        """Requests in flight, at most."""
        return self._level

    def seen(self, outcome: Reply | Failure, now: float) -> None:
        """One request has ended."""
        if self._began is None:
            self._began = now
            return
        if isinstance(outcome, Failure) and outcome.kind == "rate-limited":
            if self._replies or self._before is not None:  # one step down for all that were in flight together
                self._rest()
                self._set(max(1, math.floor(self._level * SHRINKING)), now)
                self._before = None
            return
        self._replies += isinstance(outcome, Reply)
        self._full |= self._slots.load >= self._level
        if self._replies >= 2 * self._level and now > self._began:
            self._step(self._replies / (now - self._began), now)

    def _step(self, rate: float, now: float) -> None:
        before, self._before = self._before, None
        if before is not None and rate < before[1] * WORTH_IT:
            self._rest()
            self._set(before[0], now)
        elif self._resting > 0 or not self._full:  # a level that is not used up says nothing
            self._resting -= self._resting > 0
            self._set(self._level, now)
        elif self._level < self._most:
            self._before = self._level, rate
            self._set(min(self._most, math.ceil(self._level * GROWTH)), now)
        else:
            self._set(self._level, now)

    def _rest(self) -> None:
        self._resting = PATIENCE * 2 ** min(self._rests, 4)
        self._rests += 1

    def _set(self, level: int, now: float) -> None:
        self._level, self._replies, self._began, self._full = level, 0, now, False
        if self._slots.size != level:
            self._slots.resize(level)
