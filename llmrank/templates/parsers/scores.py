"""Reads scores: what a reply gives every shown item on a scale, and the order that these make."""

from __future__ import annotations

import re

from llmrank.questions import Order, Said
from llmrank.templates.parsers.identifiers import Identifiers, identifier, position_of
from llmrank.templates.parsers.listed import is_json_error
from llmrank.templates.parsers.reading import NAMES, final_part, is_refusal


class ScoresParser:
    """Reads a number from `low` to `high` for every item: `{"[1]": 5, "[2]": 0}`, or lines like `[1]: 5`.

    Of several for one item the last counts (`repeated`). An item without one is `missing` and has no score; it comes
    after all others. Identifiers and scores outside their range are passed over (`out-of-range`). Items with one score
    tie and stand as they were shown.
    """

    def __init__(self, identifiers: Identifiers = "numbers", low: float = 0.0, high: float = 100.0) -> None:
        self.identifiers = identifiers
        self.low = low
        self.high = high

    def read(self, said: Said, n: int) -> Order:
        if n < 1:
            return Order(permutation=(), scores=())
        reading = final_part(said.text)
        if reading.reason:
            return Order(status="failed", reason=reading.reason)
        scores: list[float | None] = [None] * n
        repairs = dict.fromkeys(REPAIRS, False)
        for position, score in [] if is_json_error(reading.text) else self._pairs(reading.text):
            if position is None or not 0 <= position < n or not self.low <= score <= self.high:
                repairs["out-of-range"] = True
            else:
                repairs["repeated"] |= scores[position] is not None
                scores[position] = score
        if all(score is None for score in scores):
            return Order(status="failed", reason="refused" if is_refusal(reading.text) else "no-score")
        repairs["missing"] = None in scores
        return _order(scores, tuple(name for name, needed in repairs.items() if needed))

    def write(self, order: Order, n: int) -> str:
        if order.permutation is None:
            return ""
        groups = order.ties or [(i,) for i in order.permutation]
        # Without scores of its own an order is spread over the range, the last at its lower end.
        step = (self.high - self.low) / max(1, len(groups) - 1)
        spread = {i: self.high - step * place for place, group in enumerate(groups) for i in group}
        scores = order.scores or [spread.get(i) for i in range(n)]
        told = [(identifier(i, self.identifiers), score) for i, score in enumerate(scores) if score is not None]
        return "{" + ", ".join(f'"[{name}]": {round(score, 4):g}' for name, score in told) + "}"

    def _pairs(self, text: str) -> list[tuple[int | None, float]]:
        """Each identifier with the score that is told for it."""
        found = []
        for match in _PAIRS[self.identifiers].finditer(text):
            # An object that breaks off may do so in the middle of a number.
            if match.end() == len(text) and "{" in text and "}" not in text:
                break
            name = match["bracketed"] or match["named"] or match["quoted"] or match["first"]
            found.append((position_of(name, self.identifiers), float(match["score"])))
        return found


REPAIRS = ("out-of-range", "repeated", "missing")


def _order(scores: list[float | None], repairs: tuple[str, ...]) -> Order:
    groups: dict[float, list[int]] = {}
    for i, score in enumerate(scores):
        if score is not None:
            groups.setdefault(score, []).append(i)
    ties = tuple(tuple(groups[score]) for score in sorted(groups, reverse=True))
    named = tuple(i for group in ties for i in group)
    return Order(
        status="repaired" if repairs else "ok",
        repairs=repairs,
        permutation=named + tuple(i for i, score in enumerate(scores) if score is None),
        ties=ties if len(ties) < len(named) else None,
        scores=tuple(scores),
    )


_CORES = {"numbers": r"\d{1,9}", "letters": r"[A-Z]"}


def _pair(core: str) -> re.Pattern[str]:
    name = rf"(?:(?i:{NAMES})[\s_]{{0,2}}#?)?"
    return re.compile(
        rf"(?:\[{{1,2}}\s?{name}(?P<bracketed>{core})\s?\]{{1,2}}"
        rf"|(?<!\w)(?i:{NAMES})[\"']?\s?[:#]?\s?[\"']?(?P<named>{core})(?!\w)"
        rf"|[\"']{name}(?P<quoted>{core})[\"']"
        rf"|^[^\w\n]{{0,6}}(?P<first>{core})(?=\s?[:=]))"
        r"[\"')\s]{0,4}(?:[:=|,]|-{1,2}>?(?=\s)|=>|(?i:scores?|gets|is)\b)"
        r"[\"'\s{]{0,6}(?:(?i:relevance[\s_])?(?i:score|grade|rating)[\"']?\s?[:=]?\s?[\"']?)?"
        r"(?P<score>[-+]?\d{1,9}(?:\.\d{1,12})?)"
        r"(?=[ \t]{0,4}(?:$|[,;|}\])\"'(/]|-|\.(?:\s|$)|(?i:points?|out of)\b))",
        re.M,
    )


_PAIRS = {kind: _pair(core) for kind, core in _CORES.items()}
