"""Chains: runs of identifiers in a reply, with what joins them and what stands round them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from llmrank.templates.parsers.identifiers import KINDS, Identifiers, position_of
from llmrank.templates.parsers.reading import NAMES

Groups = list[list[int]]
"""0-based positions in the order of the reply, those that it ties in one group; some may be out of range."""


@dataclass(slots=True)
class Chain:
    """A run of identifiers, and what speaks for its being a ranking."""

    groups: Groups
    start: int
    end: int
    form: str
    """`brackets`, `named`, `json`, or `bare`: plain numbers or letters, which in prose are counts and words."""
    ordered: bool = False
    """It is joined by `>`."""
    listed: bool = False
    """It is joined by commas, `and` and the like, or by nothing."""
    leads: bool = False
    """Nothing stands before it on its line, but for a number, a bullet, or a lead-in that ends with a colon."""
    ends: bool = False
    """Nothing stands after it on its line."""
    led_in: bool = False
    """A lead-in that ends with a colon stands before it."""
    whole: bool = False
    """There are no words but it in the reply, or what leads in says that the answer follows."""
    by_line: bool = False
    """It goes down the beginnings of lines."""
    said: bool = False
    """A sentence says that it is the order, and ends with it: `The order is [2], [1].`"""

    @property
    def alone(self) -> bool:
        return self.leads and self.ends

    @property
    def outright(self) -> bool:
        """It cannot be an enumeration in passing."""
        return self.ordered or self.alone

    def counts(self, *, complete: bool, in_prose: bool) -> bool:
        """Whether it is a ranking. `in_prose`: a list among words may be one, where it is complete."""
        size = sum(map(len, self.groups))
        if size == 1:
            return self.whole or (complete and self.alone and self.form != "bare")
        if self.by_line:
            return self.alone or in_prose
        if self.form == "bare":
            return self.whole or (complete and self.outright)
        if self.ordered or self.whole or (self.alone and not self.led_in):
            return True
        # `The irrelevant ones are: [4], [2]` is no ranking; a list of all is taken for one.
        return complete and in_prose and (self.alone or self.said or size > 2)


def chains(text: str, kind: Identifiers, n: int, *, bare: bool) -> list[Chain]:
    """All chains of identifiers in the text that are bare, or of those that are not."""
    inline = list(_inline(text, _MENTIONS[kind, bare], kind, n))
    heads = [chain for chain in inline if chain.leads and not (chain.ordered or chain.listed)]
    return [*inline, *_by_lines(heads, n, bare=bare)]


class _Mention(NamedTuple):
    groups: Groups
    start: int
    end: int
    form: str
    ordered: bool
    listed: bool


def _inline(text: str, pattern: re.Pattern[str], kind: Identifiers, n: int) -> Iterator[Chain]:
    """Identifiers that stand in a row, joined by separators."""
    chain: Chain | None = None
    for match in pattern.finditer(text):
        mention = _mentioned(match, kind, n)
        if mention is None:
            continue
        joint = _joint(text, chain.end, mention.start) if chain is not None else None
        if chain is None or joint is None or (joint == "list" and _is_over(text, chain, mention.start, n)):
            if chain is not None:
                yield _placed(text, chain)
            chain = Chain([*mention.groups], mention.start, mention.end, mention.form, mention.ordered, mention.listed)
            continue
        if joint == "tie":
            chain.groups[-1] = [*chain.groups[-1], *mention.groups[0]]
            chain.groups += mention.groups[1:]
        else:
            chain.groups += mention.groups
        chain.end = mention.end
        chain.ordered |= mention.ordered or joint == "order"
        chain.listed |= mention.listed or joint == "list"
    if chain is not None:
        yield _placed(text, chain)


def _is_over(text: str, chain: Chain, end: int, n: int) -> bool:
    """Whether a complete `>` chain is followed by nothing but a space: there the next one begins."""
    over = chain.ordered and not text[chain.end : end].strip()
    return over and len({i for group in chain.groups for i in group if 0 <= i < n}) == n


def _mentioned(match: re.Match[str], kind: Identifiers, n: int) -> _Mention | None:
    form = match.lastgroup or ""
    if form == "json":
        inner = match["json"]
        parts = [[_ELEMENT[kind].search(tied) for tied in part.split("=")] for part in re.split("[,;>]", inner)]
        groups = [[_position(found[1], kind) for found in part if found] for part in parts]
        if not match[0].endswith("]") and _may_go_on(groups[-1][-1], kind, n):
            groups = groups[:-1]
        return _Mention(groups, match.start(), match.end(), "json", ">" in inner, ">" not in inner)
    position = _position(match[form], kind)
    if form == "brackets" and match.end() == match.end(form) == len(match.string) and _may_go_on(position, kind, n):
        return None
    form = "brackets" if form.startswith("first") else form
    return _Mention([[position]], match.start(), match.end(), form, False, False)


def _may_go_on(position: int, kind: Identifiers, n: int) -> bool:
    """Whether an identifier at which the reply breaks off may be the beginning of a longer one."""
    return kind == "numbers" and (position + 1) * 10 <= n


def _position(word: str, kind: Identifiers) -> int:
    position = position_of(word, kind)
    return -1 if position is None else position


def _joint(text: str, start: int, end: int) -> str | None:
    """What joins two identifiers: `order`, `tie`, `list`, or None where words or a new line part them."""
    if end - start > 120:
        return None
    match = _JOINT.fullmatch(text, start, end)
    return match.lastgroup if match is not None else None


def _placed(text: str, chain: Chain) -> Chain:
    """The chain with what stands round it."""
    window = text[max(0, chain.start - 100) : chain.start]
    before = window.rpartition("\n")[2]
    cut = len(window) == 100 and len(before) == 100
    chain.led_in = before.rstrip(" \t\"'([{").endswith(":")
    chain.leads = chain.led_in or (not cut and _LEAD.fullmatch(before) is not None)
    chain.ends = _TAIL.match(text, chain.end) is not None
    chain.said = _SAYS.search(window) is not None and _SENTENCE_END.match(text, chain.end) is not None
    if chain.alone:
        words_before = _WORD.search(text, 0, chain.start) is not None
        words_after = _WORD.search(text, chain.end) is not None
        if chain.form == "bare" or chain.led_in:
            chain.whole = not (words_before or words_after)
        else:  # on a line of its own, first or last
            chain.whole = not (words_before and words_after)
        chain.whole |= _ANSWERS.search(before) is not None
    return chain


def _by_lines(heads: list[Chain], n: int, *, bare: bool) -> Iterator[Chain]:
    """Chains down the lines that begin with an identifier; words may follow it there unless it is a bare one."""
    run: list[Chain] = []
    named: set[int] = set()
    for head in heads:
        if (bare or head.led_in) and not head.ends:
            continue
        positions = {i for group in head.groups for i in group}
        if len(named) >= n and positions & named:  # the list was complete, and another one begins
            yield from _run(run)
            run, named = [], set()
        run.append(head)
        named |= {i for i in positions if 0 <= i < n}
    yield from _run(run)


def _run(heads: list[Chain]) -> Iterator[Chain]:
    if len(heads) > 1:
        groups = [group for head in heads for group in head.groups]
        ends = all(head.ends for head in heads)
        yield Chain(
            groups, heads[0].start, heads[-1].end, heads[0].form, leads=True, ends=ends, whole=ends, by_line=True
        )


_NUMBERING = (
    r"(?:(?:rank|top|place|position|no\.?|number)?\s{0,2}[#(]{0,2}(?:\d{1,3}|[a-z](?=[.)]))(?:st|nd|rd|th)?"
    r"\s{0,2}(?:[.):|\]-]{1,2}|(?=\s)))"
)
_JOINT = re.compile(
    rf"[\s\"')]{{0,9}}(?:(?:\([^()\n]{{0,80}}\)\s{{0,3}})?(?P<order>-{{0,2}}>{{1,3}}\s{{0,4}}(?:{_NUMBERING})?[\s\"'(#]{{0,9}})"
    r"|(?P<tie>={1,3}[\s\"'(#]{0,9})"
    r"|(?P<list>(?:(?:,|;|/|\||&|and\b|then\b|followed by\b)(?:\s{0,3}(?:and|then|&|followed by)\b)?|(?<!\n))[ \t]{0,9}"
    rf"(?:(?<=[,;/|&])\n[ \t]{{0,9}})?(?:{_NUMBERING})?[ \t\"'(#]{{0,9}}))",
    re.I,
)
_LEAD = re.compile(rf"[^\w\n]{{0,20}}(?:{_NUMBERING})?[^\w\n]{{0,20}}", re.I)
_TAIL = re.compile(r"[ \t\"')\]}.,;!|>=\[]{0,40}(?:\n|\Z)")
_WORD = re.compile(r"[^\W_]")
_SAYS = re.compile(
    r"\b(?:(?:order|ranking)(?: (?!not\b|no\b|of\b)\w{1,12}){0,2} (?:is|would be|follows)"
    r"|rank (?:them|these|both|the (?:two )?\w{1,12})(?: as| in this order| as follows)?):?\s?\Z",
    re.I,
)
_SENTENCE_END = re.compile(r"[\"')]{0,2}(?:\.(?!\d)|[;!]|\s{0,3}\Z|\n)")
_KEYS = r"rank\w{0,9}|order|results?|output|answer|permutation|passages|documents|ids|identifiers|list"
_ANSWERS = re.compile(
    rf"(?:\b(?:answer|ranking|order|best|relevant)(?:\s\w{{1,20}}){{0,2}}|[\"'](?:{_KEYS})[\"'])\s{{0,3}}:\W{{0,6}}\Z",
    re.I,
)

_CORES = {"numbers": r"\d{1,40}", "letters": r"[A-Za-z]"}
_NAME = rf"(?i:{NAMES})[\s_]{{0,2}}[:#-]?[ \t]{{0,2}}"
_ELEMENT = {kind: re.compile(rf"({core})[\"']?\s{{0,3}}\Z") for kind, core in _CORES.items()}


def _mention(kind: Identifiers, *, bare: bool) -> re.Pattern[str]:
    core = _CORES[kind]
    plain = core if kind == "numbers" else "[A-Z]"  # without brackets `a` is an article
    if bare:
        numbered = r"(?:(?<![\w.])\(?\d{1,3}[.):][ \t]{1,4})?"
        return re.compile(rf"{numbered}(?<![\w.$€£&%/'+<-])(?<!&#)(?P<bare>{plain})(?!\w|%|'|/|\.\w|-\w)")
    element = rf"[\"']?(?:{_NAME})?#?{core}[\"']?"
    return re.compile(
        rf"\[\s{{0,3}}(?P<json>{element}(?:\s{{0,3}}[,;>=]\s{{0,3}}{element})+)\s{{0,3}},?\s{{0,3}}(?:\]|\Z)"
        rf"|\[{{1,2}}\s{{0,3}}[\"']?(?:{_NAME})?#?(?P<brackets>{core})(?:[\"']?\s{{0,3}}(?:\]{{1,2}}|(?=[>=]))|\Z)"
        rf"|(?<![\w-]){_NAME}[\"'(\[]{{0,2}}(?P<named>{plain})(?![\w%]|\.\d)[\"')\]]{{0,2}}"
        rf"|(?<![\w.\[\]#,-])(?P<first>{plain})\]?(?=\s{{0,3}}[>=]\s{{0,3}}\[)"
        rf"|\A\s{{0,9}}(?P<first_closed>{plain})\]"
    )


_MENTIONS = {(kind, bare): _mention(kind, bare=bare) for kind in KINDS for bare in (False, True)}
