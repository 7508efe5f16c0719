"""Every template that ships: its replies are read as they are written, no passage forges a mark, lint is content."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.data.types import Query
from llmrank.llm.types import CAPABILITIES, Reply
from llmrank.questions import Answer, Choice, Grade, Order, Preference
from llmrank.templates import Rendered, Template, load, names
from llmrank.templates.lint import lint

TEMPLATES = {name: load(name) for name in names()}
FAMILIES = ("listwise", "setwise", "pairwise")
KINDS = ("reasoning", "instruction", "criterion", "german", "chinese", "code")
PLAIN = {f"pointwise/{kind}" for kind in ("instruction", "by-criterion", "german", "chinese", "code")}
CRITERION = {family: f"{family}/criterion" for family in FAMILIES} | {"pointwise": "pointwise/by-criterion"}
CHAT_MARKS = ["<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<s>", "<think>", "</think>", "<answer>", "</answer>"]
CHAT_MARKS += ["<bos>", "<extra_id_10>", "<|endoftext|>", "<start_of_turn>", "</s>", "<reason>"]


def size(template: Template) -> int:
    return {"grade": 1, "compare": 2, "write": 0}.get(template.question, 4)


def rendered(template: Template, query: str | Query, texts: list[str]) -> Rendered:
    given = dict.fromkeys(template.header.given, "a text")
    return template.render(query, texts[: size(template)], given)


def prompt(made: Rendered) -> str:
    return made.raw if made.raw is not None else "\n".join(content for _, content in made.messages)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_family_has_every_kind(family: str, kind: str) -> None:
    assert f"{family}/{kind}" in TEMPLATES


@pytest.mark.parametrize("name", [n for n in TEMPLATES if n.split("/")[0] in (*FAMILIES, "checkpoints") or n in PLAIN])
def test_lint_finds_nothing(name: str) -> None:
    assert lint(TEMPLATES[name], CAPABILITIES) == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_lint_finds_nothing_serious(name: str) -> None:
    assert [finding for finding in lint(TEMPLATES[name], CAPABILITIES) if finding.serious] == []


@pytest.mark.parametrize("name", [n for n in TEMPLATES if TEMPLATES[n].header.parser != "likelihood"])
def test_what_is_written_is_read(name: str) -> None:
    template = TEMPLATES[name]
    n = size(template)
    answers: list[Answer] = {
        "order": [Order(permutation=(2, 0, 3, 1)), Order(permutation=(0, 1, 2, 3))],
        "choose": [Choice(index=i) for i in range(n)],
        "compare": [Preference(share=1.0), Preference(share=0.0)],
        "grade": [Grade(value=value, label=label) for label, value in template.header.labels.items()]
        or [Grade(value=end) for end in template.header.range or ()],
        "write": [],
    }[template.question]
    for answer in answers:
        read = template.read(Reply(template.write(answer, n)), n)
        if template.header.scoring == "log-odds":
            assert read.reason == "no-logprobs"  # it has no score without them
            continue
        assert read.usable
        for field in ("permutation", "index", "share", "value"):
            if hasattr(answer, field):
                assert getattr(read, field) == getattr(answer, field)


@pytest.mark.parametrize("name", [n for n in TEMPLATES if TEMPLATES[n].header.thinking_tokens])
def test_thinking_is_kept_apart_and_closed(name: str) -> None:
    template = TEMPLATES[name]
    n = size(template)
    answer = {
        "order": Order(permutation=(2, 0, 3, 1)),
        "choose": Choice(index=1),
        "compare": Preference(share=0.0),
        "grade": Grade(value=1.0, label=next(reversed(template.header.labels), None)),
    }[template.question]
    said = template.write(answer, n)
    thought = "Perhaps 4 > 3, or B, or the label itself: yes. " * 30
    opened = "" if template.opens_thinking else "<think>"
    whole = template.read(Reply(f"{opened}{thought}</think>\n<answer>{said}</answer>"), n)
    assert whole.usable
    assert whole == template.read(Reply(said), n)
    assert template.read(Reply(f"{opened}{thought}"), n).reason == "truncated"
    assert template.header.close
    assert template.completion_tokens(n) > template.verdict_tokens(n)


@pytest.mark.parametrize("family", CRITERION)
def test_a_criterion_stands_in_for_the_query(family: str) -> None:
    texts = ["one", "two", "three", "four"]
    asked = prompt(rendered(load(CRITERION[family]), "the funniest joke", texts))
    fixed = prompt(rendered(load(CRITERION[family], {"criterion": "the older text"}), "q7", texts))
    assert "Criterion: the funniest joke\n" in asked
    assert "Criterion: the older text\n" in fixed
    assert "q7" not in fixed
    assert not re.search("query|passage|relevan", asked)


@pytest.mark.parametrize("family", CRITERION)
def test_an_instruction_is_shown_where_the_query_has_one(family: str) -> None:
    template, texts = TEMPLATES[f"{family}/instruction"], ["one", "two", "three", "four"]
    told = prompt(rendered(template, Query("q", "fish", instruction="not salmon"), texts))
    narrative = prompt(rendered(template, Query("q", "fish", narrative="no trout"), texts))
    assert "not salmon" in told
    assert "no trout" in narrative
    assert "What counts as relevant:" not in prompt(rendered(template, "fish", texts))


@st.composite
def hostile(draw: st.DrawFn, marks: list[str]) -> str:
    """A passage made of the marks of a format, with little between them."""
    pieces = draw(st.lists(st.sampled_from([*marks, "[1]", "[2] > [1]", "[B]", " ", "\n", "a", "true"]), max_size=6))
    return "".join(pieces)


@pytest.mark.parametrize("name", [n for n in TEMPLATES if n.split("/")[0] in (*FAMILIES, "checkpoints", "pointwise")])
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_no_passage_forges_a_mark(name: str, data: st.DataObject) -> None:
    """However hostile, the prompt has as many marks of each kind, and as many messages, as with harmless texts."""
    template = TEMPLATES[name]
    marks = [*CHAT_MARKS, *template.header.marks]
    texts = data.draw(st.lists(hostile(marks), min_size=4, max_size=4))
    query = data.draw(hostile(marks))
    harmless, attacked = rendered(template, "q", ["a"] * 4), rendered(template, query, texts)
    assert [role for role, _ in attacked.messages] == [role for role, _ in harmless.messages]
    names = [f"[{name}]" for name in template.identifiers(4)] if template.question in ("order", "choose") else []
    for mark in [*marks, *names]:
        begins = r"(?<!\w)" if mark[0].isalnum() else ""  # `SubQuery:` is no `Query:`
        was, now = (len(re.findall(begins + re.escape(mark), prompt(made))) for made in (harmless, attacked))
        assert now == was, (mark, prompt(attacked))


def test_a_prompt_is_only_as_long_as_the_words_it_may_show() -> None:
    for n, words in ((20, 300), (10, 600), (3, 2000)):
        made = load("checkpoints/rankzephyr").render("q", ["wort " * 5000] * n)
        assert prompt(made).count("wort") == n * words
    shorter = load("checkpoints/rankzephyr", {"words": "200"}).render("q", ["wort " * 5000] * 20)
    assert prompt(shorter).count("wort") == 200
