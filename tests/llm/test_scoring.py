"""Rerankers with a classification head, and label probabilities, over the endpoints that servers have for them."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.llm.backends import open_backend
from llmrank.llm.backends.scoring import decimal
from llmrank.llm.types import Failure, Reply, Request
from llmrank.questions import Grade, Token
from llmrank.templates import Template, load
from tests.stub import Stub

PAIR = Request((("system", "Judge."), ("user", "what is bm25"), ("user", "A ranking function.")))
CROSS_ENCODER = Template(
    "---\nname: own/cross-encoder\ndescription: d\nquestion: grade\nparser: score\nrange: [0, 1]\nsource: s\n---\n"
    '{% message "user" %}{{ query.text }}{% endmessage %}\n{% message "user" %}{{ document.text }}{% endmessage %}\n'
)


def ask(handler: Any, spec: str, *requests: Request) -> tuple[list[Reply | Failure], Stub]:
    async def work(url: str) -> list[Reply | Failure]:
        backend = open_backend(spec, base_url=url)
        outcomes = [await backend.complete(request) for request in requests or (PAIR,)]
        await backend.aclose()  # type: ignore[attr-defined]
        return outcomes

    with Stub(handler) as stub:
        return asyncio.run(work(stub.url)), stub


def rerank(score: Any) -> dict[str, Any]:
    results = [{"index": 0, "document": {"text": "d"}, "relevance_score": score}]
    return {"id": "r", "model": "m", "usage": {"prompt_tokens": 7, "total_tokens": 7}, "results": results}


def scored(score: Any) -> dict[str, Any]:
    data = [{"index": 0, "object": "score", "score": score}]
    return {"id": "s", "object": "list", "created": 1, "model": "m", "data": data, "usage": {"prompt_tokens": 7}}


@pytest.mark.parametrize(
    ("api", "answer", "sent"),
    [
        ("rerank", rerank, {"query": "what is bm25", "documents": ["A ranking function."]}),
        ("score", scored, {"text_1": "what is bm25", "text_2": "A ranking function."}),
    ],
)
def test_a_pair_is_scored(api: str, answer: Any, sent: dict[str, Any]) -> None:
    (reply,), stub = ask(lambda *_: web.json_response(answer(0.8125)), f"openai:m?api={api}")
    assert isinstance(reply, Reply)
    assert float(reply.text) == 0.8125
    assert reply.prompt_tokens == 7
    assert stub.paths == [f"/v1/{api}"]
    assert stub.bodies == [{"model": "m", "instruction": "Judge.", **sent}]


def test_documents_are_ranked_by_their_scores() -> None:
    from llmrank import Reranker

    worth = {"cat": 0.001234567, "dog": 0.98765432, "fish": 1.5e-7}
    handler = lambda body, _: web.json_response(rerank(worth[body["documents"][0]]))  # noqa: E731
    with Stub(handler) as stub:
        with Reranker(
            "pointwise", backend="openai:m?api=rerank", template=CROSS_ENCODER, base_url=stub.url, ledger="none"
        ) as reranker:
            ranking = reranker.rank("q", list(worth))
        assert [hit.document.text for hit in ranking] == ["dog", "cat", "fish"]
        assert [hit.score for hit in ranking] == pytest.approx([0.98765432, 0.001234567, 1.5e-7], rel=1e-6)


@given(st.floats(1e-12, 1.0) | st.floats(-30, 30))
def test_a_score_keeps_its_digits_and_has_no_exponent(score: float) -> None:
    text = decimal(score)
    assert "e" not in text
    assert float(text) == pytest.approx(score, rel=1e-8, abs=1e-40)


@pytest.mark.parametrize("score", [None, "x", math.nan, [0.5]])
def test_what_is_no_score_is_no_reply(score: Any) -> None:
    body = web.json_response(rerank(score))
    (outcome,), _ = ask(lambda *_: body, "openai:m?api=rerank")
    assert isinstance(outcome, Failure)
    assert outcome.kind == "no-choices"


@pytest.mark.parametrize(
    "request_",
    [
        Request((("user", "one text"),)),
        Request(prompt="raw"),
        Request((("user", "a"), ("assistant", "b"))),
        Request(PAIR.messages, continuation="yes"),
    ],
)
@pytest.mark.parametrize("api", ["rerank", "score"])
def test_another_kind_of_prompt_is_told_in_a_sentence(api: str, request_: Request) -> None:
    with pytest.raises(InputError, match=f"api={api} scores one document for a query: it takes a `grade` template"):
        ask(lambda *_: "never", f"openai:m?api={api}", request_)


class Engine:
    """Tokenises at spaces and gives the label probabilities that it was told."""

    def __init__(self, probability: float) -> None:
        self.words: list[str] = []
        self.probability = probability

    def __call__(self, body: dict[str, Any], _: int) -> web.Response:
        if "label_token_ids" in body:
            assert len(body["items"]) == len(body["items"][0]) == 1
            return web.json_response(scored(self.probability))
        text = body["prompt"] if "prompt" in body else " ".join(m["content"] for m in body["messages"])
        return web.json_response({"count": 1, "tokens": [self.id(word) for word in text.split()]})

    def id(self, word: str) -> int:
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)


def test_label_probabilities_without_the_lottery_of_the_top_20() -> None:
    engine = Engine(1e-7)
    prompt = load("pointwise/yes-no").render("what is bm25", ["A function."])
    requests = [Request(prompt.messages), Request(prompt="is it ? Answer:")]
    replies, stub = ask(engine, "openai:m?api=generative-scoring", *requests)
    for reply in replies:
        assert isinstance(reply, Reply)
        grade = load("pointwise/yes-no").read(reply, 1)
        assert isinstance(grade, Grade)
        assert grade.status == "ok"
        assert grade.value == pytest.approx(1e-7, rel=1e-6)
        assert reply.text == "no"
    paths = ["/tokenize"] * 3 + ["/generative_scoring", "/tokenize", "/generative_scoring"]
    assert stub.paths == paths  # at the root, and the labels' own tokens asked for once
    last = stub.bodies[-1]
    assert [*last["query"], *last["items"][0]] == [engine.id(word) for word in ["is", "it", "?", "Answer:"]]
    assert last["label_token_ids"] == [engine.id("yes"), engine.id("no")]


def test_labels_of_ones_own_tell_models_apart() -> None:
    (reply,), _ = ask(Engine(0.75), "openai:m?api=generative-scoring&labels=true,false", Request(prompt="is it"))
    assert isinstance(reply, Reply)
    top = (("true", math.log(0.75)), ("false", math.log(0.25)))
    assert reply.tokens == (Token("true", math.log(0.75), top),)
    spec = "openai:m?api=generative-scoring&labels=true,false"
    assert open_backend(spec, base_url="http://h/v1").identity.model == spec.removeprefix("openai:")  # type: ignore[attr-defined]


def test_labels_that_begin_alike_are_refused() -> None:
    handler = lambda *_: web.json_response({"tokens": [5, 6]})  # noqa: E731
    with pytest.raises(InputError, match="begin with the same token"):
        ask(handler, "openai:m?api=generative-scoring", Request(prompt="is it"))
