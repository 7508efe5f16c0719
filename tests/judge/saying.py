"""A model that says what a test wants, with log-probabilities or not, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmrank.llm import Reply, Request
from llmrank.llm.types import Capability
from llmrank.questions import Token

Say = Callable[[Request], "str | Reply"]


class Scripted:
    """Answers by a function of the request; `asked` holds the ids that each request was about."""

    def __init__(
        self, say: Say, model: str = "scripted", capabilities: Sequence[Capability] = ("text", "samples")
    ) -> None:
        self.say = say
        self.model = model
        self.capabilities = frozenset(capabilities)
        self.asked: list[str] = []
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Reply:
        assert request.about is not None
        self.asked.append(",".join(document.id for document in request.about.documents))
        self.requests.append(request)
        said = self.say(request)
        return Reply(said) if isinstance(said, str) else said


def constant(text: str) -> Say:
    return lambda request: text


def by_text(request: Request) -> str:
    """Says what the document's text is."""
    assert request.about is not None
    return request.about.documents[0].text


def likely(words: Sequence[str], **logprobs: float) -> Reply:
    """A reply of these tokens; at the last of them the given words stand with their log-probabilities."""
    top = tuple(sorted(logprobs.items(), key=lambda pair: -pair[1]))
    tokens = [Token(word, -0.1, ((word, -0.1),)) for word in words[:-1]]
    tokens.append(Token(words[-1], logprobs[words[-1]], top))
    return Reply("".join(words), finish="stop", tokens=tuple(tokens))
