"""Reads choices: which one of the shown items a reply names."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from llmrank.questions import Choice, Said
from llmrank.templates.parsers import likelihood
from llmrank.templates.parsers.identifiers import Identifiers, identifier, position_of, preferred_first
from llmrank.templates.parsers.reading import NAMES, Reading, final_part, is_refusal
from llmrank.templates.parsers.verdict import AMBIGUOUS, NO_PICK, NOT_A_LABEL, Grammar, Pick, final_pick, grammar


class ChooseParser:
    """Reads the identifier of one shown item: `[3]`, `Passage C`, `The most relevant passage is [2]`."""

    def __init__(self, identifiers: Identifiers = "numbers", worst: bool = False) -> None:
        """worst: the prompt asks for the worst item, so that `[3] is the best` names no choice."""
        self.identifiers = identifiers
        self.worst = worst

    def read(self, said: Said, n: int) -> Choice:
        reading = final_part(said.text)
        if reading.reason:
            return Choice(status="failed", reason=reading.reason)
        pick, repairs = self._pick(reading.text, n)
        if isinstance(pick, str):
            return self._by_first_token(said, reading, n, pick)
        place = likelihood.place_of(said.tokens, said.text, reading.start + pick.start)
        return Choice(
            status="repaired" if repairs else "ok",
            repairs=repairs,
            index=int(pick.name),
            distribution=None if place is None else self._distribution(place, n),
        )

    def write(self, choice: Choice, n: int) -> str:
        if choice.index is None:
            return ""
        name = identifier(choice.index, self.identifiers)
        return name if self.identifiers == "letters" else f"[{name}]"

    def _pick(self, text: str, n: int) -> tuple[Pick | str, tuple[str, ...]]:
        """The chosen position (as the name of the pick) and what was repaired, or why there is none."""
        reason = NO_PICK
        for kind in preferred_first(self.identifiers):
            pick, repairs = _picked(text, _form(kind, self.worst), _namer(kind, n))
            if isinstance(pick, Pick) or pick == AMBIGUOUS:
                return pick, repairs
            reason = pick if reason == NO_PICK else reason
        return reason, ()

    def _distribution(self, place: likelihood.Place, n: int) -> tuple[float, ...] | None:
        """Probabilities of the shown items; None where identifiers are not single tokens, or none is listed."""
        if not place.token.top:
            return None
        names = [identifier(i, self.identifiers) for i in range(n if self.identifiers == "numbers" else min(n, 26))]
        if self.identifiers == "numbers" and n > 9:
            words = {likelihood.spelled(text).strip() for text, _ in likelihood.top(place.token)}
            if not any(len(word) > 1 and word in names for word in words):
                return None  # a tokeniser that splits numbers into digits: `1` may go on as `12`
        found = likelihood.label_probabilities(place, names)
        total = sum(found.values())
        return tuple(found.get(name, 0.0) / total for name in names) + (0.0,) * (n - len(names)) if total else None

    def _by_first_token(self, said: Said, reading: Reading, n: int, why: str) -> Choice:
        """Where the words settle on nothing, the first token's probabilities may: replies of one token live by them."""
        refused = is_refusal(reading.text)
        place = likelihood.first_place(said, reading)
        if place is not None and why == NO_PICK and not refused:
            distribution = self._distribution(place, n)
            if distribution is not None:
                index = max(range(n), key=lambda i: distribution[i])
                return Choice(status="repaired", repairs=("from-logprobs",), index=index, distribution=distribution)
        reasons = {AMBIGUOUS: AMBIGUOUS, NOT_A_LABEL: "out-of-range"}
        return Choice(status="failed", reason=reasons.get(why, "refused" if refused else "no-identifier"))


@dataclass(frozen=True, slots=True)
class _Form:
    """How one kind of identifier stands in a reply."""

    whole: re.Pattern[str]
    """Nothing but an identifier."""
    ranking: re.Pattern[str]
    """A ranking where one choice was asked for; its first is the choice."""
    named: re.Pattern[str]
    """An identifier that cannot be mistaken for a word or a count."""
    grammar: Grammar
    opposite: re.Pattern[str]
    """What is said of an item at the other end, such as `the least relevant` where the best is asked for."""


def _namer(kind: Identifiers, n: int) -> Callable[[str], str | None]:
    def name(matched: str) -> str | None:
        position = position_of(matched, kind)
        return str(position) if position is not None and 0 <= position < n else None

    return name


def _picked(text: str, form: _Form, name: Callable[[str], str | None]) -> tuple[Pick | str, tuple[str, ...]]:
    for pattern, repairs in ((form.whole, ()), (form.ranking, ("ranking",))):
        match = pattern.match(text)
        if match is not None and (found := name(match["label"])) is not None:
            return Pick(found, match.start("label")), repairs
    pick = final_pick(text, form.grammar, name)
    if pick != NO_PICK:
        return pick, ()
    mentions = list(form.named.finditer(text))
    mentioned = {name(match["label"]) for match in mentions} - {None}
    if len(mentioned) > 1:
        return AMBIGUOUS, ()
    # `[2] answers the query, because ...`: the one item that is mentioned, and first of all.
    if (
        mentioned
        and not text[: mentions[0].start()].strip()
        and not (_DENIAL.search(text) or form.opposite.search(text))
    ):
        return Pick(mentioned.pop() or "", mentions[0].start("label")), ()
    return NO_PICK, ()


