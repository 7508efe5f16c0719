"""A model's own tokens: requests put into them, with its chat template, and replies read out of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from llmrank.llm.backends.local import Model, read_json
from llmrank.llm.types import Request
from llmrank.questions import Token

OPEN, CLOSE = "<think>", "</think>"
TOP = 20
"""Tokens told at each place, at most: what every engine can give."""


class Unaskable(Exception):
    """A request that this model cannot be asked; the text says why."""


class TooLong(Exception):
    """Prompt and reply do not fit the model's context."""


def check_room(prompt: int, reply: int, context: int | None) -> None:
    """Raises TooLong where so many tokens are more than the context has."""
    if context is not None and prompt + reply > context:
        raise TooLong(f"{prompt} tokens and {reply} for the reply; the context is {context}")


class Put(NamedTuple):
    """A request as the model gets it."""

    ids: list[int]
    start: int
    """Where the continuation begins, for a request that has one; else the length of the prompt."""
    thinks: bool = False
    """The reply begins with thinking, or may do so."""
    opened: bool = False
    """The prompt itself opens the thinking."""
    tail: str = ""
    """The end of the prompt's text, which a constrained reply may have begun already."""
    spaced: bool = False
    """A word of the reply may have a space before it, since the prompt ends without one or the tokeniser adds it."""


Split = tuple[str, str | None, Sequence[Token] | None]


