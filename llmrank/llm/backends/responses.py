"""OpenAI's Responses API: a request as its body, and what it answers as a reply."""

from __future__ import annotations

from typing import Any

from llmrank.llm.backends.wire import Answer, opened, read_count, read_text, read_tokens
from llmrank.llm.types import Failure, Reply, Request
from llmrank.questions import Token

LEAST_TOKENS = 16  # a smaller limit is refused
FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


def responses_body(model: str, request: Request) -> dict[str, Any]:
    """The JSON that is sent; nothing is kept on the server."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "input": [{"role": role, "content": content} for role, content in request.messages],
        "max_output_tokens": max(sampling.max_tokens, LEAST_TOKENS),
        "temperature": sampling.temperature,
        "store": False,
    }
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.logprobs:
        body |= {"top_logprobs": sampling.logprobs, "include": ["message.output_text.logprobs"]}
    if request.constraint is not None:
        schema = {"type": "json_schema", "name": "reply", "schema": request.constraint.value, "strict": True}
        body["text"] = {"format": schema}
    return body


def read_response(answer: Answer) -> Reply | Failure:
    """The reply in an answer, or the failure that it tells of."""
    body = opened(answer)
    if isinstance(body, Failure):
        return body
    output = body.get("output")
    if not isinstance(output, list):
        return Failure("no-choices")
    items = [item for item in output if isinstance(item, dict)]
    parts = [
        part
        for item in items
        if item.get("type") == "message" and isinstance(item.get("content"), list)
        for part in item["content"]
        if isinstance(part, dict)
    ]
    incomplete = body.get("incomplete_details")
    why = incomplete.get("reason") if isinstance(incomplete, dict) else None
    if not parts and why is None and not any(item.get("type") == "reasoning" for item in items):
        return Failure("no-choices")
    reply = Reply(
        "".join(read_text(part.get("text")) or read_text(part.get("refusal")) for part in parts),
        FINISH.get(str(why), "stop" if why is None else str(why)),
        _tokens(parts),
        "".join(_thoughts(item) for item in items if item.get("type") == "reasoning") or None,
    )
    return _used(reply, body.get("usage"))


def _tokens(parts: list[dict[str, Any]]) -> tuple[Token, ...] | None:
    told = [part["logprobs"] for part in parts if isinstance(part.get("logprobs"), list)]
    return read_tokens({"content": [token for tokens in told for token in tokens]})


def _thoughts(item: dict[str, Any]) -> str:
    """What is told of the reasoning: its text, or a summary."""
    return read_text(item.get("content")) or read_text(item.get("summary"))


def _used(reply: Reply, usage: Any) -> Reply:
    if isinstance(usage, dict):
        details = usage.get("input_tokens_details")
        reply.prompt_tokens = read_count(usage.get("input_tokens"))
        reply.completion_tokens = read_count(usage.get("output_tokens"))
        reply.cached_tokens = read_count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return reply
