"""Anytime: whatever ends a query early, a deadline or a budget, the best order so far comes out, marked as partial."""

from __future__ import annotations

from typing import Any

import pytest

from llmrank import Document, Reranker
from llmrank.ask.virtual import VirtualLoop
from llmrank.llm.backends.simulated import Errors, SimulatedBackend
from llmrank.rerank.methods import all_methods
from llmrank.rerank.ranking import Ranking

DOCUMENTS = [Document(f"d{i}", f"text {i}") for i in range(24)]
GRADES = {"query": {d.id: i * 7 % 4 for i, d in enumerate(DOCUMENTS)}}
METHODS = list(all_methods())
SLOTS = 3
OPTIONS: dict[str, dict[str, object]] = {"active": {"budget": 20}}
"""For what takes long otherwise."""


def judge(latency: str = "1") -> SimulatedBackend:
    return SimulatedBackend(GRADES, Errors(latency=latency))


def ranked(method: str, **more: Any) -> tuple[Ranking, float, int]:
    """The ranking, the time that it took without a clock, and the requests that were sent."""
    given = {"options": OPTIONS.get(method, {}), "ledger": "none", "concurrency": SLOTS} | more
    reranker = Reranker(method, backend=judge(), **given)
    loop = VirtualLoop()
    ranking = loop.run(reranker.arank("q", DOCUMENTS))
    return ranking, loop.time(), reranker._models._totals.calls


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("deadline", [0.5, 2.5])
def test_a_deadline_ends_any_method_with_every_document_and_nothing_sent_after_it(method: str, deadline: float) -> None:
    whole, needed, _ = ranked(method)
    ranking, took, sent = ranked(method, deadline=deadline)
    row = ranking.row
    assert sorted(ranking.ids) == sorted(whole.ids)
    assert took == min(deadline, needed)
    assert row.status == ("partial" if deadline < needed else whole.row.status)
    assert row.questions <= SLOTS * int(deadline)
    assert row.calls == sent <= SLOTS * (int(deadline) + 1)
    assert row.questions == row.ok + row.repaired + row.failed
    if deadline < 1:
        assert ranking.ids == [d.id for d in DOCUMENTS]


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_ends_any_method_with_every_document(method: str) -> None:
    whole, _, needed = ranked(method)
    ranking, _, sent = ranked(method, max_calls=needed - 1)
    assert sorted(ranking.ids) == sorted(whole.ids)
    assert (ranking.row.calls, sent) == (needed - 1, needed - 1)
    assert ranking.row.status == "partial"


def test_what_was_asked_in_time_counts() -> None:
    ranking, _, _ = ranked("yes-no", deadline=4.5)
    asked = [hit for hit in ranking if hit.score is not None]
    assert len(asked) == 4 * SLOTS == ranking.row.questions
    grades = [GRADES["query"][hit.document.id] for hit in asked]
    assert grades == sorted(grades, reverse=True)


def test_the_same_again_goes_on_from_the_ledger(tmp_path: Any) -> None:
    known = {"ledger": str(tmp_path / "l"), "backend": judge("0.02")}
    rows = []
    while not rows or rows[-1].status == "partial":
        with Reranker("yes-no", concurrency=8, deadline=0.1, **known) as reranker:
            rows.append(reranker.rank("q", DOCUMENTS).row)
        assert len(rows) < 200
    assert rows[-1].status == "reranked"
    assert sum(row.calls for row in rows) >= len(DOCUMENTS)
    assert rows[-1].reused + rows[-1].calls == len(DOCUMENTS)


def test_a_deadline_holds_for_callers_without_a_loop() -> None:
    with Reranker("all-pairs", backend=judge("3600"), deadline=0.05, ledger="none") as reranker:
        rankings = [reranker.rank("q", DOCUMENTS), *reranker.rank_many([("q", DOCUMENTS)] * 3)]
    for ranking in rankings:
        assert ranking.ids == [d.id for d in DOCUMENTS]
        assert (ranking.row.status, ranking.row.questions) == ("partial", 0)


def test_each_query_has_the_whole_time() -> None:
    reranker = Reranker("sliding-window", backend=judge(), ledger="none", deadline=2.5)
    loop = VirtualLoop()

    async def one_after_the_other() -> list[str]:
        return [(await reranker.arank("q", DOCUMENTS)).row.status for _ in range(3)]

    assert loop.run(one_after_the_other()) == ["reranked"] * 3
    assert loop.time() == 6


def test_a_cascade_keeps_what_its_first_stages_found() -> None:
    ranking, _, _ = ranked("cascade", deadline=8.5)
    assert ranking.row.parts.keys() == {"1", "2"}
    grades = [GRADES["query"][i] for i in ranking.ids]
    assert grades[10:] == sorted(grades[10:], reverse=True)
    assert min(grades[:10]) >= max(grades[10:])
    assert ranking.row.status == "partial"
