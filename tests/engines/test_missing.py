"""What is not there: a model, an option, the memory to start. It is told in a sentence, and nothing waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from llmrank.errors import InputError
from llmrank.llm.backends import open_backend
from llmrank.llm.client import BackendRefused
from llmrank.llm.types import Request
from llmrank.rerank.reranker import Reranker
from tests.engines.conftest import OPTIONS, Server


def test_a_model_that_the_server_does_not_have_ends_the_job_after_one_request(servers: Mapping[str, Server]) -> None:
    backend = open_backend("openai:no-such-model", base_url=servers["vllm"].wait())
    with (
        Reranker("pointwise", backend=backend, template="pointwise/graded", ledger="none") as reranker,
        pytest.raises(BackendRefused, match="does not know the model") as refused,
    ):
        reranker.rank("rivers", ["one", "two", "three"])
    assert refused.value.failure is not None
    assert refused.value.failure.kind == "unknown-model"


def test_a_server_that_breaks_over_a_model_that_it_does_not_have_is_a_failure(servers: Mapping[str, Server]) -> None:
    backend = open_backend("openai:no-such-model", base_url=servers["transformers"].wait())  # which answers 500
    with Reranker("pointwise", backend=backend, template="pointwise/graded", ledger="none", retries=1) as reranker:
        ranking = reranker.rank("rivers", ["one", "two", "three"])
    assert [hit.document.text for hit in ranking] == ["one", "two", "three"]
    assert (ranking.row.status, ranking.row.reasons) == ("failed", {"server": 3})


@pytest.mark.parametrize("kind", ["transformers", "vllm"])
def test_a_model_that_is_not_there_is_told_of_before_any_request(kind: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        open_backend(f"{kind}:no/such-model")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        open_backend(f"{kind}:{tmp_path}")
    with pytest.raises(InputError, match="on or off"):
        open_backend(f"{kind}:{model}", engine_options={"thinking": "perhaps"})


def test_an_engine_option_that_there_is_not_is_told_of(model: Path) -> None:
    backend = open_backend(f"vllm:{model}", engine_options={"max_model_length": 64})
    with pytest.raises(BackendRefused, match="did you mean max_model_len"):
        asyncio.run(backend.complete(Request(prompt="A")))


def test_an_engine_without_the_memory_to_start_ends_the_job(model: Path) -> None:
    backend = open_backend(f"vllm:{model}", engine_options=OPTIONS | {"num_gpu_blocks_override": 2})
    with (
        Reranker("pointwise", backend=backend, template="pointwise/graded", ledger="none") as reranker,
        pytest.raises(BackendRefused, match="could not be started") as refused,
    ):
        reranker.rank("rivers", ["one", "two", "three"])
    assert refused.value.exit_code == 5
