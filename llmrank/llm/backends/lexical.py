"""The `lexical` backend: word overlap of query and document, the baseline that any judge must beat."""

from __future__ import annotations

import re

from llmrank.data.types import Anchor
from llmrank.llm.backends.answering import answer
from llmrank.llm.types import Failure, Identity, Reply, Request

UNSPACED = "\u3040-\u30ff\u3400-\u9fff"  # kana and Chinese characters: words stand unparted, so each counts as one
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
STOP = frozenset(
    WORD.findall(
        "a an and are as at be by can do does for from how in is it of on or that the to was what when where which who"
        " why will with"
    )
)


class LexicalBackend:
    """A document is worth the share of the query's words that it has, a little more where they are dense."""

    identity = Identity("lexical", "overlap-1")
    capabilities = frozenset({"text", "logprobs", "later-logprobs"})

    async def complete(self, request: Request) -> Reply | Failure:
        about = request.about
        if about is None:
            return Failure("bad-request", "the lexical judge answers only questions about known documents")
        queries = [d.query if isinstance(d, Anchor) and d.query else about.query.text for d in about.documents]
        texts = [f"{d.title} {d.text}" for d in about.documents]
        return answer(request, about, [overlap(words(q), text) for q, text in zip(queries, texts, strict=True)])


def words(query: str) -> frozenset[str]:
    """The query's words; stop words are among them only where there are no others."""
    said = frozenset(WORD.findall(query.casefold()))
    return said - STOP or said


def overlap(query: frozenset[str], text: str) -> float:
    """From 0 (no word of the query) to 1 (all of them and nothing else)."""
    words = WORD.findall(text.casefold())
    if not words or not query:
        return 0.0
    found = [word for word in words if word in query]
    return 0.9 * len(set(found)) / len(query) + 0.1 * len(found) / len(words)
