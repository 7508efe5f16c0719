"""What local judges share: from a number for each shown item to the reply that a model would give, with logprobs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from llmrank.llm.types import About, Reply, Request
from llmrank.questions import Choice, Grade, Order, Preference, Token, Written

SHARPNESS = 2.0  # log-odds between neighbouring labels of a scale, and between items a whole scale apart, halved
WRITTEN_PARTS = 3
PIECE = re.compile(r"\s*\S+|\s+$")
REST = 1e-3  # probability left to all other tokens
LEAST = -600.0  # a log-probability whose probability is still above zero: what is listed is never impossible


def answer(request: Request, about: About, worths: Sequence[float], *, ties: float = 0.0) -> Reply:
    """The reply to the request's question, given what each shown item is worth on a scale from 0 to 1.

    Items worth the same stand in the order shown, and so do those nearer than `ties`, which are said to tie where the
    question leaves room for it.
    """
    kind = about.question.kind
    if request.continuation is not None:
        return _continued(request, request.continuation, worths)
    if kind == "write":
        return reply(request, about.write(_written(about)))
    if kind == "grade":
        said = _grade(about, worths[0])
    elif kind == "compare":
        said = _compare(about, worths, ties)
    elif kind == "choose":
        said = _choose(about, worths, ties)
    else:
        said = _order(about, worths, ties)
        if request.sampling.max_tokens == 1:  # a model stops there too
            said = said._replace(text=said.word)
    return reply(request, said.text, _tokens(said) if request.sampling.logprobs else None)


def reply(request: Request, text: str, tokens: Sequence[Token] | None = None) -> Reply:
    """A reply with token counts that four bytes a token give."""
    return Reply(
        text,
        finish="stop",
        tokens=tokens,
        prompt_tokens=request.prompt_bytes() // 4,
        completion_tokens=min(request.sampling.max_tokens, -(-len(text.encode()) // 4)),
    )


def _written(about: About) -> Written:
    """A text that says no more than the query does."""
    parts = tuple(f"{about.query.text} ({i})" for i in range(1, WRITTEN_PARTS + 1))
    return Written(text=about.query.text, parts=parts)


def _continued(request: Request, text: str, worths: Sequence[float]) -> Reply:
    """The text's words with log-probabilities that rise with what the shown items are worth."""
    worth = sum(worths) / max(1, len(worths))
    pieces = PIECE.findall(text)
    tokens = tuple(Token(piece, SHARPNESS * (min(max(worth, 0.0), 1.0) - 2.0)) for piece in pieces)
    return reply(request, "", tokens)


class Said(NamedTuple):
    """The text of a reply, the word in it that decides, and all words that could stand there with their logits."""

    text: str
    word: str
    words: Sequence[str]
    logits: Sequence[float]


def nearest(about: About, worth: float) -> int:
    """The place, among the template's labels, of the one that a worth comes nearest to."""
    target = _on_scale(about, worth)
    return min(range(len(about.grades)), key=lambda i: abs(about.grades[i][1] - target))


def _grade(about: About, worth: float) -> Said:
    if not about.grades:
        return Said(about.write(Grade(value=worth)), "", (), ())
    labels, values = zip(*about.grades, strict=True)
    target = _on_scale(about, worth)
    step = (values[-1] - values[0]) / max(1, len(values) - 1)
    text = about.write(Grade(value=round(min(max(target, values[0]), values[-1]), 4)))
    return Said(text, text, labels, [-SHARPNESS * ((value - target) / step) ** 2 for value in values])


def _on_scale(about: About, worth: float) -> float:
    low, high = about.grades[0][1], about.grades[-1][1]
    return low + worth * (high - low)


def _compare(about: About, worths: Sequence[float], ties: float) -> Said:
    left, right = worths
    tie = abs(left - right) < ties
    text = about.write(Preference(share=0.5 if tie else 1.0 if left >= right else 0.0))
    logits = _logits(worths)
    logits.append(max(logits) if tie else min(logits))
    return Said(text, text, about.options, logits[: len(about.options)])  # some templates offer no tie


def _choose(about: About, worths: Sequence[float], ties: float) -> Said:
    sign = -1 if about.question.worst else 1
    signed = [sign * worth for worth in worths]
    best = max(signed)
    signed = [best if best - worth < ties else worth for worth in signed]  # they cannot be told apart
    best_places = [i for i, worth in enumerate(signed) if worth == best]
    index = best_places[-1 if about.question.worst else 0]
    return Said(about.write(Choice(index=index)), about.options[index], about.options, _logits(signed))


def _order(about: About, worths: Sequence[float], ties: float) -> Said:
    groups: list[list[int]] = []
    for i in sorted(range(len(worths)), key=lambda i: -worths[i]):
        if groups and worths[groups[-1][-1]] - worths[i] < ties:
            groups[-1].append(i)
        else:
            groups.append([i])
    shown = [tuple(sorted(group)) for group in groups]
    permutation = tuple(i for group in shown for i in group)
    said_worths = list(worths)
    for group in groups:
        for i in group:
            said_worths[i] = worths[group[0]]
    ties_told = tuple(shown) if len(shown) < len(worths) else None
    on_scale = [round(_on_scale(about, min(1.0, max(0.0, w))), 4) for w in said_worths] if about.grades else None
    scores = None if on_scale is None else tuple(on_scale)
    text = about.write(Order(permutation=permutation, ties=ties_told, scores=scores))
    return Said(text, about.options[permutation[0]] if permutation else "", about.options, _logits(said_worths))


def _logits(worths: Sequence[float]) -> list[float]:
    return [2 * SHARPNESS * worth for worth in worths]


def _tokens(said: Said) -> tuple[Token, ...] | None:
    """The text as tokens: the decisive word with its rivals, what stands before and after it as one token each."""
    text, word, words, logits = said
    start = text.find(word)
    if start < 0 or word not in words:  # a score has no rivals to be told
        return None
    highest = max(logits)
    total = highest + math.log(math.fsum(math.exp(x - highest) for x in logits)) - math.log1p(-REST)
    top = [(w, max(x - total, LEAST)) for w, x in zip(words, logits, strict=True)]
    top = sorted(top, key=lambda pair: -pair[1])[:20]
    before, after = text[:start], text[start + len(word) :]
    decisive = Token(word, dict(top).get(word, top[-1][1]), tuple(top))
    tokens = (Token(before, 0.0, ((before, 0.0),)), decisive, Token(after, 0.0, ((after, 0.0),)))
    return tuple(token for token in tokens if token.text)
