"""Probabilities of labels, read from the most likely tokens at the place where a reply names its label."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from llmrank.questions import Said, Token
from llmrank.templates.parsers.reading import Reading, plain

TOP = 20
"""How many of the most likely tokens count, on every backend, so that no score depends on how many it returns."""

SHORT = 8
"""Tokens of a reply that was cut before it could say more than its label."""


TOKENS_KEPT = 1 << 14
"""Tokens of which it is remembered whether they spell a label."""

_LOGPROB = itemgetter(1)


class Place(NamedTuple):
    """A token, and how many of its characters stand before the label that begins in it."""

    token: Token
    offset: int


def place_of(tokens: Sequence[Token] | None, reply: str, start: int) -> Place | None:
    """The token in which the character `start` of the plain reply lies; None where the tokens do not spell it."""
    if not tokens:
        return None
    if len(tokens) == 1 and tokens[0].text == reply and start < len(reply) and reply.isascii():
        return Place(tokens[0], start)
    pieces = [plain(token.text) for token in tokens]
    # Tokens of reasoning that a server split off may stand before the reply, and hold the same words.
    shift = "".join(pieces).rfind(plain(reply))
    if shift < 0:
        pieces = [spelled(piece) for piece in pieces]
        shift = "".join(pieces).rfind(plain(reply))
        if shift < 0:
            return None
    at = shift + start
    for token, piece in zip(tokens, pieces, strict=True):
        if at < len(piece):
            return Place(token, at)
        at -= len(piece)
    return None


def first_place(said: Said, reading: Reading, *, only_short: bool = True) -> Place | None:
    """Where the answering part of a reply begins, if the most likely tokens there are known.

    A longer reply that names no label was about something else: with `only_short` there is no place in it.
    """
    if only_short and len(said.tokens or ()) > SHORT:
        return None
    lead = len(reading.text) - len(reading.text.lstrip())
    place = place_of(said.tokens, said.text, reading.start + lead)
    return place if place is not None and place.token.top else None


def label_probabilities(place: Place, labels: Sequence[str]) -> dict[str, float]:
    """Probability of the first token of each label, where it is among the top ones; absent labels are left out.

    A token is a label's where it spells the label, but for case and spaces round it; else, where no token spells
    that label, one that begins its spelling and no other's. The probability of a label is the sum over its tokens.
    """
    # An opening bracket or quote may share the token with the label; then it does so in the other tokens too.
    opening = spelled(plain(place.token.text)[: place.offset]).strip() if place.offset else ""
    known = tuple(labels)
    said = _told(opening, known)
    exact: dict[str, float] = {}
    begun: dict[str, float] = {}
    # Only of more than 20 tokens does it matter which are the likeliest.
    counted = place.token.top if len(place.token.top) <= TOP else top(place.token)
    for text, logprob in counted:
        told = said.get(text)
        if told is None:
            told = _label_of(text, opening, known)
            if len(said) < TOKENS_KEPT:
                said[text] = told
        label, whole = told
        if label is not None and logprob == logprob:
            found = exact if whole else begun
            found[label] = found.get(label, 0.0) + _exp(logprob)
    return {label: probability for label in labels if (probability := exact.get(label, begun.get(label, 0.0))) > 0}


@lru_cache(maxsize=256)
def _told(opening: str, labels: tuple[str, ...]) -> dict[str, tuple[str | None, bool]]:
    """`_label_of` for tokens that were seen: the same few come again and again."""
    return {}


def _label_of(token: str, opening: str, labels: tuple[str, ...]) -> tuple[str | None, bool]:
    """The label that a token spells or begins, and whether it spells it."""
    word = spelled(plain(token)).strip().removeprefix(opening).strip().casefold()
    if not word:
        return None, False
    spelling = {label.casefold(): label for label in labels}
    if word in spelling:
        return spelling[word], True
    possible = [label for name, label in spelling.items() if name.startswith(word)]
    return (possible[0], False) if len(possible) == 1 else (None, False)


def least_listed(place: Place) -> float:
    """The probability of the least likely of the top tokens: what a label that is not among them has at most."""
    return min(_exp(logprob) for _, logprob in top(place.token))


def top(token: Token) -> list[tuple[str, float]]:
    """The at most 20 most likely tokens at a place."""
    return sorted((entry for entry in token.top if entry[1] == entry[1]), key=_LOGPROB, reverse=True)[:TOP]


def share(place: Place, first: str, second: str) -> tuple[float | None, bool]:
    """P(first) / (P(first) + P(second)), and whether one of them was not among the top tokens.

    The one that was not has the probability of the least likely that was. None where both were not.
    """
    found = label_probabilities(place, (first, second))
    if not found:
        return None, False
    least = least_listed(place)
    a, b = found.get(first, least), found.get(second, least)
    return a / (a + b), len(found) == 1


def spelled(token: str) -> str:
    """A token's text where a backend hands out the tokeniser's own marks for space and newline."""
    return token.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")


def ambiguous_first_tokens(
    labels: Sequence[str], encode: Callable[[str], list[int]] | None = None
) -> list[tuple[str, str]]:
    """Pairs of labels that the first token of a reply cannot tell apart.

    With a tokeniser's `encode` their first tokens are compared, in every variant that would be counted; without
    one, two labels are a pair when the first word of one begins the first word of the other.
    """
    begins = [_first_tokens(label, encode) if encode else None for label in labels]
    pairs = []
    for i, left in enumerate(labels):
        for j in range(i + 1, len(labels)):
            a, b = begins[i], begins[j]
            alike = a & b if a is not None and b is not None else _begin_alike(left, labels[j])
            if alike:
                pairs.append((left, labels[j]))
    return pairs


def _first_tokens(label: str, encode: Callable[[str], list[int]]) -> set[int]:
    # A tokeniser may put a mark of its own first (begin of text, a lone space): no label's, so no first token.
    own = {*encode(""), *encode(" ")}
    cased = {label, label.lower(), label.upper(), label.capitalize()}
    coded = [encode(before + variant) for variant in cased for before in ("", " ", "\n")]
    own.update(encode("\n"))
    return {first for ids in coded if (first := next((i for i in ids if i not in own), None)) is not None}


def _begin_alike(left: str, right: str) -> bool:
    a, b = (label.casefold().replace("-", " ").replace("_", " ").split() or [label] for label in (left, right))
    if (left[:1] in "-+") or (right[:1] in "-+"):
        return left[:1] == right[:1]
    return a[0].startswith(b[0]) or b[0].startswith(a[0])


def _exp(logprob: float) -> float:
    # Some servers send 0.0001 for certainty and -9999 for nothing; a probability stays in [0, 1].
    return math.exp(min(logprob, 0.0))
