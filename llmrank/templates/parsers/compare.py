"""Reads preferences: which of two shown items a reply prefers, or that it sees a tie."""

from __future__ import annotations

import re

from llmrank.errors import InputError
from llmrank.questions import Preference, Said
from llmrank.templates.parsers import likelihood
from llmrank.templates.parsers.reading import NAMES, Reading, final_part, is_refusal
from llmrank.templates.parsers.verdict import AMBIGUOUS, Grammar, Pick, final_pick, grammar

TIE = "tie"
_SHARES = {"left": 1.0, TIE: 0.5, "right": 0.0}
_TIE_WORDS: tuple[str, ...] = ("tie", "tied", "a tie", "draw", "equal", "equally good", "equally relevant", "both")
_TIE_WORDS = (*_TIE_WORDS, "neither", "unentschieden", "gleich gut", "empate", "平局", "一样好")


class CompareParser:
    """Reads which of the two `labels` (left, right) a reply prefers.

    `ties` says whether the prompt offers a tie. A judge that answers `tie` unasked has said so all the same.
    """

    def __init__(self, labels: tuple[str, str] = ("A", "B"), ties: bool = True) -> None:
        left, right = labels
        if not left.strip() or not right.strip() or left.casefold() == right.casefold():
            raise InputError(f"the two labels of a comparison must differ, not be {left!r} and {right!r}")
        self.labels = labels
        self.ties = ties
        self._sides = dict.fromkeys(_TIE_WORDS, TIE) | {left.casefold(): "left", right.casefold(): "right"}
        short_left, short_right = left.casefold().split()[-1], right.casefold().split()[-1]
        if short_left != short_right:  # `Passage A` may be called `A`
            self._sides |= {short_left: "left", short_right: "right"}
        if "c" not in self._sides:
            self._sides["c"] = TIE  # the tie of prompts that ask for [[A]], [[B]] or [[C]]
        self._grammar, self._chain = _patterns([name for name, side in self._sides.items() if side != TIE])

    @property
    def options(self) -> tuple[str, ...]:
        """The words that name left, right and (where it is offered) a tie."""
        return (*self.labels, TIE) if self.ties else self.labels

    def read(self, said: Said, n: int = 2) -> Preference:
        reading = final_part(said.text)
        if reading.reason:
            return Preference(status="failed", reason=reading.reason)
        pick = self._pick(reading.text)
        if isinstance(pick, str):
            return self._by_first_token(said, reading, pick)
        place = likelihood.place_of(said.tokens, said.text, reading.start + pick.start)
        p_left, one_outside = (None, False) if place is None else self._p_left(place)
        repairs = ("label-outside-top",) if one_outside else ()
        return Preference(
            status="repaired" if repairs else "ok", repairs=repairs, share=_SHARES[pick.name], p_left=p_left
        )

    def write(self, preference: Preference, n: int = 2) -> str:
        if preference.winner is None:
            return ""
        return {"left": self.labels[0], "right": self.labels[1], "tie": TIE}[preference.winner]

    def _pick(self, text: str) -> Pick | str:
        said = text.strip()
        side = None if said in ("c", "C") else self._name(said.rstrip("."))
        if side is not None:
            return Pick(side, len(text) - len(text.lstrip()))
        chain = self._chain.match(text)
        if chain is not None and self._name(chain["first"]) != self._name(chain["second"]):
            winner = {">": "first", "<": "second"}.get(chain["sign"])
            if winner is None:
                return Pick(TIE, chain.start("first"))
            return Pick(self._sides[_folded(chain[winner])], chain.start(winner))
        return final_pick(text, self._grammar, self._name)

    def _name(self, matched: str) -> str | None:
        folded = _folded(matched)
        return self._sides.get(folded, TIE if folded.startswith(("equal", "neither", "tie", "the same")) else None)

    def _p_left(self, place: likelihood.Place) -> tuple[float | None, bool]:
        if not place.token.top:
            return None, False
        p_left, one_outside = likelihood.share(place, *self.labels)
        if p_left is None:
            left, right = (label.split()[-1] for label in self.labels)
            p_left, one_outside = likelihood.share(place, left, right)
        return p_left, one_outside

    def _by_first_token(self, said: Said, reading: Reading, why: str) -> Preference:
        """Where the words settle on nothing, the first token's probabilities may: replies of one token live by them."""
        refused = is_refusal(reading.text)
        place = likelihood.first_place(said, reading)
        if place is not None and why != AMBIGUOUS and not refused:
            p_left, one_outside = self._p_left(place)
            if p_left is not None:
                repairs = ("from-logprobs", *(("label-outside-top",) if one_outside else ()))
                share = 0.5 if p_left == 0.5 else float(p_left > 0.5)
                return Preference(status="repaired", repairs=repairs, share=share, p_left=p_left)
        reason = AMBIGUOUS if why == AMBIGUOUS else "refused" if refused else "no-label"
        return Preference(status="failed", reason=reason)


