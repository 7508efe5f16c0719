"""Throughput of two servers of unequal speed as one backend, against each alone: --base-url FAST,SLOW.

Each stub works on so many requests at once and lets the others wait, in a process of its own. Of every way of asking
the replies a second are measured between a first and a last tenth of the job, which are left out: at the end a server
that has nothing more to do waits for the other. Prints both alone, both together, and their ratio to the sum.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from statistics import median

from aiohttp import web

from llmrank.llm.backends.openai import OpenAIBackend
from llmrank.llm.client import Client
from llmrank.llm.types import Request

FAST, SLOW = (0.02, 8), (0.07, 8)  # seconds a request takes, and how many are worked on at once
CALLS, CONCURRENCY, REPEATS = 1200, 32, 3


async def serve(seconds: float, at_once: int) -> None:
    """A server that says its port and then answers until it is ended."""
    room = asyncio.Semaphore(at_once)
    message = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [message], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        async with room:
            await asyncio.sleep(seconds)
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def started(seconds: float, at_once: int) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, __file__, str(seconds), str(at_once)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"


async def replies_a_second(url: str, *, adaptive: bool = False) -> float:
    client = Client(OpenAIBackend("stub", base_url=url), concurrency=CONCURRENCY, adaptive=adaptive)
    ended: list[float] = []

    async def one(i: int) -> None:
        exchange = await client.ask(Request((("user", str(i)),)))
        assert exchange.reply is not None, exchange.failure
        ended.append(time.perf_counter())

    await asyncio.gather(*(one(i) for i in range(CALLS)))
    await client.aclose()
    tenth = CALLS // 10
    return (CALLS - 2 * tenth) / (ended[-tenth - 1] - ended[tenth - 1])


def main() -> None:
    servers = [started(*FAST), started(*SLOW)]
    fast, slow = (url for _, url in servers)
    try:
        rows: dict[str, list[float]] = {"fast alone": [], "slow alone": [], "together": [], "together, adaptive": []}
        for _ in range(REPEATS):
            rows["fast alone"].append(asyncio.run(replies_a_second(fast)))
            rows["slow alone"].append(asyncio.run(replies_a_second(slow)))
            rows["together"].append(asyncio.run(replies_a_second(f"{fast},{slow}")))
            rows["together, adaptive"].append(asyncio.run(replies_a_second(f"{fast},{slow}", adaptive=True)))
    finally:
        for server, _ in servers:
            server.terminate()
            server.wait()
    print(
        f"{CALLS} calls, at most {CONCURRENCY} in flight to each server, median of {REPEATS} rounds, replies a second:"
    )
    for name, values in rows.items():
        print(f"  {name:20} {median(values):7.1f}")
    both = rows["fast alone"], rows["slow alone"]
    for name in ("together", "together, adaptive"):
        ratio = median(t / (a + b) for t, a, b in zip(rows[name], *both, strict=True))
        print(f"  {name} / sum of both   {ratio:.3f}" + ("   (at least 0.95)" if name == "together" else ""))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(serve(float(sys.argv[1]), int(sys.argv[2])))
    else:
        main()
