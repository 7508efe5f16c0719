"""The `openai` backend: the OpenAI wire protocol, spoken over aiohttp, or by the official client where one asks for it."""

from __future__ import annotations

import email.utils
import os
import re
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import orjson

from llmrank.errors import InputError
from llmrank.llm.types import Constraint, Failure, Identity, Reply, Request
from llmrank.questions import Token

PUBLIC_URL = "https://api.openai.com/v1"
RETRIED_STATUS = frozenset({408, 409, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|maximum.{0,20}(context|length|tokens)|too (long|many tokens)|exceeds?.{0,40}(context|tokens)",
    re.I,
)
NO_SUCH_MODEL = re.compile(
    r"model.{0,80}(does not exist|not found|unknown|not exist)|unknown model|invalid model", re.I
)


class Answer(NamedTuple):
    """What a server answered: the parts of an HTTP response that matter here."""

    status: int
    headers: Mapping[str, str]
    body: bytes


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
        self.base_url = checked_url(base_url or os.environ.get("OPENAI_BASE_URL") or PUBLIC_URL)
        self.origin = without_credentials(self.base_url)
        self._key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", "")
        self._transport = TRANSPORTS[client](self.base_url, self._key)
        self._limit_field = "max_tokens"  # OpenAI's newer models take only `max_completion_tokens`, others only this

    async def complete(self, request: Request) -> Reply | Failure:
        outcome = await self._once(request)
        if isinstance(outcome, Failure) and outcome.kind == "bad-request" and self._limit_field == "max_tokens":
            if "max_completion_tokens" not in outcome.detail:
                return outcome
            self._limit_field = "max_completion_tokens"
            return Failure(
                "server", "the model takes max_completion_tokens in place of max_tokens; asking again so", 0.0
            )
        return outcome

    async def _once(self, request: Request) -> Reply | Failure:
        path = "/chat/completions" if request.prompt is None else "/completions"
        answer = await self._transport.post(path, orjson.dumps(self.body(request)))
        outcome = answer if isinstance(answer, Failure) else read_answer(answer)
        if isinstance(outcome, Failure) and self._key and self._key in outcome.detail:
            return replace(outcome, detail=outcome.detail.replace(self._key, "***"))  # some servers repeat the key
        return outcome

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
        await self._transport.close()


class Aiohttp:
    """The default transport: keep-alive connections and no work that a call does not need."""

    def __init__(self, base_url: str, key: str) -> None:
        self._url = base_url
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._session: Any = None

    async def post(self, path: str, body: bytes) -> Answer | Failure:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # the client's slots are the limit
                timeout=aiohttp.ClientTimeout(total=None),  # the client bounds every call
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=bool(urllib.request.getproxies()),
            )
        try:
            async with self._session.post(self._url + path, data=body) as response:
                return Answer(response.status, response.headers, await response.read())
        except aiohttp.ClientConnectorError as error:
            return Failure("unreachable", str(error.os_error or error))
        except aiohttp.InvalidURL as error:
            return Failure("unreachable", f"{error} is no address")
        except (aiohttp.ClientError, OSError) as error:
            return Failure("connection", f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Official:
    """The transport of OpenAI's own client, for whoever depends on how it connects; about ten times the CPU a call."""

    def __init__(self, base_url: str, key: str) -> None:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(base_url=base_url, api_key=key or "none", max_retries=0, timeout=None)

    async def post(self, path: str, body: bytes) -> Answer | Failure:
        import openai

        fields = orjson.loads(body)
        known = (
            "model",
            "messages",
            "prompt",
            "temperature",
            "max_tokens",
            "stop",
            "top_p",
            "seed",
            "logprobs",
            "top_logprobs",
        )
        extra = {name: fields.pop(name) for name in list(fields) if name not in known}
        endpoint: Any = self._client.chat.completions if path == "/chat/completions" else self._client.completions
        create: Callable[..., Awaitable[Any]] = endpoint.with_raw_response.create
        try:
            raw = await create(**fields, extra_body=extra)
        except openai.APIStatusError as error:
            return Answer(error.status_code, error.response.headers, error.response.content)
        except openai.APITimeoutError as error:
            return Failure("timeout", str(error))
        except openai.APIConnectionError as error:
            refused = isinstance(error.__cause__, OSError) or "Connect" in type(error.__cause__).__name__
            return Failure("unreachable" if refused else "connection", str(error.__cause__ or error))
        return Answer(raw.http_response.status_code, raw.http_response.headers, raw.http_response.content)

    async def close(self) -> None:
        await self._client.close()


TRANSPORTS: dict[str, Callable[[str, str], Aiohttp | Official]] = {"aiohttp": Aiohttp, "official": Official}


def read_answer(answer: Answer) -> Reply | Failure:
    """The reply in a server's answer, or the failure that it tells of."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    if answer.status != 200:
        return failure_of(answer, body)
    if not isinstance(body, dict):
        return Failure("bad-body", answer.body[:80].decode(errors="replace"))
    if body.get("error"):
        return Failure("server", _detail(body, answer.body))
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Failure("no-choices")
    return _reply(choices[0], body.get("usage"))


def failure_of(answer: Answer, body: Any) -> Failure:
    """The typed failure behind an HTTP status and the body that came with it."""
    status, detail = answer.status, _detail(body, answer.body)
    error = body.get("error") if isinstance(body, dict) else None
    code = str(error.get("code") or "") if isinstance(error, dict) else ""
    detail = f"HTTP {status}: {detail}" if detail else f"HTTP {status}"
    wait = retry_after(answer.headers)
    if status == 429:
        return Failure("quota" if code == "insufficient_quota" else "rate-limited", detail, wait)
    if status in RETRIED_STATUS or status >= 500:
        return Failure("server", detail, wait)
    if status in (401, 403):
        return Failure("auth", detail)
    if code == "context_length_exceeded" or (status in (400, 413, 422) and TOO_LONG.search(detail)):
        return Failure("context-length", detail)
    if status == 404 or code == "model_not_found" or (status == 400 and NO_SUCH_MODEL.search(detail)):
        return Failure("unknown-model", detail)
    return Failure("bad-request", detail)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `Retry-After` (seconds, also fractional, or an HTTP date) or `retry-after-ms`."""
    if milliseconds := headers.get("retry-after-ms"):
        try:
            return max(0.0, float(milliseconds) / 1000)
        except ValueError:
            pass
    value = headers.get("Retry-After") or headers.get("retry-after")
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def constraint_fields(constraint: Constraint) -> dict[str, Any]:
    """A constraint in the words of the wire: OpenAI's JSON schema, vLLM's fields for the others."""
    if constraint.kind == "json_schema":
        schema = {"name": "reply", "schema": constraint.value, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"structured_outputs": {constraint.kind: constraint.value}}


def checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"--base-url {without_credentials(url)}: this is no address; write it like http://localhost:8000/v1"
        )
    return url.rstrip("/")


