"""Finding the one label that a reply settles on, among the labels, echoes and asides that its words hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmrank.templates.parsers.reading import NAMES, declines

NO_PICK = "no-pick"
"""Nothing in the text settles on a label."""
NOT_A_LABEL = "not-a-label"
"""The text settles on something that is none of the labels: `10` on a scale of 0 to 3."""
AMBIGUOUS = "ambiguous"
"""The text settles on two labels."""


class Pick(NamedTuple):
    """A label that a text settles on, and where it first names it so."""

    name: str
    start: int


@dataclass(frozen=True, slots=True)
class Grammar:
    """How a text may settle on a label: patterns with a group `label`, by how explicit they are."""

    final: tuple[re.Pattern[str], ...]
    """`##final score: 2`, `[RESULT] 2`, `<score>2</score>`, `[[A]]`, `{"O": 2}`: outrank all else."""
    plain: tuple[re.Pattern[str], ...]
    """`Answer: 2`, a last line that is the label, `Therefore, yes`."""
    head: re.Pattern[str]
    """A text that begins with the label."""
    numbered: re.Pattern[str]
    """A text that begins with `2. Words`: the label, unless it turns out to be a numbered list."""
    statements: tuple[re.Pattern[str], ...]
    """Sentences: `the label is 2`, `A is better`. Those that open or conclude a text are as good as `plain`."""
    echo_after: re.Pattern[str]
    """What follows a label in a list of labels, as in `0, 1, 2 or 3` or `yes/no`: the scale, not a pick."""
    echo_before: re.Pattern[str]
    either_before: re.Pattern[str]
    """The same within a sentence, where a comma may part clauses: `of A and B, B is better`."""
    defined: re.Pattern[str]
    """A label with its meaning after it, as in `2 = answers in part`; several of them are the scale itself."""
    correction: re.Pattern[str]
    """A label that takes back what was settled before: `Actually, 3.`; a label alone as the last sentence."""


def final_pick(text: str, grammar: Grammar, name: Callable[[str], str | None]) -> Pick | str:
    """The label on which `text` settles, or the reason why there is none.

    `name` turns what a pattern's `label` group matched into the label's name; None for what is no label.
    """
    scale = _scale(text, grammar)
    for tier in (_final, _settled, _stated, _numbered):
        matches = [match for match in tier(text, grammar) if match.start("label") not in scale]
        if matches:
            last = max(match.end("label") for match in matches)
            later = _matches(text, (grammar.correction,), grammar)
            matches += [match for match in later if match.start("label") > last]
        picks = [(name(match["label"]), match.start("label")) for match in matches]
        names = {found for found, _ in picks}
        if len(names) > 1:
            return AMBIGUOUS
        if picks:
            found, start = min(picks, key=lambda pick: pick[1])  # the first is where it is decided
            return NOT_A_LABEL if found is None else Pick(found, start)
    return NO_PICK


def _scale(text: str, grammar: Grammar) -> set[int]:
    """Where labels stand that the text explains one after the other: three numbers, or two words, are a scale.

    The last is none of them: a verdict that is explained, `final score: 2 - answers in part`, may follow the scale.
    """
    found = {match.start("label"): match["label"].casefold() for match in grammar.defined.finditer(text)}
    labels = set(found.values())
    if len(labels) < (3 if any(label[-1].isdigit() for label in labels) else 2):
        return set()
    return set(found) - {max(found)}


def _final(text: str, grammar: Grammar) -> Iterator[re.Match[str]]:
    return _matches(text, grammar.final, grammar)


def _settled(text: str, grammar: Grammar) -> Iterator[re.Match[str]]:
    yield from _matches(text, grammar.plain, grammar)
    if not declines(text[:_HEAD]):  # `No, I cannot judge this` is no `no`
        yield from _matches(text, (grammar.head,), grammar)
    for match in _statements(text, grammar):
        if _opens(text, match) or _concludes(text, match):
            yield match


def _stated(text: str, grammar: Grammar) -> Iterator[re.Match[str]]:
    return _statements(text, grammar)


def _numbered(text: str, grammar: Grammar) -> Iterator[re.Match[str]]:
    match = grammar.numbered.match(text)
    # In `(a) is ...` the bracket closes; it does not number.
    numbered = match is not None and text[max(0, match.start("label") - 1)] not in _BRACKETS
    if match is not None and numbered and len(_LIST_LINE.findall(text)) < 2 and not declines(text[:_HEAD]):
        yield match


_HEAD = 120
_BRACKETS = {"(", "[", '"', "'"}
_LIST_LINE = re.compile(r"(?m)^[^\w\n]{0,6}\w{1,2}[.):]")


def _matches(
    text: str, patterns: Iterable[re.Pattern[str]], grammar: Grammar, *, sentence: bool = False
) -> Iterator[re.Match[str]]:
    before = grammar.either_before if sentence else grammar.echo_before
    for pattern in patterns:
        for match in pattern.finditer(text):
            start, end = match.span("label")
            if not (grammar.echo_after.match(text, end) or before.search(text, max(0, start - 60), start)):
                yield match


def _statements(text: str, grammar: Grammar) -> Iterator[re.Match[str]]:
    for match in _matches(text, grammar.statements, grammar, sentence=True):
        before = text[_sentence_start(text, match.start()) : match.start()]
        if not _HEDGE.search(before) and (not declines(before) or _CUE.search(before)):
            yield match


_BREAK = re.compile(r"[.!?][\"')\]]?\s|\n(?=.*\w)")
_CUES = (
    r"(?:therefore|thus|hence|so|overall|in (?:conclusion|summary|short|the end)|to (?:conclude|sum up)|finally"
    r"|ultimately|consequently|accordingly|as a result|all in all|based on|in light of)"
)
_CUE = re.compile(rf"\b{_CUES}\b", re.I)
_HEDGE = re.compile(
    r"\b(?:(?:whether|if|unless|nor|neither|not that|not say(?: that)?|reasons? why|at first)\W+(?:the )?"
    r"|(?:vitamin|hepatitis|influenza|plan|type|group|class|schedule|appendix|section|part|figure|table) )$",
    re.I,
)


def _sentence_start(text: str, at: int) -> int:
    start = max(0, at - 400)
    return max((found.end() for found in _BREAK.finditer(text, start, at)), default=start)


def _opens(text: str, match: re.Match[str]) -> bool:
    """Whether a statement is the whole first sentence of the text."""
    before = text[max(0, match.start() - 40) : match.start()] if match.start() <= 40 else "?"
    return _OPENING.fullmatch(before) is not None and _SENTENCE_END.match(text, match.end()) is not None


_OPENING = re.compile(
    r"[\s\-#\"'(]*(?:(?:i (?:think|believe|would say)(?: that)?|in my (?:view|opinion),?)\s+)?(?:the\s+)?", re.I
)
_SENTENCE_END = re.compile(r"[\s\"')\]]{0,4}(?:[.!\n]|$)")


def _concludes(text: str, match: re.Match[str]) -> bool:
    """Whether a statement is said to be the conclusion, or stands in the last sentence."""
    before = text[_sentence_start(text, match.start()) : match.start()]
    cued = _CUE.search(before) or _CUE.match(match[0])
    near_the_end = len(text) - match.end() < 1000
    return cued is not None or (near_the_end and _BREAK.search(text, match.end()) is None)


NOUN = (
    r"(?:(?:relevance|relevancy|overall|quality)[\s_]+)?(?:score|answer|label|verdict|judge?ment|grade|rating|decision"
    r"|choice|result|relevance|relevancy|winner|preference|category|overall|conclusion|selection|pick"
    r"|level|antwort|urteil|ergebnis|bewertung|stufe|relevanz(?:stufe)?|punktzahl|niveau|respuesta|resultado|nivel"
    r"|puntuación|calificación|relevancia|答案|回答|选择|结论|等级|评分|分数|得分|相关性)"
)
_OPEN = r"[ \t\n\"'(\[{<]{0,6}"
_ASIDE = r"[\"']?(?:\s{0,3}\([^()\n]{0,60}\))?"
_IS = r"\s{0,3}(?:[:=]|is\b|was\b|would be\b|ist\b|es\b|-)\s{0,3}[:=]?\s{0,3}"
_CLOSE = r"[\"'\])}]{0,4}"
_AFTER = r"final\b|because\b|since\b|as\b|for\b|on\b|out of\b|of\b|which\b|given\b|due\b|points?\b|stars?\b|it\b|this\b"
STOP = rf"(?!\w|[.,]\d|'\w|-\w)(?={_CLOSE}(?:[ \t]{{0,4}}(?:[.,;:!|(<\\/=#{{\[]|--?\s|{_AFTER})|\s{{0,4}}\n|\s*\Z))"
"""What may follow a label that is not just a word of a sentence."""
# `2. Words` and `A) words` may number a list; `(a) words` does not.
_STOP_NOT_LIST = rf"(?!{_CLOSE}[.:][ \t]+\w|(?<![(\[].)\)[ \t]+\w){STOP}"
_TAKES_BACK = r"(?:actually|wait|correction|or rather|no(?=[,:.!])|on (?:second thoughts?|reflection))"
_STOP_LIST = rf"(?={_CLOSE}[.):]\s+\w)"


def grammar(
    bare: str,
    clear: str,
    *,
    any_label: str,
    statements: Sequence[str] = (),
    final: Sequence[str] = (),
    keys: str = "",
    top: str | None = None,
) -> Grammar:
    """The patterns for labels that look like `bare` where only a label can stand, and like `clear` in a sentence.

    Both hold the group `label`; `any_label` is like `bare` without it. `statements` and `final` are further
    patterns, in which `{L}` stands for the label (`{B}`: a bare one at the end of its clause); `keys` are JSON
    keys that hold it. `top`, the highest label of a scale, may follow a label after a slash (`2/3`).
    """
    separator = r"(?:,\s{0,2}(?:or\b|and\b)?|/|\||\bor\b|-|\bto\b|\band\b|\bvs\b\.?)\s{0,2}(?:a\s)?"
    fraction = rf"(?!\s{{0,2}}(?:/|out of)\s{{0,2}}{top}(?![\w/]))" if top is not None else ""
    list_goes_on = r"[\"'\])}]{0,3}\s{0,2}(?:[,/|.)\]?!;:]|or\b|and\b|-|\Z|\n)"
    named = rf"[\"'(\[{{]{{0,3}}(?:{NAMES}\s?)?[\"'(\[{{]{{0,3}}"
    tag = r"(?:score|label|grade|rating|verdict|result|relevance|choice|winner|judgment|judgement)"
    final_sources = [
        rf"\bfinal[\s_]{{1,3}}(?:\w+[\s_]{{1,3}})?{NOUN}\b{_ASIDE}(?:{_IS}|\s){_OPEN}{bare}{STOP}",
        rf"\[\s?(?:{tag}|answer)\s?\]\s{{0,3}}:?{_OPEN}{bare}{STOP}",
        rf"<{tag}>\s{{0,9}}{bare}(?!\w|[.,]\d)",
        rf"\[\[\s{{0,3}}{bare}\s{{0,3}}\]\]",
        rf"\bfinal[\s_]{{1,3}}{NOUN}\b{_IS}<\s?{bare}\s?>",
        rf"\\boxed\s?\{{\s?(?:\\text(?:bf)?\s?\{{)?\s?{bare}(?!\w|[.,]\d)",
        *(source.replace("{B}", bare + STOP) for source in final),
    ]
    plain_sources = [
        rf"(?m)^[^\w\n]{{0,8}}(?:(?:\d{{1,2}}[.)]|the|my|predicted|assigned)\s{{1,3}}){{0,2}}\b{NOUN}\b{_ASIDE}{_IS}{_OPEN}{bare}{STOP}",
        rf"\n[ \t\"'(\[{{<#-]{{0,6}}{bare}(?!\w|[.,]\d|'\w)[\s\"'\])}}.!]{{0,8}}\Z",
        rf"\b{_CUES}[,:]?\s{{1,3}}{_OPEN}{bare}{STOP}",
        *([rf"[\"'](?:{keys})[\"']\s{{0,3}}[:=]{_OPEN}{bare}{STOP}"] if keys else []),
    ]
    word = r"(?<=[^\W\d_]{2})"
    ends = rf"(?!\w|[.,]\d)(?={_CLOSE}\s{{0,3}}(?:[.;!\n]|\Z))"
    meaning = r"(?=[^\W\d_])" if top is not None else r"(?=[^\W_])"  # `A: 6/10, B: 8/10` tells what both are worth
    return Grammar(
        defined=_compiled([rf"{bare}{_CLOSE}(?:\s{{0,3}}[:=]\s{{0,3}}|\s{{1,3}}[-–]\s{{1,3}}){meaning}"])[0],
        correction=_compiled(
            [rf"(?:\b{_TAKES_BACK}\b[\s,:.!-]{{1,3}}(?:(?:it|that|this)(?:'s|\sis)\s)?|[.!?]\s){_OPEN}{bare}{ends}"]
        )[0],
        final=_compiled(final_sources),
        plain=_compiled(plain_sources),
        head=_compiled([rf"\A{_OPEN}{bare}(?:{word}{STOP}|{_STOP_NOT_LIST})"])[0],
        numbered=_compiled([rf"\A{_OPEN}{bare}{_STOP_LIST}"])[0],
        statements=_compiled(source.replace("{L}", clear).replace("{B}", bare + STOP) for source in statements),
        echo_after=re.compile(
            rf"{fraction}{_CLOSE}\s{{0,2}}{separator}[\"'(\[{{]{{0,3}}{any_label}(?!\w){list_goes_on}", re.I
        ),
        echo_before=re.compile(rf"(?<![\w.]){any_label}{_CLOSE}\s{{0,2}}{separator}{named}\Z", re.I),
        either_before=re.compile(rf"(?<![\w.]){any_label}{_CLOSE}\s{{0,2}}(?:/|,?\s?\bor\b)\s{{0,2}}{named}\Z", re.I),
    )


def _compiled(sources: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """The patterns, with every run in them bounded: a reply may be nothing but spaces for pages, or one word."""
    patterns = []
    for source in sources:
        for run, bounded in _BOUNDS.items():
            source = source.replace(run, bounded)
        patterns.append(re.compile(source, re.I))
    return tuple(patterns)


_BOUNDS = {r"\s+": r"\s{1,3}", r"\s*": r"\s{0,3}", r"\w+": r"\w{1,30}", r"\W+": r"\W{1,4}"}
