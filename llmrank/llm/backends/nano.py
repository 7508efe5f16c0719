"""The `nano` backend: the small judge that ships with the package, run with numpy.

A Llama of 1.9 million parameters, trained on the docstrings of Python's standard library by `experiments/nano_judge`
on the prompts of `pointwise/yes-no`, `pointwise/graded` and `pairwise/prefer`. It is a real language model with real
log-probabilities, for trying things out without a key, a download or a GPU. What it judges by is which words of the
query a passage has: as a ranker it stays below BM25.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from llmrank.errors import InputError
from llmrank.llm.backends.nano_model import Floats, Llama
from llmrank.llm.types import Failure, Identity, Reply, Request, Sampling
from llmrank.questions import Token
from llmrank.tokens import CountedTokens

FILES = ("model.safetensors", "tokenizer.json", "chat_template.jinja")
TOP = 20
"""Tokens told at each place, at most."""


def folder() -> Path:
    """Where the shipped model lies: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent.parent
    installed = package / "models" / "nano"
    return installed if installed.is_dir() else package.parent / "models" / "nano"


class NanoBackend:
    """The small judge. One prompt is worked on at a time, in a thread of its own, so that equal prompts give equal
    replies to the last bit, whatever else is asked."""

    remote = False
    capabilities = frozenset(
        {"text", "logprobs", "later-logprobs", "prompt-logprobs", "raw", "prefill", "samples", "tokenizer"}
    )

    def __init__(self, path: Path | None = None) -> None:
        path = path or folder()
        digest = hashlib.sha256()
        try:
            for name in FILES:
                digest.update((path / name).read_bytes())
            self._model = Llama(path)
        except FileNotFoundError as error:
            raise InputError(f"--backend nano: {error.filename} is missing; install llmrank again") from error
        self.identity = Identity("nano", digest.hexdigest()[:16])
        self.context: int = self._model.context
        self._tokenizer = _tokenizer(path)
        self._plain = _tokenizer(path)
        self._plain.encode_special_tokens = True  # a passage that spells a mark of the chat template makes none
        self.counter = CountedTokens(self._plain)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nano")

    async def complete(self, request: Request) -> Reply | Failure:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.reply, request)

    def reply(self, request: Request) -> Reply | Failure:
        """The reply to a request, worked out here and now."""
        if request.constraint is not None:
            return Failure("bad-request", "nano cannot hold its output to a form")
        put = self._put(request)
        room = 0 if request.continuation is not None else request.sampling.max_tokens
        if len(put.ids) + room > self.context:
            told = f"{len(put.ids)} tokens and {room} for the reply; nano takes {self.context}"
            return Failure("context-length", told)
        if not put.start:
            return Failure("bad-request", "the prompt is empty")
        if request.continuation is None:
            return self._generated(put.ids, request)
        if put.start == len(put.ids):
            return Failure("bad-request", "the continuation is empty: there is no likelihood to tell")
        return self._scored(put, request.sampling.logprobs)

    def _put(self, request: Request) -> Put:
        """The request in tokens. A continuation is tokenised with the text that it goes on from."""
        tokenizer, head, before = self._tokenizer, list[int](), request.prompt
        if before is None:
            tokenizer, before = self._plain, ""
            for i, (role, content) in enumerate(request.messages):
                if role == "system":  # the model was trained without
                    continue
                head.append(self._mark(role))
                if role == "assistant" and i == len(request.messages) - 1:  # the given beginning of the reply
                    before = content
                    break
                head += [*tokenizer.encode(content, add_special_tokens=False).ids, self._model.end]
            else:
                head.append(self._mark("assistant"))
        coded = tokenizer.encode(before + (request.continuation or ""), add_special_tokens=False)
        # A token that reaches over the boundary is the continuation's.
        start = next((i for i, (_, end) in enumerate(coded.offsets) if end > len(before)), len(coded.ids))
        return Put(head + coded.ids, len(head) + start)

    def _mark(self, role: str) -> int:
        mark = self._tokenizer.token_to_id("<|assistant|>" if role == "assistant" else "<|user|>")
        assert mark is not None
        return mark

    def _generated(self, ids: Sequence[int], request: Request) -> Reply:
        sampling, chosen, tokens, text, finish = request.sampling, list[int](), list[Token](), "", "length"
        draws = np.random.default_rng([sampling.seed or 0, request.sample, *ids])
        told, past = self._model.logprobs(ids)
        while len(chosen) < sampling.max_tokens:
            if chosen:
                told, past = self._model.logprobs(chosen[-1:], past)
            chosen.append(_chosen(told[0], sampling, draws))
            tokens.append(self._token(chosen[-1], told[0], sampling.logprobs))
            text = self._tokenizer.decode(chosen).removeprefix(" ")  # without the mark of the end
            stops = [at for stop in sampling.stop if (at := text.find(stop)) >= 0]
            if stops or chosen[-1] == self._model.end:
                text, finish = text[: min(stops)] if stops else text, "stop"
                break
        return Reply(
            text,
            finish,
            tuple(tokens) if sampling.logprobs else None,
            prompt_tokens=len(ids),
            completion_tokens=len(chosen),
        )

    def _scored(self, put: Put, top: int) -> Reply:
        """The log-probabilities of a continuation's tokens."""
        told, _ = self._model.logprobs(put.ids[:-1], last=len(put.ids) - put.start)
        tokens = [self._token(token, row, top) for token, row in zip(put.ids[put.start :], told, strict=True)]
        return Reply("", "stop", tuple(tokens), prompt_tokens=len(put.ids), completion_tokens=0)

    def _token(self, token: int, told: Floats, top: int) -> Token:
        likeliest = np.argsort(-told, kind="stable")[: min(top, TOP)]
        return Token(self._texts[token], float(told[token]), tuple((self._texts[i], float(told[i])) for i in likeliest))

    @cached_property
    def _texts(self) -> list[str]:
        """The text of each token, with the space before it."""
        size = self._tokenizer.get_vocab_size()
        return [self._tokenizer.decode([i], skip_special_tokens=False) for i in range(size)]


class Put(NamedTuple):
    """A request as the model gets it."""

    ids: list[int]
    start: int
    """Where the continuation begins; without one the length of the prompt."""


def _tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path / "tokenizer.json"))


def _chosen(told: Floats, sampling: Sampling, draws: np.random.Generator) -> int:
    """The next token: the likeliest, or one drawn at the temperature among those that make up `top_p`."""
    if not sampling.temperature:
        return int(told.argmax())
    scaled = told.astype(np.float64) / sampling.temperature
    share = np.exp(scaled - scaled.max())
    share /= share.sum()
    if sampling.top_p is not None:
        falling = np.argsort(-share, kind="stable")
        before = np.cumsum(share[falling]) - share[falling]
        share[falling[before >= sampling.top_p]] = 0.0
        share /= share.sum()
    return int(draws.choice(len(share), p=share))
