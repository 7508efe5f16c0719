"""What servers really answer is read alike over both transports, and nothing that they send raises."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.llm.backends import wire
from llmrank.llm.backends.openai import OpenAIBackend
from llmrank.llm.backends.wire import LEAST, Answer, context_listed, read_answer, retry_after
from llmrank.llm.types import Failure, Reply, Request
from llmrank.questions import Token
from llmrank.templates import Template, load
from tests.stub import Stub, completion

CLIENTS = ["direct", "aiohttp", "official"]


def chat(**message: Any) -> dict[str, Any]:
    body = completion("")
    body["choices"][0]["message"] = {"role": "assistant", **message}
    return body


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


class Case(dict[str, Any]):
    """A status, a body (JSON, or bytes as they are) and headers."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        super().__init__(status=status, headers=headers)
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()

    def response(self) -> web.Response:
        return web.Response(body=self.body, **self)


REPLIES: dict[str, tuple[Case, Reply]] = {
    "plain": (Case(200, completion("[2] > [1]")), Reply("[2] > [1]", "stop", None, None, 100, 3)),
    "null content": (Case(200, completion(None)), Reply("", "stop", None, None, 100, 0)),
    "empty content": (Case(200, completion("")), Reply("", "stop", None, None, 100, 0)),
    "cut off": (
        Case(200, completion("[2] >", finish_reason="length")),
        Reply("[2] >", "length", None, None, 100, 2),
    ),
    "in parts": (
        Case(200, chat(content=[{"type": "text", "text": "[2] "}, {"type": "image"}, {"text": None}, {"text": "> 1"}])),
        Reply("[2] > 1", "stop", None, None, 100, 0),
    ),
    "parts that are plain, and thinking": (
        Case(200, chat(content=[{"type": "thinking", "thinking": [{"text": "hm"}]}, "yes", {"text": {"value": "?"}}])),
        Reply("yes", "stop", None, None, 100, 0),
    ),
    "a refusal": (
        Case(200, chat(content=None, refusal="I'm sorry, but I can't help with that.")),
        Reply("I'm sorry, but I can't help with that.", "stop", None, None, 100, 0),
    ),
    "reasoning_content": (
        Case(200, chat(content="yes", reasoning_content="[3] > [1]?")),
        Reply("yes", "stop", None, "[3] > [1]?", 100, 0),
    ),
    "reasoning": (
        Case(200, chat(content="yes", reasoning="hm", reasoning_content=None)),
        Reply("yes", "stop", None, "hm", 100, 0),
    ),
    "thinking that was cut off": (
        Case(200, chat(content=None, reasoning_content="[3] > [1]")),
        Reply("", "stop", None, "[3] > [1]", 100, 0),
    ),
    "a completion": (
        Case(200, {"choices": [{"text": " yes", "index": 0, "finish_reason": "stop"}], "usage": None}),
        Reply(" yes", "stop"),
    ),
    "created": (Case(201, completion("yes")), Reply("yes", "stop", None, None, 100, 1)),
    "an empty choice": (Case(200, {"choices": [{}]}), Reply("")),
    "error: null": (Case(200, {**completion("yes"), "error": None}), Reply("yes", "stop", None, None, 100, 1)),
    "usage with cached tokens": (
        Case(
            200,
            {
                **completion("yes"),
                "usage": {
                    "prompt_tokens": 9,
                    "completion_tokens": 2.0,
                    "prompt_tokens_details": {"cached_tokens": 8},
                },
            },
        ),
        Reply("yes", "stop", None, None, 9, 2, 8),
    ),
    "odd usage": (
        Case(
            200,
            {
                **completion("yes", finish_reason=7),
                "usage": {"prompt_tokens": "9", "completion_tokens": True, "prompt_tokens_details": []},
            },
        ),
        Reply("yes", None),
    ),
    "usage that is a list": (Case(200, {**completion("yes"), "usage": [1]}), Reply("yes", "stop")),
    "half a surrogate pair, as Python servers write it": (
        Case(200, json.dumps(completion("yes \ud83d")).encode()),
        Reply("yes ?", "stop", None, None, 100, 2),
    ),
    "a byte order mark": (
        Case(200, b"\xef\xbb\xbf" + json.dumps(completion("yes")).encode()),
        Reply("yes", "stop", None, None, 100, 1),
    ),
}