def without_credentials(url: str) -> str:
    """The address without user, password and query, as it may be shown and stored."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def _reply(choice: Mapping[str, Any], usage: Any) -> Reply:
    message = choice.get("message")
    reasoning = None
    if isinstance(message, dict):
        text = _text(message.get("content")) or _text(message.get("refusal"))
        reasoning = _text(message.get("reasoning_content") or message.get("reasoning")) or None
    else:
        text = _text(choice.get("text"))
    usage = usage if isinstance(usage, dict) else {}
    cached = usage.get("prompt_tokens_details")
    return Reply(
        text=text,
        finish=choice.get("finish_reason"),
        tokens=_tokens(choice.get("logprobs")),
        reasoning=reasoning,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(cached.get("cached_tokens")) if isinstance(cached, dict) else None,
    )


def _text(content: Any) -> str:
    if isinstance(content, list):  # some servers answer in parts, as they may be asked in parts
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _tokens(logprobs: Any) -> tuple[Token, ...] | None:
    """The tokens of either shape, chat's or completions'; None where there are none or they make no sense."""
    if not isinstance(logprobs, dict):
        return None
    try:
        if logprobs.get("content"):
            return tuple(
                Token(
                    t["token"],
                    float(t["logprob"]),
                    _top((a["token"], a["logprob"]) for a in t.get("top_logprobs") or ()),
                )
                for t in logprobs["content"]
            )
        if logprobs.get("tokens"):
            tops = logprobs.get("top_logprobs") or [None] * len(logprobs["tokens"])
            return tuple(
                Token(token, float(p), _top((top or {}).items()))
                for token, p, top in zip(logprobs["tokens"], logprobs["token_logprobs"], tops, strict=True)
            )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return None


def _top(pairs: Any) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(((token, float(p)) for token, p in pairs), key=lambda pair: -pair[1]))


def _detail(body: Any, raw: bytes) -> str:
    """What the server said of an error, in one line."""
    said: Any = body
    for name in ("error", "message"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    if isinstance(said, dict):
        said = said.get("detail") or said
    text = said if isinstance(said, str) else raw.decode(errors="replace")
    return " ".join(text.split())[:300]
