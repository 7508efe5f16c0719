"""What each capability promises: a request that needs it, and what the replies must then be."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from llmrank.data.types import Document, Query
from llmrank.llm.backends.simulated import Errors, SimulatedBackend
from llmrank.llm.client import Client
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import About, Constraint, Message, Reply, Request, Sampling
from llmrank.questions import Question
from llmrank.templates import Template, load
from llmrank.templates.parsers.likelihood import Place, label_probabilities

QUERY = Query("q", "what flows through the valley")
DOCUMENTS = (
    Document("d1", "A river flows through the valley and down to the sea."),
    Document("d2", "Cats sleep for most of the day."),
    Document("d3", "The valley is green in spring."),
)
GRADE, ORDER, JSON = load("pointwise/yes-no"), load("listwise/rank"), load("listwise/json")
YES_NO = Constraint("choice", ["no", "yes"])
NAMES = [f"[{i}]" for i in range(1, len(DOCUMENTS) + 1)]
RANKING = {
    "type": "object",
    "properties": {
        "ranking": {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "maxItems": 3},
    },
    "required": ["ranking"],
    "additionalProperties": False,
}
BEGUN = "My answer is"
GIVEN = "the valley has a river"


def asked(template: Template, *, sampling: Sampling | None = None, **changes: Any) -> Request:
    """A template's request about the documents, or about the first of them where it grades."""
    documents = DOCUMENTS[:1] if template.question == "grade" else DOCUMENTS
    rendered = template.render(QUERY, [d.text for d in documents])
    n = len(documents)
    about = About(
        Question(template.question, documents),
        QUERY,
        documents,
        lambda answer: template.write(answer, n),
        tuple(template.header.labels.items()),
        template.identifiers(n),
    )
    sampling = sampling or Sampling(max_tokens=64)
    return replace(Request(rendered.messages, rendered.raw, sampling, about=about), **changes)


def _thinking() -> Request:
    request = asked(GRADE, sampling=Sampling(max_tokens=16, logprobs=20))
    messages: tuple[Message, ...] = (("system", "You think first."), *request.messages[1:])
    return replace(request, messages=messages)


def _raw() -> list[Request]:
    request = asked(GRADE, sampling=Sampling(max_tokens=4))
    prompts = (
        "Query: rivers\nPassage: a river\nRelevant:",
        "The river",
        "One two three",
        "def f(",
        "yes no yes",
        "Relevant? Answer yes or no.",
    )
    return [replace(request, messages=(), prompt=prompt) for prompt in prompts]


def _begun() -> list[Request]:
    request = asked(GRADE, sampling=Sampling(max_tokens=4))
    return [replace(request, messages=(*request.messages, ("assistant", BEGUN))), request]


def _samples() -> list[Request]:
    request = asked(GRADE, sampling=Sampling(max_tokens=4, temperature=1.5, seed=7))
    return [request.resampled(i) for i in range(8)] + [request.resampled(0)]


class Promise(NamedTuple):
    """The requests that need a capability, and the check of their replies, which raises AssertionError."""

    requests: Sequence[Request]
    kept: Callable[[Sequence[Reply]], None]


def _text(replies: Sequence[Reply]) -> None:
    (reply,) = replies
    assert reply.text.strip()
    assert reply.completion_tokens is not None
    assert 0 < reply.completion_tokens <= 64


def _distribution(top: Sequence[tuple[str, float]]) -> None:
    assert 1 <= len(top) <= 20
    logprobs = [logprob for _, logprob in top]
    assert logprobs == sorted(logprobs, reverse=True)
    assert all(logprob <= 0 for logprob in logprobs)
    assert math.fsum(map(math.exp, logprobs)) <= 1 + 1e-4


def _first(replies: Sequence[Reply]) -> None:
    tokens = replies[0].tokens
    assert tokens
    place = next(token for token in tokens if len(token.top) > 1)
    _distribution(place.top)


def _later(replies: Sequence[Reply]) -> None:
    (reply,) = replies
    assert reply.tokens
    for token in reply.tokens:
        _distribution(token.top)
    assert "".join(token.text for token in reply.tokens).strip().startswith(reply.text.strip())


def _labels(replies: Sequence[Reply]) -> None:
    tokens = replies[0].tokens
    assert tokens
    found = [label_probabilities(Place(token, 0), ["no", "yes"]) for token in tokens]
    assert any(set(f) == {"no", "yes"} for f in found)