class Tongue:
    """A model's tokeniser: requests as tokens, and tokens as text."""

    def __init__(self, model: Model, *, thinking: bool | None = None, tokenizer: Any = None) -> None:
        if tokenizer is None:
            from transformers import AutoTokenizer  # type: ignore[import-not-found, unused-ignore]

            tokenizer = AutoTokenizer.from_pretrained(str(model.folder), local_files_only=True)
        self.tokenizer = tokenizer
        self._template = model.chat_template
        self._thinking = thinking
        self._reasons = model.reasons and thinking is not False
        self._asks_itself = "enable_thinking" in (self._template or "")
        self.byte_level = _is_byte_level(tokenizer)
        """Whether its tokens are bytes, which say the same wherever they stand."""
        told = read_json(model.folder, "generation_config.json").get("eos_token_id", model.config.get("eos_token_id"))
        listed = told if isinstance(told, list) else [told]
        self.ends = tuple(dict.fromkeys(i for i in [tokenizer.eos_token_id, *listed] if isinstance(i, int)))
        """The tokens by which the model ends a reply."""
        self._known_words = lru_cache(maxsize=64)(self._first_tokens)

    def put(self, request: Request) -> Put:
        """The request in tokens. Raises Unaskable."""
        text, special, prefilled = self._text(request)
        if request.continuation is not None:
            ids, start = self._continued(text, request.continuation, special)
            return Put(ids, start)
        ids = self._encode(text, special)
        thinks, opened = self._thought(text, prefilled) if request.prompt is None else (False, False)
        raw = request.prompt is not None and not text[-1:].isspace()
        return Put(ids, len(ids), thinks, opened, text[-16:], raw or not self.byte_level)

    def encoded(self, request: Request) -> Put:
        """The request for an encoder, which gets one text: a raw prompt, or the only message. Raises Unaskable."""
        text = request.prompt if request.prompt is not None else "\n\n".join(content for _, content in request.messages)
        ids = self._encode(text, True)
        return Put(ids, len(ids), spaced=True)

    def target(self, continuation: str) -> list[int]:
        """The tokens of a continuation as a decoder's own text."""
        ids = self._encode(continuation, False)
        if not ids:
            raise Unaskable("the continuation is empty: there is no likelihood to tell")
        return ids

    def pair(self, request: Request) -> tuple[list[int], list[int]]:
        """A text for a head, or a pair (two user messages: query and document), with the kind of each token."""
        texts = [request.prompt] if request.prompt is not None else [content for _, content in request.messages]
        if self._template is not None and request.prompt is None:
            return self.put(request).ids, []
        if len(texts) > 2:
            raise Unaskable("a model with a head takes a raw prompt, or two user messages: the query and the document")
        told = self.tokenizer(*texts)
        return told["input_ids"], told.get("token_type_ids") or []

    def _text(self, request: Request) -> tuple[str, bool, str | None]:
        """The prompt's text, whether the tokeniser is to add its own marks, and the reply's given beginning."""
        if request.prompt is not None:
            begins = getattr(self.tokenizer, "bos_token", None)
            return request.prompt, not (begins and request.prompt.startswith(begins)), None
        if self._template is None:
            raise Unaskable("the model has no chat template; take a template with raw: true")
        messages = [{"role": role, "content": content} for role, content in request.messages]
        prefilled = request.messages[-1][1] if request.messages[-1][0] == "assistant" else None
        told = {} if self._thinking is None else {"enable_thinking": self._thinking, "thinking": self._thinking}
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                chat_template=self._template,
                add_generation_prompt=prefilled is None,
                continue_final_message=prefilled is not None,
                **told,
            )
        except Exception as error:  # templates raise what they like: a role they do not know, two turns of one
            raise Unaskable(f"the model's chat template refused: {' '.join(str(error).split())}") from error
        return text, False, prefilled

    def _thought(self, text: str, prefilled: str | None) -> tuple[bool, bool]:
        """Whether the reply begins with thinking, and whether the prompt has opened it."""
        if prefilled is not None:
            opened = prefilled.rfind(OPEN) > prefilled.rfind(CLOSE)
            return opened, opened
        end = text.rstrip()
        opened = end.endswith(OPEN)
        return opened or (self._reasons and self._asks_itself and not end.endswith(CLOSE)), opened

    def _continued(self, prompt: str, continuation: str, special: bool) -> tuple[list[int], int]:
        """Prompt and continuation in tokens, and where the continuation begins.

        Both are tokenised as one text, as the model would have met them. A token that reaches over the boundary is the
        continuation's: its boundary merged.
        """
        if not continuation:
            raise Unaskable("the continuation is empty: there is no likelihood to tell")
        told = self.tokenizer(prompt + continuation, add_special_tokens=special, return_offsets_mapping=True)
        inside = [i for i, (start, end) in enumerate(told["offset_mapping"]) if end > max(start, len(prompt))]
        if not inside:
            raise Unaskable("the tokeniser makes nothing of the continuation")
        return told["input_ids"][: inside[-1] + 1], inside[0]  # less the mark of the end that some tokenisers add

    def _encode(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes that each token stands for."""
        size = max([len(self.tokenizer), *self.tokenizer.get_added_vocab().values()])
        names = self.tokenizer.convert_ids_to_tokens(list(range(size)))
        added = {i: str(token) for i, token in self.tokenizer.added_tokens_decoder.items()}
        known = (added.get(i, _bytes(name or "", self.byte_level)) for i, name in enumerate(names))
        return [piece.encode() if isinstance(piece, str) else piece for piece in known]

    @cached_property
    def texts(self) -> list[str]:
        """The text of each token, with the space before a word where the token has one."""
        return [piece.decode(errors="replace") for piece in self.pieces]

    def text(self, token: int) -> str:
        return self.texts[token] if 0 <= token < len(self.texts) else ""  # vocabularies are padded

    @cached_property
    def special(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset([*self.tokenizer.all_special_ids, *(i for i, token in added if token.special)])

    def token(self, chosen: int, logprob: float, top: Sequence[tuple[int, float]]) -> Token:
        ranked = sorted(top, key=_falling)[:TOP]
        return Token(self.text(chosen), logprob, tuple([(self.text(i), p) for i, p in ranked]))

    def first_tokens(self, words: Sequence[str], spaced: bool) -> list[int]:
        """The tokens that the words begin with."""
        return self._known_words(tuple(words), spaced)

    def _first_tokens(self, words: tuple[str, ...], spaced: bool) -> list[int]:
        written = [f"{before}{word}" for before in ("", " ")[: 1 + spaced] for word in words]
        return list(dict.fromkeys(ids[0] for word in written if (ids := self._encode(word, False))))

    def spelled(self, ids: Sequence[int]) -> str:
        """The text of the tokens, with every mark in it."""
        return b"".join(self.pieces[i] for i in ids if i < len(self.pieces)).decode(errors="replace")

    def written(self, ids: Sequence[int]) -> str:
        """The text of the tokens without any mark, less a character of which the end is missing."""
        return self.spelled([i for i in ids if i not in self.special]).rstrip("\N{REPLACEMENT CHARACTER}")

    def said(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def thinking(self, ids: Sequence[int]) -> str:
        """What stands between the marks of a thinking that has ended."""
        return self.spelled(ids).partition(CLOSE)[0].strip().removeprefix(OPEN).strip()

    def split(self, put: Put, text: str, ids: Sequence[int], tokens: Sequence[Token] | None) -> Split:
        """A reply's text, its thinking split off, and the tokens of the text.

        Thinking that did not end stays in the text with the mark of its beginning: no parser takes it for an answer.
        """
        if not put.thinks:
            return text, None, tokens
        told = ""
        for i, token in enumerate(ids):
            piece = self.text(token)
            told += piece
            if CLOSE in told[-len(CLOSE) - len(piece) :]:
                answer = text.partition(CLOSE)[2] if CLOSE in text else self.said(ids[i + 1 :])
                return answer, self.thinking(ids[: i + 1]), None if tokens is None else tokens[i + 1 :]
        return f"{OPEN}\n{text}" if put.opened else text, None, tokens


def _falling(pair: tuple[int, float]) -> float:
    return -pair[1]


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and "ByteLevel" in repr(backend.decoder)


def _byte_alphabet() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes with: printable ones stand for themselves."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _bytes(name: str, byte_level: bool) -> bytes:
    if byte_level:
        return b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in name)
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace("▁", " ").encode()
