"""Lint finds what it is to find, on the right line, and says nothing about a sound template."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from llmrank.llm.types import CAPABILITIES
from llmrank.templates import Template, load
from llmrank.templates.header import Header
from llmrank.templates.lint import RULES, Finding, lint
from llmrank.templates.parsers import PARSERS

ORDER = load("listwise/rank").text
GRADE = load("pointwise/yes-no").text
CHOOSE = load("setwise/best").text
COMPARE = load("pairwise/prefer").text
REASONING = load("listwise/reasoning").text
LIKELIHOOD = load("checkpoints/upr").text
FIRST = load("listwise/first-token").text
GRADED = load("pointwise/graded").text.replace("from 0 to 3", "as below")
JSON = load("listwise/json").text
SCORES = load("listwise/group-scores").text


class Broken(NamedTuple):
    """A sound template in which something is replaced, what lint then finds, and what stands on the line."""

    text: str
    old: str
    new: str
    rule: str
    on: str

    @property
    def made(self) -> str:
        assert self.old in self.text
        return self.text.replace(self.old, self.new)


LOOP, SHOWN = "{% for document", "{{ document.text }}"
QUERY_THEN = "Search query: {{ query.text }}\n\nPassage: {{ document.text }}"
THEN_QUERY = "Passage: {{ document.text }}\n\nSearch query: {{ query.text }}"
NEEDS, SOURCE = "needs: [text, logprobs]", "source:"
BROKEN: dict[str, Broken] = {
    "a variable not shown": Broken(ORDER, SOURCE, "variables: {tone: dry}\nsource:", "unused-variable", "variables:"),
    "a text not shown": Broken(ORDER, SOURCE, "given: [hint]\nsource:", "unused-variable", "given:"),
    "no candidates": Broken(ORDER, SHOWN, "", "unshown-candidate", LOOP),
    "only one of two": Broken(COMPARE, "right.text", "left.text", "unshown-candidate", "left.text"),
    "no query": Broken(ORDER, "{{ query.text }}", "that", "unshown-query", LOOP),
    "numbers for letters": Broken(CHOOSE, "identifiers: letters", "", "unread-identifiers", "---"),
    "no names": Broken(ORDER, "[{{ document.identifier }}] ", "- ", "unnamed-item", LOOP),
    "letters for numbers": Broken(ORDER, "document.identifier", "'ABC'[loop.index0]", "unnamed-item", LOOP),
    "another form": Broken(JSON, '{"ranking": [2, 1, 3]}', '{"first": 2, "then": [1]}', "unread-form", LOOP),
    "other scores": Broken(SCORES, '{"[1]": 4, "[2]": 9}', '{"scores": [4, 9]}', "unread-form", LOOP),
    "a label not said": Broken(GRADE, "yes or no", "one word", "unsaid-label", SHOWN),
    "an end not said": Broken(GRADED, "3: the passage", "best: the passage", "unsaid-label", SHOWN),
    "one first token": Broken(GRADE, '"no": 0', '"yes, in part": 0', "ambiguous-labels", "labels:"),
    "the query last": Broken(GRADE, QUERY_THEN, THEN_QUERY, "late-query", SHOWN),
    "rules last": Broken(GRADE, "Reply yes", "Mind the rules. " * 30 + "Reply yes", "shared-tail", SHOWN),
    "no restate": Broken(ORDER, "restate:", "stop: []  #", "no-restate", "---"),
    "little room": Broken(ORDER, "per_item: 6", "per_item: 1", "little-room", "completion_tokens:"),
    "no room to think": Broken(REASONING, "thinking_tokens: 4096", "", "little-room", "completion_tokens:"),
    "endless thinking": Broken(REASONING, "close:", "stop: []  #", "no-close", "thinking_tokens:"),
    "no logprobs": Broken(GRADE, NEEDS, "needs: [text]", "missing-need", "needs:"),
    "after thinking": Broken(GRADE, SOURCE, "thinking_tokens: 9\nclose: x\nsource:", "missing-need", "needs:"),
    "one token": Broken(FIRST, NEEDS, "needs: [text]", "missing-need", "needs:"),
    "a likelihood": Broken(LIKELIHOOD, ", prompt-logprobs", "", "missing-need", "needs:"),
    "raw": Broken(LIKELIHOOD, "raw, ", "", "missing-need", "needs:"),
    "what nothing has": Broken(GRADE, "logprobs]", "logprobs, wings]", "unknown-need", "needs:"),
    "none asked": Broken(GRADE, "logprobs: 20", "logprobs: 0", "no-logprobs", "logprobs:"),
    "no such": Broken(ORDER, SOURCE, "deliberate: {late-query: so}\nsource:", "not-found", "deliberate:"),
}


def found(text: str) -> list[Finding]:
    return lint(Template(text, origin="mine.j2"), CAPABILITIES)


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_found_on_its_line(case: str) -> None:
    broken = BROKEN[case]
    findings = [finding for finding in found(broken.made) if finding.rule == broken.rule]
    assert findings, found(broken.made)
    assert broken.on in broken.made.splitlines()[findings[0].line - 1]
    assert all("\n" not in finding.sentence for finding in findings)


def test_every_rule_has_a_case() -> None:
    assert {broken.rule for broken in BROKEN.values()} == set(RULES)


@pytest.mark.parametrize("case", [case for case, broken in BROKEN.items() if broken.rule != "not-found"])
def test_what_is_deliberate_is_not_told(case: str) -> None:
    broken = BROKEN[case]
    noted = broken.made.replace("version:", f"deliberate: {{{broken.rule}: it is meant so}}\nversion:", 1)
    assert broken.rule not in [finding.rule for finding in found(noted)]


SERIOUS = {"unshown-candidate", "unread-identifiers", "unnamed-item", "unread-form", "unknown-need"}


def test_some_findings_are_as_bad_as_an_error() -> None:
    findings = [finding for broken in BROKEN.values() for finding in found(broken.made)]
    assert {finding.rule for finding in findings if finding.serious} == SERIOUS
    assert all(finding.serious for finding in findings if finding.rule in SERIOUS)


def test_needs_are_checked_only_against_what_is_given() -> None:
    assert lint(Template(BROKEN["what nothing has"].made)) == []


@pytest.mark.parametrize("name", [*RULES, *Header.model_fields, *PARSERS])
def test_the_page_on_templates_names_it(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "templates.md"
    assert f"`{name}`" in page.read_text(encoding="utf-8")