def _continued(replies: Sequence[Reply]) -> None:
    (reply,) = replies
    assert reply.text == ""
    assert reply.tokens
    assert "".join(token.text for token in reply.tokens).strip() == GIVEN
    assert all(math.isfinite(token.logprob) and token.logprob <= 0 for token in reply.tokens)


def _chosen(replies: Sequence[Reply]) -> None:
    assert replies[0].text in YES_NO.value


def _matched(replies: Sequence[Reply]) -> None:
    assert re.fullmatch("(yes|no)", replies[0].text)


def _schema(replies: Sequence[Reply]) -> None:
    ranking = json.loads(replies[0].text)
    assert set(ranking) == {"ranking"}
    assert len(ranking["ranking"]) == 3
    assert set(ranking["ranking"]) <= {1, 2, 3}


def _permuted(replies: Sequence[Reply]) -> None:
    answer = ORDER.read(replies[0], len(DOCUMENTS))
    assert answer.usable


def _generated(replies: Sequence[Reply]) -> None:
    assert all(reply.prompt_tokens and reply.finish in ("stop", "length") for reply in replies)
    assert any(reply.text.strip() for reply in replies)  # a random model may answer one with its end alone


def _went_on(replies: Sequence[Reply]) -> None:
    begun, free = replies
    assert begun.finish in ("stop", "length")
    assert not begun.text.startswith(BEGUN)
    assert (begun.prompt_tokens or 0) > (free.prompt_tokens or 0) > 0


def _differ(replies: Sequence[Reply]) -> None:
    *samples, again = [reply.text for reply in replies]
    assert len(set(samples)) > 1
    assert again == samples[0]


def _split_off(replies: Sequence[Reply]) -> None:
    (reply,) = replies
    assert "think>" not in reply.text
    assert GRADE.read(reply, 1).usable


def _counted(replies: Sequence[Reply]) -> None:
    assert replies[0].prompt_tokens


def _with(template: Template, constraint: Constraint, *, logprobs: int = 0) -> list[Request]:
    return [asked(template, sampling=Sampling(max_tokens=64, logprobs=logprobs), constraint=constraint)]


PROMISES: dict[str, Promise] = {
    "text": Promise([asked(GRADE)], _text),
    "logprobs": Promise([asked(GRADE, sampling=Sampling(max_tokens=1, logprobs=20))], _first),
    "later-logprobs": Promise([asked(GRADE, sampling=Sampling(max_tokens=8, logprobs=20))], _later),
    "label-logprobs": Promise(_with(GRADE, YES_NO, logprobs=20), _labels),
    "prompt-logprobs": Promise([asked(GRADE, continuation=GIVEN)], _continued),
    "choice": Promise(_with(GRADE, YES_NO), _chosen),
    "regex": Promise(_with(GRADE, Constraint("regex", "(yes|no)")), _matched),
    "json-schema": Promise(_with(JSON, Constraint("json_schema", RANKING)), _schema),
    "permutation": Promise(_with(ORDER, Constraint("permutation", NAMES)), _permuted),
    "raw": Promise(_raw(), _generated),
    "prefill": Promise(_begun(), _went_on),
    "samples": Promise(_samples(), _differ),
    "reasoning": Promise([_thinking()], _split_off),
    "tokenizer": Promise([asked(GRADE)], _counted),
}


async def replies_to(client: Client, requests: Sequence[Request]) -> list[Reply]:
    """The replies, asked for all at once. Raises AssertionError where one failed."""
    exchanges = await asyncio.gather(*(client.ask(request) for request in requests))
    for exchange in exchanges:
        assert exchange.failure is None, exchange.failure
    return [exchange.reply for exchange in exchanges if exchange.reply is not None]


def recorded(path: Path) -> Path:
    """A ledger with a simulated judge's replies to all requests of the contract."""

    async def record() -> None:
        backend = SimulatedBackend({"q": {"d1": 2, "d3": 1}}, Errors(noise=0.5, label_noise=0.4))
        client = Client(backend, ledger=Ledger(path))
        for promise in PROMISES.values():
            await replies_to(client, promise.requests)
        await client.aclose()

    asyncio.run(record())
    return path
