"""The `openai` backend: the OpenAI wire protocol and what servers added to it, over one server or several."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from llmrank.errors import InputError
from llmrank.llm.backends import scoring
from llmrank.llm.backends.constraints import fields
from llmrank.llm.backends.continuations import chat_fields, raw_fields, read_continuation
from llmrank.llm.backends.endpoints import Pool
from llmrank.llm.backends.responses import read_response, responses_body
from llmrank.llm.backends.servers import servers
from llmrank.llm.backends.transports import TRANSPORTS, Transport
from llmrank.llm.backends.wire import Answer, context_listed, read_answer, without_rivals
from llmrank.llm.types import Failure, Identity, Reply, Request

DETAIL_LENGTH = 300  # characters of what a server said that are kept
CLAIMS = frozenset({"text", "logprobs", "later-logprobs", "choice", "regex", "json-schema", "samples", "reasoning"})
CHAT = CLAIMS | {"prompt-logprobs", "permutation", "raw", "prefill"}
APIS: dict[str, frozenset[str]] = {
    "chat": CHAT,
    "responses": frozenset({"text", "logprobs", "later-logprobs", "json-schema", "samples", "reasoning"}),
    "rerank": frozenset({"text"}),
    "score": frozenset({"text"}),
    "generative-scoring": frozenset({"text", "logprobs", "label-logprobs", "raw"}),
}
"""What each form of the protocol can be asked for; what a server really answers is found out by `llm.probe`."""

_REFUSED = (
    r"(?:not?|n['’]t) (?:\w+ )?(?:support|allow|permit|accept|compatible)|unsupported|unrecognized|only the default"
)
REFUSALS: dict[str, tuple[tuple[str, ...], re.Pattern[str]]] = {
    name: (sent, re.compile(rf"(?is)\b{word}\b.{{0,80}}(?:{_REFUSED})|(?:{_REFUSED}).{{0,80}}\b{word}\b"))
    for name, word, sent in (
        ("temperature", "temperature", ("temperature",)),
        ("top_p", "top_p", ("top_p",)),
        ("logprobs", "(?:top_)?logprobs", ("logprobs", "top_logprobs", "include")),
    )
}
"""What a model may refuse to be told, by the fields that say it, and how a server says so: asked again without."""


class Call(NamedTuple):
    """One request as it goes over the wire."""

    path: str
    body: dict[str, Any]
    read: Callable[[Answer], Reply | Failure] = read_answer


class OpenAIBackend:
    """Any OpenAI-compatible server, hosted or local, or several that serve one model.

    api: `chat` (which is also `/completions` for raw prompts), `responses`, `rerank`, `score`, `generative-scoring`.
    effort, thinking, labels change what is answered, and so are part of the model's name in the ledger.
    """

    remote = True

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        client: str = "direct",
        api: str = "chat",
        effort: str | None = None,
        thinking: str | None = None,
        labels: str | None = None,
    ) -> None:
        self.model = model
        if not model:
            raise InputError("the backend openai: lacks the name of a model; write openai:MODEL")
        _one_of(model, "client", client, TRANSPORTS)
        _one_of(model, "api", api, APIS)
        _one_of(model, "thinking", thinking, ("on", "off"))
        self.api, self.effort, self.thinking = api, effort, thinking
        self.labels = _two(model, labels or "yes,no")
        told = {"api": None if api == "chat" else api, "effort": effort, "labels": labels, "thinking": thinking}
        suffix = "&".join(f"{name}={value}" for name, value in told.items() if value is not None)
        self.identity = Identity("openai", f"{model}?{suffix}" if suffix else model)
        self._servers = servers(base_url, api_key)
        self.base_url = self.origin = ",".join(server.url for server in self._servers)
        self._make_transport = TRANSPORTS[client]
        self._transports: dict[asyncio.AbstractEventLoop, Transport] = {}
        self._several = len(self._servers) > 1 or self._servers[0].limits.concurrency is not None
        self._secrets = tuple(secret for server in self._servers for secret in server.secrets)
        self._label_ids: list[int] = []
        self._concurrency = 0
        self.admit = self._admitted if self._several else None
        """Waits until one of several servers has room."""
        self.limit_field = "max_tokens"  # OpenAI's newer models take only `max_completion_tokens`, others only this
        self.left_out: set[str] = set()
        """What the model refuses to be told, of REFUSALS: it is asked without."""
        self.forms: dict[str, str] = {}
        """How the server wants to be asked, where that was found out: by kind of constraint, and `prefill`."""
        self.context: int | None = None
        """Tokens that the model takes, once `learn_context` has asked."""
        self.lacking: set[str] = set()
        """Capabilities that were found not to be there."""
        self.found: dict[tuple[str, bool], Any] = {}
        """What `llm.probe` found out, and what it was told that answers a second of its questions."""
        self.told: dict[bytes, Any] = {}

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can be asked for, as far as is known."""
        lost = {"logprobs", "later-logprobs"} if "logprobs" in self.left_out else set()
        return APIS[self.api] - self.lacking - lost

    @property
    def probed(self) -> frozenset[str]:
        """Which of its capabilities hang on the server and the model behind it."""
        return APIS[self.api] - {"text"} if self.api in ("chat", "responses") else frozenset()

    async def complete(self, request: Request) -> Reply | Failure:
        if self.api == "generative-scoring":
            return await self._label_probabilities(request)
        call = self.call(request)
        answer = await self._transport().post(call.path, orjson.dumps(call.body))
        outcome = answer if isinstance(answer, Failure) else call.read(answer)
        if isinstance(outcome, Reply):
            free = request.constraint is None and request.continuation is None
            if free and without_rivals(outcome, request.sampling.logprobs):
                return Failure("server", "it told log-probabilities of the written tokens alone, and of no others")
            return outcome
        learnt = None if request.continuation is not None else self._otherwise(outcome, call)
        return learnt or self._told(outcome)

    async def learn_context(self, timeout: float = 10.0) -> int | None:
        """Asks the server, where it lists its models, how many tokens this one takes; None where it does not tell."""
        if self.context is None:
            try:
                async with asyncio.timeout(timeout):
                    answer = await self._transport().post("/models", None)
            except TimeoutError:
                return None
            self.context = None if isinstance(answer, Failure) else context_listed(answer, self.model)
        return self.context

    def call(self, request: Request) -> Call:
        """What is sent for a request, and how the answer is read."""
        text = request.continuation
        if self.api in scoring.PATHS:
            body = scoring.scoring_body(self.api, self.model, request)
            return Call(scoring.PATHS[self.api], body, scoring.read_score)
        if self.api == "responses":
            body = responses_body(self.model, request)
            if self.effort is not None:
                body["reasoning"] = {"effort": self.effort}
            return Call("/responses", self._without(body), read_response)
        path = "/chat/completions" if request.prompt is None else "/completions"
        if text is None:
            return Call(path, self._without(self.body(request)))
        told = chat_fields(request.messages, text) if request.prompt is None else raw_fields(request.prompt, text)
        return Call(path, {"model": self.model} | told, lambda answer: read_continuation(answer, text))

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON that is sent to `/chat/completions` or `/completions`."""
        sampling, chat = request.sampling, request.prompt is None
        body: dict[str, Any] = {"model": self.model}
        if chat:
            body["messages"] = [{"role": role, "content": content} for role, content in request.messages]
            if request.messages and request.messages[-1][0] == "assistant":
                self._prefill(body)
        else:
            body["prompt"] = request.prompt
        body[self.limit_field if chat else "max_tokens"] = sampling.max_tokens
        body["temperature"] = sampling.temperature
        if sampling.top_p is not None:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop"] = sampling.stop
        if sampling.temperature and sampling.seed is not None:
            body["seed"] = sampling.seed + request.sample
        if sampling.logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs} if chat else {"logprobs": sampling.logprobs}
        if request.constraint is not None:
            begun = request.messages[-1][1] if chat and request.messages[-1][0] == "assistant" else request.prompt
            body |= fields(request.constraint, self.forms, begun or "")
        if chat and self.effort is not None:
            body["reasoning_effort"] = self.effort
        if chat and self.thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": self.thinking == "on"}
        return body

    def spread(self, concurrency: int) -> int:
        """How many requests all servers together take where each takes so many, unless its address says otherwise."""
        self._concurrency = concurrency
        return sum(server.limits.concurrency or concurrency for server in self._servers)

    async def aclose(self) -> None:
        """Closes the connections of the running event loop."""
        transport = self._transports.pop(asyncio.get_running_loop(), None)
        if transport is not None:
            await transport.close()

    async def _admitted(self) -> None:
        transport = self._transport()
        assert isinstance(transport, Pool)
        await transport.admit()

    def _transport(self) -> Transport:
        """The running loop's own: connections belong to the event loop on which they were made."""
        loop = asyncio.get_running_loop()
        transport = self._transports.get(loop)
        if transport is None:
            self._transports = {loop: t for loop, t in self._transports.items() if not loop.is_closed()}
            if self._several:
                transport = Pool(self._servers, self._make_transport, self._concurrency)
            else:
                transport = self._make_transport(self._servers[0])
            self._transports[loop] = transport
        return transport

    def _prefill(self, body: dict[str, Any]) -> None:
        """Says that the last message is the beginning of the reply, in the form that the server takes."""
        form = self.forms.get("prefill", "continue")
        if form == "continue":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        elif form == "prefix":
            body["messages"][-1]["prefix"] = True

    def _without(self, body: dict[str, Any]) -> dict[str, Any]:
        for name in self.left_out:
            for field in REFUSALS[name][0]:
                body.pop(field, None)
        return body

    def _otherwise(self, failure: Failure, call: Call) -> Failure | None:
        """Learns from a refusal how to ask; None where there is nothing to learn."""
        if failure.kind != "bad-request":
            return None
        if "max_completion_tokens" in failure.detail and "messages" in call.body and "max_tokens" in call.body:
            self.limit_field = "max_completion_tokens"
            return Failure(
                "server", "the model takes max_completion_tokens in place of max_tokens; asking again so", 0.0
            )
        for name, (sent, refused) in REFUSALS.items():
            if not call.body.keys().isdisjoint(sent) and refused.search(failure.detail):
                self.left_out.add(name)
                return Failure("server", f"the model takes no {name}; asking again without", 0.0)
        return None

    async def _label_probabilities(self, request: Request) -> Reply | Failure:
        post, labels = self._transport().post, list(self.labels)
        wanted: list[dict[str, Any]] = [scoring.tokenize_body(self.model, request)]
        if not self._label_ids:
            wanted += [{"model": self.model, "prompt": label, "add_special_tokens": False} for label in labels]
        found: list[list[int]] = []
        for body in wanted:
            answer = await post("^/tokenize", orjson.dumps(body))
            ids = answer if isinstance(answer, Failure) else scoring.read_ids(answer)
            if isinstance(ids, Failure):
                return self._told(ids)
            found.append(ids)
        prompt, *spelled = found
        if spelled:
            self._label_ids = [ids[0] for ids in spelled]
        if len(set(self._label_ids)) < len(labels):
            raise InputError(f"{' and '.join(labels)} begin with the same token of {self.model}; take other labels")
        body = scoring.generative_body(self.model, prompt, self._label_ids)
        answer = await post("^/generative_scoring", orjson.dumps(body))
        read = answer if isinstance(answer, Failure) else scoring.read_probability(answer)
        return self._told(read) if isinstance(read, Failure) else scoring.label_reply(self.labels, *read)

    def _told(self, failure: Failure) -> Failure:
        """The failure with what the server said as one short line, less what must not be told: some repeat the key."""
        detail = failure.detail
        for secret in self._secrets:
            detail = detail.replace(secret, "***")
        detail = " ".join("".join(c if c.isprintable() else " " for c in detail).split())
        return replace(failure, detail=detail[:DETAIL_LENGTH])


def _one_of(model: str, name: str, value: str | None, known: Mapping[str, Any] | tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise InputError(f"openai:{model}: {name}={value} is unknown; it is one of {', '.join(known)}")


def _two(model: str, labels: str) -> tuple[str, str]:
    words = [label.strip() for label in labels.split(",")]
    if len(words) != 2 or not all(words) or words[0] == words[1]:
        raise InputError(f"openai:{model}: labels={labels}: it must be two words, the more relevant first, like yes,no")
    return words[0], words[1]
