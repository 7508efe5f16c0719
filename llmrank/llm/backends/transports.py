"""How requests get to a server: straight over a connection of ours, through aiohttp, or with the official client."""

from __future__ import annotations

import asyncio
import contextlib
import re
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import parse_qsl

import orjson

from llmrank.llm.backends.direct import Direct
from llmrank.llm.backends.servers import Server, proxy_to, tls
from llmrank.llm.backends.wire import Answer
from llmrank.llm.types import Failure


class Transport(Protocol):
    """Sends a body to a server, over connections that belong to one event loop."""

    async def post(self, path: str, body: bytes | None) -> Answer | Failure:
        """What the server answered; without a body it is a GET.

        `path` goes behind its address; behind its root where it begins with `^`.
        """
        ...

    async def close(self) -> None: ...


class Aiohttp:
    """aiohttp's client: for servers behind a proxy, and for those that send a client on to another address."""

    def __init__(self, server: Server) -> None:
        import aiohttp

        self._server = server
        self._urls: dict[str, Any] = {}
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if server.authorization:
            headers["Authorization"] = server.authorization
        self._proxy = proxy_to(server)
        context = tls(server)
        self._session = aiohttp.ClientSession(
            # The client's slots are the limit.
            connector=aiohttp.TCPConnector(limit=0) if context is None else aiohttp.TCPConnector(limit=0, ssl=context),
            timeout=aiohttp.ClientTimeout(total=None),  # the client bounds every call
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        weakref.finalize(self, _close_left_open, self._session, asyncio.get_running_loop())

    async def post(self, path: str, body: bytes | None) -> Answer | Failure:
        import aiohttp

        method = "GET" if body is None else "POST"
        try:
            url = self._urls.get(path)
            if url is None:  # made once: to read an address takes longer than to write the request's head
                url = self._urls[path] = _url(self._server.at(path))
            async with self._session.request(method, url, data=body, proxy=self._proxy) as response:
                return Answer(response.status, response.headers, await response.read())
        except aiohttp.ClientHttpProxyError as error:  # a proxy's refusal to connect; its text holds the password
            return Answer(error.status, error.headers or {}, b"")
        except aiohttp.ClientConnectorCertificateError as error:
            return Failure("unreachable", f"{error.certificate_error}; trust its issuer with SSL_CERT_FILE")
        except aiohttp.ClientConnectorError as error:
            return Failure("unreachable", str(error.os_error or error))
        except aiohttp.InvalidURL as error:
            return Failure("unreachable", f"{error} is no address")
        except (aiohttp.ClientError, OSError) as error:
            return Failure("connection", f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        await self._session.close()


def _url(address: str) -> Any:
    import aiohttp
    import yarl

    try:
        return yarl.URL(address)
    except ValueError as error:
        raise aiohttp.InvalidURL(address) from error


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

        self._server = server
        self._headers = {"Authorization": server.authorization or openai.Omit()}
        self._client = openai.AsyncOpenAI(
            base_url=server.url,
            api_key="none",  # it insists on one; what is sent is the header
            default_query=dict(parse_qsl(server.query, keep_blank_values=True)),
            max_retries=0,
            timeout=None,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if server.loopback else None,
        )

    async def post(self, path: str, body: bytes | None) -> Answer | Failure:
        import openai

        try:
            return await self._posted(path, None if body is None else orjson.loads(body))
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

    async def _posted(self, path: str, fields: dict[str, Any] | None) -> Answer:
        """The two usual paths by the client's own methods, which Azure's client sends elsewhere; others as they are."""
        endpoints: dict[str, tuple[Any, str]] = {
            "/chat/completions": (self._client.chat.completions, "messages"),
            "/completions": (self._client.completions, "prompt"),
        }
        if fields is None or path not in endpoints:
            options: Any = {"headers": self._headers}
            url = self._server.at(path)
            if fields is None:
                said = await self._client.get(url, cast_to=object, options=options)
            else:
                said = await self._client.post(url, body=fields, cast_to=object, options=options)
            return Answer(200, {}, orjson.dumps(said))
        endpoint, prompt = endpoints[path]
        create: Callable[..., Awaitable[Any]] = endpoint.with_raw_response.create
        named = {name: fields.pop(name) for name in ("model", prompt)}
        raw = await create(**named, extra_body=fields, extra_headers=self._headers)
        return Answer(raw.http_response.status_code, raw.http_response.headers, raw.http_response.content)

    async def close(self) -> None:
        await self._client.close()


def straight(server: Server) -> Transport:
    """The default: a connection of ours, but through a proxy one of aiohttp's."""
    return Direct(server, Aiohttp) if proxy_to(server) is None else Aiohttp(server)


TRANSPORTS: dict[str, Callable[[Server], Transport]] = {"direct": straight, "aiohttp": Aiohttp, "official": Official}
