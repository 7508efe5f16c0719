"""CPU per call, everything included (render, hash, HTTP, ledger, parse), against a bare AsyncOpenAI loop.

Both ask the same stub server, at concurrency 64, in turn, each time in a fresh process that imports nothing of the
other's; CPU is that process's user and system time while it asks, the server's is not in it, nor what is done once
when a process begins. Prints medians and ratios, and what each part of our call takes by itself.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, cast

from llmrank import Candidates, Document, Query, Reranker
from llmrank.ask.tally import Tally
from llmrank.ask.templated import TemplateAsk
from llmrank.llm.ledger import Row
from llmrank.llm.types import Reply, Request
from llmrank.questions import Question

CONCURRENCY, REPEATS = 64, 5
PASSAGE = "Okapi BM25 ranks documents by the query terms that occur in each, whatever their order in the text. " * 4


def reply(text: str, top: list[str]) -> dict[str, Any]:
    tokens = [{"token": t, "logprob": -0.1 - i, "bytes": None} for i, t in enumerate(top)]
    logprobs = {"content": [{**tokens[0], "top_logprobs": tokens}], "refusal": None} if top else None
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}
    usage = {"prompt_tokens": 2000, "completion_tokens": 100, "total_tokens": 2100}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


WORKLOADS = {
    "20 of 100 passages put in order": (
        "sliding-window",
        300,
        100,
        reply(" > ".join(f"[{i}]" for i in range(20, 0, -1)), []),
    ),
    "one passage of 100, 20 logprobs": (
        "yes-no",
        30,
        100,
        reply("yes", ["yes", "no", " Yes", " No", *(f"word{i}" for i in range(16))]),
    ),
}


def serve(body: dict[str, Any], folder: str) -> tuple[subprocess.Popen[str], str]:
    path = Path(folder) / "reply.json"
    path.write_text(json.dumps(body))
    script = str(Path(__file__).parent / "stub_server.py")
    server = subprocess.Popen([sys.executable, script, str(path)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"


def requests(queries: int, n: int, salt: str) -> list[Candidates]:
    """Queries with their candidates; the salt keeps one round's prompts from being another's."""
    return [
        Candidates(
            Query(f"q{q}", f"what is bm25 {salt} {q}"),
            tuple(Document(f"d{i}", f"{i} {q} {PASSAGE}") for i in range(n)),
        )
        for q in range(queries)
    ]


async def ours(url: str, method: str, work: list[Candidates], ledger: str) -> tuple[float, int, int]:
    """CPU seconds, calls, and answers reused."""
    with_settings: dict[str, Any] = {"base_url": url, "ledger": ledger, "concurrency": CONCURRENCY}
    reranker = Reranker(method, backend="openai:stub", **with_settings)
    await warmed_up(reranker)
    started, calls, reused = time.process_time(), 0, 0
    async for ranking in reranker.astream(work):
        calls += ranking.row.calls
        reused += ranking.row.reused
    spent = time.process_time() - started
    await reranker.aclose()
    return spent, calls, reused


async def warmed_up(reranker: Reranker) -> None:
    """What a job does once: it imports, connects, and asks for the model's context if texts are long."""
    await reranker.arank("warm up", [PASSAGE * 30, PASSAGE * 20])
    settle()


