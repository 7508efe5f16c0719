"""No text makes a parser raise, and what servers say when they fail is no answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmrank.llm.types import Reply
from llmrank.questions import KINDS, Answer, Choice, Grade, Order, Preference, Token, Written
from llmrank.templates.parsers import (
    PARSERS,
    ChooseParser,
    CompareParser,
    LabelParser,
    OrderParser,
    ScoreParser,
    ScoresParser,
    reading,
)

GRADES = {"0": 0.0, "1": 1.0, "2": 2.0, "3": 3.0}
READERS: dict[str, Callable[[Reply, int], Answer]] = {
    "order": OrderParser().read,
    "order of letters": OrderParser("letters", "json").read,
    "choose": ChooseParser().read,
    "choose letters": ChooseParser("letters").read,
    "compare": CompareParser().read,
    "labels": LabelParser(GRADES, "expected").read,
    "words": LabelParser({"irrelevant": 0, "relevant": 1}, "probability").read,
    "yes-no": LabelParser({"no": 0, "yes": 1}, "probability").read,
    "scores": ScoreParser(0, 100).read,
    "scores of a group": ScoresParser("numbers", 0, 10).read,
}
VALID = [
    "[3] > [1] > [2] = [4]",
    '{"ranking": [3, [1, 2], 4]}',
    "1. [3]\n2. [1]\n3. Passage 2",
    "<think>[1]</think><answer>[2] > [1]</answer>",
    "```json\n[\"[2]\", '1']\n```",
    "[B] > [A] > [C]",
    "The most relevant passage is [2].",
    "Therefore, Output (b) is better.",
    "M: 2\nT: 1\nO: 2",
    "##final score: 2/3",
    "<reasoning>r</reasoning><highlight>h</highlight><score>4</score>",
    "yes(3)",
    "［３］＞［①］",
    "[RESULT] A [[B]] \\boxed{C}",
    '{"[1]": 5, "[2]": 7.5}',
]
PIECES = [
    "[",
    "]",
    ">",
    "=",
    ",",
    "1",
    "2",
    "12",
    "A",
    "B",
    " ",
    "\n",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "{",
]
PIECES += [
    "}",
    '"',
    "Passage ",
    "score: ",
    "is better",
    "yes",
    "or",
    "/",
    "-",
    "\u0663",
    "\u2460",
    "\ud800",
    "*",
    "`",
    ".",
]


def check(answer: Answer, n: int) -> None:
    """What holds of every answer, whatever was said."""
    assert answer.status in ("ok", "repaired", "failed")
    assert (answer.status == "repaired") == bool(answer.repairs)
    assert (answer.status == "failed") == (answer.reason is not None)
    if isinstance(answer, Order) and answer.usable:
        assert sorted(answer.permutation or ()) == list(range(n))
        if answer.ties is not None:
            named = [i for group in answer.ties for i in group]
            assert tuple(named) == (answer.permutation or ())[: len(named)]
    if isinstance(answer, Choice):
        assert answer.index in range(n) if answer.usable else answer.index is None
        assert answer.distribution is None or sum(answer.distribution) == pytest.approx(1)
    if isinstance(answer, Preference):
        assert (answer.share in (0.0, 0.5, 1.0)) == answer.usable
    if isinstance(answer, Grade):
        assert (answer.value is not None) == answer.usable


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid reply with some of it cut, repeated or replaced."""
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 6)))
        text = text[:start] + draw(st.sampled_from(["", *PIECES]) | st.text(max_size=3)) + text[end:]
    return text


texts = (
    st.text()
    | st.text(st.characters(exclude_categories=()), max_size=40)  # lone surrogates, too
    | mutated()
    | st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
)
tokens = st.none() | st.lists(
    st.builds(
        Token,
        st.sampled_from(PIECES) | st.text(max_size=4),
        st.floats(max_value=0),
        st.lists(st.tuples(st.sampled_from(PIECES) | st.text(max_size=3), st.floats()), max_size=25).map(tuple),
    ),
    max_size=6,
)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150, deadline=None)
@given(text=texts, n=st.integers(1, 30))
@example(text="[" * 500, n=3)
@example(text="1" * 5000, n=3)
@example(text="[" + "9" * 5000 + "] > [1]", n=3)
@example(text="[[[[" * 400 + "1" + "]]]]" * 400, n=3)
@example(text='{"ranking": ' * 1200, n=3)
def test_no_text_raises(name: str, text: str, n: int) -> None:
    check(READERS[name](Reply(text), n), n)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None)
