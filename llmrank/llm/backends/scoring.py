"""Servers that score a document against a query instead of writing: rerank, score and generative-scoring endpoints.

A model with a classification head (a cross-encoder, a reranker served as a sequence classifier) is asked through
`/rerank` or `/score`. Its template shows two user messages, the query and the document, and may begin with a system
message, which goes as the instruction. The reply's text is the score. `/generative_scoring` gives the probabilities of
two words right after any prompt; the reply has these words as the tokens that could stand there.
"""

from __future__ import annotations

import math
from typing import Any

from llmrank.errors import InputError
from llmrank.llm.backends.wire import Answer, opened, read_number, used
from llmrank.llm.types import Failure, Reply, Request
from llmrank.questions import Token

LEAST_PROBABILITY = 1e-12
PATHS = {"rerank": "/rerank", "score": "/score"}


def scoring_body(api: str, model: str, request: Request) -> dict[str, Any]:
    """The JSON that asks `/rerank` or `/score` about one query and one document."""
    query, document, instruction = query_and_document(api, request)
    body: dict[str, Any] = {"model": model}
    body |= {"query": query, "documents": [document]} if api == "rerank" else {"text_1": query, "text_2": document}
    return body | {"instruction": instruction} if instruction else body


def query_and_document(api: str, request: Request) -> tuple[str, str, str]:
    """Query, document and instruction of a prompt in the form that scoring endpoints can be asked in."""
    instruction = "\n\n".join(content for role, content in request.messages if role == "system")
    shown = [content for role, content in request.messages if role != "system"]
    plain = all(role in ("system", "user") for role, _ in request.messages)
    if request.prompt is not None or len(shown) != 2 or not plain or request.continuation is not None:
        raise InputError(
            f"api={api} scores one document for a query: it takes a `grade` template with two user messages, the query "
            "and the document (and a system message as the instruction), and no other"
        )
    return shown[0], shown[1], instruction


def read_score(answer: Answer) -> Reply | Failure:
    """A reply that says the score."""
    body = opened(answer)
    if isinstance(body, Failure):
        return body
    score = _first_score(body)
    return Failure("no-choices") if score is None else used(Reply(decimal(score), "stop"), body.get("usage"))


def decimal(score: float) -> str:
    """A number with nine significant digits and no exponent, as parsers read it."""
    digits = 8 - (math.floor(math.log10(abs(score))) if score else 0)
    return f"{score:.{max(1, min(digits, 40))}f}"


def tokenize_body(model: str, request: Request) -> dict[str, Any]:
    """The JSON that asks `/tokenize` for a prompt's token ids, a chat's with the marks of the model's chat template."""
    if request.continuation is not None or request.constraint is not None:
        raise InputError("api=generative-scoring gives the probabilities of two words, and answers nothing else")
    if request.prompt is not None:
        return {"model": model, "prompt": request.prompt}
    messages = [{"role": role, "content": content} for role, content in request.messages]
    return {"model": model, "messages": messages, "add_generation_prompt": True}


def read_ids(answer: Answer) -> list[int] | Failure:
    """Token ids, as `/tokenize` gives them."""
    body = opened(answer)
    if isinstance(body, Failure):
        return body
    ids = body.get("tokens")
    if not isinstance(ids, list) or not ids or not all(type(i) is int for i in ids):
        return Failure("bad-body", "no token ids")
    return ids


def generative_body(model: str, prompt: list[int], labels: list[int]) -> dict[str, Any]:
    """The JSON that asks for the probability of the first of some tokens right after a prompt, among all of them."""
    return {"model": model, "query": prompt[:-1], "items": [prompt[-1:]], "label_token_ids": labels}


def read_probability(answer: Answer) -> tuple[float, Any] | Failure:
    """The probability of the first label, and the usage."""
    body = opened(answer)
    if isinstance(body, Failure):
        return body
    score = _first_score(body)
    if score is None or not 0 <= score <= 1:
        return Failure("bad-body", f"no probability but {score}")
    return score, body.get("usage")


def label_reply(labels: tuple[str, str], probability: float, usage: Any) -> Reply:
    """A reply that says the likelier of two labels, with the log-probabilities of both."""
    logprobs = [math.log(max(p, LEAST_PROBABILITY)) for p in (probability, 1 - probability)]
    top = sorted(zip(labels, logprobs, strict=True), key=lambda pair: -pair[1])
    word, logprob = top[0]
    return used(Reply(word, "stop", (Token(word, logprob, tuple(top)),)), usage)


def _first_score(body: dict[str, Any]) -> float | None:
    """The one score: `results[0].relevance_score` (rerank), `data[0].score` (score)."""
    for rows, name in ((body.get("results"), "relevance_score"), (body.get("data"), "score")):
        if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], dict):
            score = read_number(rows[0].get(name))
            return score if score is not None and math.isfinite(score) else None
    return None
