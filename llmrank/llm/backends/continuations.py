"""The log-probability of a given text: how it is asked for over the wire, and where its tokens stand in the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmrank.llm.backends.wire import Answer, opened, read_tokens, used
from llmrank.llm.types import Failure, Message, Reply
from llmrank.questions import Token


def raw_fields(prompt: str, continuation: str) -> dict[str, Any]:
    """For `/completions`: prompt and text are given back with log-probabilities, and nothing is generated."""
    return {"prompt": prompt + continuation, "max_tokens": 0, "echo": True, "logprobs": 0, "temperature": 0.0}


def chat_fields(messages: Sequence[Message], continuation: str) -> dict[str, Any]:
    """For vLLM's `/chat/completions`: the text is the last message, left open, and the prompt's logprobs are told."""
    *before, (role, content) = messages
    begun = role == "assistant"
    said = [*(before if begun else messages), ("assistant", content + continuation if begun else continuation)]
    return {
        "messages": [{"role": role, "content": content} for role, content in said],
        "continue_final_message": True,
        "add_generation_prompt": False,
        "prompt_logprobs": 0,
        "max_tokens": 1,
        "temperature": 0.0,
    }


def read_continuation(answer: Answer, text: str) -> Reply | Failure:
    """A reply whose tokens are exactly those of the text; without tokens where the server did not tell them."""
    body = opened(answer)
    if isinstance(body, Failure):
        return body
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    echoed = _prompt_tokens(body.get("prompt_logprobs")) or read_tokens(first.get("logprobs"))
    return used(Reply("", tokens=span(echoed, text) if echoed else None), body.get("usage"))


def span(tokens: Sequence[Token], text: str) -> tuple[Token, ...] | None:
    """The tokens, at the end of all, that spell the text; None where they do not.

    A first token that also holds the end of the prompt is one of them: its boundary merged. A character that takes
    several tokens is spelled by the last of these; the empty ones before it belong to it.
    """
    wanted = text if _ends_with(tokens, text) else text.strip()  # chat templates may trim a message
    left = len(wanted)
    for start in range(len(tokens) - 1, -1, -1):
        left -= len(tokens[start].text)
        if left <= 0:
            while start > 0 and not tokens[start - 1].text and wanted[:1] > "\x7f":
                start -= 1
            return tuple(tokens[start:]) if wanted and _ends_with(tokens[start:], wanted) else None
    return None


def _ends_with(tokens: Sequence[Token], text: str) -> bool:
    said = "".join(token.text for token in tokens)
    return said.endswith(text) or said.replace("\ufffd", "") == text.replace("\ufffd", "")


def _prompt_tokens(told: Any) -> tuple[Token, ...] | None:
    """vLLM's `prompt_logprobs`: for each token but the first an object, by token id, whose first entry is the token."""
    if not isinstance(told, list):
        return None
    entries: list[Any] = [next(iter(place.values()), None) for place in told if isinstance(place, dict)]
    if not all(isinstance(entry, dict) for entry in entries):
        return None
    columns = {"tokens": "decoded_token", "token_logprobs": "logprob"}
    return read_tokens({column: [entry.get(name) for entry in entries] for column, name in columns.items()})