@given(said=tokens, text=texts, spelled=st.booleans(), n=st.integers(1, 30))
def test_no_tokens_raise(name: str, said: list[Token] | None, text: str, spelled: bool, n: int) -> None:
    text = "".join(token.text for token in said) if said and spelled else text
    check(READERS[name](Reply(text, tokens=said), n), n)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("beginning", ["the best is", "A is", "score:", "[1] >", "I"])
@pytest.mark.parametrize("run", [" ", "\n", "a ", "(", "①"])
def test_a_reply_that_degenerates_into_a_run_is_read_to_its_end(name: str, beginning: str, run: str) -> None:
    check(READERS[name](Reply(beginning + run * (2000 // len(run)) + " x"), 5), 5)


ERRORS = [
    "Error code: 429 - {'error': {'message': 'Rate limit reached for 3 requests'}}",
    '{"error": {"message": "Rate limit reached for 3 requests", "type": "tokens", "code": 2}}',
    '{"error": {"code": 3, "passages": [1, 2]}}',
    '{"object": "error", "message": "max 2 or 3", "type": "BadRequestError", "code": 400}',
    '{"detail": [{"loc": ["body", 1], "msg": "field required", "type": "value_error"}]}',
    "HTTP 500",
    "HTTP/1.1 502 Bad Gateway",
    "Error: upstream returned 502",
    "503 Service Unavailable",
    "no healthy upstream",
    "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
    "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center><hr>"
    "<center>nginx/1.18.0</center></body></html>",
    "<!DOCTYPE html>\n<html lang=en>\n<TITLE>Error 2</TITLE>\n<P><B>3.</B> That's an error.\n<A HREF=x>B</A>\n</html>",
    'Traceback (most recent call last):\n  File "a.py", line 3, in <module>\nIndexError: list index 2 out of range',
    "Request timed out after 60 seconds (attempt 2 of 3).",
    "This model's maximum context length is 4096 tokens. However, you requested 4100 tokens (4000 in the messages).",
]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", ERRORS)
def test_an_error_message_is_no_answer(name: str, text: str) -> None:
    answer = READERS[name](Reply(text), 20)
    assert answer.status == "failed", answer


class Header:
    """The part of a template's header that parsers look at."""

    labels = GRADES
    scoring = "label"
    range = (0.0, 10.0)
    identifiers = "numbers"
    worst = False
    validation = r"\[\d+\]( > \[\d+\])*"
    extraction = r"\[(\d+)\]"


WRITTEN = {
    "list": Written(text="one\ntwo", parts=("one", "two")),
    "object": Written(text='{"a":1,"b":[2]}', parts=("a", "b")),
}


@pytest.mark.parametrize("name", [name for name in PARSERS if name != "likelihood"])  # nothing is written for that
def test_every_parser_reads_what_it_writes(name: str) -> None:
    kind, make = PARSERS[name]
    assert kind in KINDS
    parser = make(Header())  # type: ignore[arg-type]
    answers: dict[str, Answer] = {
        "order": Order(permutation=(2, 0, 1), scores=(5.0, 0.0, 10.0) if name == "scores" else None),
        "choose": Choice(index=1),
        "compare": Preference(share=0.0),
        "grade": Grade(value=2.0, score_kind="score") if name == "score" else Grade(value=2.0, label="2"),
        "write": WRITTEN[name] if name in WRITTEN else Written(text="one\ntwo"),
    }
    n = {"order": 3, "choose": 3, "compare": 2, "grade": 1, "write": 0}[kind]
    assert parser.read(Reply(parser.write(answers[kind], n)), n) == answers[kind]


@given(st.text(st.characters(exclude_categories=())))
def test_plain_text_is_made_one_character_at_a_time(text: str) -> None:
    """So that tokens, made plain one by one, spell the plain reply."""
    assert reading.plain(text) == "".join(reading.plain(char) for char in text)
    assert reading.plain(reading.plain(text)) == reading.plain(text)
