"""The log-probability of a given text: asked for in both forms, its span found exactly, nothing made up."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from llmrank.llm.backends.continuations import span
from llmrank.llm.backends.openai import OpenAIBackend
from llmrank.llm.types import Failure, Reply, Request
from llmrank.questions import Token
from tests.stub import Stub, completion

TEXT = st.text(st.sampled_from("ab c\né日"), min_size=1, max_size=12)


def cut(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(c % (len(text) + 1) for c in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


def tokens(words: list[str]) -> list[Token]:
    return [Token(word, -0.5 - i) for i, word in enumerate(words)]


@given(TEXT, TEXT, st.lists(st.integers(0, 99)), st.lists(st.integers(0, 99)))
def test_the_span_is_exactly_the_text_where_the_boundary_is_clean(
    prompt: str, text: str, cuts: list[int], more: list[int]
) -> None:
    before, after = tokens(cut(prompt, cuts)), tokens(cut(text, more))
    assert span([*before, *after], text) == tuple(after)


@given(TEXT, TEXT, st.lists(st.integers(0, 99)))
def test_a_token_across_the_boundary_is_the_first_of_the_span(prompt: str, text: str, cuts: list[int]) -> None:
    words = cut(prompt + text, cuts)
    found = span(tokens(words), text)
    assert found is not None
    said = "".join(token.text for token in found)
    assert said.endswith(text)
    assert len(said) - len(found[0].text) < len(text)


def test_a_character_in_several_tokens_belongs_to_the_text_with_all_of_them() -> None:
    """As vLLM tells them: nothing, nothing, and the character with its last byte."""
    told = tokens(["The ", "", "", "日", "", "本"])
    assert span(told, "日本") == tuple(told[1:])
    assert span(told, "本") == tuple(told[4:])
    assert span(tokens(["x", "", "é", "", "!"]), "!") == (Token("!", -4.5),)  # the prompt's own, before an ASCII sign


def test_a_text_that_a_chat_template_trimmed_is_found_without_its_spaces() -> None:
    told = tokens(["\n", "brown", " fox"])
    assert span(told, " brown fox\n") == tuple(told[1:])


@pytest.mark.parametrize("words", [["another", " text"], ["fox"], []])
def test_where_the_text_is_not_there_nothing_is_told(words: list[str]) -> None:
    assert span(tokens(words), "brown fox") is None


def ask(handler: Any, *requests: Request) -> tuple[list[Reply | Failure], Stub]:
    async def work(url: str) -> list[Reply | Failure]:
        backend = OpenAIBackend("m", base_url=url)
        outcomes = [await backend.complete(request) for request in requests]
        await backend.aclose()
        return outcomes

    with Stub(handler) as stub:
        return asyncio.run(work(stub.url)), stub


def test_a_raw_prompt_is_echoed() -> None:
    told = {
        "tokens": ["The", " quick", " fox", " jum", "ps"],
        "token_logprobs": [None, -1.0, -2.0, -3.0, -4.0],
        "top_logprobs": [None, {" quick": -1.0}, {}, {}, {}],
        "text_offset": [0, 3, 9, 13, 17],
    }
    usage = {"prompt_tokens": 5, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 2}}
    body = {"choices": [{"text": "The quick fox jumps", "logprobs": told, "finish_reason": "length"}], "usage": usage}
    (reply,), stub = ask(lambda *_: web.json_response(body), Request(prompt="The quick", continuation=" fox jumps"))
    expected = (Token(" fox", -2.0), Token(" jum", -3.0), Token("ps", -4.0))
    assert reply == Reply("", None, expected, None, 5, 0, 2)
    assert stub.paths == ["/v1/completions"]
    assert stub.bodies == [
        {
            "model": "m",
            "prompt": "The quick fox jumps",
            "max_tokens": 0,
            "echo": True,
            "logprobs": 0,
            "temperature": 0.0,
        }
    ]


def test_of_a_chat_the_prompts_logprobs_are_told() -> None:
    told = [
        None,
        *({str(i): {"logprob": -1.0 - i, "rank": 1, "decoded_token": w}} for i, w in enumerate(("hi", "br", "own"))),
    ]
    body = completion("x") | {"prompt_logprobs": told}
    requests = [
        Request((("user", "hi"),), continuation="brown"),
        Request((("user", "hi"), ("assistant", "It is ")), continuation="brown"),
    ]
    replies, stub = ask(lambda *_: web.json_response(body), *requests)
    assert [reply.tokens for reply in replies if isinstance(reply, Reply)] == [
        (Token("br", -2.0), Token("own", -3.0))
    ] * 2
    assert [[m["content"] for m in body["messages"]] for body in stub.bodies] == [
        ["hi", "brown"],
        ["hi", "It is brown"],
    ]
    assert all(b["continue_final_message"] and not b["add_generation_prompt"] for b in stub.bodies)


@pytest.mark.parametrize(
    "body",
    [
        completion("The fox"),
        completion("x") | {"prompt_logprobs": None},
        completion("x") | {"prompt_logprobs": [None, {"1": {"logprob": -1.0}}]},
        completion("x") | {"prompt_logprobs": [None, {"1": "no"}, {}]},
        completion("x", logprobs={"tokens": [" cat"], "token_logprobs": [-1.0], "top_logprobs": [None]}),
        {"choices": []},
    ],
)
def test_a_server_that_ignores_what_was_asked_gives_no_tokens(body: dict[str, Any]) -> None:
    (reply,), _ = ask(lambda *_: web.json_response(body), Request((("user", "The"),), continuation=" fox"))
    assert isinstance(reply, Reply)
    assert (reply.text, reply.tokens) == ("", None)
