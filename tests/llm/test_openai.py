"""The openai backend sends what the protocol says and reads what servers really answer, over both transports alike."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llmrank.cli.main import run
from llmrank.errors import InputError
from llmrank.llm.backends import open_backend
from llmrank.llm.backends.openai import OpenAIBackend
from llmrank.llm.client import BackendRefused, Client
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import Constraint, Failure, Reply, Request, Sampling
from llmrank.templates import load
from tests.llm.test_wire import CLIENTS, INF, NAN, UNKNOWN_MODEL, Case, at, dumped, error
from tests.stub import Stub, completion

KEY = "sk-verysecret0123456789"
HELLO = Request((("user", "hello"),))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "NO_PROXY", "NETRC"]
    for name in [*names, "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Watching(Stub):
    """Also remembers from which connection each request came, and with which query string."""

    def __init__(self, handler: Any) -> None:
        super().__init__(handler)
        self.connections: list[Any] = []
        self.query_strings: list[str] = []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.connections.append(request.transport and request.transport.get_extra_info("peername"))
        self.query_strings.append(request.query_string)
        return await super()._answer(request)


def ask(url: str | None, *requests: Request, client: str = "direct", **more: Any) -> list[Reply | Failure]:
    async def work() -> list[Reply | Failure]:
        backend = OpenAIBackend("m", base_url=url, client=client, **more)
        try:
            return [await backend.complete(request) for request in requests or (HELLO,)]
        finally:
            await backend.aclose()

    return asyncio.run(work())


def failure(url: str | None, **more: Any) -> Failure:
    (outcome,) = ask(url, **more)
    assert isinstance(outcome, Failure)
    return outcome


def refusing(status: int, message: str = "no", **headers: str) -> Any:
    """A handler that answers every request with this status."""
    return lambda *_: web.json_response({"error": {"message": message}}, status=status, headers=headers)


# --- what is sent


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.0}
SCHEMA = {"type": "object", "properties": {"ranking": {"type": "array"}}}
SENT: list[tuple[str, Request, dict[str, Any]]] = [
    ("chat", Request((("user", "hello"),), sampling=Sampling(max_tokens=7)), {**CHAT, "max_tokens": 7}),
    (
        "roles, any script",
        Request((("system", "s"), ("user", "日本 \u2028 é"), ("assistant", "["))),
        {
            **CHAT,
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "日本 \u2028 é"},
                {"role": "assistant", "content": "["},
            ],
            "max_tokens": 256,
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
    ),
    (
        "raw",
        Request(prompt="Once", sampling=Sampling(logprobs=5)),
        {"model": "m", "prompt": "Once", "temperature": 0.0, "max_tokens": 256, "logprobs": 5},
    ),
    (
        "logprobs",
        Request(HELLO.messages, sampling=Sampling(max_tokens=1, logprobs=20)),
        {**CHAT, "max_tokens": 1, "logprobs": True, "top_logprobs": 20},
    ),
    ("a seed at temperature 0 is not sent", Request(HELLO.messages, sampling=Sampling(seed=3)), CHAT),
    (
        "sampled",
        Request(HELLO.messages, sampling=Sampling(temperature=0.7, top_p=0.9, seed=3, stop=("\n", "x")), sample=2),
        {**CHAT, "temperature": 0.7, "top_p": 0.9, "seed": 5, "stop": ["\n", "x"]},
    ),
    (
        "schema",
        Request(HELLO.messages, constraint=Constraint("json_schema", SCHEMA)),
        CHAT
        | {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    (
        "choice",
        Request(HELLO.messages, constraint=Constraint("choice", ["yes", "no"])),
        CHAT | {"structured_outputs": {"choice": ["yes", "no"]}},
    ),
    (
        "regex",
        Request(HELLO.messages, constraint=Constraint("regex", "[0-3]")),
        CHAT | {"structured_outputs": {"regex": "[0-3]"}},
    ),
]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_bodies_are_those_of_the_protocol(client: str) -> None:
    with Stub(lambda *_: "ok") as stub:
        ask(stub.url, *(request for _, request, _ in SENT), client=client)
        assert stub.bodies == [{"max_tokens": 256} | body for _, _, body in SENT]
        raw = [request.prompt is not None for _, request, _ in SENT]
        assert stub.paths == [f"/v1/{'completions' if r else 'chat/completions'}" for r in raw]


def test_what_a_request_is_about_is_never_sent() -> None:
    with Stub(lambda *_: "[1] > [2]") as stub:
        from llmrank import Candidates, Document, Query, Reranker

        documents = tuple(Document(f"secret-id-{i}", "text", metadata={"url": "secret-url"}) for i in range(2))
        with Reranker("sliding-window", backend="openai:m", base_url=stub.url, ledger="none") as reranker:
            reranker.rank_many([Candidates(Query("secret-query-id", "words"), documents)])
        assert "secret" not in json.dumps(stub.bodies)
        assert "secret" not in json.dumps(stub.headers)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_local_server_needs_no_key(client: str) -> None:
    with Stub(lambda *_: "ok") as stub:
        assert ask(stub.url, client=client) == ask(stub.url, client=client, api_key="")
        assert [name for headers in stub.headers for name in headers if name.lower() == "authorization"] == []


@pytest.mark.parametrize("client", CLIENTS)
def test_key_and_address_come_from_the_environment_and_a_flag_wins(
    client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")  # as `$(cat file)` in quotes leaves it
    with Stub(lambda *_: "from the environment") as one, Stub(lambda *_: "from the flag") as other:
        monkeypatch.setenv("OPENAI_BASE_URL", f" {one.url}/ ")
        assert ask(None, client=client)[0].text == "from the environment"  # type: ignore[union-attr]
        assert ask(other.url, client=client)[0].text == "from the flag"  # type: ignore[union-attr]
        assert [h["Authorization"] for h in one.headers + other.headers] == [f"Bearer {KEY}"] * 2
        assert one.paths == other.paths == ["/v1/chat/completions"]


def test_the_public_address_is_the_default() -> None:
    assert OpenAIBackend("m").base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize("client", CLIENTS)
def test_credentials_and_query_of_an_address_are_used_and_never_shown(client: str) -> None:
    with Watching(refusing(400, "you are user:p%40ss word2 with dTpwQHNzd29yZDI= and p@ssword2")) as stub:
        host = stub.url.removeprefix("http://")
        url = f"http://u:p%40ssword2@{host}?api-version=3"
        backend = OpenAIBackend("m", base_url=url, client=client, api_key=KEY)
        assert backend.origin == stub.url
        outcome = asyncio.run(backend.complete(HELLO))
        assert stub.headers[0]["Authorization"] == "Basic dTpwQHNzd29yZDI="
        assert (stub.paths, stub.query_strings) == (["/v1/chat/completions"], ["api-version=3"])
        assert isinstance(outcome, Failure)
        assert outcome.detail == "HTTP 400: you are user:p%40ss word2 with *** and ***"


BAD_ADDRESSES = [
    "localhost:8000/v1",
    "example.com/v1",
    "http://",
    "http://[::1/v1",
    "http://host:port/v1",
    "http://host:99999/v1",
    "ftp://host/v1",
    "http://host name/v1",
    "http://host/v1\n[2] > [1]",
    "user:hidden@host/v1",
    "http://user:hid/den@host/v1",
    "http://user:hidden@/v1",
]


@pytest.mark.parametrize("url", BAD_ADDRESSES)
def test_an_address_that_is_none_is_told_in_a_sentence_without_its_credentials(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError) as raised:
        OpenAIBackend("m", base_url=url)
    said = str(raised.value)
    assert said.startswith("--base-url ")
    assert "\n" not in said
    assert "hid" not in said
    assert "http://localhost:8000/v1" in said
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(InputError, match=r"^OPENAI_BASE_URL "):
        OpenAIBackend("m")


@pytest.mark.parametrize("key", ["sk-\u2026-secret", "sk-a\nX-Evil: secret", "sk-\x00secret"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(key: str) -> None:
    with pytest.raises(InputError, match="OPENAI_API_KEY") as raised:
        OpenAIBackend("m", api_key=key)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("openai:", "lacks the name of a model"),
        ("openai:m?client=curl", "direct, aiohttp, official"),
        ("openai:m?color=red", "color is no parameter of openai; there are client, api, effort, thinking, labels"),
        ("openai:m?client=official&client=aiohttp", "given twice"),
        ("openai:m?api=grpc", "api=grpc is unknown; it is one of chat, responses, rerank, score, generative-scoring"),
        ("openai:m?thinking=maybe", "thinking=maybe is unknown; it is one of on, off"),
        ("openai:m?labels=yes", "labels=yes: it must be two words"),
        ("opeanai:m", "there is no backend 'opeanai'; there are openai"),
        ("", "there is no backend"),
    ],
)
def test_a_spec_that_names_no_backend(spec: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_backend(spec)


def test_a_spec_names_model_and_client() -> None:
    for spec, model in [
        ("openai:org/model-7b:free", "org/model-7b:free"),
        ("openai:what?", "what?"),
        ("openai:a?client=official", "a"),
    ]:
        backend = open_backend(spec, base_url="http://h/v1")
        assert isinstance(backend, OpenAIBackend)
        assert backend.identity == ("openai", model)


# --- the limit's two names

OPENAI_SAYS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
)


def new_model(body: dict[str, Any], _: int) -> Any:
    if "max_tokens" in body:
        error = {"message": OPENAI_SAYS, "type": "invalid_request_error", "code": "unsupported_parameter"}
        return web.json_response({"error": error}, status=400)
    return "fine"


@pytest.mark.parametrize("client", CLIENTS)
def test_the_limit_goes_by_the_name_that_the_model_takes(client: str) -> None:
    async def work(url: str) -> list[Any]:
        asker = Client(OpenAIBackend("m", base_url=url, client=client))
        requests = [Request((("user", str(i)),), sampling=Sampling(max_tokens=9)) for i in range(6)]
        exchanges = await asyncio.gather(*map(asker.ask, requests))
        await asker.aclose()
        return exchanges

    with Stub(new_model) as stub:
        exchanges = asyncio.run(work(stub.url))
        assert [e.calls for e in exchanges] == [2, 1, 1, 1, 1, 1]  # learned once
        assert {e.reply.text for e in exchanges} == {"fine"}
        assert [set(b) - {"model", "messages", "temperature"} for b in stub.bodies] == [{"max_tokens"}] + [
            {"max_completion_tokens"}
        ] * 6
        assert stub.bodies[1]["max_completion_tokens"] == 9


def test_requests_that_were_under_way_when_the_name_was_learned_are_asked_again() -> None:
    async def work(url: str) -> list[Reply | Failure]:
        backend = OpenAIBackend("m", base_url=url, api_key="max_")  # a key must not get in the way of reading errors
        outcomes = await asyncio.gather(*(backend.complete(HELLO) for _ in range(3)))
        outcomes += [await backend.complete(HELLO), await backend.complete(Request(prompt="p"))]
        await backend.aclose()
        return outcomes

    with Stub(new_model) as stub:
        *first, then, raw = asyncio.run(work(stub.url))
    assert all(isinstance(f, Failure) and f.retry and f.retry_after == 0 for f in first)
    assert isinstance(then, Reply)
    assert isinstance(raw, Failure)
    assert raw.kind == "bad-request"  # completions have the one name only: asking again would not end


def test_a_prompt_that_is_too_long_is_not_mistaken_for_it() -> None:
    vllm = (
        "'max_tokens' or 'max_completion_tokens' is too large: 256. This model's maximum context length is 1024 "
        "tokens and your request has 900 input tokens (256 > 1024 - 900)."
    )
    with Stub(refusing(400, vllm)) as stub:
        assert [f.kind for f in ask(stub.url, HELLO, HELLO) if isinstance(f, Failure)] == ["context-length"] * 2
        assert all("max_tokens" in body for body in stub.bodies)


# --- what a model refuses to be told

SAYS = {
    "temperature": [
        "Unsupported parameter: 'temperature' is not supported with this model.",
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        "`temperature` isn't supported",
    ],
    "logprobs": [
        "You are not allowed to request logprobs from this model",
        "logprobs are not supported with reasoning models.",
        "Unsupported parameter: 'top_logprobs' is not supported with this model.",
    ],
    "top_p": ["'top_p' cannot be accepted: Unsupported parameter: 'top_p'"],
}
ALL_OF_IT = Request(HELLO.messages, sampling=Sampling(temperature=0.5, top_p=0.9, logprobs=5))


@pytest.mark.parametrize(("field", "said"), [(field, said) for field, all_ in SAYS.items() for said in all_])
def test_what_a_model_refuses_to_be_told_is_left_out_once_for_all(field: str, said: str) -> None:
    async def work(url: str) -> list[Any]:
        asker = Client(OpenAIBackend("m", base_url=url))
        exchanges = [await asker.ask(ALL_OF_IT.resampled(i)) for i in range(3)]
        await asker.aclose()
        return exchanges

    def handler(body: dict[str, Any], _: int) -> Any:
        return web.json_response(error(said), status=400) if field in body else "fine"

    with Stub(handler) as stub:
        exchanges = asyncio.run(work(stub.url))
        assert [(e.calls, e.reply.text) for e in exchanges] == [(2, "fine"), (1, "fine"), (1, "fine")]
        sent = {"temperature", "top_p", "logprobs", "top_logprobs"}
        left = sent - {field} - ({"top_logprobs"} if field == "logprobs" else set())
        assert [sent & set(body) for body in stub.bodies] == [sent, left, left, left]


def test_a_model_that_refuses_several_fields_is_asked_without_each() -> None:
    def handler(body: dict[str, Any], _: int) -> Any:
        for field in ("max_tokens", "temperature", "logprobs"):
            if field in body:
                hint = " Use 'max_completion_tokens' instead." if field == "max_tokens" else ""
                said = f"Unsupported parameter: '{field}' is not supported with this model.{hint}"
                return web.json_response(error(said), status=400)
        return "fine"

    async def work(url: str) -> Any:
        backend = OpenAIBackend("m", base_url=url)
        assert {"logprobs", "later-logprobs"} <= backend.capabilities
        asker = Client(backend)
        exchange = await asker.ask(ALL_OF_IT)
        await asker.aclose()
        return exchange, backend

    with Stub(handler) as stub:
        exchange, backend = asyncio.run(work(stub.url))
        assert (exchange.calls, exchange.reply.text) == (4, "fine")
        assert backend.left_out == {"temperature", "logprobs"}
        assert not {"logprobs", "later-logprobs"} & backend.capabilities


def test_an_error_that_only_mentions_a_field_is_an_error() -> None:
    said = "'temperature' must be at most 2, and 'logprobs' at most 5"
    with Stub(refusing(400, said)) as stub:
        outcomes = ask(stub.url, ALL_OF_IT, ALL_OF_IT)
        assert [o.kind for o in outcomes if isinstance(o, Failure)] == ["bad-request"] * 2
        assert all("temperature" in body and "logprobs" in body for body in stub.bodies)


def test_effort_and_thinking_are_sent_and_tell_models_apart() -> None:
    with Stub(lambda *_: "ok") as stub:
        backend = open_backend("openai:m?thinking=off&effort=low", base_url=stub.url)
        assert isinstance(backend, OpenAIBackend)
        asyncio.run(backend.complete(HELLO))
        (body,) = stub.bodies
    assert body["model"] == "m"
    assert body["reasoning_effort"] == "low"
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert backend.identity == ("openai", "m?effort=low&thinking=off")


# --- replies and refusals


@pytest.mark.parametrize("client", CLIENTS)
def test_a_label_keeps_its_probability_from_the_wire_to_the_grade(client: str) -> None:
    """Over either endpoint, with the odd values that servers mix in."""
    top = [("yes", -0.5), ("no", -1.5), (" Yes", -3.0), ("x", -INF), ("y", NAN), ("z", None)]
    shapes = {
        "/v1/chat/completions": {"content": [at("yes", None, *top)]},
        "/v1/completions": {"tokens": ["yes"], "token_logprobs": [None], "top_logprobs": [dict(top)]},
    }

    def handler(body: dict[str, Any], _: int) -> web.Response:
        path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        choice = {"text": "yes"} if "prompt" in body else {"message": {"content": "yes"}}
        return web.Response(body=dumped({"choices": [{**choice, "logprobs": shapes[path]}]}))

    template = load("pointwise/yes-no")
    with Stub(handler) as stub:
        for reply in ask(stub.url, HELLO, Request(prompt="x"), client=client):
            assert isinstance(reply, Reply)
            grade = template.read(Reply.loads(reply.dumps()), 1)
            assert grade.status == "ok"
            yes, no = 2.718281828**-0.5 + 2.718281828**-3, 2.718281828**-1.5
            assert grade.value == pytest.approx(yes / (yes + no))  # type: ignore[union-attr]


def test_log_probabilities_that_another_request_took_away_are_asked_for_again() -> None:
    def says(*logprobs: tuple[str, float]) -> dict[str, Any]:
        top = [{"token": token, "logprob": logprob} for token, logprob in logprobs]
        return completion(logprobs[0][0], logprobs={"content": [{**top[0], "top_logprobs": top}]})

    robbed, whole = says(("no", -1.2), ("!", -9999.0)), says(("no", -1.2), ("yes", -0.4), ("!", -9999.0))
    with Stub(lambda _, number: web.json_response(robbed if number < 2 else whole)) as stub:
        client = Client(OpenAIBackend("m", base_url=stub.url))
        request = Request(HELLO.messages, sampling=Sampling(max_tokens=1, logprobs=20))
        exchange = asyncio.run(client.ask(request))
        assert exchange.calls == 3
        assert exchange.reply is not None
        assert exchange.reply.tokens is not None
        assert dict(exchange.reply.tokens[0].top)["yes"] == -0.4
        held = replace(request, constraint=Constraint("choice", ("no",)))  # what a mask leaves may be one alone
        stub.handler = lambda *_: web.json_response(robbed)
        (outcome,) = ask(stub.url, held)
        assert isinstance(outcome, Reply)
        stub.handler = lambda *_: web.json_response(says(("no", -1e-7), ("!", -9999.0)))  # it is as good as certain
        (outcome,) = ask(stub.url, request)
        assert isinstance(outcome, Reply)


def test_one_request_finds_out_that_the_backend_refuses() -> None:
    async def work(url: str) -> list[Any]:
        asker = Client(OpenAIBackend("m", base_url=url), retries=0)
        requests = [Request((("user", str(i)),)) for i in range(20)]
        outcomes = await asyncio.gather(*map(asker.ask, requests), return_exceptions=True)
        await asker.aclose()
        return outcomes

    for status, body in ((401, error("no")), UNKNOWN_MODEL["vLLM"], UNKNOWN_MODEL["DeepSeek"], (402, error("broke"))):
        with Stub(lambda *_, case=Case(status, body): case.response()) as stub:
            outcomes = asyncio.run(work(stub.url))
            assert len(stub.bodies) == 1
            assert all(isinstance(o, BackendRefused) and str(o).startswith(stub.url) for o in outcomes)


# --- connections


class Rude:
    """A server that reads a request and answers it with bytes that are none, or nothing, and hangs up."""

    def __init__(self, answer: bytes, *, reset: bool = False) -> None:
        self._answer, self._reset = answer, reset
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Rude:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    self._read(connection)
                    connection.sendall(self._answer)
                    if self._reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _read(self, connection: socket.socket) -> None:
        """The whole request: what is left unread when a connection is closed would reset it."""
        with connection.makefile("rb") as stream:
            length = 0
            while (line := stream.readline()).strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            stream.read(length)


def http(status: str, body: bytes, length: int, extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{extra}\r\n".encode() + body


BROKEN = {
    "hung up": (b"", False),
    "reset": (b"", True),
    "no HTTP": (b"[2] > [1]\r\n\r\n", False),
    "half a header": (b"HTTP/1.1 200 OK\r\nContent-", False),
    "half a body": (http("200 OK", b'{"choices": [{"text": "[2] > [1]"}]}', 100), False),
    "half the body of an error": (http("500 Oh", b"[2] > [1]", 100), False),
    "half a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{}", False),
    "no gzip": (http("200 OK", b"[2] > [1]!", 10, "Content-Encoding: gzip\r\n"), False),
    "no gzip in an error": (http("429 Slow", b"[2] > [1]!", 10, "Content-Encoding: gzip\r\n"), False),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_connection_is_a_failure_worth_retrying(name: str, client: str) -> None:
    answer, reset = BROKEN[name]
    with Rude(answer, reset=reset) as server:
        broken = failure(server.url, client=client)
    assert (broken.kind, broken.retry) == ("connection", True)
    assert broken.detail


@pytest.mark.parametrize("client", CLIENTS)
def test_where_nothing_listens_the_backend_is_unreachable(client: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    refused = failure(url, client=client)
    assert (refused.kind, refused.retry, refused.fatal) == ("unreachable", True, True)


@pytest.mark.parametrize("client", CLIENTS)
def test_https_where_the_server_speaks_http(client: str) -> None:
    with Stub(lambda *_: "ok") as stub:
        assert failure(stub.url.replace("http:", "https:"), client=client).kind == "unreachable"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_reply_that_does_not_come_times_out(client: str) -> None:
    async def stall(*_: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    async def work(url: str) -> Any:
        asker = Client(OpenAIBackend("m", base_url=url, client=client), timeout=0.3, retries=0)
        exchange = await asker.ask(HELLO)
        await asker.aclose()
        return exchange

    with Stub(stall) as stub:
        assert asyncio.run(work(stub.url)).failure == Failure("timeout", "0.3 s")


@pytest.mark.parametrize("client", CLIENTS)
def test_connections_are_kept_and_used_again(client: str) -> None:
    async def work(url: str) -> None:
        backend = OpenAIBackend("m", base_url=url, client=client)
        for _ in range(4):
            await asyncio.gather(*(backend.complete(HELLO) for _ in range(5)))
        await backend.aclose()

    together = threading.Barrier(5)
    with Watching(lambda *_: meet(together)) as stub:
        asyncio.run(work(stub.url))
        assert len(stub.connections) == 20
        assert len(set(stub.connections)) == 5


async def meet(together: threading.Barrier) -> str:
    """Answers when five have come, so that they are in flight at once."""
    await asyncio.to_thread(together.wait)
    return "ok"


@pytest.mark.parametrize("client", CLIENTS)
def test_compressed_replies_are_read(client: str) -> None:
    body = gzip.compress(json.dumps(completion("[2] > [1]")).encode())
    with Stub(lambda *_: web.Response(body=body, headers={"Content-Encoding": "gzip"})) as stub:
        (reply,) = ask(stub.url, client=client)
        assert reply.text == "[2] > [1]"  # type: ignore[union-attr]
        assert "gzip" in stub.headers[0]["Accept-Encoding"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_key_does_not_follow_to_another_server(client: str) -> None:
    with Stub(lambda *_: "there") as there:
        location = f"{there.url}/chat/completions"
        with Stub(lambda *_: web.Response(status=307, headers={"Location": location})) as here:
            (reply,) = ask(here.url, client=client, api_key=KEY)
        assert reply.text == "there"  # type: ignore[union-attr]
        assert KEY not in json.dumps(there.headers)
        assert KEY in json.dumps(here.headers)


@pytest.mark.parametrize("client", CLIENTS)
def test_one_backend_serves_several_event_loops(client: str) -> None:
    """As `asyncio.run` in a script, twice, makes them; nobody need close it in between."""
    with Stub(lambda *_: "ok") as stub:
        backend = OpenAIBackend("m", base_url=stub.url, client=client)
        for _ in range(3):
            assert isinstance(asyncio.run(backend.complete(HELLO)), Reply)


def test_a_script_that_just_ends_says_nothing_on_stderr() -> None:
    script = (
        "import asyncio, sys; from llmrank import Reranker\n"
        "make = lambda: Reranker('sliding-window', backend='openai:m', base_url=sys.argv[1], ledger='none')\n"
        "reranker = make(); print(reranker.rank('q', ['a', 'b']).ids)\n"
        "other = make(); print(asyncio.run(other.arank('q', ['a', 'b'])).ids)\n"
        "print(asyncio.run(other.arank('q', ['a', 'b'])).ids)\n"
    )
    with Stub(lambda *_: "[2] > [1]") as stub:
        done = subprocess.run([sys.executable, "-c", script, stub.url], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("['1', '0']\n" * 3, "")


# --- proxies


@pytest.mark.parametrize("client", CLIENTS)
def test_the_proxy_of_the_environment_is_used(client: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))  # which must not take the place of the key
    with Stub(lambda *_: "through the proxy") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("http://", "http://me:pr%40xy@").removesuffix("/v1"))
        (reply,) = ask("http://model.example/v1", client=client, api_key=KEY)
        assert reply.text == "through the proxy"  # type: ignore[union-attr]
        assert proxy.headers[0]["Host"] == "model.example"
        assert proxy.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert proxy.headers[0]["Proxy-Authorization"] == "Basic bWU6cHJAeHk="


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_stands_before_this_very_machine(client: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Stub(lambda *_: "ok") as stub:
        (reply,) = ask(stub.url.replace("127.0.0.1", host), client=client)
        assert isinstance(reply, Reply)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("status", "kind"), [("407 Who", "auth"), ("503 Full", "server")])
def test_a_proxy_that_does_not_connect(client: str, status: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Rude(http(status, b"", 0)) as proxy:
        address = proxy.url.removesuffix("/v1").replace("http://", "http://me:hidden@")
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, address)
        for url in ("http://model.example/v1", "https://model.example/v1"):
            assert failure(url, client=client) == Failure(kind, f"HTTP {status[:3]}")


def test_a_proxy_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(InputError, match="a proxy of the kind socks5"):
        ask("http://model.example/v1")


# --- secrets


def test_the_key_is_nowhere_but_in_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in the ledger, the report, the manifest or on the terminal, though the server repeats it in its errors."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (tmp_path / "requests.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "query": {"qid": q, "text": q},
                    "candidates": [{"docid": d, "score": 1, "doc": {"text": d}} for d in "ab"],
                }
            )
            + "\n"
            for q in ("good", "bad")
        )
    )

    def handler(body: dict[str, Any], _: int) -> Any:
        if "query: bad" in body["messages"][1]["content"]:
            return web.json_response(error(f"your key {KEY} " * 9), status=statuses[-1])
        return "[2] > [1]"

    statuses: list[int] = []
    with Stub(handler) as stub:
        url = stub.url.replace("http://", "http://user:hidden-word@")
        for status, code in ((400, 3), (401, 5)):
            statuses.append(status)
            assert code == run(
                ["rerank", "--requests", str(tmp_path / "requests.jsonl"), "--backend", "openai:m", "--base-url", url]
                + ["--output", str(tmp_path / "out"), "--ledger", str(tmp_path / "ledger"), "--retries", "0"]
                + ["--report", str(tmp_path / "report"), "--manifest", str(tmp_path / "manifest"), "--json"]
            )
        with contextlib.closing(Ledger(tmp_path / "ledger")) as ledger:
            assert [row.origin for row in ledger.rows()] == [stub.url]
    said = capsys.readouterr()
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"out", "report", "manifest", "ledger"} <= set(written)
    for text in (said.out.encode(), said.err.encode(), *written.values()):
        assert KEY.encode() not in text
        assert b"hidden-word" not in text


@pytest.mark.parametrize("client", CLIENTS)
def test_no_part_of_the_key_is_left_where_an_error_is_cut(client: str) -> None:
    for before in range(250, 310, 7):
        with Stub(refusing(400, "x" * before + KEY)) as stub:
            told = failure(stub.url, client=client, api_key=KEY)
        assert KEY[:5] not in told.detail
        assert len(told.detail) <= 300


def test_what_stands_in_for_a_key_does_not_blot_out_words() -> None:
    with Stub(refusing(400, "no such option")) as stub:
        assert failure(stub.url, api_key="no").detail == "HTTP 400: no such option"
