"""Working through a stream of requests while what is done goes to disk: the part that all jobs have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from llmrank.errors import InputError, LlmrankError
from llmrank.jobs.spool import Spool
from llmrank.llm.client import Client, Totals

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Request = TypeVar("Request")
Result = TypeVar("Result")

SECONDS_BETWEEN_TICKS = 0.5


class Worker(Protocol[In, Out]):
    """What works on a stream of requests: a reranker, a judge."""

    def client(self) -> Client: ...
    def numbered(self, requests: Iterable[In], /) -> AsyncIterator[tuple[int, Out]]: ...
    async def aclose(self) -> None: ...


@dataclass(slots=True)
class JobEnd:
    """How a job ended."""

    ended_by: str | None = None
    """The budget that ended it, where one did."""
    other_origins: set[str] = field(default_factory=set)
    """Addresses, other than the one in use, from which replies in the ledger came."""


async def work(
    worker: Worker[Request, Result],
    requests: Iterable[Request],
    begin: Callable[[], Spool],
    take: Callable[[int, Result], None],
    end: JobEnd,
    on_progress: Callable[[Totals], None],
) -> Spool:
    """Asks everything; returns the spool that `begin` opens, filled by what `take` does with each result.

    An error keeps the spool's file, but for one that came before anything was asked. `on_progress` is called when
    something is done, and every half second.
    """
    client = worker.client()  # a ledger that cannot be used shows here, before an earlier OUT.partial is touched
    ticking = asyncio.create_task(_every(SECONDS_BETWEEN_TICKS, lambda: on_progress(client.totals)))
    try:
        lines = begin()
        done = 0
        try:
            async for place, result in worker.numbered(requests):
                take(place, result)
                done += 1
                on_progress(client.totals)
        except LlmrankError as error:
            if client.totals.calls and error.exit_code == InputError.exit_code:
                error.exit_code = 1  # not the 2 that says that nothing was sent
            elif error.exit_code == InputError.exit_code and not done:
                lines.remove()
            raise
        end.ended_by = client.budget.ended if client.budget is not None else None
        end.other_origins = set(client.totals.other_origins)
        return lines
    finally:
        ticking.cancel()
        await worker.aclose()


async def _every(seconds: float, call: Callable[[], Any]) -> None:
    while True:
        await asyncio.sleep(seconds)
        call()
