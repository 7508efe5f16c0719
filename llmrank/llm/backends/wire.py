"""What an OpenAI-compatible server answered, read: the reply, or the typed failure that it tells of. Never raises."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Collection, Mapping
from datetime import UTC
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from llmrank.llm.types import Failure, Reply
from llmrank.questions import Token

LEAST = -9999.0
"""The log-probability of what cannot be, as servers write it; also that of a token whose own is not told."""
CERTAIN = -1e-3  # a log-probability that leaves nothing worth telling to other tokens

RETRIED_STATUS = frozenset({408, 409, 425})
NO_QUOTA = frozenset({"insufficient_quota", "insufficient_balance", "billing_hard_limit_reached"})
TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|maximum.{0,20}(context|length|tokens)|too (long|many tokens)"
    r"|exceeds?.{0,40}(context|tokens)|must have less than \d+ tokens|tokens` must be <= \d"
    r"|max_tokens must be at least 1, got",
    re.I,
)
NO_SUCH_MODEL = re.compile(
    r"\bmodel\b.{0,80}?\b(does not exist|not exist|not found|is unknown)\b|\b(unknown|invalid) model\b"
    r"|not a valid model|model identifier is invalid",
    re.I,
)
BAD_KEY = re.compile(r"\b(invalid|incorrect) api[ _]key\b|\bapi[ _]key (is )?(not valid|invalid)\b", re.I)


CONTEXT_NAMES = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx", "n_ctx_train")
"""How vLLM, OpenRouter, Groq, LM Studio and llama.cpp name the tokens that a model takes."""
LEAST_CONTEXT = 64  # a smaller number is something else


class Answer(NamedTuple):
    """What a server answered: the parts of an HTTP response that matter here."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def read_answer(answer: Answer) -> Reply | Failure:
    """The reply in a server's answer, or the failure that it tells of."""
    body = opened(answer)
    if isinstance(body, Failure):
        return body
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return _reply(first, body.get("usage")) if isinstance(first, dict) else Failure("no-choices")


def opened(answer: Answer) -> dict[str, Any] | Failure:
    """The JSON of an answer that is no error."""
    body = _parsed(answer.body)
    if isinstance(body, list) and len(body) == 1:  # one gateway wraps its errors so
        body = body[0]
    if not 200 <= answer.status < 300:
        return failure_of(answer, body)
    if not isinstance(body, dict):
        return Failure("bad-body", _text_of(answer.body))
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    for told in (body, first):
        if isinstance(told, dict) and told.get("error"):  # a gateway that hands on what went wrong behind it
            return failure_of(answer._replace(status=_told_status(told["error"])), told)
    return body


def context_listed(answer: Answer, model: str) -> int | None:
    """How many tokens the model takes, from the list of a server's models; None where that does not tell."""
    body = opened(answer)
    listed = body.get("data") if isinstance(body, dict) else None
    named = [m for m in listed if isinstance(m, dict) and m.get("id") == model] if isinstance(listed, list) else []
    for entry in named:
        told = {**(entry["meta"] if isinstance(entry.get("meta"), dict) else {}), **entry}
        for name in CONTEXT_NAMES:
            if (tokens := read_count(told.get(name))) is not None and tokens >= LEAST_CONTEXT:
                return tokens
    return None


