"""Preferences between two items, in words and in probabilities."""

from __future__ import annotations

import math

import pytest

from llmrank.errors import InputError
from llmrank.llm.types import Reply
from llmrank.questions import Preference, Token
from llmrank.templates.parsers import CompareParser

PARSER = CompareParser()


def said(text: str, *tops: dict[str, float]) -> Reply:
    """A reply whose tokens are the likeliest of each of `tops` (token: probability)."""
    tokens = [
        Token(max(top, key=top.__getitem__), 0.0, tuple((t, math.log(p)) for t, p in top.items())) for top in tops
    ]
    return Reply(text, tokens=tokens)


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "B.",
        '"B"',
        "**B**",
        "[B]",
        "[[B]]",
        "(b)",
        "Passage B",
        "Output (b)",
        "Output (b) is better.",
        "Assistant B",
        "[RESULT] B",
        "Feedback: A is vague, see 2. [RESULT] B",
        "**Reasoning:** A drifts off.\n**Result:** B",
        '{"winner": "B"}',
        '{"reasoning": "A is longer", "verdict": "B"}',
        "<think>A is better</think>B",
        "<answer>B</answer>",
        "B is better than A.",
        "B is more relevant to the query than A.",
        "B: because it says more",
        "[B] > [A]",
        "A < B",
        "I prefer Passage B.",
        "I think B.",
        "I'd go with B because it answers.",
        "the answer is B",
        "The better passage is Passage B, not Passage A.",
        "Between A and B, B is the better one.",
        "Passage B provides a better answer.",
        "Passage A: covers x\nPassage B: covers y\n\nVerdict: B",
        "Although A is better in style, overall B is better.",
        "A covers the topic. B answers the question.\n\nTherefore, Output (b) is better.",
        "After weighing both, my final verdict is: [[B]]",
    ],
)
def test_the_second_is_preferred(text: str) -> None:
    assert PARSER.read(Reply(text)) == Preference(share=0.0)


@pytest.mark.parametrize(
    "text",
    [
        "tie",
        "Tie.",
        "[[C]]",
        "It is a tie.",
        "Winner: tie",
        '{"winner": "tie"}',
        "both",
        "Neither",
        "Both are equally relevant.",
        "A and B are equally good.",
        "Neither passage is better.",
        "A = B",
    ],
)
@pytest.mark.parametrize("ties", [True, False])
def test_a_judge_that_says_tie_said_tie(text: str, ties: bool) -> None:
    assert CompareParser(ties=ties).read(Reply(text)) == Preference(share=0.5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("<think>B is", "truncated"),
        ("<think>B is better</think>", "empty"),
        ("A or B", "no-label"),
        ("A/B", "no-label"),
        ("Passage A and Passage B", "no-label"),
        ("A passage is better than none", "no-label"),
        ("Output (a) is not better.", "no-label"),
        ("C", "no-label"),
        ("A: 6/10, B: 8/10", "no-label"),
        ("A: 6/10\nB: 8/10", "no-label"),
        ("Vitamin A is more relevant to bones than others", "no-label"),
        ("Answer: A\nAnswer: B", "ambiguous"),
        ("[[A]] [[B]]", "ambiguous"),
        ("A is better. Therefore, B is better.", "ambiguous"),
        ("I cannot say whether A is better.", "refused"),
        ("I'm sorry, but I can't compare these.", "refused"),
    ],
)
def test_what_is_no_preference(text: str, reason: str) -> None:
    preference = PARSER.read(Reply(text))
    assert (preference.status, preference.reason, preference.share) == ("failed", reason, None)


def test_p_left_comes_from_the_tokens_at_the_label() -> None:
    preference = PARSER.read(said("A", {"A": 0.5, "B": 0.1, " b": 0.1, "the": 0.05}))
    assert preference.share == 1.0
    assert preference.p_left == pytest.approx(0.5 / 0.7)
    later = said("Passage B", {"Passage": 0.9, "A": 0.05}, {" B": 0.8, " A": 0.2})
    assert PARSER.read(later).p_left == pytest.approx(0.2)
    inside = said("(a)", {"(a": 0.6, "(b": 0.4}, {")": 1.0})
    assert PARSER.read(inside).p_left == pytest.approx(0.6)


def test_a_label_that_is_not_among_the_top_has_the_least_listed_probability() -> None:
    preference = PARSER.read(said("A", {"A": 0.8, "the": 0.1, "I": 0.02}))
    assert preference.p_left == pytest.approx(0.8 / 0.82)
    assert (preference.status, preference.repairs) == ("repaired", ("label-outside-top",))


def test_only_twenty_tokens_count() -> None:
    others = {f"w{i}": 0.02 for i in range(19)}
    preference = PARSER.read(said("A", {"A": 0.5, **others, "B": 0.01}))
    assert preference.p_left == pytest.approx(0.5 / 0.52)
    assert preference.repairs == ("label-outside-top",)


def test_a_reply_of_one_other_token_is_read_by_its_logprobs() -> None:
    preference = PARSER.read(said("Passage", {"Passage": 0.7, "A": 0.1, "B": 0.2}))
    assert (preference.share, preference.repairs) == (0.0, ("from-logprobs",))
    assert preference.p_left == pytest.approx(1 / 3)
    assert PARSER.read(said("Passage", {"Passage": 1.0})).reason == "no-label"


@pytest.mark.parametrize("labels", [("A", "B"), ("1", "2"), ("left", "right"), ("Passage A", "Passage B")])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_it_is_read_as_it_was_written(labels: tuple[str, str], share: float) -> None:
    parser = CompareParser(labels)
    assert parser.read(Reply(parser.write(Preference(share=share)))) == Preference(share=share)


def test_its_options_name_left_right_and_tie() -> None:
    assert PARSER.options == ("A", "B", "tie")
    assert CompareParser(ties=False).options == ("A", "B")
    assert PARSER.write(Preference(status="failed")) == ""


def test_labels_must_differ() -> None:
    with pytest.raises(InputError, match="differ"):
        CompareParser(("A", "a"))
