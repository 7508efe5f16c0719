"""Plans: they say what the job then does, since the same strategy runs; one number where the answers do not matter."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank import Candidates, Document, Query, Reranker
from llmrank.llm.backends.simulated import Errors, SimulatedBackend
from llmrank.llm.ledger import Ledger
from llmrank.plan import Estimate, Plan, plan
from llmrank.rerank.methods import METHODS, all_methods
from llmrank.rerank.ranking import Ranking

SIZES = (0, 1, 2, 3, 5, 11, 20, 21, 47)
all_methods()


def job(sizes: Sequence[int]) -> list[Candidates]:
    """Queries with so many candidates each, of texts of different lengths."""
    return [
        Candidates(
            Query(f"q{q}", f"query {q}"), tuple(Document(f"d{q}-{i}", f"text {i} " * (1 + i * 7 % 5)) for i in range(n))
        )
        for q, n in enumerate(sizes)
    ]


def judge(requests: Sequence[Candidates], errors: Errors | None = None) -> SimulatedBackend:
    grades = {r.query.id: {d.id: zlib.crc32(d.id.encode()) % 4 for d in r.documents} for r in requests}
    return SimulatedBackend(grades, errors)


def both(
    method: str, requests: Sequence[Candidates], errors: Errors | None = None, **more: Any
) -> tuple[Plan, list[Ranking]]:
    """The plan of a job, and what it came to."""
    with Reranker(method, backend=judge(requests, errors), **{"ledger": "none", **more}) as reranker:
        return plan(reranker, requests), reranker.rank_many(requests)


def total(rankings: Sequence[Ranking], count: str) -> int:
    return sum(getattr(ranking.row, count) for ranking in rankings)


@pytest.mark.parametrize("method", METHODS)
def test_calls_and_rounds_are_those_of_the_job(method: str) -> None:
    for n in SIZES:
        planned, (ranking,) = both(method, job([n]), Errors(noise=0.3, seed=n))
        for estimate, real in ((planned.calls, ranking.row.calls), (planned.rounds, ranking.row.rounds)):
            assert estimate.low <= real <= estimate.high, n
            assert estimate.low <= estimate.expected <= estimate.high, n
        assert ranking.row.questions == ranking.row.calls


@pytest.mark.parametrize("method", ["pointwise", "yes-no", "graded", "all-pairs", "full-list", "sliding-window"])
def test_what_does_not_depend_on_the_answers_is_one_number(method: str) -> None:
    planned, rankings = both(method, job(SIZES))
    assert planned.calls.json() == total(rankings, "calls")
    assert planned.rounds.json() == max(ranking.row.rounds for ranking in rankings)
    assert isinstance(planned.json()["prompt_tokens"], int)
    assert isinstance(planned.json()["completion_tokens"], int)
    assert planned.queries == len(SIZES)


@pytest.mark.parametrize("method", ["heapsort", "setwise-heapsort"])
def test_what_does_is_a_range_with_the_mean_of_simulated_runs(method: str) -> None:
    told = both(method, job([30]))[0].json()
    assert told["calls"]["min"] < told["calls"]["expected"] < told["calls"]["max"]
    assert told["prompt_tokens"]["min"] < told["prompt_tokens"]["expected"] < told["prompt_tokens"]["max"]
    assert told == both(method, job([30]))[0].json()  # seeded


@pytest.mark.parametrize("method", ["pointwise", "graded", "all-pairs", "full-list"])
def test_prompt_tokens_are_those_of_the_bill_where_prompts_do_not_depend_on_answers(method: str) -> None:
    planned, rankings = both(method, job((0, 1, 2, 7, 20)))
    assert planned.json()["prompt_tokens"] == total(rankings, "prompt_tokens")
    assert planned.json()["completion_tokens"] == total(rankings, "completion_tokens")


@pytest.mark.parametrize("method", ["all-pairs", "sliding-window", "heapsort", "setwise-heapsort"])
def test_prompt_tokens_come_near_the_bill_otherwise(method: str) -> None:
    planned, rankings = both(method, job([60, 45]), Errors(noise=0.3))
    bill = total(rankings, "prompt_tokens") / total(rankings, "calls")
    assert planned.prompt_tokens.expected / planned.calls.expected == pytest.approx(bill, rel=0.1)


@given(
    n=st.integers(0, 60),
    window=st.integers(2, 30),
    stride=st.integers(1, 30),
    passes=st.integers(1, 3),
    depth=st.integers(0, 70),
    malformed=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=20, deadline=None)
def test_windows_of_any_kind_cost_what_was_planned(
    n: int, window: int, stride: int, passes: int, depth: int, malformed: float
) -> None:
    options = {"window": window, "stride": min(stride, window), "passes": passes}
    errors = Errors(malformed=malformed)
    planned, (ranking,) = both("sliding-window", job([n]), errors, options=options, depth=depth)
    assert planned.calls.low <= ranking.row.calls <= planned.calls.high
    assert planned.calls.exact or passes > 1


@given(n=st.integers(0, 40), k=st.integers(1, 45), children=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_heaps_of_any_kind_stay_in_their_range(n: int, k: int, children: int, seed: int) -> None:
    errors = Errors(noise=1.0, order_bias=0.3, malformed=0.1, seed=seed)
    planned, (ranking,) = both("setwise-heapsort", job([n]), errors, options={"k": k, "children": children})
    assert planned.calls.low <= ranking.row.calls <= planned.calls.high
    assert planned.rounds.low <= ranking.row.rounds <= planned.rounds.high


def test_samples_are_counted() -> None:
    planned, rankings = both("graded", job([5, 3]), samples=3, temperature=1.0)
    assert planned.calls.json() == total(rankings, "calls") == 24
    assert planned.json()["prompt_tokens"] == total(rankings, "prompt_tokens")
    assert planned.rounds.json() == 1


def test_questions_that_do_not_fit_cost_no_call() -> None:
    planned, (ranking,) = both("full-list", job([57]), context=500)
    assert (planned.calls.json(), planned.does_not_fit, planned.json()["prompt_tokens"]) == (0, 1, 0)
    assert (ranking.row.calls, ranking.row.failed) == (0, 1)
    planned, (ranking,) = both("pointwise", job([9]), context=64)
    assert (planned.calls.json(), planned.does_not_fit) == (ranking.row.calls, ranking.row.failed) == (0, 9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("samples", [1, 2])
def test_what_the_ledger_holds_is_subtracted(method: str, samples: int, tmp_path: Path) -> None:
    if samples > 1 and "prompt-logprobs" in METHODS[method].needs:
        pytest.skip("the likelihood of a given text is not drawn, and samples of it are refused")
    requests = job([12, 25])
    shared: dict[str, Any] = {"backend": judge(requests, Errors(noise=0.2)), "ledger": str(tmp_path / "l")}
    shared |= {"samples": samples, "temperature": samples - 1.0}
    with Reranker(method, **shared, max_calls=3) as reranker:
        begun = total(reranker.rank_many(requests), "calls")
    with Reranker(method, **shared) as reranker:
        planned = plan(reranker, requests, ledger=Ledger(tmp_path / "l", read_only=True))
        rankings = reranker.rank_many(requests)
        assert planned.calls.low <= total(rankings, "calls") <= planned.calls.high
        assert planned.reused == begun
        afterwards = plan(reranker, requests, ledger=Ledger(tmp_path / "l", read_only=True))
    assert afterwards.calls.json() == 0
    assert afterwards.reused == total(rankings, "questions")
    told = afterwards.json()
    assert (told["prompt_tokens"], told["completion_tokens"], told["seconds"]) == (0, 0, 0)


def test_time_is_bound_by_slots_rounds_and_rates() -> None:
    requests = job([100])
    backend = judge(requests)

    def seconds(method: str, **more: Any) -> Any:
        reranker = Reranker(method, backend=backend, ledger="none", **more)
        return plan(reranker, requests, latency=2.0).json()["seconds"]

    assert seconds("sliding-window") == 9 * 2
    assert seconds("pointwise", concurrency=10) == 100 / 10 * 2
    assert seconds("pointwise", concurrency=100) == 2
    assert seconds("pointwise", rpm=10) == 600


def test_cost_is_that_of_the_tokens() -> None:
    planned, _ = both("pointwise", job([7, 5]))
    assert planned.json()["cost"] is None
    requests = job([7, 5])
    told = plan(Reranker("pointwise", backend=judge(requests), price="2,10", ledger="none"), requests).json()
    assert told["cost"] == pytest.approx((2 * told["prompt_tokens"] + 10 * told["completion_tokens"]) / 1e6, abs=1e-6)


def test_estimates_print_as_one_number_or_a_range() -> None:
    assert Estimate(3, 3, 3).json() == 3
    assert Estimate(2.5, 2.5, 2.5).json() == 2.5
    assert Estimate(1, 2.04, 4).json() == {"min": 1, "expected": 2.0, "max": 4}
