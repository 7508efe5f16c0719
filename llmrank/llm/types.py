"""What goes to a backend and what comes back: Request, Reply and typed failures, as plain types."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import orjson

from llmrank.data.types import Document, Query
from llmrank.questions import Answer, Question, Token

Capability = Literal[
    "text",
    "logprobs",
    "later-logprobs",
    "label-logprobs",
    "prompt-logprobs",
    "choice",
    "regex",
    "json-schema",
    "permutation",
    "raw",
    "prefill",
    "samples",
    "reasoning",
    "tokenizer",
]
CAPABILITIES: dict[Capability, str] = {
    "text": "a generated text",
    "logprobs": "log-probabilities of the 20 most likely tokens at the first place of the reply",
    "later-logprobs": "the same at every place: after the reasoning, inside JSON",
    "label-logprobs": "log-probabilities of named labels, however unlikely they are",
    "prompt-logprobs": "log-probabilities of the tokens of a given text",
    "choice": "output held to one of several words",
    "regex": "output held to a regular expression",
    "json-schema": "output held to a JSON schema",
    "permutation": "output held to an order of the identifiers that were shown",
    "raw": "completion of a raw prompt, without a chat template",
    "prefill": "a reply that goes on from a given beginning",
    "samples": "several different replies to one prompt",
    "reasoning": "thinking split off from the answer",
    "tokenizer": "prompts counted in the model's own tokens",
}


Message = tuple[str, str]
"""One chat message: role and content."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the reply is to be generated; all of it is part of the ledger key."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    logprobs: int = 0
    """How many of the most likely tokens are wanted at each place, 0 for none."""
    seed: int | None = None
    """Sent only with a temperature above 0, where it can matter."""


class Constraint(NamedTuple):
    """What the output is held to, where a template asks for it."""

    kind: Literal["choice", "regex", "json_schema", "permutation"]
    value: Any
    """The words; the expression; the schema; for `permutation` the identifiers, as the template's parser names them."""


@dataclass(slots=True)
class About:
    """What a request is about. It stays on this side: only local backends (simulated, lexical) look at it."""

    question: Question
    query: Query
    documents: tuple[Document, ...]
    write: Callable[[Answer], str]
    """Puts an answer into the words that the prompt asks for."""
    grades: tuple[tuple[str, float], ...] = ()
    """The labels of the template with their values, from least to most relevant."""
    options: Sequence[str] = ()
    """The words by which the shown items are named in a reply (`compare`, `choose`), in the order shown."""


class Identity(NamedTuple):
    """Which model a reply comes from: part of the ledger key, unlike the address of its server."""

    kind: str
    model: str


@dataclass(slots=True)  # not frozen, which would take as long to make as all its other fields to fill
class Request:
    """One prompt to one model: chat messages, or a raw prompt. Nothing changes it once it is made."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: Sampling = Sampling()
    constraint: Constraint | None = None
    sample: int = 0
    """Index of this sample where the same prompt is asked several times."""
    about: About | None = None
    continuation: str | None = None
    """A text whose log-probability after the prompt is wanted: nothing is generated, the reply's tokens are its own."""

    def canonical(self, identity: Identity) -> bytes:
        """Everything that can change the reply, as JSON; its hash is the ledger key."""
        s = self.sampling
        content: list[Any] = [
            list(identity),  # orjson takes no subclass of tuple
            self.prompt if self.prompt is not None else self.messages,
            [s.max_tokens, s.temperature, s.top_p, s.stop, s.logprobs, s.seed if s.temperature else None],
            self.constraint and list(self.constraint),
            self.sample,
        ]
        if self.continuation is not None:
            content.append({"continuation": self.continuation})
        if identity.kind == "simulated" and self.about is not None:  # it answers from the ids, not from the text
            content.append([self.about.question.kind, self.about.query.id, [d.id for d in self.about.documents]])
        elif identity.kind == "lexical" and self.about is not None:  # it reads the texts whole, however they are shown
            content.append([safe_text(f"{d.title}\n{d.text}") for d in self.about.documents])
        return orjson.dumps(content)

    def prompt_bytes(self) -> int:
        """Length of the prompt in UTF-8 bytes: an upper bound of its tokens for byte-level tokenisers."""
        given = 0 if self.continuation is None else len(self.continuation.encode())
        if self.prompt is not None:
            return len(self.prompt.encode()) + given
        # A chat template adds a role and a few marker tokens around every message.
        return sum(len(content.encode()) + 16 for _, content in self.messages) + 16 + given

    def resampled(self, sample: int) -> Request:
        return replace(self, sample=sample)


