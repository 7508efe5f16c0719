"""What is doubtful in a template that loads: each finding with its rule, its line, what is wrong and the cure.

A rule named in the header's `deliberate` is not reported. What keeps a template from being used at all is told when it
is loaded; a `serious` finding is as bad, since no reply to such a prompt would be read as it was meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from jinja2 import meta, nodes

from llmrank.data.types import Query
from llmrank.questions import Answer, Choice, Order, Preference, Token
from llmrank.templates.foreign import SUFFIXES
from llmrank.templates.parsers import ambiguous_first_tokens
from llmrank.templates.shown import Shown
from llmrank.templates.template import Template, header_line

SHORT_TAIL = 300  # characters behind the candidates that are not worth moving
ROOM_TO_THINK = 256  # tokens; with less no chain of thought comes to its end
MANY = 20  # items, for which the reply must have room
NEAR = 60  # characters before an item's text within which its identifier stands
CHAIN = re.compile(r"(?:\[\w{1,3}\]|\b\w{1,2})(?:\s?[>=]\s?(?:\[\w{1,3}\]|\w{1,2}\b))+")
OBJECT = re.compile(r"\{[^{}\n]*\d[^{}\n]*\}")
PIECE = re.compile(r"\w+|[^\w\s]")
ASKS_TO_THINK = re.compile(r"<think|step by step|think first|reason first", re.I)


class Finding(NamedTuple):
    """Something doubtful in a template."""

    rule: str
    line: int
    sentence: str
    serious: bool = False
    """No reply would be read as it was meant."""


class Sample(NamedTuple):
    """A template rendered with words that can be found again."""

    text: str
    """The prompt, without its continuation."""
    continuation: str
    n: int
    head: str
    """What stands before the first text of a candidate; all of it where none is shown."""
    tail: str
    """What stands behind the last."""


class Words(NamedTuple):
    """A reply without tokens."""

    text: str
    tokens: tuple[Token, ...] | None = None


def lint(template: Template, capabilities: Collection[str] = ()) -> list[Finding]:
    """What is doubtful in a template, by line. `capabilities`: what may be needed, where it shall be checked."""
    sample = _sampled(template)
    meant = template.header.deliberate
    found = [finding for check in CHECKS for finding in check(template, sample)]
    found += _unknown_needs(template, capabilities)
    told = [finding for finding in found if finding.rule not in meant]
    for rule in set(meant) - {finding.rule for finding in found}:
        told.append(_at(template, "deliberate", "not-found", f"there is no finding {rule!r} here; leave it out"))
    if Path(template.origin).suffix in SUFFIXES:  # the lines are those of a translation
        told = [finding._replace(line=1) for finding in told]
    return sorted(set(told), key=lambda finding: (finding.line, finding.rule, finding.sentence))


def _sampled(template: Template) -> Sample:
    n = {"grade": 1, "compare": 2}.get(template.question, 3)
    query = Query("q", *(f"zq{field}z" for field in ("text", "description", "narrative", "instruction")))
    shown = [Shown(name, f"zd{i}z", f"zt{i}z") for i, name in enumerate(template.identifiers(n))]
    given = {name: f"zgiven {name}z" for name in template.header.given}
    rendered = template.prompt(query, shown, given)
    texts = [rendered.raw] if rendered.raw is not None else [content for _, content in rendered.messages]
    text = "\n".join(texts)
    places = [match.span() for match in re.finditer(r"z[dt]\dz", text)]
    head, tail = (text[: places[0][0]], text[places[-1][1] :]) if places else (text, "")
    return Sample(text, rendered.continuation or "", n, head, tail)


def _at(template: Template, field: str, rule: str, sentence: str, *, serious: bool = False) -> Finding:
    """A finding about a field of the header."""
    return Finding(rule, header_line(template.text, field), sentence, serious)


def _in_prompt(template: Template, rule: str, sentence: str, *, serious: bool = False) -> Finding:
    """A finding about the prompt, at the first place that shows a candidate."""
    names = ("document", "documents", "left", "right")
    lines = [name.lineno for name in template.tree.find_all(nodes.Name) if name.name in names]
    return Finding(rule, template.body_line + min(lines, default=1), sentence, serious)


def _unused(template: Template, sample: Sample) -> Iterator[Finding]:
    used = meta.find_undeclared_variables(template.tree)
    for field, names in (("variables", template.header.variables), ("given", template.header.given)):
        for name in names:
            if name not in used:
                yield _at(
                    template, field, "unused-variable", f"{field}: {name!r} is shown nowhere; use it or leave it out"
                )
    if template.question == "write":
        return
    for i in range(sample.n):
        if f"zd{i}z" not in sample.text + sample.continuation:
            sentence = "not every candidate's text is shown; the prompt needs all of them"
            yield _in_prompt(template, "unshown-candidate", sentence, serious=True)
            return
    others = template.header.given or template.header.variables
    if "zq" not in sample.text + sample.continuation and not others:
        yield _in_prompt(template, "unshown-query", "the prompt says nothing of the query; show {{ query.text }}")


def _identifiers(template: Template, sample: Sample) -> Iterator[Finding]:
    """Items must be named in the prompt as the parser reads them."""
    if template.question not in ("choose", "order"):
        return
    names = template.identifiers(sample.n)
    answer = Choice(index=1) if template.question == "choose" else Order(permutation=tuple(range(sample.n)))
    if names[1] not in re.findall(r"\w+", template.write(answer, sample.n)):
        header = template.header
        sentence = (
            f"identifiers: items are named by {header.identifiers}, which the parser {header.parser} does not read"
        )
        yield _at(template, "identifiers", "unread-identifiers", sentence, serious=True)
        return
    for i, name in enumerate(names):
        place = sample.text.find(f"zd{i}z")
        before = sample.text[max(0, place - NEAR) : place]
        if place >= 0 and not re.search(rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])", before):
            sentence = f"item {name} is not named before its text; write {{{{ document.identifier }}}} there"
            yield _in_prompt(template, "unnamed-item", sentence, serious=True)
            return


def _form(template: Template, sample: Sample) -> Iterator[Finding]:
    """What the prompt gives as the form of a reply, and what the parser writes itself, the parser must read."""
    if template.question == "order":
        shape = OBJECT if template.header.parser in ("json", "scores") else CHAIN
        example = next(iter(shape.findall(sample.tail)[::-1] or shape.findall(sample.head)[::-1]), None)
        if example is not None and not _reads_order(template, example):
            sentence = (
                f"the parser {template.header.parser} does not read {example!r}, the form that the prompt asks for"
            )
            yield _in_prompt(template, "unread-form", sentence, serious=True)
        return
    for said, answer in _answers(template, sample.n):
        read = template.read(Words(said), sample.n)
        if (read.status == "failed" and read.reason != "no-logprobs") or not _same(read, answer):
            sentence = f"the parser {template.header.parser} does not read {said!r}, which it is to read"
            yield _at(template, "parser", "unread-form", sentence, serious=True)


def _reads_order(template: Template, example: str) -> bool:
    names = re.sub(r":\s*\d+", "", example) if template.header.parser == "scores" else example
    named = [name for name in re.findall(r"[A-Z]+(?=\W)|[A-Z]\Z|\d+", names) if len(name) < 3]
    if not named:
        return True  # it stands for no items: `[] > []`
    positions = [ord(name) - 64 if name.isalpha() else int(name) for name in named]
    n = max(positions)
    read = template.read(Words(example), n)
    if not isinstance(read, Order) or read.permutation is None:
        return False
    return read.scores is not None or read.permutation[0] == positions[0] - 1


def _answers(template: Template, n: int) -> Iterator[tuple[str, Answer | str | None]]:
    """Replies that the template may get, each with what it says."""
    if template.question == "compare":
        for share in (1.0, 0.0):
            yield template.write(Preference(share=share), n), Preference(share=share)
    elif template.question == "choose":
        for i in range(n):
            yield template.write(Choice(index=i), n), Choice(index=i)
    elif template.question == "grade" and template.header.parser == "label":
        for label in template.header.labels:
            yield label, label
    elif template.question == "grade" and template.header.range is not None:
        for end in template.header.range:
            yield f"{end:g}", None


def _same(read: Answer, said: Answer | str | None) -> bool:
    if isinstance(read, Preference) and isinstance(said, Preference):
        return read.winner == said.winner
    if isinstance(read, Choice) and isinstance(said, Choice):
        return read.index == said.index
    label = getattr(read, "label", None)
    return not isinstance(said, str) or label in (said, None)


def _polarity(template: Template, sample: Sample) -> Iterator[Finding]:
    """The model must be told which labels there are, the ends of a scale at least."""
    header = template.header
    if header.raw:
        return  # a checkpoint knows its labels
    labels = list(header.labels)
    if template.question == "compare" and not labels:
        labels = list(template.options)[:2]
    if template.question == "grade" and header.range is not None and not labels:
        labels = [f"{end:g}" for end in header.range]
    if len(labels) > 2 and all(re.fullmatch(r"-?\d+", label) for label in labels):
        labels = [labels[0], labels[-1]]
    for label in labels:
        if template.question in ("grade", "compare") and not _says(sample.text, label):
            sentence = f"the prompt never says {label!r}; name the labels, and which end means relevant"
            yield _in_prompt(template, "unsaid-label", sentence)


def _says(text: str, label: str) -> bool:
    return re.search(rf"(?<![^\W_]){re.escape(label)}(?![^\W_])", text, re.I) is not None or (
        not label.isascii() and label in text
    )


def _clashes(template: Template, sample: Sample) -> Iterator[Finding]:
    labels = list(template.header.labels)
    if template.header.scoring in ("probability", "log-odds", "expected") and labels:
        for one, other in ambiguous_first_tokens(labels):
            sentence = (
                f"labels: {one!r} and {other!r} may share their first token, by which they are told apart; rename one"
            )
            yield _at(template, "labels", "ambiguous-labels", sentence)


def _prefix(template: Template, sample: Sample) -> Iterator[Finding]:
    """What prompts about one query have in common should stand before what they do not: servers keep common heads."""
    if template.question == "write" or sample.head == sample.text:
        return
    if "zq" in sample.text and "zq" not in sample.head:
        sentence = "the query stands behind the first candidate; before it, a server could keep it for the next prompt"
        yield _in_prompt(template, "late-query", sentence)
    head, tail = len(sample.head.strip()), len(sample.tail.strip())
    if template.question in ("grade", "compare") and tail > max(SHORT_TAIL, head):
        sentence = (
            f"{tail} characters that all prompts about a query share stand behind the candidate, {head} before it; "
            "move them up, so that a server can keep them for the next prompt"
        )
        yield _in_prompt(template, "shared-tail", sentence)


def _restate(template: Template, sample: Sample) -> Iterator[Finding]:
    header = template.header
    if not header.restate and not header.raw and header.parser not in ("likelihood", "text", "list"):
        sentence = "restate: the header lacks the format in one sentence, for the retry after an unreadable reply"
        yield _at(template, "restate", "no-restate", sentence)


def _room(template: Template, sample: Sample) -> Iterator[Finding]:
    header = template.header
    if header.parser == "likelihood" or template.question == "write":
        return
    one_token = "logprobs" in header.needs and header.completion_tokens == 1
    n = min(MANY, template.most_items or MANY) if template.question in ("choose", "order") else sample.n
    longest = max((len(PIECE.findall(said)) for said in _longest(template, n)), default=0)
    room = template.completion_tokens(n) - header.thinking_tokens
    if longest > room and not one_token:
        sentence = f"completion_tokens: {room} for a reply about {n} items, which takes about {longest}"
        yield _at(template, "completion_tokens", "little-room", sentence)
    elif ASKS_TO_THINK.search(sample.text) and not header.raw and template.completion_tokens(n) < ROOM_TO_THINK:
        sentence = "the prompt asks for thoughts before the answer; say with thinking_tokens how many they may take"
        yield _at(template, "completion_tokens", "little-room", sentence)
    if header.thinking_tokens and not header.close:
        sentence = "close: thinking that is cut short cannot be brought to its answer; say what ends it"
        yield _at(template, "thinking_tokens", "no-close", sentence)


def _longest(template: Template, n: int) -> Iterator[str]:
    if template.question == "order":
        yield template.write(Order(permutation=tuple(range(n))), n)
    yield from (said for said, _ in _answers(template, min(n, 3)))


def _needs(template: Template, sample: Sample) -> Iterator[Finding]:
    header, needs = template.header, set(template.header.needs)
    by_tokens = header.scoring in ("probability", "log-odds")
    thinks = bool(header.thinking_tokens or header.close)
    one_token = header.parser == "letters" and header.completion_tokens == 1
    wanted: list[tuple[bool, set[str], str]] = [
        (by_tokens and not thinks, {"logprobs", "label-logprobs", "later-logprobs"}, f"scoring: {header.scoring}"),
        (by_tokens and thinks, {"later-logprobs"}, f"scoring: {header.scoring} after thinking"),
        (one_token, {"logprobs"}, "a reply of one token that orders all items"),
        (header.parser == "likelihood", {"prompt-logprobs"}, "the parser likelihood"),
        (header.raw, {"raw"}, "raw: true"),
    ]
    for holds, any_of, what in wanted:
        if holds and not needs & any_of:
            yield _at(template, "needs", "missing-need", f"needs: {what} takes {' or '.join(sorted(any_of))}; name it")
    if not header.logprobs and (needs & {"logprobs", "later-logprobs"} or header.scoring == "expected"):
        sentence = "logprobs: none are asked for, though the score is made of them; write logprobs: 20"
        yield _at(template, "logprobs", "no-logprobs", sentence)


def _unknown_needs(template: Template, capabilities: Collection[str]) -> Iterator[Finding]:
    for need in template.header.needs:
        if capabilities and need not in capabilities:
            sentence = f"needs: no backend has {need!r}; there are {', '.join(sorted(capabilities))}"
            yield _at(template, "needs", "unknown-need", sentence, serious=True)


Check = Callable[[Template, Sample], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    _unused,
    _identifiers,
    _form,
    _polarity,
    _clashes,
    _prefix,
    _restate,
    _room,
    _needs,
)
RULES: dict[str, str] = {
    "unused-variable": "a variable of the header is shown nowhere",
    "unshown-candidate": "a candidate's text is not shown",
    "unshown-query": "nothing of the query is shown",
    "unread-identifiers": "items are named otherwise than the parser reads them",
    "unnamed-item": "an item's identifier does not stand before its text",
    "unread-form": "the parser does not read the form that the prompt asks for",
    "unsaid-label": "the prompt does not name a label, or an end of the scale",
    "ambiguous-labels": "two labels may begin with the same token",
    "late-query": "the query stands behind the first candidate",
    "shared-tail": "more of what prompts about a query share stands behind the candidate than before it",
    "no-restate": "the header lacks the format in one sentence",
    "little-room": "completion_tokens is too small for the form, or for thinking",
    "no-close": "thinking has a budget, but nothing that ends it",
    "missing-need": "needs lacks what the scoring takes",
    "unknown-need": "needs names what no backend has",
    "no-logprobs": "the score is made of log-probabilities, and none are asked for",
    "not-found": "deliberate names a finding that there is not",
}
"""What there is to find, by the name that `deliberate` uses."""
