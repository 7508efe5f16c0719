"""A server that is killed in mid-job: a typed end, or every reply once it is back, and never a hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from llmrank.data.types import Query
from llmrank.llm.client import BackendRefused, Exchange
from llmrank.llm.types import Backend, Reply, Request, Sampling
from llmrank.questions import Grade
from llmrank.settings import Settings
from llmrank.templates import load
from tests.engines.conftest import LONGEST_START, Server

GRADE = load("pointwise/yes-no")
MESSAGES = [GRADE.render(Query("q", "rivers"), [f"passage {i}"]).messages for i in range(100)]


def graded(reply: Reply) -> float:
    answer = GRADE.read(reply, 1)
    assert isinstance(answer, Grade)
    assert answer.status == "ok"
    assert answer.value is not None
    return answer.value


def written(reply: Reply) -> str:
    return reply.text


@pytest.mark.parametrize(("name", "said", "logprobs"), [("vllm", graded, 20), ("transformers", written, 0)])
def test_a_job_outlives_its_server_or_ends_with_a_typed_failure(
    name: str,
    said: Callable[[Reply], float | str],
    logprobs: int,
    servers: Mapping[str, Server],
    backend_of: Callable[[str], Backend],
) -> None:
    server, backend = servers[name], backend_of(f"{name}-http")
    requests = [Request(messages, sampling=Sampling(max_tokens=1, logprobs=logprobs)) for messages in MESSAGES]

    async def job(retries: int, begun: asyncio.Event | None = None) -> list[Exchange | BaseException]:
        client = Settings(ledger="none", concurrency=4, retries=retries, timeout=60).client(backend)

        async def ask(request: Request) -> Exchange:
            try:
                return await client.ask(request)
            finally:
                if begun is not None:
                    begun.set()

        try:
            return await asyncio.gather(*map(ask, requests), return_exceptions=True)
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
    wanted = dict(replies(undisturbed))
    assert len(wanted) == len(requests)
    for outcomes in (ended, patient):
        got = {i: said(reply) for i, reply in replies(outcomes)}
        assert got == pytest.approx({i: said(wanted[i]) for i in got}, abs=1e-4)
    assert len(dict(replies(patient))) == len(requests)
    told = [outcome for outcome in ended if not isinstance(outcome, Exchange)]
    assert told
    for outcome in told:
        assert isinstance(outcome, BackendRefused)
        assert outcome.failure is not None
        assert outcome.failure.kind == "unreachable"


def replies(outcomes: Sequence[Exchange | BaseException]) -> Iterator[tuple[int, Reply]]:
    """The replies, by the places of their requests."""
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, Exchange) and outcome.reply is not None:
            yield i, outcome.reply
