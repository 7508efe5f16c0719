"""A server that passes over log-probabilities is found out by its first replies, without a call made for it."""

from __future__ import annotations

import asyncio

import pytest

from llmrank import BackendRefused, Reranker
from llmrank.llm.types import Failure, Reply, Request
from llmrank.questions import Token


class Server:
    """Stands in for one: says yes, with log-probabilities from a certain reply on."""

    model, probed = "m", frozenset({"logprobs"})
    capabilities = frozenset({"text", "logprobs"})

    def __init__(self, from_reply: int) -> None:
        self.asked, self._from = 0, from_reply

    async def complete(self, request: Request) -> Reply | Failure:
        self.asked += 1
        for _ in range(20):  # turns of the loop, which a real server's reply takes too
            await asyncio.sleep(0)
        tokens = (Token("yes", -0.1, (("yes", -0.1), ("no", -2.3))),)
        return Reply("yes", tokens=tokens if self.asked > self._from else None)


def test_it_ends_the_job_after_three_replies() -> None:
    server = Server(from_reply=1000)
    with (
        Reranker("yes-no", backend=server, ledger="none", concurrency=1) as reranker,
        pytest.raises(BackendRefused, match="no log-probabilities"),
    ):
        reranker.rank("what", [f"text {i}" for i in range(50)])
    assert server.asked < 10


def test_one_reply_without_them_is_a_fault_like_others() -> None:
    server = Server(from_reply=1)
    with Reranker("yes-no", backend=server, ledger="none", concurrency=1) as reranker:
        ranking = reranker.rank("what", [f"text {i}" for i in range(50)])
    assert server.asked == 50
    assert ranking.row.repairs == {"no-logprobs": 1}
