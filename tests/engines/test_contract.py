"""Every backend does what it says it can, and is refused for the rest before anything is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmrank.cli.main import run
from llmrank.errors import InputError
from llmrank.llm.probe import examine, require
from llmrank.llm.types import CAPABILITIES, Backend, capabilities_of
from llmrank.rerank.reranker import Reranker
from llmrank.settings import Settings
from llmrank.templates import Template
from tests.engines.conftest import NAMES
from tests.engines.contract import PROMISES, replies_to

NEEDING = """---
name: test/needing
description: Needs {capability}.
question: grade
parser: score
range: [0, 10]
needs: [text, {capability}]
source: ours
---
{{% message "user" %}}{{{{ query.text }}}} {{{{ document.text }}}}{{% endmessage %}}
"""


def test_every_capability_has_a_promise() -> None:
    assert set(PROMISES) == set(CAPABILITIES)


@pytest.mark.parametrize("capability", list(CAPABILITIES))
@pytest.mark.parametrize("name", NAMES)
def test_a_backend_keeps_what_it_claims_and_is_refused_for_the_rest(
    name: str, capability: str, backend_of: Callable[[str], Backend]
) -> None:
    backend = backend_of(name)

    async def claimed() -> bool | None:
        client = Settings(ledger="none", timeout=600).client(backend)
        try:
            has = (await examine(client, capability)).has  # type: ignore[arg-type]
            if has:
                promise = PROMISES[capability]
                promise.kept(await replies_to(client, promise.requests))
            elif has is False and capability in capabilities_of(backend):
                with pytest.raises(InputError, match=capability):
                    await require(client, [capability], "this")
            return has
        finally:
            await client.aclose()

    if asyncio.run(claimed()) is False and capability not in capabilities_of(backend):
        with pytest.raises(InputError, match=capability):
            Reranker("pointwise", backend=backend, template=Template(NEEDING.format(capability=capability)))


def test_a_check_tells_of_the_engine_as_its_options_make_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--engine-option", "dtype=float32", "--engine-option", "max_model_len=64"]
    assert run(["backends", "check", f"vllm:{model}", "--json", "--ledger", "none", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["context"], told["calls"]) == (64, 0)
    assert all(row["has"] for row in told["capabilities"])
