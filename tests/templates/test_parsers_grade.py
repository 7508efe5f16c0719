"""Labels and scores: in words, in probabilities, and what must never become a grade."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.llm.types import Reply
from llmrank.questions import Grade, Token
from llmrank.templates.parsers import LabelParser, ScoreParser, ambiguous_first_tokens

GRADES = {"0": 0.0, "1": 1.0, "2": 2.0, "3": 3.0}
YES_NO = {"no": 0.0, "yes": 1.0}
WORDS = {"irrelevant": 0.0, "relevant": 1.0, "highly relevant": 2.0}
LABEL, YES = LabelParser(GRADES), LabelParser(YES_NO, "probability")


def said(text: str, *tops: dict[str, float]) -> Reply:
    """A reply whose tokens are the first of each of `tops` (token: probability)."""
    tokens = [Token(next(iter(top)), 0.0, tuple((t, math.log(p)) for t, p in top.items())) for top in tops]
    return Reply(text, tokens=tokens)


@pytest.mark.parametrize(
    "text",
    [
        "2",
        "2.",
        "2.0",
        "**2**",
        "'2'",
        "２",
        "²",
        "②",
        "२",
        "##final score: 2",
        "##Final Score: **2**",
        "Final score: 2",
        "Final score: [2]",
        "Topic 3, intent 1.\n##final score: 2",
        "M: 3\nT: 1\nO: 2",
        "M: 3, T: 1, O: 2",
        '{"O": 2}',
        '{"M": 3, "T": 1, "O": 2}',
        '```json\n{"reason": "it has 3 facts", "score": 2}\n```',
        '{"label": "2"}',
        "[RESULT] 2",
        "Feedback: not a 3, rather weak. [RESULT] 2",
        "<reasoning>a 1 or a 3</reasoning><highlight>['3']</highlight><score>2</score>",
        "<think>3</think>2",
        "<answer>2</answer>",
        "**Reasoning:** it has 3 facts.\n**Result:** 2",
        "yes(2)",
        "Score: 2",
        "Score (0-3): 2",
        "Score: 2/3",
        "2 out of 3",
        "Relevance: 2",
        "The relevance score is 2 because it names 1 of 3.",
        "It answers the question only in part, so the label is 2.",
        "A score of 3 means perfect; I would give it a 2.",
        "I would rate this passage as a 2 out of 3.",
        "We cannot determine the year from the passage, so the label is 2.",
        "1. Intent: x\n2. Match: y\nScore: 2",
        "2 - highly relevant",
        "2 - relevant, but no 3",
        "0 - nothing\n1 - topic\n2 - part\n3 - full\n##final score: 2 - relevant",
        "##final score: 2 ##final score: 2",
        "2 (relevant, not perfect)",
        "2\n\nIt has 3 facts.",
        "\\boxed{2}",
        "##final score: <2>",
        "Level: 2",
        "Relevance level: 2",
    ],
)
def test_a_grade_in_any_form(text: str) -> None:
    assert LABEL.read(Reply(text)) == Grade(value=2.0, label="2")


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "Yes.",
        "YES",
        "yes(3)",
        "Yes, it does.",
        "Yes. It answers with no doubt.",
        "Answer: yes",
        "Judgment: Yes",
        "The answer is yes.",
        "It names the year. Therefore, yes.",
        '{"label": "yes"}',
        "<think>no</think> Yes",
    ],
)
def test_a_word_in_any_form(text: str) -> None:
    assert LabelParser(YES_NO).read(Reply(text)) == Grade(value=1.0, label="yes")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("relevant", "relevant"),
        ("Highly relevant", "highly relevant"),
        ("highly_relevant", "highly relevant"),
        ("The passage is relevant.", "relevant"),
        ("The passage is highly relevant.", "highly relevant"),
        ("It is irrelevant because it is off topic.", "irrelevant"),
        ("Label: highly relevant", "highly relevant"),
        ("The passage is not relevant.", None),
        ("not relevant", None),
        ("irrelevant or relevant", None),
    ],
)
def test_labels_that_are_parts_of_each_other(text: str, label: str | None) -> None:
    assert LabelParser(WORDS).read(Reply(text)).label == label


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("<think>2</think>", "empty"),
        ("<reasoning>the label is 2</reasoning>", "empty"),
        ("<think>the label is 2", "truncated"),
        ("I cannot judge this passage as it was published in 2019", "refused"),
        ("I'm sorry, but I can't help with that request.", "refused"),
        ("10", "out-of-range"),
        ("-1", "out-of-range"),
        ("2.5", "out-of-range"),
        ("Score: 10", "out-of-range"),
        ("##final score: 4", "out-of-range"),
        ("<score>7</score>", "out-of-range"),
        ("##final score: 2\n##final score: 3", "ambiguous"),
        ("Score: 1\nScore: 3", "ambiguous"),
        ('[{"O": 1}, {"O": 2}]', "ambiguous"),
        ('{"O": 1} {"O": 2}', "ambiguous"),
        ("##final score: 2 ##final score: 3", "ambiguous"),
        ("Final score: 2 final score: 3", "ambiguous"),
        ("Final score: 2. Actually 3.", "ambiguous"),
        ("##final score: 2\n\nWait, 3.", "ambiguous"),
        ("0, 1, 2 or 3", "no-label"),
        ("3: answers it; 2: in part; 1: on topic; 0: nothing", "no-label"),
        ("0 = off topic. 1 = on topic. 2 = in part. 3 = in full.", "no-label"),
        ("0 = off topic\n1 = on topic\n2 = in part\n3 = in full", "no-label"),
        ("Score: 0 - off topic, 1 - on topic, 2 - in part, 3 - in full", "no-label"),
        ("Score: 0, 1, 2 or 3", "no-label"),
        ("Final score: 2 or 3", "no-label"),
        ("0-3", "no-label"),
        ("The grade is one of 0, 1, 2 or 3.", "no-label"),
        ("The score is between 0 and 3", "no-label"),
        ("M: 2\nT: 1", "no-label"),
        ("The passage mentions 3 facts.", "no-label"),
        ("1. Intent: x\n2. Match: y", "no-label"),
        ("Since the passage is 2 pages long", "no-label"),
        ("The passage says the score was 3 to 2", "no-label"),
        ("Note: 2 of the facts are missing", "no-label"),
        ("Level 2 of the building is meant", "no-label"),
    ],
)
def test_a_failed_label_is_never_a_grade(text: str, reason: str) -> None:
    grade = LABEL.read(Reply(text))
    assert (grade.status, grade.reason, grade.value, grade.label) == ("failed", reason, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "yes or no",
        "Yes/No",
        "yes, no",
        "no healthy upstream",
        "No server is available to handle this request.",
        "The answer is no longer relevant",
        "No, I cannot judge this passage.",
        "No. It is off topic. So the answer is yes.",
        "maybe",
    ],
)
def test_words_that_are_no_verdict(text: str) -> None:
    assert LabelParser(YES_NO).read(Reply(text)).status == "failed"


def test_the_probability_of_the_most_relevant_label() -> None:
    grade = YES.read(said("Yes", {"Yes": 0.4, "yes": 0.1, " No": 0.2, "▁no": 0.05, "\nNO": 0.05, "maybe": 0.1}))
    assert grade.value == pytest.approx(0.5 / 0.8)
    assert (grade.status, grade.score_kind, grade.label) == ("ok", "probability", "yes")
    assert grade.distribution == pytest.approx({"no": 0.3 / 0.8, "yes": 0.5 / 0.8})


def test_only_the_twenty_most_likely_tokens_count() -> None:
    others = {f"w{i}": 0.02 for i in range(19)}
    grade = YES.read(said("yes", {"yes": 0.4, **others, "no": 0.01}))
    assert grade.value == pytest.approx(0.4 / 0.42)  # no: as likely as the 20th
    assert (grade.status, grade.repairs) == ("repaired", ("label-outside-top",))


def test_neither_label_among_the_tokens_is_a_failure() -> None:
    assert YES.read(said("The", {"The": 0.9, "a": 0.1})).reason == "no-label"
    outside = Reply("yes", tokens=[Token("yes", -9.0, (("The", -0.1), ("a", -3.0)))])
    assert YES.read(outside).reason == "no-label"


def test_the_first_token_decides_where_the_words_do_not() -> None:
    grade = YES.read(said("The", {"The": 0.5, "yes": 0.1, "no": 0.3}))
    assert (grade.status, grade.label) == ("ok", "no")
    assert grade.value == pytest.approx(0.25)


def test_the_label_is_found_after_the_reasoning() -> None:
    tokens = [{"<think>": 1.0, "yes": 0.1}, {"no": 1.0}, {"</think>": 1.0}, {"\n": 1.0}, {"yes": 0.75, "no": 0.25}]
    assert YES.read(said("<think>no</think>\nyes", *tokens)).value == pytest.approx(0.75)
    score = [{"##final": 1.0}, {" score": 1.0}, {":": 1.0}, {" ": 1.0}, {"2": 0.5, "3": 0.5}]
    grade = LabelParser(GRADES, "expected").read(said("##final score: 2", *score))
    assert (grade.value, grade.label) == (pytest.approx(2.5), "2")


def test_the_expected_grade() -> None:
    grade = LabelParser(GRADES, "expected").read(said("2", {"2": 0.5, "3": 0.25, " 1": 0.05, "two": 0.1}))
    assert grade.value == pytest.approx((2 * 0.5 + 3 * 0.25 + 1 * 0.05) / 0.8)
    assert (grade.status, grade.score_kind) == ("ok", "expected-grade")
    assert grade.distribution == pytest.approx({"0": 0.0, "1": 0.0625, "2": 0.625, "3": 0.3125})


def test_a_prefix_counts_only_where_no_token_is_the_label() -> None:
    parser = LabelParser({"irrelevant": 0, "relevant": 1}, "probability")
    pieces = said("relevant", {" rele": 0.6, "irr": 0.2, "": 0.1}, {"vant": 1.0})
    assert parser.read(Reply(" relevant", tokens=pieces.tokens)).value == pytest.approx(0.75)
    both = said("yes", {"yes": 0.5, "y": 0.3, "n": 0.25})
    assert YES.read(both).value == pytest.approx(0.5 / 0.75)


def test_without_tokens_the_named_label_stands_in_and_says_so() -> None:
    expected = Grade(status="repaired", repairs=("no-logprobs",), value=1.0, score_kind="grade", label="yes")
    assert YES.read(Reply("yes")) == expected
    assert YES.read(Reply("yes", tokens=[Token("yes", -0.1)])) == expected
    assert YES.read(Reply("yes", tokens=[Token("other text", 0.0, (("other text", 0.0),))])) == expected
    graded = LabelParser(GRADES, "expected").read(Reply("2"))
    assert (graded.value, graded.score_kind, graded.repairs) == (2.0, "grade", ("no-logprobs",))
    assert LABEL.read(Reply("2")).status == "ok"


def test_a_token_that_holds_more_than_the_label_falls_back() -> None:
    grade = YES.read(said('{"label":"yes"}', {'{"label":': 1.0}, {'"yes"}': 0.9, '"no"}': 0.1}))
    assert (grade.label, grade.repairs) == ("yes", ("no-logprobs",))


@given(st.dictionaries(st.sampled_from(["yes", " Yes", "no", "No", "x", "y", "zz"]), st.floats(-30, 0), min_size=1))
def test_the_probability_against_a_plain_sum(top: dict[str, float]) -> None:
    mass = {"yes": 0.0, "no": 0.0}
    for text, logprob in top.items():
        if text.strip().lower() in mass:
            mass[text.strip().lower()] += math.exp(logprob)
    if mass["yes"] and mass["no"]:
        grade = YES.read(Reply("x", tokens=[Token("x", 0.0, tuple(top.items()))]))
        assert grade.value == pytest.approx(mass["yes"] / (mass["yes"] + mass["no"]))


@pytest.mark.parametrize(
    "labels", [GRADES, YES_NO, WORDS, {"-1": -1, "0": 0, "1": 1}, {"Not Relevant": 0, "Perfect": 3}]
)
def test_labels_are_read_as_they_were_written(labels: dict[str, float]) -> None:
    parser = LabelParser(labels)
    for label, value in labels.items():
        assert parser.read(Reply(parser.write(Grade(value=value, label=label)))) == Grade(value=value, label=label)
        assert parser.write(Grade(value=value + 0.2)) == label
    assert parser.write(Grade(status="failed")) == ""
    assert YES.write(Grade(value=0.7, score_kind="probability")) == "yes"


def test_labels_that_cannot_be_used_are_refused() -> None:
    for labels in ({"yes": 1.0}, {"": 0.0, "yes": 1.0}, {"Yes": 0.0, "yes": 1.0}):
        with pytest.raises(InputError):
            LabelParser(labels)
    with pytest.raises(InputError, match="two labels"):
        LabelParser(GRADES, "probability")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("85", 85),
        ("85/100", 85),
        ("85%", 85),
        ("7.5", 7.5),
        ("Score: 85", 85),
        ("<score> 4 </score>", 4),
        ("I rate it 80 out of 100.", 80),
        ("It names 3 causes.\n\nFinal score: 42", 42),
        ("120", "out-of-range"),
        ("-5", "out-of-range"),
        ("Score: 85\nScore: 90", "ambiguous"),
        ("0-100", "no-score"),
        ("85-90", "no-score"),
        ("85 or 90", "no-score"),
        ("7/10", "no-score"),
        ("It was published in 1999 on 12 pages.", "no-score"),
        ("10 passages", "no-score"),
        ("I cannot score this.", "refused"),
        ("", "empty"),
    ],
)
def test_scores_on_a_range(text: str, value: float | str) -> None:
    grade = ScoreParser(0, 100).read(Reply(text))
    assert (grade.reason if grade.value is None else grade.value) == value


@given(st.decimals(0, 100, places=2))
def test_scores_are_read_as_they_were_written(score: object) -> None:
    grade = Grade(value=float(str(score)), score_kind="score")
    parser = ScoreParser(0, 100)
    assert parser.read(Reply(parser.write(grade))) == grade


def test_a_range_has_two_ends() -> None:
    with pytest.raises(InputError, match="higher end"):
        ScoreParser(5, 5)


def test_labels_that_share_a_first_token() -> None:
    assert ambiguous_first_tokens(["no", "yes"]) == []
    assert ambiguous_first_tokens(list(GRADES)) == []
    assert ambiguous_first_tokens(["irrelevant", "relevant"]) == []
    assert ambiguous_first_tokens(["1", "5", "10"]) == [("1", "10")]
    assert ambiguous_first_tokens(["not relevant", "not at all", "relevant"]) == [("not relevant", "not at all")]
    assert ambiguous_first_tokens(["-1", "-2", "1"]) == [("-1", "-2")]


def test_labels_that_share_a_first_token_of_a_tokeniser() -> None:
    def by_bytes(text: str) -> list[int]:
        return [1, *text.encode()]  # a begin-of-text mark, then one token for each byte

    def by_words(text: str) -> list[int]:
        return [hash(word) for word in text.split(" ") if word]

    assert ambiguous_first_tokens(["partly", "perfectly", "none"], by_bytes) == [("partly", "perfectly")]
    assert ambiguous_first_tokens(["partly", "perfectly", "none"], by_words) == []
    assert ambiguous_first_tokens(["very relevant", "very bad", "bad"], by_words) == [("very relevant", "very bad")]