def settle() -> None:
    """Leaves what was made until now, this benchmark's documents above all, out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()


async def parts(url: str, method: str, work: list[Candidates], ledger: str) -> dict[str, float]:
    """CPU seconds a call of each part of a call, by itself, one after the other."""
    reranker = Reranker(method, backend="openai:stub", base_url=url, ledger=ledger, concurrency=CONCURRENCY)
    await warmed_up(reranker)
    manner = reranker.voices[""].manner()
    client, template = manner.client, manner.template
    assert client.ledger is not None
    size = 1 if template.question == "grade" else 20
    asks = [(TemplateAsk(manner, c.query, Tally()), c) for c in work]
    made = [(ask, shown) for ask, of in asks for shown in shown_of(of, size)]
    spent: dict[str, float] = {}

    def took(part: str, started: float) -> None:
        spent[part] = (time.process_time() - started) / len(made)

    now = time.process_time()
    prompts = [cast(Request, ask.request(Question(template.question, shown))) for ask, shown in made]
    took("render", now)
    now = time.process_time()
    named = [client.named(request) for request in prompts]
    took("key", now)
    now = time.process_time()
    left, replies = iter(prompts), []

    async def worker() -> None:
        for request in left:
            replies.append(await client.backend.complete(request))

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    took("HTTP", now)
    answered = [reply for reply in replies if isinstance(reply, Reply)]
    now = time.process_time()
    for i in range(0, len(named), CONCURRENCY):
        both = zip(named[i : i + CONCURRENCY], answered[i : i + CONCURRENCY], strict=True)
        rows = [Row(n.key, "openai", "stub", url, 0.0, reply.dumps(), n.canonical) for n, reply in both]
        await asyncio.gather(*map(client.ledger.put, rows))
    took("ledger put", now)
    now = time.process_time()
    kept = [client.ledger.get(n.key) for n in named]
    took("ledger get", now)
    now = time.process_time()
    for found in kept:
        assert found is not None
        template.read(found[0], size)
    took("parse", now)
    await reranker.aclose()
    return spent


def shown_of(candidates: Candidates, size: int) -> list[tuple[Document, ...]]:
    """What a query's prompts show: each document, or windows of them."""
    documents = candidates.documents
    return [documents[i : i + size] for i in range(0, len(documents) - size + 1, max(1, size // 2))]


async def bare(url: str, calls: int, messages: list[dict[str, str]], logprobs: bool) -> float:
    """CPU seconds of a loop that does nothing but call."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=url, api_key="none")
    more: dict[str, Any] = {"logprobs": True, "top_logprobs": 20} if logprobs else {}
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            await client.chat.completions.create(model="stub", messages=messages, temperature=0, max_tokens=16, **more)  # type: ignore[arg-type]

    await client.chat.completions.create(model="stub", messages=messages)  # type: ignore[arg-type]
    settle()
    started = time.process_time()
    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    spent = time.process_time() - started
    await client.close()
    return spent


def messages_of(method: str, work: list[Candidates]) -> list[dict[str, str]]:
    """A prompt such as ours, made beforehand."""
    from llmrank.rerank.methods import find
    from llmrank.templates import Shown, load

    template = load(find(method).template)
    documents = work[0].documents[: 1 if template.question == "grade" else None]
    shown = [Shown(i, d.text) for i, d in zip(template.identifiers(len(documents)), documents, strict=True)]
    return [{"role": role, "content": text} for role, text in template.render(work[0].query, shown).messages]


def apart(measure: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
    """What a measurement gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, measure, *arguments).result()


def _run(measure: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
    return asyncio.run(measure(*arguments))


def main() -> None:
    for name, (method, queries, n, body) in WORKLOADS.items():
        rows: dict[str, list[float]] = {"bare": [], "ours": [], "no ledger": [], "from the ledger": []}
        with tempfile.TemporaryDirectory() as folder:
            server, url = serve(body, folder)
            try:
                for turn in range(REPEATS):
                    work = requests(queries, n, str(turn))
                    ledger = f"{folder}/{turn}.ledger"
                    spent, calls, _ = apart(ours, url, method, work, ledger)
                    rows["ours"].append(spent / calls)
                    few = calls // 5  # what a bare call costs does not change with their number
                    rows["bare"].append(apart(bare, url, few, messages_of(method, work), "logprobs" in name) / few)
                    spent, again, reused = apart(ours, url, method, work, ledger)
                    assert (again, reused) == (0, calls), "the ledger did not answer"
                    rows["from the ledger"].append(spent / reused)
                    spent, calls, _ = apart(ours, url, method, work, "none")
                    rows["no ledger"].append(spent / calls)
                some = requests(queries // 10, n, "parts")
                each = [apart(parts, url, method, some, f"{folder}/{turn}.parts") for turn in range(REPEATS)]
            finally:
                server.terminate()
                server.wait()
        print(f"{name} ({method}), {calls} calls a round, median of {REPEATS} rounds, CPU microseconds a call:")
        for row, values in rows.items():
            print(f"  {row:16} {median(values) * 1e6:7.0f}")
        ratio = median(a / b for a, b in zip(rows["ours"], rows["bare"], strict=True))
        reuse = median(a / b for a, b in zip(rows["from the ledger"], rows["ours"], strict=True))
        by_part = {part: median(turn[part] for turn in each) * 1e6 for part in each[0]}
        by_part["rest"] = median(rows["ours"]) * 1e6 - sum(by_part.values())
        print(f"  of ours, each by itself: {', '.join(f'{part} {value:.0f}' for part, value in by_part.items())}")
        print("    (an answer from the ledger takes all but `HTTP` and `ledger put`)")
        print(f"  ours / bare                {ratio:.3f}   (at most 0.15)")
        print(f"  from the ledger / by stub  {reuse:.3f}   (at most 0.2)")
        assert math.isfinite(ratio)


if __name__ == "__main__":
    main()
