"""Reads orders: the ranking that a reply gives of the shown items, in whatever form it gives it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, cast

import orjson

from llmrank.questions import Order, Said
from llmrank.templates.parsers import likelihood
from llmrank.templates.parsers.chains import Chain, chains
from llmrank.templates.parsers.identifiers import LETTERS, Identifiers, identifier, preferred_first
from llmrank.templates.parsers.listed import is_json_error, json_chain
from llmrank.templates.parsers.reading import declines, final_part, is_declined, is_refusal

Form = Literal["brackets", "json", "lines"]


class OrderParser:
    """Reads a ranking in any of the known forms, preferring `identifiers` and `form`, which the prompt asked for.

    A ranking is a chain of identifiers. Of several, the last complete one counts, else the one that names most
    items. What it does not name follows in the order shown (`missing`); ids `out-of-range` or `repeated` are
    passed over. Chains in prose count only where they cannot be anything else.
    """

    def __init__(self, identifiers: Identifiers = "numbers", form: Form = "brackets") -> None:
        self.identifiers = identifiers
        self.form = form

    def read(self, said: Said, n: int) -> Order:
        if n < 1:
            return Order(permutation=())
        if (quick := _quick(said.text, self.identifiers, n)) is not None:
            return quick
        reading = final_part(said.text)
        if reading.reason:
            return Order(status="failed", reason=reading.reason)
        best = self._best(reading.text, n)
        if best is None:
            return Order(status="failed", reason="refused" if is_refusal(reading.text) else "no-identifier")
        if len(best.groups) == len(best.groups[0]) == 1 and said.tokens:
            place = likelihood.place_of(said.tokens, said.text, reading.start + best.start)
            if place is not None and (likely := self._by_first_token(place, n)) is not None:
                return likely
        return ordered(best.groups, n) or Order(status="failed", reason="no-identifier")

    def write(self, order: Order, n: int) -> str:
        if order.permutation is None:
            return ""
        groups: Sequence[Sequence[int]] = order.ties or [(i,) for i in order.permutation]
        if self.form == "json":
            return _json(groups, self.identifiers)
        ties = [" = ".join(f"[{identifier(i, self.identifiers)}]" for i in group) for group in groups]
        return ("\n" if self.form == "lines" else " > ").join(ties)

    def _best(self, text: str, n: int) -> Chain | None:
        """The chain that is the ranking, by the asked identifiers, else by the others."""
        if is_json_error(text):
            return None
        in_prose = not declines(text)
        for kind in preferred_first(self.identifiers):
            rated: list[tuple[Worth, Chain]] = []
            for bare in (False, True):
                found = chains(text, kind, n, bare=bare)
                if not bare and ("{" in text or "[[" in text) and (listed := json_chain(text, kind)) is not None:
                    found.append(listed)
                rated += [(w, chain) for chain in found if (w := self._worth(text, chain, n, in_prose)) is not None]
                if any(worth.complete and worth.outright for worth, _ in rated):
                    break
            if rated:
                return max(rated, key=lambda pair: pair[0])[1]
        return None

    def _worth(self, text: str, chain: Chain, n: int, in_prose: bool) -> Worth | None:
        """How good a chain is as the ranking, to be compared; None for one that is none."""
        named = {i for group in chain.groups for i in group if 0 <= i < n}
        complete = len(named) == n
        in_prose = in_prose and _IS_SUBJECT.match(text, chain.end) is None
        declined = is_declined(text[max(0, chain.start - 150) : chain.start])
        if not named or declined or not chain.counts(complete=complete, in_prose=in_prose):
            return None
        asked = chain.form == ("json" if self.form == "json" else "brackets")
        return Worth(complete, complete and chain.outright, asked, 0 if complete else len(named), chain.end)

    def _by_first_token(self, place: likelihood.Place, n: int) -> Order | None:
        """Items by the probability of their letters, for a reply that is one letter."""
        if self.identifiers != "letters" or not place.token.top:
            return None
        found = likelihood.label_probabilities(place, LETTERS[:n])
        ranked = sorted(found, key=lambda name: -found[name])
        return ordered([[LETTERS.index(name)] for name in ranked], n) if len(ranked) > 1 else None


class Worth(NamedTuple):
    """What makes one chain the ranking rather than another, by weight."""

    complete: bool
    outright: bool
    """A complete chain that is more than an enumeration in passing."""
    asked: bool
    """Its identifiers are written as the prompt asked."""
    named: int
    """How many items it names, where it is not complete."""
    end: int
    """The later one."""


_IS_SUBJECT = re.compile(
    r"[\s,]{1,3}(?:all|both|each)?\s{0,2}(?:are|is|was|were|do|does|did|have|has|can|mention|discuss|describe|contain|provide"
    r"|address|talk|cover|focus)(?:e?s)?\b",
    re.I,
)
"""What follows passages that a sentence is about, rather than a ranking."""


def ordered(groups: Iterable[Sequence[int]], n: int) -> Order | None:
    """The order that groups of positions give of n items; None where they name none of them."""
    ties: list[tuple[int, ...]] = []
    seen: set[int] = set()
    repairs = dict[str, bool]()
    for group in groups:
        kept = []
        for position in group:
            if not 0 <= position < n:
                repairs["out-of-range"] = True
            elif position in seen:
                repairs["repeated"] = True
            else:
                seen.add(position)
                kept.append(position)
        if kept:
            ties.append(tuple(kept))
    if not seen:
        return None
    named = tuple(i for group in ties for i in group)
    if len(named) < n:
        repairs["missing"] = True
        permutation = named + tuple(i for i in range(n) if i not in seen)
    else:
        permutation = named
    return Order(
        status="repaired" if repairs else "ok",
        repairs=tuple(name for name in REPAIRS if name in repairs),
        permutation=permutation,
        ties=tuple(ties) if len(ties) < len(named) else None,
    )


REPAIRS = ("out-of-range", "repeated", "missing")


def _clean(name: str, quoted: str) -> re.Pattern[str]:
    chain = rf"\[{name}\](?: > \[{name}\])+|\[{name}\](?:\n\[{name}\])+"
    return re.compile(rf'\s*(?:{chain}|\{{"ranking": ?\[{quoted}(?:, ?{quoted})+\]\}})\s*')


_QUICK: dict[Identifiers, re.Pattern[str]] = {
    "numbers": _clean("[0-9]{1,6}", "[0-9]{1,6}"),
    "letters": _clean("[A-Z]", '"[A-Z]"'),
}
_NAME: dict[Identifiers, re.Pattern[str]] = {"numbers": re.compile("[0-9]+"), "letters": re.compile("[A-Z]")}


def _quick(text: str, kind: Identifiers, n: int) -> Order | None:
    """The order of a reply that is one complete clean chain and nothing else, as most are; None for any other."""
    named = tuple(map(_bracketed(kind, n).get, text.split(" > ")))
    if len(named) == n > 1 and _positions(n) == set(named):
        return Order(permutation=cast(tuple[int, ...], named))
    if not _QUICK[kind].fullmatch(text):
        return None
    names = _NAME[kind].findall(text)
    if kind == "numbers":
        permutation = tuple([int(name) - 1 for name in names])
    else:
        permutation = tuple([LETTERS.index(name) for name in names])
    return Order(permutation=permutation) if len(permutation) == n and _positions(n) == set(permutation) else None


@lru_cache(maxsize=256)
def _bracketed(kind: Identifiers, n: int) -> dict[str, int]:
    """The positions of n items by their names as `brackets` asks for them."""
    names = LETTERS[:n] if kind == "letters" else map(str, range(1, n + 1))
    return {f"[{name}]": i for i, name in enumerate(names)}


@lru_cache(maxsize=256)
def _positions(n: int) -> frozenset[int]:
    return frozenset(range(n))


def _json(groups: Sequence[Sequence[int]], kind: Identifiers) -> str:
    def named(i: int) -> int | str:
        return i + 1 if kind == "numbers" else identifier(i, kind)

    ranking = [named(group[0]) if len(group) == 1 else [named(i) for i in group] for group in groups]
    return orjson.dumps({"ranking": ranking}).decode().replace(",", ", ").replace(":", ": ")
