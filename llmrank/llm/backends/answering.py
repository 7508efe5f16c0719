"""What local judges share: from a number for each shown item to the reply that a model would give, words and logprobs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmrank.llm.types import About, Reply, Request
from llmrank.questions import Choice, Grade, Order, Preference, Token

SHARPNESS = 2.0  # log-odds between neighbouring labels of a scale, and between items a whole scale apart, halved
REST = 1e-3  # probability left to all other tokens


def answer(request: Request, about: About, worths: Sequence[float], *, ties: float = 0.0) -> Reply:
    """The reply to the request's question, given what each shown item is worth on a scale from 0 to 1.

    Items worth the same stand in the order shown; those nearer than `ties` are said to tie.
    """
    kind = about.question.kind
    if kind == "grade":
        text, words, logits = _grade(about, worths[0])
    elif kind == "compare":
        text, words, logits = _compare(about, worths, ties)
    elif kind == "choose":
        text, words, logits = _choose(about, worths)
    else:
        text, words, logits = _order(about, worths, ties)
    tokens = _tokens(text, words, logits) if request.sampling.logprobs else None
    return reply(request, text, tokens)


def reply(request: Request, text: str, tokens: Sequence[Token] | None = None) -> Reply:
    """A reply with token counts that four bytes a token give."""
    return Reply(
        text,
        finish="stop",
        tokens=tokens,
        prompt_tokens=request.prompt_bytes() // 4,
        completion_tokens=min(request.sampling.max_tokens, -(-len(text.encode()) // 4)),
    )


Said = tuple[str, Sequence[str], list[float]]
"""The text of a reply, the words that could have stood at its decisive place, and the logit of each."""


def _grade(about: About, worth: float) -> Said:
    labels, values = zip(*about.grades, strict=True) if about.grades else ((), ())
    if not labels:
        return about.write(Grade(value=worth)), (), []
    low, high = values[0], values[-1]
    target = low + worth * (high - low)
    step = (high - low) / max(1, len(values) - 1)
    logits = [-SHARPNESS * ((value - target) / step) ** 2 for value in values]
    best = max(range(len(labels)), key=logits.__getitem__)
    return about.write(Grade(value=values[best], label=labels[best])), labels, logits


def _compare(about: About, worths: Sequence[float], ties: float) -> Said:
    left, right = worths
    tie = abs(left - right) < ties
    share = 0.5 if tie else 1.0 if left >= right else 0.0
    return about.write(Preference(share=share)), about.options[:2], [2 * SHARPNESS * left, 2 * SHARPNESS * right]


def _choose(about: About, worths: Sequence[float]) -> Said:
    sign = -1 if about.question.worst else 1
    order = sorted(range(len(worths)), key=lambda i: -worths[i])
    index = order[-1] if about.question.worst else order[0]
    return about.write(Choice(index=index)), about.options, [2 * SHARPNESS * sign * worth for worth in worths]


def _order(about: About, worths: Sequence[float], ties: float) -> Said:
    order = sorted(range(len(worths)), key=lambda i: -worths[i])
    groups: list[list[int]] = []
    for i in order:
        if groups and worths[groups[-1][-1]] - worths[i] < ties:
            groups[-1].append(i)
        else:
            groups.append([i])
    tied = tuple(map(tuple, groups)) if len(groups) < len(order) else None
    said = about.write(Order(permutation=tuple(order), ties=tied))
    return said, about.options, [2 * SHARPNESS * worth for worth in worths]


def _tokens(text: str, words: Sequence[str], logits: Sequence[float]) -> tuple[Token, ...] | None:
    """The text as tokens: the decisive word with its rivals, what stands before and after it as one token each."""
    found = [(text.find(word), word) for word in words if word in text]
    if not found:
        return None
    start, word = max(found, key=lambda pair: (-pair[0], len(pair[1])))
    total = math.log(sum(math.exp(x) for x in logits)) - math.log1p(-REST)
    top = sorted(((w, x - total) for w, x in zip(words, logits, strict=True)), key=lambda pair: -pair[1])[:20]
    said = dict(top).get(word, top[-1][1])
    parts = [(text[:start], 0.0, ()), (word, said, tuple(top)), (text[start + len(word) :], 0.0, ())]
    return tuple(Token(t, logprob, options or ((t, logprob),)) for t, logprob, options in parts if t)
