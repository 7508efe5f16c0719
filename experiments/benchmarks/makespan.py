"""How close a job comes to the least possible time: 43 queries x 9 windows at 32 slots, lognormal latency, sigma 1.

The lower bound is the longer of the total work over the slots and the longest chain of one query. Runs in virtual time,
so the figures are the scheduling's alone. `first come` serves waiting requests in the order in which they came.
"""

from __future__ import annotations

import random
from statistics import median

from llmrank import Candidates, Document, Query, Reranker
from llmrank.ask.virtual import VirtualLoop
from llmrank.llm.limits import Slots
from llmrank.llm.types import Reply, Request

QUERIES, DOCUMENTS, SLOTS, SEEDS = 43, 100, 32, 20


class Slow:
    """Answers after a lognormal time of median 1 and keeps account; the first call goes alone, as to a server."""

    model, remote = "slow", True

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chains: dict[str, float] = {}

    async def complete(self, request: Request) -> Reply:
        import asyncio

        assert request.about is not None
        query = request.about.query.id
        done = self.chains.get(query, 0.0)
        seconds = random.Random(f"{self.seed} {query} {done}").lognormvariate(0, 1)
        self.chains[query] = done + seconds
        await asyncio.sleep(seconds)
        return Reply(" > ".join(f"[{i}]" for i in range(1, 21)))


def makespan(seed: int) -> tuple[float, float]:
    """The time that the job takes, and the lower bound."""
    backend = Slow(seed)
    documents = tuple(Document(f"d{i}", "text") for i in range(DOCUMENTS))
    work = [Candidates(Query(f"q{i}", f"query {i}"), documents) for i in range(QUERIES)]

    async def job() -> None:
        reranker = Reranker("sliding-window", backend=backend, ledger="none", concurrency=SLOTS, timeout=1e9)
        async for _ in reranker.astream(work):
            pass

    loop = VirtualLoop()
    loop.run(job())
    return loop.time(), max(sum(backend.chains.values()) / SLOTS, *backend.chains.values())


def main() -> None:
    ratios = [time / bound for time, bound in map(makespan, range(SEEDS))]
    print(f"{QUERIES} queries x 9 windows, {SLOTS} slots, {SEEDS} seeds: makespan / lower bound")
    print(f"  longest way to go first: median {median(ratios):.3f}, worst {max(ratios):.3f}   (median at most 1.1)")
    acquire = Slots.acquire
    Slots.acquire = lambda self, remaining: acquire(self, 0.0)  # type: ignore[method-assign]
    others = [time / bound for time, bound in map(makespan, range(SEEDS))]
    Slots.acquire = acquire  # type: ignore[method-assign]
    print(f"  first come, first served: median {median(others):.3f}, worst {max(others):.3f}")


if __name__ == "__main__":
    main()
