"""Rounds without clocks: a strategy run once more over its remembered answers, each taking one unit of virtual time."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from itertools import count
from typing import Any, TypeVar

from llmrank.ask.base import Ask
from llmrank.questions import Answer, Question, unasked

T = TypeVar("T")


_Loop: Any = asyncio.AbstractEventLoop  # of whose many methods only those are needed that tasks and timers use


class VirtualLoop(_Loop):  # type: ignore[misc]
    """An event loop without a clock or files: when nothing is ready, its time jumps to the next timer."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = count()
        self._error: BaseException | None = None

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """The result of the coroutine. May be called while another loop runs, but not inside one of its tasks."""
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done():
                if not self._ready and not self._advance():
                    task.cancel()
                    raise RuntimeError("a strategy waits for something that is no question")
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
                if self._error is not None:
                    raise self._error
            result: T = task.result()
            return result
        finally:
            asyncio._set_running_loop(outer)

    def _advance(self) -> bool:
        while self._timers and not self._ready:
            self._now = self._due(self._timers[0][0])
        return bool(self._ready)

    def _due(self, when: float) -> float:
        """Makes all timers of that time ready at once, as a loop with a clock does; the time that it then is."""
        now = self._now
        while self._timers and self._timers[0][0] <= when:
            _, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled():
                now = when
                self._ready.append(timer)
        return now

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # there is one thread

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, **options)

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if "handle" in context:  # a callback failed; what nobody waited for is nobody's concern here
            self._error = context.get("exception") or RuntimeError(context["message"])

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by asyncio when a timer is cancelled; it is passed over when its time comes."""


class OneUnitEach(Ask):
    """Answers what was answered before, each question one unit of virtual time after it was asked, or two."""

    def __init__(self, answers: Mapping[Question, Answer]) -> None:
        self._answers = answers

    async def answer(self, question: Question) -> Answer:
        answer = self._answers.get(question) or unasked(question.kind, "not asked before")
        if answer.status != "unasked":
            await asyncio.sleep(2 if "closed" in getattr(answer, "repairs", ()) else 1)  # a verdict asked for apart
        return answer


def rounds_of(strategy: Callable[[Ask], Coroutine[Any, Any, Any]], ask: Ask) -> int:
    """The longest chain of questions that wait for each other; `ask` takes one unit a question."""
    loop = VirtualLoop()
    loop.run(strategy(ask))
    return round(loop.time())


async def outside_of_tasks(action: Callable[[], T]) -> T:
    """Runs the action as a callback of the running loop, where no task is current and another loop may run."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def call() -> None:
        try:
            done.set_result(action())
        except Exception as error:
            done.set_exception(error)

    loop.call_soon(call)
    return await done
