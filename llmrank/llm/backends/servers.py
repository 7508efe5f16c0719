"""The servers that requests go to: addresses, what lets one in, and what the environment says of the way there."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import ssl
import urllib.request
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from llmrank.errors import InputError

PUBLIC_URL = "https://api.openai.com/v1"
SECRET_LENGTH = 4  # what stands in for a key where none is needed (`x`, `no`) is no secret, and part of many words
SEVERAL = re.compile(r",\s*(?=\w+://)")
AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name a file of certificates to trust; the first that is set counts."""


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


def tls(server: Server) -> ssl.SSLContext | None:
    """What the environment says of certificates; None where the defaults will do."""
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


def proxy_to(server: Server) -> str | None:
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
