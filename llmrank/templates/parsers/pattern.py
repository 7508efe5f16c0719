"""Reads orders by a template's own regular expressions, and in every known form where these say nothing."""

from __future__ import annotations

import re

from llmrank.questions import Order, Said
from llmrank.templates.parsers.identifiers import Identifiers, position_of
from llmrank.templates.parsers.order import OrderParser, ordered
from llmrank.templates.parsers.reading import declines, final_part

LONGEST = 20_000  # characters; an expression of a user's own may take long over more


class PatternParser:
    """Takes the last line, or the whole of a reply, that `validation` matches, and what `extraction` finds there.

    A reply that has no such line is read in every form that is known of orders. Without a `validation` that comes
    first, and `extraction` is for what cannot be read so: it counts where it finds two of the items or more.
    """

    def __init__(self, validation: str, extraction: str, identifiers: Identifiers = "numbers") -> None:
        self.validation = re.compile(validation) if validation else None
        self.extraction = re.compile(extraction)
        self.identifiers = identifiers
        self._otherwise = OrderParser(identifiers)

    def read(self, said: Said, n: int) -> Order:
        reading = final_part(said.text)
        text = reading.text.strip()[-LONGEST:]
        if self.validation is not None and n > 0:
            for part in (text, *reversed(text.splitlines())):
                if self.validation.fullmatch(part.strip()) and (order := self._extracted(part, n)) is not None:
                    return order
        order = self._otherwise.read(said, n)
        if order.usable or self.validation is not None or reading.reason or declines(text):
            return order
        several = len({i for i in self._positions(text) if 0 <= i < n}) > 1
        return (several and self._extracted(text, n)) or order

    def write(self, order: Order, n: int) -> str:
        return self._otherwise.write(order, n)

    def _extracted(self, text: str, n: int) -> Order | None:
        """The order of what is found in a text; None where that is no item."""
        return ordered([[position] for position in self._positions(text)], n)

    def _positions(self, text: str) -> list[int]:
        names = [next(filter(None, match.groups()), match[0]) for match in self.extraction.finditer(text)]
        found = [position_of(re.sub(r"\W", "", name), self.identifiers) for name in names]
        return [-1 if position is None else position for position in found]
