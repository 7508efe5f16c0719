"""The Responses API: what is sent, and what its answers say, with reasoning, log-probabilities and cut-off replies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from llmrank.llm.backends import open_backend
from llmrank.llm.types import Constraint, Failure, Reply, Request, Sampling, capabilities_of
from llmrank.questions import Token
from tests.stub import Stub

HELLO = Request((("system", "s"), ("user", "hello")), sampling=Sampling(max_tokens=4, logprobs=2))


def message(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text, **more}]}


def response(*output: Any, **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2, "total_tokens": 11}
    return {"object": "response", "status": "completed", "error": None, "output": output, "usage": usage, **more}


def ask(body: Any, request: Request = HELLO, spec: str = "openai:m?api=responses", status: int = 200) -> Any:
    async def work(url: str) -> Reply | Failure:
        backend = open_backend(spec, base_url=url)
        outcome = await backend.complete(request)
        await backend.aclose()  # type: ignore[attr-defined]
        return outcome

    with Stub(lambda *_: web.json_response(body, status=status)) as stub:
        return asyncio.run(work(stub.url)), stub


def test_what_is_sent() -> None:
    request = Request(HELLO.messages, sampling=HELLO.sampling, constraint=Constraint("json_schema", {"type": "object"}))
    _, stub = ask(response(message("ok")), request, "openai:m?api=responses&effort=low")
    assert stub.paths == ["/v1/responses"]
    assert stub.bodies == [
        {
            "model": "m",
            "input": [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}],
            "max_output_tokens": 16,
            "temperature": 0.0,
            "store": False,
            "top_logprobs": 2,
            "include": ["message.output_text.logprobs"],
            "text": {"format": {"type": "json_schema", "name": "reply", "schema": {"type": "object"}, "strict": True}},
            "reasoning": {"effort": "low"},
        }
    ]


TOP = [{"token": "yes", "logprob": -0.25}, {"token": "no", "logprob": -1.5}]
READ: dict[str, tuple[dict[str, Any], Reply]] = {
    "plain": (response(message("yes")), Reply("yes", "stop", None, None, 9, 2, 4)),
    "logprobs": (
        response(message("yes", logprobs=[{"token": "yes", "logprob": -0.25, "top_logprobs": TOP}])),
        Reply("yes", "stop", (Token("yes", -0.25, (("yes", -0.25), ("no", -1.5))),), None, 9, 2, 4),
    ),
    "reasoning": (
        response({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, message("yes")),
        Reply("yes", "stop", None, "hm", 9, 2, 4),
    ),
    "cut off while thinking": (
        response(
            {"type": "reasoning", "summary": []},
            status="incomplete",
            incomplete_details={"reason": "max_output_tokens"},
        ),
        Reply("", "length", None, None, 9, 2, 4),
    ),
    "refused": (
        response({"type": "message", "content": [{"type": "refusal", "refusal": "I can't."}]}),
        Reply("I can't.", "stop", None, None, 9, 2, 4),
    ),
    "two messages": (response(message("a"), message("b")), Reply("ab", "stop", None, None, 9, 2, 4)),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read(name: str) -> None:
    body, expected = READ[name]
    reply, _ = ask(body)
    assert reply == expected


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (response(status="failed", error={"code": "server_error", "message": "oh"}), 200, "server"),
        (response(), 200, "no-choices"),
        ({"output": "yes"}, 200, "no-choices"),
        ([1, 2], 200, "bad-body"),
        ({"error": {"message": "no", "code": "invalid_api_key"}}, 401, "auth"),
    ],
)
def test_what_is_no_reply(body: Any, status: int, kind: str) -> None:
    outcome, _ = ask(body, status=status)
    assert isinstance(outcome, Failure)
    assert outcome.kind == kind


def test_it_claims_no_more_than_it_can() -> None:
    backend = open_backend("openai:m?api=responses", base_url="http://h/v1")
    assert not {"raw", "prefill", "choice", "regex", "prompt-logprobs"} & capabilities_of(backend)