def failure_of(answer: Answer, body: Any) -> Failure:
    """The typed failure behind an HTTP status and the body that came with it; `detail` is all that the server said."""
    status, said = answer.status, _said(body, answer.body)
    error = body.get("error") if isinstance(body, dict) else None
    codes = {str(error.get(name)) for name in ("code", "type")} if isinstance(error, dict) else set()
    detail = f"HTTP {status}: {said}" if said.strip() else f"HTTP {status}"
    wait = retry_after(answer.headers)
    if status == 402 or codes & NO_QUOTA:
        return Failure("quota", detail)
    if status == 413 or codes & TOO_LONG_CODES or (status in (400, 422) and TOO_LONG.search(said)):
        return Failure("context-length", detail)
    if status == 404 or "model_not_found" in codes or (status == 400 and NO_SUCH_MODEL.search(said)):
        hint = "" if "model" in said.lower() else "; if the name is right, is the address? Most end in /v1"
        return Failure("unknown-model", detail + hint)
    if status in (401, 403, 407) or (status == 400 and BAD_KEY.search(said)):
        return Failure("auth", detail)
    if status == 429:
        return Failure("rate-limited", detail, wait)
    if status in RETRIED_STATUS or status >= 500:
        return Failure("server", detail, wait)
    return Failure("bad-request", detail)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `Retry-After` (seconds, also fractional, or an HTTP date) or `retry-after-ms`."""
    if (milliseconds := read_number(headers.get("retry-after-ms"))) is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("Retry-After") or headers.get("retry-after")
    if not value:
        return None
    if (seconds := read_number(value)) is not None:
        return max(0.0, seconds)
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _parsed(raw: bytes) -> Any:
    """The JSON of a body; None where it is none."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:  # Python servers write NaN, and halves of surrogate pairs where a token ends in the middle of a character
        loose = json.loads(raw, parse_constant={"-Infinity": LEAST}.get)
        return orjson.loads(json.dumps(loose, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _told_status(error: Any) -> int:
    """The status that an error in a body of status 200 would have come with."""
    code = read_number(error.get("code") if isinstance(error, dict) else None)
    return int(code) if code is not None and 400 <= code < 600 else 500


def _said(body: Any, raw: bytes) -> str:
    """What the server said of an error."""
    said: Any = body
    for name in ("error", "message"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    if isinstance(said, dict):
        said = said.get("detail") or said
    return said if isinstance(said, str) else _text_of(raw)


def _text_of(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _reply(choice: Mapping[str, Any], usage: Any) -> Reply:
    message = choice.get("message")
    reasoning = None
    if isinstance(message, dict):
        text = read_text(message.get("content")) or read_text(message.get("refusal"))
        reasoning = read_text(message.get("reasoning_content") or message.get("reasoning")) or None
    else:
        text = read_text(choice.get("text"))
    finish = choice.get("finish_reason")
    tokens = read_tokens(choice.get("logprobs"))
    if reasoning and tokens:
        tokens = _of_the_answer(tokens, text)
    return used(Reply(text, finish if isinstance(finish, str) else None, tokens, reasoning), usage)


def used(reply: Reply, usage: Any) -> Reply:
    """The reply with what it took, from the usage that came with it."""
    if isinstance(usage, dict):
        cached = usage.get("prompt_tokens_details")
        told = cached.get("cached_tokens") if isinstance(cached, dict) else usage.get("prompt_cache_hit_tokens")
        reply.prompt_tokens = read_count(usage.get("prompt_tokens"))
        reply.completion_tokens = read_count(usage.get("completion_tokens"))
        reply.cached_tokens = read_count(told)
    return reply


def without_rivals(reply: Reply, wanted: int) -> bool:
    """Whether a place tells one token, which has not all the probability, and of fewer than were asked for no other.

    vLLM's server answers so where another request that ran with this one named the tokens it wanted to be told: a label
    would be taken for certain.
    """
    return any(
        1 < len(token.top) < wanted and token.top[1][1] <= LEAST and token.top[0][1] < CERTAIN
        for token in reply.tokens or ()
    )


def _of_the_answer(tokens: tuple[Token, ...], text: str) -> tuple[Token, ...]:
    """The tokens that spell the answer, where a server split the reasoning off the text and not off the tokens."""
    said = "".join(token.text for token in tokens)
    start = said.rfind(text.strip())
    if not text.strip() or start <= 0 or said.strip() == text.strip():
        return tokens
    for i, token in enumerate(tokens):
        start -= len(token.text)
        if start < 0:
            return tokens[i:]
    return tokens


def read_text(content: Any) -> str:
    """A text, whole or in parts, as some servers answer; parts that are no text (thinking, images) are left out."""
    if isinstance(content, list):
        return "".join(read_text(part.get("text") if isinstance(part, dict) else part) for part in content)
    return content if isinstance(content, str) else ""


def read_count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None  # True is an int too


def read_tokens(logprobs: Any) -> tuple[Token, ...] | None:
    """The tokens of either shape, chat's or completions'; None where there are none or they spell nothing."""
    if not isinstance(logprobs, dict):
        return None
    content, words = logprobs.get("content"), logprobs.get("tokens")
    if isinstance(content, list) and content:
        if not all(isinstance(t, dict) for t in content):
            return None
        told = [(t.get("token"), t.get("logprob"), t.get("top_logprobs")) for t in content]
    elif isinstance(words, list) and words:
        columns = (logprobs.get("token_logprobs"), logprobs.get("top_logprobs"))
        own, tops = (c if isinstance(c, list) and len(c) == len(words) else [None] * len(words) for c in columns)
        told = list(zip(words, own, tops, strict=True))
    else:
        return None
    tokens = tuple(_token(*token) for token in told if isinstance(token[0], str))
    return tokens if len(tokens) == len(told) else None


def _token(text: str, logprob: Any, rivals: Any) -> Token:
    top = _top(rivals)
    own = _logprob(logprob)
    return Token(text, dict(top).get(text, LEAST) if own is None else own, top)


def _top(rivals: Any) -> tuple[tuple[str, float], ...]:
    """The most likely tokens, most likely first, from chat's list of objects or completions' object."""
    pairs: Collection[tuple[Any, Any]] = ()
    if isinstance(rivals, list):
        pairs = [(a.get("token"), a.get("logprob")) for a in rivals if isinstance(a, dict)]
    elif isinstance(rivals, dict):
        pairs = rivals.items()
    # What nearly all are, told without a call for each: this is a good part of reading a reply.
    top = [pair for pair in pairs if type(pair[0]) is str and type(pair[1]) is float and LEAST <= pair[1] <= 0.0]
    if len(top) < len(pairs):
        top = [(t, p) for t, raw in pairs if isinstance(t, str) and (p := _logprob(raw)) is not None]
    return tuple(sorted(top, key=_OF_LOGPROB, reverse=True))


_OF_LOGPROB = itemgetter(1)


def _logprob(value: Any) -> float | None:
    """A finite log-probability; None for what is none. Whatever cannot be has the least."""
    if type(value) is float and LEAST <= value <= 0.0:
        return value
    number = read_number(value)
    return None if number is None or number == float("inf") else max(number, LEAST)


def read_number(value: Any) -> float | None:
    """A number, also in words; None for what is none, NaN included."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == number else None
