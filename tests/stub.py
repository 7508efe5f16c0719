"""A real HTTP server on loopback that speaks the OpenAI protocol, with whatever replies and faults a test wants."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Handler = Callable[[dict[str, Any], int], "web.StreamResponse | str | Awaitable[web.StreamResponse | str]"]


def completion(text: str | None, **choice: Any) -> dict[str, Any]:
    """The JSON of a chat completion that says `text`."""
    words = len((text or "").split())
    return {
        "id": "c1",
        "object": "chat.completion",
        "model": "stub",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 100, "completion_tokens": words, "total_tokens": 100 + words},
    }


class Stub:
    """Serves in a thread. `handler(body, number)` gives the reply's text or a whole response; `number` is from 0."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.same = 0
        """For a handler to count in."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""
        self.models: Any = None
        """What the list of models says; None where the server has none."""

    def __enter__(self) -> Stub:
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> int:
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/{path:.*}", self._answer)
        app.router.add_get("/v1/models", self._list)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _list(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=404) if self.models is None else web.json_response(self.models)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            body = json.loads(await request.read())
            number = len(self.bodies)
            self.bodies.append(body)
            self.paths.append(request.path)
            self.headers.append(dict(request.headers))
            answer = self.handler(body, number)
            if not isinstance(answer, str | web.StreamResponse):
                answer = await answer
            return web.json_response(completion(answer)) if isinstance(answer, str) else answer
        finally:
            self.in_flight -= 1


def prompt_of(body: dict[str, Any]) -> str:
    """All that a request says, as one text."""
    return "\n".join(message["content"] for message in body["messages"]) if "messages" in body else str(body["prompt"])
