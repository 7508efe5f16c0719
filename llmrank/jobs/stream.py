"""Working on many queries at once: as many as keep the slots busy, so that memory is bounded for any number of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from llmrank.errors import LlmrankError
from llmrank.llm.limits import Slots

In = TypeVar("In")
Out = TypeVar("Out")

MOST = 3  # queries begun and not done, or done and not taken, for each place in the queue of prompts, at most
TURNS = 6  # turns of the loop until the questions of a query that has just begun have all come up


async def stream(
    requests: Iterable[In],
    work: Callable[[In], Awaitable[Out]],
    prompts: Slots,
    several: Callable[[In], bool] = lambda request: False,
) -> AsyncIterator[tuple[int, Out]]:
    """(place, result) of each request as it is done. The first error ends everything that runs, and is raised.

    A further request is begun while the queue of prompts has room; `several` tells those that ask much at once.
    """
    done: asyncio.Queue[tuple[int, Out] | None] = asyncio.Queue()
    running: set[asyncio.Task[None]] = set()
    errors: list[BaseException] = []
    wake, most = asyncio.Event(), MOST * prompts.size
    prompts.when_below(prompts.size, wake.set)

    def full() -> bool:
        return done.qsize() > most or (bool(running) and (prompts.load >= prompts.size or len(running) >= most))

    async def one(place: int, request: In) -> None:
        done.put_nowait((place, await work(request)))

    async def feed() -> None:
        for place, request in enumerate(requests):
            while full():
                wake.clear()
                await wake.wait()
            task = asyncio.create_task(one(place, request))
            running.add(task)
            task.add_done_callback(ended)
            # Lets it ask, so that the load is known before the next one is begun.
            for _ in range(TURNS if several(request) else len(running) > prompts.size // MOST):
                await asyncio.sleep(0)
        while running:
            await asyncio.wait(set(running))
        done.put_nowait(None)

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        wake.set()
        stop(task)

    def stop(task: asyncio.Task[None]) -> None:
        """Ends everything where a task failed, or was cancelled by something else than this."""
        error = LlmrankError("a question was cancelled by its backend") if task.cancelled() else task.exception()
        if error is not None and not errors:
            errors.append(error)
            feeding.cancel()
            done.put_nowait(None)

    feeding = asyncio.create_task(feed())
    feeding.add_done_callback(stop)
    try:
        while (result := await done.get()) is not None:
            yield result
            if done.qsize() <= most:
                wake.set()
        if errors:
            raise errors[0]
    finally:
        errors.append(LlmrankError("ended"))  # what is cancelled from here on is no error
        prompts.when_below(0, None)
        for task in (feeding, *running):
            task.cancel()
        await asyncio.gather(feeding, *running, return_exceptions=True)