def _folded(matched: str) -> str:
    return " ".join(matched.casefold().split())


_MANNER = r"(?:(?!not\b|no\b|less\b|worse\b|than\b|because\b|that\b|but\b|nor\b|neither\b|more\b)\w+,?\s+){0,4}?"
_BETTER = r"(?:better|best|winner|winning|preferred|preferable|superior|stronger|favou?red|(?:more|most) relevant)"
_IN_ONE_RESPECT = r"(?:at|in|for|on|with|suited|known|when|if)\b"
_SAYS_TIE = r"(?:it(?:'s| is)|this is|there is|result is|verdict is|call it|ends in|declare)"
_ALIKE = r"equally (?:good|relevant|helpful|useful|well|matched|valid)|equal|tied|the same"
_STATEMENTS = (
    rf"{{L}}\s+(?:is|was|are|seems|appears|would be|wins as)\s+{_MANNER}{_BETTER}\b(?!\s+{_IN_ONE_RESPECT})",
    r"{L}\s+(?:wins\b|better\s+(?:\w+ly\s+)?\w+s\b)",
    r"{L}\s+(?:provides|gives|offers|contains|has)\s+(?:\w+\s+){0,3}?(?:better|best|more relevant)\s+answer\b",
    r"\b(?:prefer|choose|chose|select|pick|favou?r|go with|vote for)\s+(?:the\s+)?{L}",
    rf"\b{_BETTER}\s+(?:\w+\s+){{0,3}}?(?:is|would be)\s*:?\s+{{L}}(?!\s+not\b)",
    r"\b(?:answer|verdict|winner|choice|preference|decision|result|judge?ment)\s+(?:\w+\s+){0,4}?(?:is|goes to)"
    r"\s*:?\s+{L}",
    r"\bi\s+(?:think|believe|say|would say|guess)\s*:?\s+(?:that\s+)?(?:it(?:'s| is)\s+)?{B}",
    r"{L}\s+(?:ist|es)\s+(?:(?!nicht\b|kein|no\b)\w+\s+){0,2}(?:besser|relevanter|mejor|más relevante)\b",
    rf"\b{_SAYS_TIE}\s+(?:an?\s+)?(?P<label>tie|draw)\b",
    r"\b(?:both|they|the two|and)\b[^.\n]{0,40}?\s(?:are|seem)\s+(?:both\s+)?(?:\w+ly\s+)?"
    rf"(?P<label>{_ALIKE})\b(?![^.\n]{{0,60}}\bbut\b)",
    rf"\b(?P<label>neither)\s+(?:\w+\s+){{0,5}}?(?:is|are|was)\s+(?:\w+\s+)?{_BETTER}",
)


def _patterns(names: list[str]) -> tuple[Grammar, re.Pattern[str]]:
    names = sorted(names, key=len, reverse=True)
    core = "|".join(re.escape(name) for name in names)
    # In a sentence a bare label must be spelled as a label is: `a` is an article.
    spelled = (
        "|".join(re.escape(name.upper()) for name in names) + "|" + "|".join(map(re.escape, map(str.title, names)))
    )
    named = rf"{NAMES}\s{{0,2}}[:#-]?\s{{0,2}}[\"'(\[]{{0,3}}"
    start = r"(?<![\w.+\-/])(?<!\w')"
    tie = r"|tied?|draw|equal(?:ly (?:good|relevant))?|both|neither|c(?=\s?\]\])"
    label = rf"{start}(?:{named})?[\"'(\[]{{0,3}}(?:{core})(?!\w)[\"')\]]{{0,3}}"
    parser_grammar = grammar(
        rf"{start}(?:{named})?(?P<label>{core}{tie})",
        rf"{start}(?:{named}|[(\[]{{1,2}}|(?=(?-i:{spelled})(?!\w)))(?P<label>{core})(?!\w)[\"')\]]{{0,3}}",
        any_label=rf"(?:{named})?(?:{core})",
        statements=_STATEMENTS,
        keys=r"winner|better|best|preference|preferred|answer|verdict|choice|label|result|judge?ment|decision|output",
    )
    first, second = (
        label.replace(rf"(?:{core})", rf"(?P<first>{core})"),
        label.replace(rf"(?:{core})", rf"(?P<second>{core})"),
    )
    chain = re.compile(rf"\s{{0,9}}{first}\s{{0,3}}(?P<sign>[><=])\s{{0,3}}{second}[\s.]{{0,9}}\Z", re.I)
    return parser_grammar, chain
