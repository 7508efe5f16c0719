"""Several vLLM engines in one process, as the stages of a cascade have them, neither disturb nor end each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmrank.llm.backends import open_backend
from llmrank.llm.types import Backend, Reply, Request, Sampling
from tests.engines.conftest import OPTIONS

PROMPTS = [f"Passage {i}: a river flows. Relevant? Answer:" for i in range(40)]


def asked(*backends: Any) -> list[list[str]]:
    """What each says to all prompts, asked for at once."""

    async def work() -> list[list[str]]:
        async def of(backend: Any) -> list[str]:
            requests = [Request(prompt=prompt, sampling=Sampling(max_tokens=12)) for prompt in PROMPTS]
            replies = await asyncio.gather(*map(backend.complete, requests))
            assert all(isinstance(reply, Reply) for reply in replies), replies
            return [reply.text for reply in replies if isinstance(reply, Reply)]

        return await asyncio.wait_for(asyncio.gather(*map(of, backends)), 600)

    return asyncio.run(work())


@pytest.mark.parametrize("closed_first", [0, 1])
def test_they_work_at_once_and_one_goes_on_when_another_ends(
    closed_first: int, model: Path, backend_of: Callable[[str], Backend]
) -> None:
    expected = asked(backend_of("vllm"))[0]
    two: list[Any] = [open_backend(f"vllm:{model}", engine_options=OPTIONS) for _ in range(2)]
    assert asked(*two) == [expected, expected]
    two.pop(closed_first).close()
    assert asked(*two) == [expected]
    two.pop().close()
    assert asked(backend_of("vllm")) == [expected]
