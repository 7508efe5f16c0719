"""The `openai` backend: the OpenAI wire protocol, spoken over aiohttp, or by the official client on request."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import os
import re
import urllib.request
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import orjson

from llmrank.errors import InputError
from llmrank.llm.backends.wire import Answer, read_answer
from llmrank.llm.types import Constraint, Failure, Identity, Reply, Request

PUBLIC_URL = "https://api.openai.com/v1"
SECRET_LENGTH = 4  # what stands in for a key where none is needed (`x`, `no`) is no secret, and part of many words
DETAIL_LENGTH = 300  # characters of what a server said that are kept


class OpenAIBackend:
    """Any OpenAI-compatible server, hosted or local. Asks `/chat/completions`, or `/completions` for raw prompts."""

    remote = True
    capabilities = frozenset({"text", "logprobs", "raw", "constrained", "samples"})

    def __init__(self, model: str, *, base_url: str | None = None, api_key: str | None = None, client: str = "aiohttp"):
        if not model:
            raise InputError("the backend openai: lacks the name of a model; write openai:MODEL")
        if client not in TRANSPORTS:
            raise InputError(f"openai:{model}: client={client} is unknown; it is one of {', '.join(TRANSPORTS)}")
        self.identity = Identity("openai", model)
        self._server = _server(base_url, os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key)
        self.base_url = self.origin = self._server.url
        self._make_transport = TRANSPORTS[client]
        self._transports: dict[asyncio.AbstractEventLoop, Transport] = {}
        self._limit_field = "max_tokens"  # OpenAI's newer models take only `max_completion_tokens`, others only this

    async def complete(self, request: Request) -> Reply | Failure:
        limit_field, chat = self._limit_field, request.prompt is None
        body = orjson.dumps(self.body(request))
        answer = await self._transport().post("/chat/completions" if chat else "/completions", body)
        outcome = answer if isinstance(answer, Failure) else read_answer(answer)
        if isinstance(outcome, Reply):
            return outcome
        refused = chat and outcome.kind == "bad-request" and "max_completion_tokens" in outcome.detail
        if refused and limit_field == "max_tokens":
            self._limit_field = "max_completion_tokens"
            return Failure(
                "server", "the model takes max_completion_tokens in place of max_tokens; asking again so", 0.0
            )
        return self._told(outcome)

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON that is sent."""
        sampling, chat = request.sampling, request.prompt is None
        body: dict[str, Any] = {"model": self.identity.model}
        if chat:
            body["messages"] = [{"role": role, "content": content} for role, content in request.messages]
        else:
            body["prompt"] = request.prompt
        body[self._limit_field if chat else "max_tokens"] = sampling.max_tokens
        body["temperature"] = sampling.temperature
        if sampling.top_p is not None:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop"] = sampling.stop
        if sampling.temperature and sampling.seed is not None:
            body["seed"] = sampling.seed + request.sample
        if sampling.logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs} if chat else {"logprobs": sampling.logprobs}
        if request.constraint is not None:
            body |= constraint_fields(request.constraint)
        return body

    async def aclose(self) -> None:
        """Closes the connections of the running event loop."""
        transport = self._transports.pop(asyncio.get_running_loop(), None)
        if transport is not None:
            await transport.close()

    def _transport(self) -> Transport:
        """The running loop's own: connections belong to the event loop on which they were made."""
        loop = asyncio.get_running_loop()
        transport = self._transports.get(loop)
        if transport is None:
            self._transports = {loop: t for loop, t in self._transports.items() if not loop.is_closed()}
            transport = self._transports[loop] = self._make_transport(self._server)
        return transport

    def _told(self, failure: Failure) -> Failure:
        """The failure with what the server said as one short line, less what must not be told: some repeat the key."""
        detail = failure.detail
        for secret in self._server.secrets:
            detail = detail.replace(secret, "***")
        detail = " ".join("".join(c if c.isprintable() else " " for c in detail).split())
        return replace(failure, detail=detail[:DETAIL_LENGTH])


def constraint_fields(constraint: Constraint) -> dict[str, Any]:
    """A constraint in the words of the wire: OpenAI's JSON schema, vLLM's fields for the others."""
    if constraint.kind == "json_schema":
        schema = {"name": "reply", "schema": constraint.value, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"structured_outputs": {constraint.kind: constraint.value}}


class Server(NamedTuple):
    """Where requests go, and what lets them in."""

    url: str
    """Without credentials and query: as it may be shown and stored."""
    query: str
    authorization: str
    """The header's value; empty for a server that asks for none."""
    secrets: tuple[str, ...]
    loopback: bool


