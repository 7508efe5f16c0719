"""A server that is killed in mid-job: a typed end, or every reply once it is back, and never a hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest

from llmrank.data.types import Query
from llmrank.llm.client import BackendRefused, Exchange
from llmrank.llm.types import Backend, Request, Sampling
from llmrank.settings import Settings
from llmrank.templates import load
from tests.engines.conftest import LONGEST_START, Server

GRADE = load("pointwise/yes-no")
REQUESTS = [
    Request(GRADE.render(Query("q", "rivers"), [f"passage {i}"]).messages, sampling=Sampling(max_tokens=1, logprobs=20))
    for i in range(100)
]


def values(exchanges: Sequence[Exchange]) -> list[float]:
    replies = [exchange.reply for exchange in exchanges]
    answers = [GRADE.read(reply, 1) for reply in replies if reply is not None]
    assert [answer.status for answer in answers] == ["ok"] * len(REQUESTS)
    return [answer.value for answer in answers]  # type: ignore[union-attr]


def test_a_job_outlives_its_server_or_ends_with_a_typed_failure(
    servers: Mapping[str, Server], backend_of: Callable[[str], Backend]
) -> None:
    server, backend = servers["vllm"], backend_of("vllm-http")

    async def job(retries: int, begun: asyncio.Event | None = None) -> list[Exchange | BaseException]:
        client = Settings(ledger="none", concurrency=4, retries=retries, timeout=60).client(backend)

        async def ask(request: Request) -> Exchange:
            try:
                return await client.ask(request)
            finally:
                if begun is not None:
                    begun.set()

        try:
            return await asyncio.gather(*map(ask, REQUESTS), return_exceptions=True)
        finally:
            await client.aclose()

    async def jobs() -> list[list[Exchange | BaseException]]:
        undisturbed = await job(retries=0)
        begun = asyncio.Event(), asyncio.Event()
        impatient, patient = (asyncio.create_task(job(n, b)) for n, b in zip((1, 1000), begun, strict=True))
        await asyncio.gather(*(event.wait() for event in begun))
        server.kill()
        ended = await impatient
        server.start()
        return [undisturbed, ended, await patient]

    undisturbed, ended, patient = asyncio.run(asyncio.wait_for(jobs(), 2 * LONGEST_START))
    wanted = values([e for e in undisturbed if isinstance(e, Exchange)])
    assert values([e for e in patient if isinstance(e, Exchange)]) == pytest.approx(wanted, abs=1e-4)
    told = [outcome for outcome in ended if not isinstance(outcome, Exchange)]
    assert told
    for outcome in told:
        assert isinstance(outcome, BackendRefused)
        assert outcome.failure is not None
        assert outcome.failure.kind == "unreachable"