def safe_text(text: str) -> str:
    """The text without what JSON cannot hold."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def ledger_key(canonical: bytes) -> bytes:
    return hashlib.sha256(canonical).digest()


@dataclass(slots=True)
class Reply:
    """What a model said, with what it cost. A reply that no parser can read is a reply all the same."""

    text: str
    finish: str | None = None
    """Why generation ended, in the server's word: `stop`, `length`, ..."""
    tokens: Sequence[Token] | None = None
    reasoning: str | None = None
    """Thinking that the server split off from the text."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    def dumps(self) -> bytes:
        tokens = None if self.tokens is None else [list(t) for t in self.tokens]
        counts = (self.prompt_tokens, self.completion_tokens, self.cached_tokens)
        return orjson.dumps([self.text, self.finish, self.reasoning, counts, tokens])

    @classmethod
    def loads(cls, stored: bytes) -> Reply:
        text, finish, reasoning, (prompt, completion, cached), tokens = orjson.loads(stored)
        if tokens is not None:
            tokens = [Token(t, lp, tuple(map(tuple, top))) for t, lp, top in tokens]
        return cls(text, finish, tokens, reasoning, prompt, completion, cached)


class FailureKind(NamedTuple):
    """What follows from a kind of failure."""

    retry: bool
    """Asking again may help."""
    fatal: bool
    """No other request would fare better: the job ends (exit code 5)."""
    billed: bool
    """The server may have done the work: a budget takes it as paid in full."""
    sentence: str


FAILURES: dict[str, FailureKind] = {
    "timeout": FailureKind(True, False, True, "no reply within the timeout"),
    "connection": FailureKind(True, False, True, "the connection broke"),
    "unreachable": FailureKind(True, True, False, "nothing answers at the address"),
    "rate-limited": FailureKind(True, False, False, "the server asked for fewer requests"),
    "server": FailureKind(True, False, False, "the server had an error of its own"),
    "bad-body": FailureKind(True, False, True, "the reply was not the JSON of a completion"),
    "no-choices": FailureKind(True, False, True, "the reply held no choices"),
    "context-length": FailureKind(False, False, False, "the prompt is longer than the model's context"),
    "bad-request": FailureKind(False, False, False, "the server does not accept the request"),
    "auth": FailureKind(False, True, False, "the server refused the key"),
    "quota": FailureKind(False, True, False, "the account has no quota left"),
    "unknown-model": FailureKind(False, True, False, "the server does not know the model"),
    "not-in-ledger": FailureKind(False, False, False, "the replayed ledger holds no such reply"),
    "does-not-fit": FailureKind(False, False, False, "the question does not fit the context"),
    "engine-stopped": FailureKind(False, True, False, "the engine in this process stopped"),
    "backend-error": FailureKind(False, False, True, "the backend raised an error"),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request got no reply: an error is a value of its own type, never text that a parser might read."""

    kind: str
    """A key of FAILURES."""
    detail: str = ""
    """What the server said, for people."""
    retry_after: float | None = None
    """Seconds to wait, where the server named them."""

    @property
    def retry(self) -> bool:
        return FAILURES[self.kind].retry

    @property
    def fatal(self) -> bool:
        return FAILURES[self.kind].fatal

    @property
    def billed(self) -> bool:
        return FAILURES[self.kind].billed

    def __str__(self) -> str:
        sentence = FAILURES[self.kind].sentence
        return f"{sentence} ({self.detail})" if self.detail else sentence


@runtime_checkable
class Backend(Protocol):
    """A model. One coroutine is all it takes; what else it may say of itself is read by the functions below."""

    async def complete(self, request: Request) -> Reply | Failure: ...


def identity_of(backend: Backend) -> Identity:
    """The backend's own `identity`, else its class and its `model`."""
    own = getattr(backend, "identity", None)
    return own if isinstance(own, Identity) else Identity(type(backend).__name__, str(getattr(backend, "model", "")))


def is_named(backend: Backend) -> bool:
    """Whether the backend says which model it is, so that its replies can be told from others'."""
    return isinstance(getattr(backend, "identity", None), Identity) or bool(getattr(backend, "model", ""))


def capabilities_of(backend: Backend) -> frozenset[str]:
    """What the backend says it can answer: its `capabilities`, else text alone."""
    return frozenset(getattr(backend, "capabilities", ("text",)))