def _server(base_url: str | None, key: str) -> Server:
    source = "--base-url" if base_url else "OPENAI_BASE_URL"
    text = (base_url or os.environ.get("OPENAI_BASE_URL") or PUBLIC_URL).strip()
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text:
        shown = re.sub(r"^(\w+://)?.*@", r"\1", " ".join(text.split()))
        raise InputError(f"{source} {shown}: this is no address; write it like http://localhost:8000/v1")
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError("OPENAI_API_KEY holds characters that no key has; set it again")
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    authorization, secrets = (f"Bearer {key}", [key]) if key else ("", [])
    if parts.username or parts.password:  # more particular than a key that may be meant for another server
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        authorization, secrets = f"Basic {token}", [*secrets, password, parts.password or "", token]
    hidden = tuple(secret for secret in secrets if len(secret) >= SECRET_LENGTH)
    return Server(url, parts.query, authorization, hidden, _is_loopback(parts.hostname or ""))


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


class Aiohttp:
    """The default transport: keep-alive connections and no work that a call does not need."""

    def __init__(self, server: Server) -> None:
        import aiohttp

        self._url, self._query = server.url, f"?{server.query}" if server.query else ""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if server.authorization:
            headers["Authorization"] = server.authorization
        self._proxy = _proxy(server)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the client's slots are the limit
            timeout=aiohttp.ClientTimeout(total=None),  # the client bounds every call
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        weakref.finalize(self, _close_left_open, self._session, asyncio.get_running_loop())

    async def post(self, path: str, body: bytes) -> Answer | Failure:
        import aiohttp

        try:
            async with self._session.post(self._url + path + self._query, data=body, proxy=self._proxy) as response:
                return Answer(response.status, response.headers, await response.read())
        except aiohttp.ClientHttpProxyError as error:  # a proxy's refusal to connect; its text holds the password
            return Answer(error.status, error.headers or {}, b"")
        except aiohttp.ClientConnectorError as error:
            return Failure("unreachable", str(error.os_error or error))
        except aiohttp.InvalidURL as error:
            return Failure("unreachable", f"{error} is no address")
        except (aiohttp.ClientError, OSError) as error:
            return Failure("connection", f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        await self._session.close()


def _proxy(server: Server) -> str | None:
    """The proxy that the environment names for the server.

    aiohttp's own `trust_env` would send requests to this very machine through it, and put what a .netrc holds in
    place of the key.
    """
    parts = urlsplit(server.url)
    proxies = urllib.request.getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if not named or server.loopback or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    named = named if "://" in named else f"http://{named}"
    proxy = urlsplit(named)
    if proxy.scheme not in ("http", "https") or not proxy.hostname:
        raise InputError(
            f"the environment names a proxy of the kind {proxy.scheme}: for {server.url}; only http and https ones can "
            "be used: set NO_PROXY to go without, or take openai:MODEL?client=official"
        )
    return named


def _close_left_open(session: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Closes what nobody closed, so that a program which simply ends is not told off on stderr."""
    try:
        inside: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        inside = None
    if session.closed:
        return
    if loop.is_running() and inside is not loop:  # a loop in another thread
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(session.close(), loop).result(1)
        return
    closing = session.close()  # on a loop that is closed there is nothing left to wait for: one step closes it
    with contextlib.suppress(Exception):
        closing.send(None)
    closing.close()


class Official:
    """The transport of OpenAI's own client, for whoever depends on how it connects; about ten times the CPU a call."""

    def __init__(self, server: Server) -> None:
        import openai

        self._headers = {"Authorization": server.authorization or openai.Omit()}
        self._client = openai.AsyncOpenAI(
            base_url=server.url,
            api_key="none",  # it insists on one; what is sent is the header
            default_query=dict(parse_qsl(server.query, keep_blank_values=True)),
            max_retries=0,
            timeout=None,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if server.loopback else None,
        )

    async def post(self, path: str, body: bytes) -> Answer | Failure:
        import openai

        fields = orjson.loads(body)
        chat = path == "/chat/completions"
        endpoint: Any = self._client.chat.completions if chat else self._client.completions
        create: Callable[..., Awaitable[Any]] = endpoint.with_raw_response.create
        named = {name: fields.pop(name) for name in ("model", "messages" if chat else "prompt")}
        try:
            raw = await create(**named, extra_body=fields, extra_headers=self._headers)
        except openai.APIStatusError as error:
            return Answer(error.status_code, error.response.headers, error.response.content)
        except openai.APITimeoutError as error:
            return Failure("timeout", str(error))
        except openai.APIConnectionError as error:
            refused = isinstance(error.__cause__, OSError) or "Connect" in type(error.__cause__).__name__
            cause = error.__cause__ or error
            if type(cause).__name__ == "ProxyError" and (status := re.match(r"\d{3}\b", str(cause))):
                return Answer(int(status[0]), {}, b"")
            return Failure("unreachable" if refused else "connection", f"{type(cause).__name__}: {cause}")
        except Exception as error:
            if "httpx" not in type(error).__module__:  # it lets errors in the body of an error through
                raise
            return Failure("connection", f"{type(error).__name__}: {error}")
        return Answer(raw.http_response.status_code, raw.http_response.headers, raw.http_response.content)

    async def close(self) -> None:
        await self._client.close()


Transport = Aiohttp | Official
TRANSPORTS: dict[str, Callable[[Server], Transport]] = {"aiohttp": Aiohttp, "official": Official}
