"""Every method ranks alike with one model behind three engines: transformers, vLLM, vLLM over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmrank.data.types import Document, Query
from llmrank.llm.types import Backend
from llmrank.rerank.methods import all_methods
from llmrank.rerank.ranking import Ranking
from llmrank.rerank.reranker import Reranker
from tests.engines.conftest import MODELS
from tests.engines.test_same import ENGINES, TEXTS

MODEL = MODELS[-1]
DOCUMENTS = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]
QUERY = Query("q", "what flows through the valley")
METHODS = all_methods()
LETTERS = "listwise/first-token"
CASES: list[tuple[str, str | None]] = [(name, None) for name in METHODS]
# A random model writes no order of several numbers, but its letters have probabilities: enough for 26 at a time.
CASES += [(name, LETTERS) for name, m in METHODS.items() if m.template == "listwise/rank" and name != "full-list"]

WORDY = ("groupwise", "rubric-score", "explain-label")
"""Methods whose replies are more than a label."""


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each engine has a ledger of its own, so that what several methods ask is asked once."""
    return tmp_path_factory.mktemp("ledgers")


def ranked(name: str, method: str, template: str | None, ledgers: Path, backend: Backend) -> Ranking:
    settings: dict[str, Any] = {"timeout": 600, "temperature": 0.0, "context": 1024, "ledger": str(ledgers / name)}
    settings["max_completion_tokens"] = 16 if unread(method, template) else 1  # a random model goes on after its label
    with Reranker(method, backend=backend, template=template, **settings) as reranker:
        return reranker.rank(QUERY, DOCUMENTS)


def unread(method: str, template: str | None) -> bool:
    """Whether the template asks for more than a random model writes: all replies fail, and on every engine alike."""
    return template is None and (METHODS[method].template == "listwise/rank" or method in WORDY)


@pytest.mark.parametrize(("method", "template"), CASES)
def test_rankings_are_identical(
    method: str, template: str | None, ledgers: Path, backend_of: Callable[[str], Backend]
) -> None:
    model = "" if MODEL == "thinker" else f"/{MODEL}"
    rankings = [ranked(name, method, template, ledgers, backend_of(name + model)) for name in ENGINES]
    orders = [[hit.document.id for hit in ranking] for ranking in rankings]
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == sorted(document.id for document in DOCUMENTS)
    counts = [(r.row.questions, r.row.ok, r.row.repaired, r.row.failed, r.row.reasons) for r in rankings]
    assert counts[0] == counts[1] == counts[2]
    if not unread(method, template):
        assert rankings[0].row.ok + rankings[0].row.repaired > 0
