"""Scores of all items of a group, in the forms in which models give them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.llm.types import Reply
from llmrank.questions import Order
from llmrank.templates import load
from llmrank.templates.parsers import ScoresParser

PARSER = ScoresParser("numbers", 0, 10)


@pytest.mark.parametrize(
    "text",
    [
        '{"[1]": 4, "[2]": 9, "[3]": 0.5}',
        '{"1": 4, "2": 9, "3": 0.5}',
        '```json\n{\n  "[1]": 4,\n  "[2]": 9,\n  "[3]": 0.5\n}\n```',
        '{"scores": {"[1]": "4", "[2]": "9", "[3]": "0.5"}}',
        '[{"id": 1, "score": 4}, {"id": 2, "score": 9}, {"id": 3, "score": 0.5}]',
        '{"[1]": {"score": 4}, "[2]": {"score": 9}, "[3]": {"score": 0.5}}',
        "[1]: 4\n[2]: 9\n[3]: 0.5",
        "[1]: 4, [2]: 9, [3]: 0.5",
        "1: 4\n2: 9\n3: 0.5",
        "- Passage 1: 4/10\n- Passage 2: 9/10\n- Passage 3: 0.5/10",
        "**[1]**: 4 (names the topic)\n**[2]**: 9 (answers it)\n**[3]**: 0.5",
        "| [1] | 4 |\n| [2] | 9 |\n| [3] | 0.5 |",
        "Document 1 scores 4, document 2 scores 9, document 3 scores 0.5.",
        "<think>[1]: 2, [2]: 3</think>\n[1] = 4\n[2] = 9\n[3] = 0.5",
        "［１］： ４\n［２］： ９\n［３］： 0.5",
    ],
)
def test_complete_scores_in_any_form_are_ok(text: str) -> None:
    assert PARSER.read(Reply(text), 3) == Order(permutation=(1, 0, 2), scores=(4.0, 9.0, 0.5))


def test_equal_scores_tie_and_stand_as_shown() -> None:
    answer = PARSER.read(Reply('{"[1]": 2, "[2]": 7, "[3]": 2, "[4]": 7}'), 4)
    assert answer.permutation == (1, 3, 0, 2)
    assert answer.ties == ((1, 3), (0, 2))
    assert answer.status == "ok"


@pytest.mark.parametrize(
    ("text", "repairs", "scores", "permutation"),
    [
        ('{"[1]": 2, "[3]": 7}', ("missing",), (2.0, None, 7.0), (2, 0, 1)),
        ('{"[1]": 2, "[2]": 3, "[3]": 7, "[4]": 9}', ("out-of-range",), (2.0, 3.0, 7.0), (2, 1, 0)),
        ('{"[1]": 2, "[2]": 11, "[3]": 7}', ("out-of-range", "missing"), (2.0, None, 7.0), (2, 0, 1)),
        ("[1]: 2\n[2]: 3\n[3]: 7\n[1]: 9", ("repeated",), (9.0, 3.0, 7.0), (0, 2, 1)),
        ('{"[1]": 2, "[2]": 3, "[3]": 1', ("missing",), (2.0, 3.0, None), (1, 0, 2)),
    ],
)
def test_what_is_repaired_is_named(
    text: str, repairs: tuple[str, ...], scores: tuple[float | None, ...], permutation: tuple[int, ...]
) -> None:
    answer = PARSER.read(Reply(text), 3)
    assert (answer.status, answer.repairs, answer.scores) == ("repaired", repairs, scores)
    assert answer.permutation == permutation


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("<think>[1]: 3", "truncated"),
        ("I'm sorry, but I can't score these.", "refused"),
        ("20 passages are provided.", "no-score"),
        ("[2] > [1] > [3]", "no-score"),
        ("[1]: 3 facts are told in it, and [2]: 2 more.", "no-score"),
        ('{"error": {"code": 3, "[1]": 2}}', "no-score"),
    ],
)
def test_what_holds_no_score_is_failed(text: str, reason: str) -> None:
    answer = PARSER.read(Reply(text), 3)
    assert (answer.status, answer.reason) == ("failed", reason)
    assert answer.permutation is answer.scores is None


@given(st.lists(st.none() | st.integers(0, 40).map(lambda quarter: quarter / 4), min_size=1, max_size=30))
def test_it_reads_what_it_writes(scores: list[float | None]) -> None:
    order = sorted(range(len(scores)), key=lambda i: -(scores[i] if scores[i] is not None else -1.0))  # type: ignore[operator]
    answer = PARSER.read(Reply(PARSER.write(Order(permutation=tuple(order), scores=tuple(scores)), 30)), len(scores))
    if any(score is not None for score in scores):
        assert answer.scores == tuple(scores)
        assert answer.permutation == tuple(order)
    else:
        assert answer.status == "failed"


@pytest.mark.parametrize("ties", [None, ((2,), (0, 1))])
def test_an_order_without_scores_is_spread_over_the_range(ties: tuple[tuple[int, ...], ...] | None) -> None:
    answer = PARSER.read(Reply(PARSER.write(Order(permutation=(2, 0, 1), ties=ties), 3)), 3)
    assert (answer.permutation, answer.ties) == ((2, 0, 1), ties)
    assert answer.scores is not None
    assert max(s for s in answer.scores if s is not None) == 10


def test_the_template_asks_for_what_the_parser_reads() -> None:
    template = load("listwise/group-scores")
    prompt = template.render("what is bm25", ["one text", "another"])
    assert "[2] another" in prompt.messages[-1][1]
    assert template.read(Reply('{"[1]": 4, "[2]": 9}'), 2) == Order(permutation=(1, 0), scores=(4.0, 9.0))
