"""Working on many queries at once: as many as keep the slots busy, so that memory is bounded for any number of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from llmrank.llm.limits import Slots

In = TypeVar("In")
Out = TypeVar("Out")

AHEAD = 3  # requests in flight and waiting, for each slot, above which no further query is begun
MOST = 8  # queries begun and not done, for each slot, at most


async def stream(
    requests: Iterable[In], work: Callable[[In], Awaitable[Out]], slots: Slots
) -> AsyncIterator[tuple[int, Out]]:
    """(place, result) of each request as it is done. The first error ends everything that runs, and is raised."""
    done: asyncio.Queue[tuple[int, Out] | None] = asyncio.Queue()
    running: set[asyncio.Task[None]] = set()
    wake = asyncio.Event()
    slots.when_below(AHEAD * slots.size, wake.set)

    async def one(place: int, request: In) -> None:
        done.put_nowait((place, await work(request)))

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        wake.set()
        if not task.cancelled() and task.exception() is not None and not feeding.done():
            feeding.cancel()
            errors.append(task.exception())  # type: ignore[arg-type]
            done.put_nowait(None)

    async def feed() -> None:
        for place, request in enumerate(requests):
            while running and (
                slots.load >= AHEAD * slots.size
                or len(running) >= MOST * slots.size
                or done.qsize() > MOST * slots.size
            ):
                wake.clear()
                await wake.wait()
            task = asyncio.create_task(one(place, request))
            running.add(task)
            task.add_done_callback(ended)
            if len(running) > slots.size:
                await asyncio.sleep(0)  # lets it ask, so that the load is known before the next one is begun
        while running:
            await asyncio.wait(set(running))
        done.put_nowait(None)

    def fed(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:  # the requests themselves could not be read
            errors.append(task.exception())  # type: ignore[arg-type]
            done.put_nowait(None)

    errors: list[BaseException] = []
    feeding = asyncio.create_task(feed())
    feeding.add_done_callback(fed)
    try:
        while (result := await done.get()) is not None:
            yield result
            if done.qsize() <= MOST * slots.size:
                wake.set()
        if errors:
            raise errors[0]
    finally:
        slots.when_below(0, None)
        for task in (feeding, *running):
            task.cancel()
        await asyncio.gather(feeding, *running, return_exceptions=True)
