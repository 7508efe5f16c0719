"""Choices in every form that models use, with their probabilities."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.llm.types import Reply
from llmrank.questions import Choice, Token
from llmrank.templates.parsers import ChooseParser

NUMBERS, LETTERS = ChooseParser("numbers"), ChooseParser("letters")


def token(text: str, **top: float) -> Token:
    """A token with the probabilities of the likeliest ones; `_` in a name is a leading space."""
    listed = tuple((name.replace("_", " "), math.log(p)) for name, p in top.items())
    return Token(text, max(logprob for _, logprob in listed), listed)


@pytest.mark.parametrize(
    "text",
    [
        "[2]",
        "2",
        "2.",
        "(2)",
        "2]",
        "Passage 2",
        "Passage [2]",
        "Document 2.",
        "**[2]**",
        "'2'",
        "²",
        "②",
        "<think>3 or 1?</think><answer>[2]</answer>",
        "Answer: 2",
        "**Answer:** [2]",
        "Final answer: [2]",
        "[RESULT] 2",
        "\\boxed{2}",
        '{"best": 2}',
        '```json\n{"best": "2", "why": "it has 3 facts"}\n```',
        "The most relevant passage is [2]",
        "The most relevant passage is 2.",
        'The most relevant passage to the query "who is it" is Passage 2, since it says so.',
        "Passage 2 is the most relevant of the 4 passages.",
        "Passage 2 provides the most relevant information.",
        "Passage 1 is about dogs, Passage 3 about cats. Therefore, the most relevant one is Passage 2.",
        "I would select Passage 2 because it is clear.",
        "[2] answers the query directly.",
        "2\n\nIt answers in full.",
        "[2]: it answers in full, unlike all others",
    ],
)
def test_a_number_in_any_form(text: str) -> None:
    assert NUMBERS.read(Reply(text), 4) == Choice(index=1)


WORST_IS_SECOND = [
    "The least relevant passage is Passage 2.",
    "Passage 2 is the least relevant.",
    "[2] is the most irrelevant one.",
    "[2] is the worst.",
    "[2] is less relevant than all others",
    "Textabschnitt 2 passt am schlechtesten.",
    '{"worst": 2}',
]


@pytest.mark.parametrize("text", WORST_IS_SECOND)
def test_the_worst_is_a_choice_only_where_it_is_asked_for(text: str) -> None:
    assert ChooseParser("numbers", worst=True).read(Reply(text), 4) == Choice(index=1)
    best = NUMBERS.read(Reply(text), 4)
    assert (best.status, best.index) == ("failed", None)


@pytest.mark.parametrize("text", ["The best one is [2].", "Passage 2 is the most relevant.", '{"best": 2}'])
def test_the_best_is_no_choice_of_the_worst(text: str) -> None:
    assert ChooseParser("numbers", worst=True).read(Reply(text), 4).status == "failed"


@pytest.mark.parametrize("worst", [False, True])
def test_of_the_best_and_the_worst_the_one_that_was_asked_for_counts(worst: bool) -> None:
    for text in ("The best is [1]; the worst is [3].", '{"best": 1, "worst": 3}'):
        assert ChooseParser("numbers", worst).read(Reply(text), 4).index == (2 if worst else 0)


@pytest.mark.parametrize(
    "text",
    [
        "C",
        "c",
        "C.",
        "(C)",
        "[C]",
        "'C'",
        "Passage C",
        "Option C",
        "C\n\nA clear answer",
        "C: because it answers",
        "Passage C is the most relevant",
        "C is the best.",
        "The best passage is C",
        "So the answer is C.",
        '{"choice": "C"}',
        "Passage A is off. A passage such as B is not bad. I choose Passage C.",
    ],
)
def test_a_letter_in_any_form(text: str) -> None:
    assert LETTERS.read(Reply(text), 4) == Choice(index=2)


def test_the_other_identifiers_are_read_too() -> None:
    assert NUMBERS.read(Reply("Passage B"), 4).index == 1
    assert LETTERS.read(Reply("[2]"), 4).index == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("<think>[2] it is", "truncated"),
        ("<think>[2]</think>", "empty"),
        ("[7]", "out-of-range"),
        ("[0]", "out-of-range"),
        ("Answer: 12", "out-of-range"),
        ("I cannot choose between these.", "refused"),
        ("I'm sorry, but I can't help with that request.", "refused"),
        ("The best is Passage 1. On reflection, the best is Passage 2.", "ambiguous"),
        ("Answer: 1\nAnswer: 2", "ambiguous"),
        ("[[1]] [[2]]", "ambiguous"),
        ("Passage 1 and Passage 2", "ambiguous"),
        ("The 3 passages are much alike.", "no-identifier"),
        ("Out of the [4] passages, none is relevant", "no-identifier"),
        ("Passage 1 is not the most relevant", "no-identifier"),
        ("1. A passage about dogs\n2. A passage about cats", "no-identifier"),
        ("A passage about dogs", "no-identifier"),
        ("1, 2, 3 or 4", "no-identifier"),
    ],
)
def test_what_is_no_choice(text: str, reason: str) -> None:
    choice = NUMBERS.read(Reply(text), 4)
    assert (choice.status, choice.reason, choice.index) == ("failed", reason, None)


def test_a_ranking_is_a_choice_of_its_first() -> None:
    assert NUMBERS.read(Reply("[3] > [1] > [2]"), 4) == Choice(status="repaired", repairs=("ranking",), index=2)


def test_the_distribution_stands_beside_the_choice() -> None:
    said = Reply("B", tokens=[token("B", B=0.5, A=0.2, _B=0.1, the=0.1, c=0.04, Z=0.01)])
    choice = LETTERS.read(said, 4)
    assert choice.index == 1
    assert choice.status == "ok"
    assert choice.distribution == pytest.approx((0.2 / 0.84, 0.6 / 0.84, 0.04 / 0.84, 0.0))


def test_the_distribution_is_taken_where_the_answer_stands() -> None:
    tokens = [token("Passage", Passage=0.9, A=0.1), token(" B", _B=0.7, _A=0.3), token(".", **{".": 1.0})]
    assert LETTERS.read(Reply("Passage B.", tokens=tokens), 2).distribution == pytest.approx((0.3, 0.7))


def test_a_number_of_several_tokens_has_no_distribution() -> None:
    digits = [token("1", **{"1": 0.9, "2": 0.1}), token("2", **{"2": 1.0})]
    choice = NUMBERS.read(Reply("12", tokens=digits), 20)
    assert (choice.index, choice.distribution) == (11, None)
    whole = [token("12", **{"12": 0.75, "2": 0.25})]
    distribution = NUMBERS.read(Reply("12", tokens=whole), 20).distribution
    assert distribution is not None
    assert distribution[11] == pytest.approx(0.75)


def test_a_reply_of_one_other_token_is_read_by_its_logprobs() -> None:
    said = Reply("The", tokens=[token("The", The=0.6, A=0.1, C=0.3)])
    choice = LETTERS.read(said, 3)
    assert (choice.status, choice.repairs, choice.index) == ("repaired", ("from-logprobs",), 2)
    assert choice.distribution == pytest.approx((0.25, 0.0, 0.75))
    assert LETTERS.read(Reply("The", tokens=[token("The", The=0.9, Dogs=0.1)]), 3).reason == "no-identifier"


@given(st.integers(1, 105), st.data())
def test_numbers_are_read_as_they_were_written(n: int, data: st.DataObject) -> None:
    choice = Choice(index=data.draw(st.integers(0, n - 1)))
    assert NUMBERS.read(Reply(NUMBERS.write(choice, n)), n) == choice


@given(st.integers(1, 26), st.data())
def test_letters_are_read_as_they_were_written(n: int, data: st.DataObject) -> None:
    choice = Choice(index=data.draw(st.integers(0, n - 1)))
    written = LETTERS.write(choice, n)
    assert len(written) == 1  # one token, whose rivals give the distribution
    assert LETTERS.read(Reply(written), n) == choice


def test_letters_end_at_z() -> None:
    with pytest.raises(InputError, match="26"):
        LETTERS.write(Choice(index=26), 30)
    assert LETTERS.write(Choice(status="failed"), 3) == ""
