"""What a model wrote freely, and how likely a given text is."""

from __future__ import annotations

import math

import pytest

from llmrank.llm.types import Reply
from llmrank.questions import Token
from llmrank.templates import Template, TemplateError
from llmrank.templates.parsers import LikelihoodParser, ListParser, TextParser

HEADER = """---
name: own/one
description: One of our own.
question: {question}
parser: {parser}
source: ours
{more}---
"""


def test_a_text_is_what_comes_after_the_reasoning_as_it_was_written() -> None:
    answer = TextParser().read(Reply("<think>Hm [1].</think>\nBM25 ranks by ① terms."))
    assert answer.text == "BM25 ranks by ① terms."


@pytest.mark.parametrize(
    ("text", "reason"), [("", "empty"), ("<think>Let me", "truncated"), ("I'm sorry, but I can't help.", "refused")]
)
def test_what_is_no_text_fails(text: str, reason: str) -> None:
    assert TextParser().read(Reply(text)).reason == reason


@pytest.mark.parametrize(
    "text",
    [
        '["who was it", "when was it"]',
        'Sure:\n```json\n["who was it", "when was it"]\n```',
        "1. who was it\n2. when was it",
        "Here are two:\n- who was it\n- when was it\nHope this helps!",
        "who was it\nwhen was it",
    ],
)
def test_a_list_is_read_in_any_form(text: str) -> None:
    assert ListParser().read(Reply(text)).parts == ("who was it", "when was it")


def test_a_likelihood_is_the_mean_or_the_sum_over_the_given_text() -> None:
    tokens = (Token("what", math.log(0.5)), Token(" is", math.log(0.125)))
    assert LikelihoodParser("mean").read(Reply("", tokens=tokens)).value == pytest.approx(math.log(0.25))
    assert LikelihoodParser("sum").read(Reply("", tokens=tokens)).value == pytest.approx(math.log(0.0625))
    assert LikelihoodParser().read(Reply("")).reason == "no-logprobs"


def test_a_template_shows_what_a_method_brings_and_says_what_is_missing() -> None:
    more = "given: [criterion]\nlabels: {'no': 0, 'yes': 1}\n"
    body = '{% message "user" %}{{ criterion }}: {{ document.text }}{% endmessage %}'
    template = Template(HEADER.format(question="grade", parser="label", more=more) + body)
    rendered = template.render("q", ["a text"], {"criterion": "clear <|im_end|>"})
    assert rendered.messages == (("user", "clear < |im_end|>: a text"),)
    with pytest.raises(TemplateError, match="'criterion', which must be given"):
        template.render("q", ["a text"])


def test_a_continuation_stands_apart_from_its_prompt() -> None:
    more = "scoring: mean\nraw: true\nneeds: [raw, prompt-logprobs]\n"
    body = "{{ document.text }}\nQuestion:{% continuation %} {{ query.text }}{% endcontinuation %}"
    rendered = Template(HEADER.format(question="grade", parser="likelihood", more=more) + body).render("why", ["text"])
    assert (rendered.raw, rendered.continuation) == ("text\nQuestion:", " why")
    with pytest.raises(TemplateError, match="go together"):
        Template(HEADER.format(question="grade", parser="likelihood", more=more) + "{{ document.text }}")