_DENIAL = re.compile(
    r"\b(?:not|none|neither|irrelevant|unrelated|\w+n't|nicht|weder|keine?[rsmn]?|ningun[oa]|tampoco)\b|[不没无]", re.I
)
_BEST = (
    r"(?:best|closest|(?:most|top|highest)\b(?!\W{1,3}(?:ir|un|off)))",
    r"(?:worst|least|lowest|most\W{1,3}(?:irrelevant|unrelated|unhelpful|off))",
)
"""What names the best, and what the worst."""
_BEST_ELSEWHERE = (r"(?:beste|relevanteste|mejor)", r"(?:schlechteste|peor)")
_BETTER = (r"(?:better|more relevant)", r"(?:worse|less relevant)")
_BEST_KEYS = (r"best|most[_ ]relevant", r"worst|least[_ ]relevant")
_MANNER = r"(?:(?!not\b|no\b|among\b|one\b|than\b|because\b|but\b|nor\b)\w+,?\s+){0,4}?"
_STATEMENTS = (
    rf"{{L}}\s+(?:is|was|seems|appears|would be|contains|provides|has)\s+{_MANNER}<best>\b",
    r"{L}\s+(?:<best>|most \w+ly)\s+\w+s\b",
    rf"{{L}}\s+is\s+{_MANNER}<better>\s+than\s+(?:all|any|the (?:others?|rest))\b",
    r"\b<best>\b(?:\W+\w+){0,10}?[\"')\]]?\s+(?:is|was|would be)\s*:?\s+(?:the\s+)?{L}(?!\s+not\b)",
    r"\b<best>\b(?:\W+\w+){0,10}?\s*(?:\s(?:is|was|would be)|:)\s*:?\s+{B}",
    r"\b(?:choose|chose|select|selected|pick|picked|prefer|go with|recommend|opt for)\s+(?:the\s+)?{L}",
    r"\bi\s+(?:think|believe|say|would say|guess)\s*:?\s+(?:that\s+)?(?:it(?:'s| is)\s+)?{B}",
    r"\b(?:answer|choice|selection|pick|identifier|letter|number|verdict)\s+(?:\w+\s+){0,6}?is\s*:?\s+(?:the\s+)?{B}",
    r"{L}\s+(?:(?!nicht\b|kein)\w+\s+){1,5}am\s+<elsewhere>n\b",
    r"\b<elsewhere>\w{0,2}\s+(?:\w+\s+){0,2}?(?:ist|es)\s*:?\s+{B}",
)


@lru_cache(maxsize=4)
def _form(kind: Identifiers, worst: bool) -> _Form:
    core = _CORES[kind]
    words = {"<best>": _BEST[worst], "<elsewhere>": _BEST_ELSEWHERE[worst], "<better>": _BETTER[worst]}
    statements = []
    for statement in _STATEMENTS:
        for mark, word in words.items():
            statement = statement.replace(mark, word)
        statements.append(statement)
    start = r"(?<![\w.+\-/])(?<!\w')"
    name = rf"{NAMES}[\s_]{{0,2}}[:#-]?\s{{0,2}}[\"'(\[]{{0,3}}"
    bare = rf"{start}(?:{name})?(?P<label>{core})"
    marked = rf"{name}|[(\[]{{1,2}}(?:{name})?"
    label = rf"(?P<label>{core})(?!\w)[\"')\]]{{0,3}}"
    before, after = r"[\s\"'(\[{<#-]{0,9}", r"[\s\"'\])}.,;:!]{0,9}"
    rival = rf"[\])]{{0,2}}\s{{0,2}}[>=]\s{{0,2}}[\[(]{{0,2}}(?:{name})?{core}(?!\w)"
    return _Form(
        whole=re.compile(rf"{before}{bare}{after}\Z", re.I),
        ranking=re.compile(rf"{before}{bare}{rival}", re.I),
        named=re.compile(rf"{start}(?:{marked}){label}", re.I),
        grammar=grammar(
            bare,
            rf"{start}(?:{marked}|(?=(?-i:[A-Z])(?!\w))){label}",  # in a sentence `a` is an article, `A` a letter
            any_label=rf"(?:{name})?{core}",
            statements=statements,
            keys=rf"{_BEST_KEYS[worst]}|answer|choice|selected|selection|id|identifier|passage|document|result|label"
            "|output|pick|index",
        ),
        opposite=re.compile(
            rf"\b(?:{_BEST[not worst]}|{_BEST_ELSEWHERE[not worst]}|{_BETTER[not worst]} than (?:all|any|the)\b)", re.I
        ),
    )


_CORES: dict[Identifiers, str] = {"numbers": r"\d{1,9}", "letters": r"[A-Z](?!\w|'\w)"}
