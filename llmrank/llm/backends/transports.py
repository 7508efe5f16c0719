"""How requests get to a server: its address and what lets one in, aiohttp or the official client, proxies and TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import os
import re
import ssl
import urllib.request
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import orjson

from llmrank.errors import InputError
from llmrank.llm.backends.wire import Answer
from llmrank.llm.types import Failure

PUBLIC_URL = "https://api.openai.com/v1"
SECRET_LENGTH = 4  # what stands in for a key where none is needed (`x`, `no`) is no secret, and part of many words
SEVERAL = re.compile(r",\s*(?=\w+://)")
AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name a file of certificates to trust; the first that is set counts."""


class Transport(Protocol):
    """Sends a body to a server, over connections that belong to one event loop."""

    async def post(self, path: str, body: bytes | None) -> Answer | Failure:
        """What the server answered; without a body it is a GET.

        `path` goes behind its address; behind its root where it begins with `^`.
        """
        ...

    async def close(self) -> None: ...


class Limits(NamedTuple):
    """What one server of several takes, where its address says so: `http://host/v1#concurrency=16`."""

    concurrency: int | None = None
    """Requests in flight; None: what the job allows for each."""


class Server(NamedTuple):
    """Where requests go, and what lets them in."""

    url: str
    """Without credentials and query: as it may be shown and stored."""
    query: str
    authorization: str
    """The header's value; empty for a server that asks for none."""
    secrets: tuple[str, ...]
    loopback: bool
    limits: Limits = Limits()

    def at(self, path: str) -> str:
        """The whole address for a path; vLLM has some at its root, outside of `/v1`."""
        where = self.url.removesuffix("/v1") + path[1:] if path.startswith("^") else self.url + path
        return f"{where}?{self.query}" if self.query else where


def servers(base_url: str | None, key: str | None = None) -> list[Server]:
    """The servers that a flag or the environment names, separated by commas."""
    source = "--base-url" if base_url else "OPENAI_BASE_URL"
    text = (base_url or os.environ.get("OPENAI_BASE_URL") or PUBLIC_URL).strip().rstrip(",")
    key = os.environ.get("OPENAI_API_KEY", "") if key is None else key
    named = [_server(part.strip(), source, key.strip()) for part in SEVERAL.split(text)]
    if len({server.url for server in named}) < len(named):
        raise InputError(f"{source} {named[0].url}, ...: an address is given twice; name each server once")
    return named


def _server(text: str, source: str, key: str) -> Server:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text:
        shown = re.sub(r"^(\w+://)?.*@", r"\1", " ".join(text.split()))
        raise InputError(f"{source} {shown}: this is no address; write it like http://localhost:8000/v1")
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
    limits = _limits(parts.fragment, f"{source} {url}")
    return Server(url, parts.query, authorization, hidden, is_loopback(parts.hostname or ""), limits)


def _limits(fragment: str, source: str) -> Limits:
    values: dict[str, float] = {}
    for name, text in parse_qsl(fragment, keep_blank_values=True):
        if name not in Limits._fields or not re.fullmatch(r"0*[1-9]\d{0,8}", text):
            raise InputError(f"{source}: #{name}={text} is no limit; write it like #concurrency=16")
        values[name] = int(text)
    return Limits(**values)  # type: ignore[arg-type]  # both are whole numbers


def is_loopback(host: str) -> bool:
    """Whether a host is this very machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


class Aiohttp:
    """The default transport: keep-alive connections and no work that a call does not need."""

    def __init__(self, server: Server) -> None:
        import aiohttp

        self._server = server
        self._urls: dict[str, Any] = {}
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if server.authorization:
            headers["Authorization"] = server.authorization
        self._proxy = _proxy(server)
        context = _tls(server)
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


def _tls(server: Server) -> ssl.SSLContext | None:
    """What the environment says of certificates; None where aiohttp's own defaults will do."""
    name = next((name for name in AUTHORITIES if os.environ.get(name)), None)
    folder = os.environ.get("SSL_CERT_DIR")
    if not server.url.startswith("https:") or (name is None and not folder):
        return None
    try:
        return ssl.create_default_context(cafile=os.environ[name] if name else None, capath=folder or None)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"{name or 'SSL_CERT_DIR'} names {os.environ[name] if name else folder}, which cannot be used as "
            f"certificates ({error.strerror or error}); correct or unset it"
        ) from error


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


TRANSPORTS: dict[str, Callable[[Server], Transport]] = {"aiohttp": Aiohttp, "official": Official}