RESULT = "This model's maximum context length is"
TOO_LONG = {
    "OpenAI": (400, error(f"{RESULT} 4097 tokens. However, your messages resulted in 5000 tokens.")),
    "OpenAI's code": (400, error("bad", code="context_length_exceeded")),
    "OpenAI, newer": (400, error("Your input exceeds the context window of this model. Please adjust your input.")),
    "vLLM": (
        400,
        {"object": "error", "message": f"{RESULT} 1024 tokens. However, you requested 2000 tokens.", "code": 400},
    ),
    "vLLM, prompt": (400, error("The decoder prompt (length 2000) is longer than the maximum model length of 1024.")),
    "vLLM, newer": (
        400,
        error("You passed 1025 input tokens. However, the model's context length is only 1024 tokens."),
    ),
    "llama.cpp": (
        400,
        error(
            "the request exceeds the available context size, try increasing it",
            code=400,
            type="exceed_context_size_error",
            n_ctx=4096,
        ),
    ),
    "llama.cpp, numbers": (400, error("request (5000 tokens) exceeds the available context size (4096 tokens)")),
    "SGLang": (
        400,
        {
            "object": "error",
            "message": "The input (2000 tokens) is longer than the model's context length (1024 tokens).",
            "code": 400,
        },
    ),
    "SGLang, total": (400, error("Requested token count exceeds the model's maximum context length of 1024 tokens.")),
    "TGI": (422, {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"}),
    "TGI, total": (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048."}),
    "Anthropic": (400, {"type": "error"} | error("prompt is too long: 210000 tokens > 200000 maximum")),
    "Anthropic, total": (400, error("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000")),
    "Gemini": (
        400,
        [error("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", code=400)],
    ),
    "Mistral": (
        400,
        {"message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"},
    ),
    "xAI": (400, {"error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."}),
    "nginx": (413, b"<html>413 Request Entity Too Large</html>"),
    "413": (413, error("request_too_large")),
    "in a 200": (200, error("prompt is too long", code="context_length_exceeded")),
}
UNKNOWN_MODEL = {
    "OpenAI": (404, error("The model `m` does not exist or you do not have access to it.", code="model_not_found")),
    "OpenAI, no access": (403, error("Project `p` does not have access to model `m`", code="model_not_found")),
    "vLLM": (404, {"object": "error", "message": "The model `m` does not exist.", "type": "NotFoundError"}),
    "vLLM, older": (400, error("The model `/models/meta/Llama-3.1-8B` does not exist.")),
    "LiteLLM": (400, error("Invalid model name passed in model=m. Call `/v1/models`")),
    "DeepSeek": (400, error("Model Not Exist")),
    "OpenRouter": (400, error("m is not a valid model ID", code=400)),
    "Ollama": (404, {"error": 'model "m" not found, try pulling it first'}),
    "Anthropic": (404, {"type": "error", "error": {"type": "not_found_error", "message": "model: m"}}),
    "Bedrock": (400, {"message": "The provided model identifier is invalid."}),
    "a path that is none": (404, b"404 page not found"),
}
FAILURES: dict[str, tuple[Case, Failure]] = {
    **{f"too long: {name}": (Case(*case), Failure("context-length", "", None)) for name, case in TOO_LONG.items()},
    **{
        f"unknown model: {name}": (Case(*case), Failure("unknown-model", "", None))
        for name, case in UNKNOWN_MODEL.items()
    },
    "choices empty": (Case(200, {"choices": []}), Failure("no-choices")),
    "choices absent": (Case(200, {"id": "x"}), Failure("no-choices")),
    "choices null": (Case(200, {"choices": None}), Failure("no-choices")),
    "choices of no use": (Case(200, {"choices": ["[2] > [1]"]}), Failure("no-choices")),
    "no JSON": (Case(200, b"<html>[2] > [1]</html>"), Failure("bad-body", "<html>[2] > [1]</html>")),
    "JSON of something else": (Case(200, ["[2] > [1]"]), Failure("bad-body", '["[2] > [1]"]')),
    "cut JSON": (Case(200, json.dumps(completion("[2] > [1]")).encode()[:80]), Failure("bad-body", '{"id"')),
    "nothing": (Case(200, b""), Failure("bad-body")),
    "a stream that was not asked for": (Case(200, b'data: {"choices": []}\n\n'), Failure("bad-body", "data:")),
    "no text": (Case(200, b"\xff\xfe\x00{"), Failure("bad-body")),
    "brackets without end": (Case(200, b"[" * 100_000), Failure("bad-body", "[[[")),
    "error in a 200": (Case(200, error("upstream says [2] > [1]")), Failure("server", "HTTP 500: upstream says")),
    "error in a 200 with its status": (
        Case(200, error("slow down", code=429) | {"user_id": "u"}),
        Failure("rate-limited", "HTTP 429: slow down"),
    ),
    "error in a 200's choice": (
        Case(200, {"choices": [{"message": {"content": "[2] >"}, "finish_reason": "error"} | error("gone", code=502)]}),
        Failure("server", "HTTP 502: gone"),
    ),
    "error in words in a 200": (Case(200, {"error": "overloaded"}), Failure("server", "HTTP 500: overloaded")),
    "400": (Case(400, error("temperature must be below 2")), Failure("bad-request", "HTTP 400: temperature must")),
    "400 on one parameter of the model": (
        Case(400, error("Unknown parameter: 'seed' is unknown to us. This model takes others.")),
        Failure("bad-request"),
    ),
    "400 on the largest reply": (
        Case(400, error("max_tokens is too large: 5000. This model supports at most 4096 completion tokens.")),
        Failure("bad-request"),
    ),
    "400 for the key": (
        Case(400, [error("API key not valid. Please pass a valid API key.", code=400)]),
        Failure("auth", "HTTP 400: API key"),
    ),
    "401": (Case(401, error("Incorrect API key provided")), Failure("auth", "HTTP 401: Incorrect API key")),
    "402": (Case(402, error("Insufficient Balance")), Failure("quota", "HTTP 402")),
    "403": (Case(403, error("country not supported")), Failure("auth", "HTTP 403: country")),
    "405": (Case(405, b""), Failure("bad-request", "HTTP 405")),
    "408": (Case(408, b""), Failure("server", "HTTP 408")),
    "422": (
        Case(422, {"detail": [{"loc": ["body", "stop"], "msg": "field required"}]}),
        Failure("bad-request", 'HTTP 422: {"detail"'),
    ),
    "422 in words": (Case(422, {"detail": "bad stop"}), Failure("bad-request", "HTTP 422: bad stop")),
    "429": (Case(429, error("slow down, limit 3")), Failure("rate-limited", "HTTP 429: slow down")),
    "429, seconds": (Case(429, b"", **{"Retry-After": "2"}), Failure("rate-limited", "HTTP 429", 2.0)),
    "429, fractional": (Case(429, b"", **{"Retry-After": "0.25"}), Failure("rate-limited", "HTTP 429", 0.25)),
    "429, milliseconds": (
        Case(429, b"", **{"Retry-After": "9", "retry-after-ms": "125"}),
        Failure("rate-limited", "", 0.125),
    ),
    "429, a date gone by": (
        Case(429, b"", **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Failure("rate-limited", "", 0.0),
    ),
    "429, quota": (
        Case(429, error("You exceeded your current quota", type="insufficient_quota", code="insufficient_quota")),
        Failure("quota", "HTTP 429: You exceeded"),
    ),
    "429, quota by type alone": (Case(429, error("no", type="insufficient_quota", code=None)), Failure("quota")),
    "500": (Case(500, b"[3] > [1] > [2]"), Failure("server", "HTTP 500: [3] > [1] > [2]")),
    "500 that speaks of models": (Case(500, error("model worker not found")), Failure("server", "HTTP 500")),
    "503": (Case(503, b"", **{"Retry-After": "1"}), Failure("server", "HTTP 503", 1.0)),
    "529": (Case(529, {"type": "error"} | error("Overloaded")), Failure("server", "HTTP 529: Overloaded")),
    "an error that is a list": (Case(500, {"error": ["a", 1]}), Failure("server", 'HTTP 500: {"error"')),
    "an error on many lines": (
        Case(400, error("one\n\n  two\r\n\x1b[31mred\u202e")),
        Failure("bad-request", "HTTP 400: one two [31mred"),
    ),
}
ANSWERED: dict[str, tuple[Case, Reply | Failure]] = {**REPLIES, **FAILURES}


@pytest.fixture(scope="module")
def answered() -> Iterator[dict[str, dict[str, Reply | Failure]]]:
    """What each transport made of each case."""

    def handler(body: dict[str, Any], _: int) -> web.Response:
        return ANSWERED[body["messages"][0]["content"]][0].response()

    async def work(url: str, client: str) -> dict[str, Reply | Failure]:
        backend = OpenAIBackend("m", base_url=url, client=client, api_key="")
        outcomes = {name: await backend.complete(Request((("user", name),))) for name in ANSWERED}
        await backend.aclose()
        return outcomes

    with Stub(handler) as stub:
        yield {client: asyncio.run(work(stub.url, client)) for client in CLIENTS}


@pytest.mark.parametrize("name", ANSWERED)
def test_what_servers_answer_is_read_alike_by_both_transports(
    name: str, answered: dict[str, dict[str, Reply | Failure]]
) -> None:
    expected = ANSWERED[name][1]
    for client in CLIENTS:
        outcome = answered[client][name]
        if isinstance(expected, Reply):
            assert outcome == expected
        else:
            assert isinstance(outcome, Failure)
            assert (outcome.kind, outcome.retry_after) == (expected.kind, expected.retry_after)
            assert outcome.detail.startswith(expected.detail)
            assert len(outcome.detail) <= 300
            assert outcome.detail.isprintable()
    assert answered["direct"][name] == answered["aiohttp"][name] == answered["official"][name]


def test_a_path_that_is_none_hints_at_the_address(answered: dict[str, dict[str, Reply | Failure]]) -> None:
    hint = "is the address? Most end in /v1"
    hinted = [name for name, outcome in answered["direct"].items() if hint in getattr(outcome, "detail", "")]
    assert hinted == ["unknown model: a path that is none"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
        ("Sun Nov  6 08:50:07 1994", 30.0),  # asctime's form has no zone; HTTP means GMT
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        ("Sun, 06 Nov 1994 10:50:07 +0200", 30.0),
        ("soon", None),
        ("nan", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("", None),
    ],
)
def test_every_form_of_retry_after(value: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.time, "time", lambda: 784111777.0)  # 06 Nov 1994 08:49:37 GMT
    monkeypatch.setenv("TZ", "America/New_York")
    assert retry_after({"Retry-After": value}) == seconds
    assert retry_after({"retry-after": value, "retry-after-ms": "soon"}) == seconds


# --- log-probabilities


def tokens_of(logprobs: Any) -> Any:
    outcome = read_answer(Answer(200, {}, dumped(completion("yes", logprobs=logprobs))))
    assert isinstance(outcome, Reply)
    assert Reply.loads(outcome.dumps()).tokens == (None if outcome.tokens is None else list(outcome.tokens))
    return outcome.tokens


def dumped(body: Any) -> bytes:
    return json.dumps(body).encode()  # writes NaN and Infinity, as Python servers do


def at(token: Any, logprob: Any, *top: Any, **more: Any) -> dict[str, Any]:
    rivals = [{"token": t, "logprob": p, "bytes": None} for t, p in top]
    return {"token": token, "logprob": logprob, "bytes": [1], "top_logprobs": rivals, **more}


NAN, INF = float("nan"), float("inf")
YES = Token("yes", -0.1, (("yes", -0.1), ("no", -2.5)))
LOGPROBS: list[tuple[str, Any, Any]] = [
    ("chat", {"content": [at("yes", -0.1, ("yes", -0.1), ("no", -2.5))], "refusal": None}, (YES,)),
    ("most likely first", {"content": [at("yes", -0.1, ("no", -2.5), ("yes", -0.1))]}, (YES,)),
    (
        "completions",
        {
            "tokens": ["yes"],
            "token_logprobs": [-0.1],
            "top_logprobs": [{"no": -2.5, "yes": -0.1}],
            "text_offset": [0],
        },
        (YES,),
    ),
    ("whole numbers", {"content": [at("a", 0, ("a", 0), ("b", -3))]}, (Token("a", 0.0, (("a", 0.0), ("b", -3.0))),)),
    (
        "completions with lists",
        {
            "tokens": ["yes"],
            "token_logprobs": [-0.1],
            "top_logprobs": [[{"token": "yes", "logprob": -0.1}, {"token": "no", "logprob": -2.5}]],
        },
        (YES,),
    ),
    (
        "no first one, as where a prompt is echoed",
        {"tokens": ["The", " end"], "token_logprobs": [None, -1], "top_logprobs": [None, {" end": -1}]},
        (Token("The", LEAST), Token(" end", -1.0, ((" end", -1.0),))),
    ),
    (
        "columns that lack",
        {"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0], "top_logprobs": None},
        (Token("a", -1.0), Token("b", -2.0)),
    ),
    (
        "a column of another length",
        {"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0], "top_logprobs": [{"a": -1.0}]},
        (Token("a", -1.0), Token("b", -2.0)),
    ),
    ("top_logprobs missing", {"content": [{"token": "yes", "logprob": -0.1}]}, (Token("yes", -0.1),)),
    ("top_logprobs null", {"content": [at("yes", -0.1, top_logprobs=None)]}, (Token("yes", -0.1),)),
    ("own missing, told among the top", {"content": [at("yes", None, ("yes", -0.1), ("no", -2.5))]}, (YES,)),
    (
        "NaN",
        {"content": [at("yes", NAN, ("yes", -0.1), ("no", NAN))]},
        (Token("yes", -0.1, (("yes", -0.1),)),),
    ),
    (
        "nulls among the top",
        {"content": [at("yes", -0.1, ("yes", -0.1), ("no", None), (None, -3))]},
        (Token("yes", -0.1, (("yes", -0.1),)),),
    ),
    (
        "-inf",
        {"content": [at("yes", -0.1, ("yes", -0.1), ("no", -INF), ("x", "-inf"), ("y", -1e30))]},
        (Token("yes", -0.1, (("yes", -0.1), ("no", LEAST), ("x", LEAST), ("y", LEAST))),),
    ),
    (
        "-9999, after a mask",
        {"content": [at("yes", 0.0, ("yes", 0.0), ("no", -9999.0))]},
        (Token("yes", 0.0, (("yes", 0.0), ("no", -9999.0))),),
    ),
    (
        "a little above certainty",
        {"content": [at("yes", 0.0001, ("yes", 0.0001), ("no", INF))]},
        (Token("yes", 0.0001, (("yes", 0.0001),)),),
    ),
    ("empty", {"content": []}, None),
    ("null", {"content": None, "refusal": None}, None),
    ("no object", [1, 2], None),
    ("tokens that are numbers", {"content": [at(17, -0.1)]}, None),
    ("tokens that are null", {"tokens": [None], "token_logprobs": [-1]}, None),
    ("content that is a text", {"content": "yes"}, None),
    ("content of texts", {"content": ["yes"]}, None),
    ("tops of texts", {"content": [at("yes", -0.1, top_logprobs=["yes", 3])]}, (Token("yes", -0.1),)),
]


@pytest.mark.parametrize(("logprobs", "tokens"), [case[1:] for case in LOGPROBS], ids=[case[0] for case in LOGPROBS])
def test_log_probabilities_of_every_shape(logprobs: Any, tokens: Any) -> None:
    assert tokens_of(logprobs) == tokens


FIELDS = st.sampled_from(
    re.findall(
        r"\w+",
        "choices message content text logprobs token_logprobs top_logprobs tokens token logprob usage error code type"
        " finish_reason refusal reasoning reasoning_content prompt_tokens prompt_tokens_details cached_tokens detail",
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)
WRAPPED: list[Any] = [
    lambda x: x,
    lambda x: {"choices": [x]},
    lambda x: {"choices": [{"message": x}]},
    lambda x: {"choices": [{"message": {"content": x, "reasoning": x}}], "usage": x},
    lambda x: {"choices": [{"text": "yes", "logprobs": x}]},
    lambda x: {"choices": [{"text": "yes", "logprobs": {"content": x}}]},
    lambda x: {"choices": [{"text": "yes", "logprobs": {"content": [{"token": "yes", "logprob": x}]}}]},
    lambda x: {"choices": [{"text": "yes", "logprobs": {"content": [{"token": "yes", "top_logprobs": x}]}}]},
    lambda x: {"choices": [{"text": "yes", "logprobs": {"tokens": ["yes"], "top_logprobs": [x]}}]},
    lambda x: {"error": x},
]


@lru_cache
def loaded(name: str) -> Template:
    return load(name)


@settings(max_examples=120, deadline=None)
@given(
    JSON,
    st.sampled_from(WRAPPED),
    st.sampled_from([200, 200, 200, 201, 301, 400, 404, 429, 500]),
    st.dictionaries(st.sampled_from(["Retry-After", "retry-after-ms"]), st.text(max_size=8)),
)
def test_no_body_whatever_raises_and_every_reply_survives_the_ledger(
    inner: Any, wrap: Any, status: int, headers: dict[str, str]
) -> None:
    body = json.dumps(wrap(inner)).encode(errors="replace")
    outcome = read_answer(Answer(status, headers, body))
    if isinstance(outcome, Failure):
        assert outcome.retry_after is None or outcome.retry_after >= 0
        return
    stored = Reply.loads(outcome.dumps())
    tokens = None if outcome.tokens is None else list(outcome.tokens)
    assert stored == Reply(
        outcome.text,
        outcome.finish,
        tokens,
        outcome.reasoning,
        outcome.prompt_tokens,
        outcome.completion_tokens,
        outcome.cached_tokens,
    )
    for name in ("pointwise/yes-no", "pointwise/graded", "pairwise/prefer", "setwise/best", "listwise/rank"):
        template = loaded(name)
        template.read(stored, {"grade": 1, "compare": 2}.get(template.question, 3))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([200, 400, 503]))
def test_no_bytes_whatever_raise(body: bytes, status: int) -> None:
    assert isinstance(read_answer(Answer(status, {}, body)), Failure)


# --- tokens that are not of the answer, and what else servers tell


def test_of_a_reply_whose_reasoning_was_split_off_the_tokens_are_those_of_the_answer() -> None:
    words = ["<think>", "yes", "?", "</think>", "\n\n", " no", "<|end|>"]
    places = [at(word, -1.0 - i, (word, -1.0 - i)) for i, word in enumerate(words)]
    body = chat(content="no", reasoning="yes?")
    body["choices"][0]["logprobs"] = {"content": places}
    reply = read_answer(Answer(200, {}, dumped(body)))
    assert isinstance(reply, Reply)
    assert [token.text for token in reply.tokens or ()] == [" no", "<|end|>"]
    grade = load("pointwise/yes-no").read(reply, 1)
    assert grade.status == "repaired"  # of the two labels only one is among the top tokens
    assert grade.label == "no"  # type: ignore[union-attr]
    for said in ("", "nothing of the kind"):  # where the answer is not found, nothing is cut
        body["choices"][0]["message"]["content"] = said
        reply = read_answer(Answer(200, {}, dumped(body)))
        assert isinstance(reply, Reply)
        assert len(reply.tokens or ()) == len(words)


@pytest.mark.parametrize(
    "told",
    [{"prompt_tokens_details": {"cached_tokens": 7}}, {"prompt_cache_hit_tokens": 7, "prompt_cache_miss_tokens": 1}],
)
def test_the_share_of_cached_tokens_is_read(told: dict[str, Any]) -> None:
    body = completion("yes")
    body["usage"] |= told
    reply = read_answer(Answer(200, {}, dumped(body)))
    assert isinstance(reply, Reply)
    assert reply.cached_tokens == 7


LISTS: list[tuple[Any, int | None]] = [
    ({"data": [{"id": "other", "max_model_len": 1}, {"id": "m", "max_model_len": 4096}]}, 4096),
    ({"data": [{"id": "m", "context_length": 8192.0}]}, 8192),
    ({"data": [{"id": "m", "context_window": 32768, "owned_by": "x"}]}, 32768),
    ({"data": [{"id": "m", "meta": {"n_ctx_train": 2048, "n_vocab": 9}}]}, 2048),
    ({"data": [{"id": "m", "max_model_len": None, "object": "model"}]}, None),
    ({"data": [{"id": "m", "max_model_len": 1}]}, None),
    ({"data": [{"id": "n", "max_model_len": 4096}, "m", None]}, None),
    ({"data": "m"}, None),
    ([], None),
    ({"error": {"message": "no"}}, None),
]


@pytest.mark.parametrize(("body", "tokens"), LISTS)
def test_the_context_is_read_from_the_list_of_models(body: Any, tokens: int | None) -> None:
    assert context_listed(Answer(200, {}, json.dumps(body).encode()), "m") == tokens


@pytest.mark.parametrize("client", CLIENTS)
def test_the_server_is_asked_once_for_the_context(client: str) -> None:
    async def work(url: str) -> list[int | None]:
        backend = OpenAIBackend("m", base_url=url, client=client)
        told = [backend.context, await backend.learn_context(), backend.context]
        await backend.aclose()
        return told

    with Stub(lambda *_: "ok") as stub:
        assert asyncio.run(work(stub.url)) == [None, None, None]
        stub.models = LISTS[0][0]
        assert asyncio.run(work(stub.url)) == [None, 4096, 4096]
