"""Constraints reach each kind of server in its own words, and hold exactly what they should."""

from __future__ import annotations

import json
import re
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.llm.backends.constraints import FORMS, fields, permutation_regex, permutation_schema
from llmrank.llm.backends.grammar import gbnf
from llmrank.llm.types import Constraint
from llmrank.questions import Order
from llmrank.templates import load
from tests.llm.test_wire import completion

SCHEMA = {"type": "object"}
WORDS = ["yes", "no (at all)"]
SENT: list[tuple[str, Any, str, dict[str, Any]]] = [
    (
        "json_schema",
        SCHEMA,
        "response_format",
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    ("json_schema", SCHEMA, "json_object", {"response_format": {"type": "json_object", "schema": SCHEMA}}),
    ("json_schema", SCHEMA, "structured_outputs", {"structured_outputs": {"json": SCHEMA}}),
    ("choice", WORDS, "structured_outputs", {"structured_outputs": {"choice": WORDS}}),
    ("choice", WORDS, "regex", {"regex": r"(yes|no \(at all\))"}),
    ("choice", WORDS, "guided", {"guided_choice": WORDS}),
    ("choice", ["a", "b"], "grammar", {"grammar": 'root ::= "a" | "b"'}),
    ("regex", "[0-3]", "structured_outputs", {"structured_outputs": {"regex": "[0-3]"}}),
    ("regex", "[0-3]", "grammar", {"grammar": "root ::= [0-3]"}),
    ("regex", "[0-3]", "regex", {"regex": "[0-3]"}),
    ("regex", "[0-3]", "guided", {"guided_regex": "[0-3]"}),
]


@pytest.mark.parametrize(("kind", "value", "form", "sent"), SENT)
def test_each_form_has_its_fields(kind: Any, value: Any, form: str, sent: dict[str, Any]) -> None:
    assert fields(Constraint(kind, value), {kind: form}) == sent


def test_no_form_is_left_untested() -> None:
    assert {(kind, form) for kind, _, form, _ in SENT} == {
        (kind, form) for kind, forms in FORMS.items() for form in forms if kind != "permutation"
    }


def test_a_permutation_goes_as_the_form_that_the_server_takes() -> None:
    held = Constraint("permutation", ["1", "2"])
    expression = permutation_regex(["1", "2"])
    assert fields(held, {}) == {"structured_outputs": {"regex": expression}}
    assert fields(held, {"regex": "grammar"}) == {"grammar": gbnf(expression)}
    as_schema = fields(held, {"permutation": "json_schema", "json_schema": "json_object"})
    assert as_schema == {"response_format": {"type": "json_object", "schema": permutation_schema(["1", "2"])}}


@pytest.mark.parametrize("names", [["1"], ["1", "2", "3", "4"], ["A", "B", "C"], ["[1]", "[2]"]])
def test_a_permutation_is_held_to_form_and_length(names: list[str]) -> None:
    expression = re.compile(permutation_regex(names))
    plain = [name.strip("[]") for name in names]
    for order in permutations(plain):
        assert expression.fullmatch(" > ".join(f"[{name}]" for name in order))
    assert not expression.fullmatch(" > ".join(f"[{name}]" for name in [*plain, plain[0]]))
    assert not expression.fullmatch(" > ".join(f"[{name}]" for name in plain[1:]))
    assert not expression.fullmatch(" > ".join(f"[{name}9]" for name in plain))


def test_a_bracket_that_the_prompt_begins_with_is_not_written_again() -> None:
    assert re.fullmatch(permutation_regex(["1", "2"], "["), "2] > [1]")
    assert re.fullmatch(permutation_regex(["1", "2"], "Ranking: "), "[2] > [1]")


def test_a_permutation_may_say_what_stands_around_it() -> None:
    value = {"identifiers": ["d1", "d2"], "before": "(", "between": ", ", "after": ")."}
    assert re.fullmatch(permutation_regex(value), "(d2, d1).")
    assert permutation_schema(value)["properties"]["ranking"]["items"] == {"enum": ["d1", "d2"]}


@given(st.permutations(range(1, 8)))
def test_what_a_permutation_is_held_to_is_read_as_it(order: list[int]) -> None:
    names = [str(i) for i in range(1, len(order) + 1)]
    for text in (" > ".join(f"[{i}]" for i in order), json.dumps({"ranking": order})):
        answer = load("listwise/rank").read(Said(text), len(order))
        assert isinstance(answer, Order)
        assert (answer.status, answer.permutation) == ("ok", tuple(i - 1 for i in order))
    assert re.fullmatch(permutation_regex(names), " > ".join(f"[{i}]" for i in order))
    assert sorted(order) == permutation_schema(names)["properties"]["ranking"]["items"]["enum"]


class Said:
    tokens = None

    def __init__(self, text: str) -> None:
        self.text = completion(text)["choices"][0]["message"]["content"]


GRAMMARS = {
    "abc": '"a" "b" "c"',
    "a|b": '"a" | "b"',
    "(ab|c)d": '("a" "b" | "c") "d"',
    "(?:a)?b*c+": '("a")? "b"* "c"+',
    "a{3}b{1,2}c{2,}": '"a"{3} "b"{1,2} "c"{2,}',
    r"\d\w\s\D": r"[0-9] [a-zA-Z0-9_] [ \t\n\r] [^0-9]",
    r"[^a-z\d\]]": r"[^a-z0-9\]]",
    "[]x]": r"[\]x]",
    r"\[1\] > ": r'"[" "1" "]" " " ">" " "',
    r'"\\' + "\n": r'"\"" "\\" "\n"',
    r"\n.": r'"\n" [^\n]',
    "": '""',
    "a||b": '"a" | "" | "b"',
    "日|é": '"日" | "é"',
}


@pytest.mark.parametrize("expression", GRAMMARS)
def test_a_regular_expression_as_a_grammar(expression: str) -> None:
    assert gbnf(expression) == f"root ::= {GRAMMARS[expression]}"


@pytest.mark.parametrize("expression", ["(a", "a)", "[a", "^a$", "*a", r"\b", r"\1", "a{", "\\"])
def test_what_cannot_be_put_as_a_grammar_is_told(expression: str) -> None:
    with pytest.raises(InputError, match="cannot be put as a grammar"):
        gbnf(expression)
