"""Connections as the environment wants them: certificates to trust, and every endpoint over either transport."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llmrank.errors import InputError
from llmrank.llm.backends.openai import OpenAIBackend
from llmrank.llm.backends.servers import AUTHORITIES
from llmrank.llm.types import Failure, Reply, Request
from tests.llm.test_responses import message, response
from tests.llm.test_scoring import PAIR, rerank
from tests.stub import Stub

HELLO = Request((("user", "hello"),))
# A certificate for localhost that signs itself, made for these tests; valid to the year 2126.
PEM = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgpNFCGRZa4CHArKgK
VDfariT383O2DQbjMsWT9a2ByumhRANCAATZCfi1wDXmALmDp7wQMYHHOMh46KZq
ArUf33gAB0Hm9sNuasjbN6Hv/E49WOx2oxUFMVJ1vPn6xCnocMTY5dcf
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUWcdQmzpJeB+xnvkEIpd2m426OXIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTE3MDE1MVoYDzIxMjYxMDI4
MTcwMTUxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATZCfi1wDXmALmDp7wQMYHHOMh46KZqArUf33gAB0Hm9sNuasjbN6Hv
/E49WOx2oxUFMVJ1vPn6xCnocMTY5dcfo28wbTAdBgNVHQ4EFgQUhnXsuKRxIgd/
jp+8xRI3zve1cWIwHwYDVR0jBBgwFoAUhnXsuKRxIgd/jp+8xRI3zve1cWIwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRwAwRAIgI2DmORpK4HS1fS0GBmZhy4oh4TzIG14vNk5Mg/l7GUQCIFyh
ozqDFNifSvLrNyrDHU8lgkkLTELTVec8yuNq9vVP
-----END CERTIFICATE-----
"""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*AUTHORITIES, "SSL_CERT_DIR", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "localhost.pem"
    path.write_text(PEM)
    return path


class Secure(Stub):
    """The same server behind TLS."""

    def __init__(self, handler: Any, pem: Path) -> None:
        super().__init__(handler)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pem)

    async def _start(self) -> int:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context).start()
        port: int = self._runner.addresses[0][1]
        return port

    def __enter__(self) -> Secure:
        super().__enter__()
        self.url = self.url.replace("http://127.0.0.1", "https://localhost")
        return self


def ask(url: str, request: Request = HELLO, **more: Any) -> Reply | Failure:
    async def work() -> Reply | Failure:
        backend = OpenAIBackend("m", base_url=url, **more)
        try:
            return await backend.complete(request)
        finally:
            await backend.aclose()

    return asyncio.run(work())


@pytest.mark.parametrize("name", AUTHORITIES)
def test_a_certificate_that_the_environment_trusts_is_trusted(
    name: str, pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Secure(lambda *_: "ok", pem) as stub:
        monkeypatch.setenv(name, str(pem))
        reply = ask(stub.url)
        assert isinstance(reply, Reply)
        assert reply.text == "ok"


def test_one_that_nobody_trusts_is_told_with_the_cure(pem: Path) -> None:
    with Secure(lambda *_: "ok", pem) as stub:
        failure = ask(stub.url)
        assert isinstance(failure, Failure)
        assert failure.kind == "unreachable"
        assert "self-signed certificate" in failure.detail
        assert "SSL_CERT_FILE" in failure.detail
        assert stub.bodies == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_certificates_that_is_none_is_told(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(InputError, match=f"SSL_CERT_FILE names {path}, which cannot be used"):
        ask("https://localhost:1/v1")


@pytest.mark.parametrize("client", ["direct", "aiohttp", "official"])
@pytest.mark.parametrize(
    ("api", "request_", "body", "path"),
    [
        ("responses", HELLO, response(message("ok")), "/v1/responses"),
        ("rerank", PAIR, rerank(0.5), "/v1/rerank"),
    ],
)
def test_every_endpoint_is_reached_over_either_transport(
    client: str, api: str, request_: Request, body: dict[str, Any], path: str
) -> None:
    with Stub(lambda *_: web.json_response(body)) as stub:
        url = stub.url.replace("http://", "http://u:hidden-word@") + "?api-version=3"
        reply = ask(url, request_, client=client, api=api)
        assert isinstance(reply, Reply)
        assert reply.text in ("ok", "0.500000000")
        assert stub.paths == [path]
        assert stub.headers[0]["Authorization"].startswith("Basic ")
    with Stub(lambda *_: web.json_response({"error": {"message": "who?"}}, status=401)) as stub:
        failure = ask(stub.url, request_, client=client, api=api)
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.detail) == ("auth", "HTTP 401: who?")
