"""What a reply is held to, in the words of each kind of server: OpenAI's and vLLM's fields, llama.cpp's, SGLang's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmrank.llm.backends.grammar import gbnf
from llmrank.llm.types import Constraint

Fields = dict[str, Any]
AROUND = {"before": "", "between": " > ", "after": ""}
"""What stands round the identifiers of a permutation, unless it says otherwise."""


def _response_format(schema: Any) -> Fields:
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}
    }


def _json_object(schema: Any) -> Fields:
    return {"response_format": {"type": "json_object", "schema": schema}}


def _structured(name: str) -> Callable[[Any], Fields]:
    return lambda value: {"structured_outputs": {name: value}}


def _any_of(words: Sequence[str]) -> str:
    return "|".join(map(_plain, words))


FORMS: dict[str, dict[str, Callable[[Any], Fields]]] = {
    "json_schema": {
        "response_format": _response_format,
        "json_object": _json_object,
        "structured_outputs": _structured("json"),
    },
    "choice": {
        "structured_outputs": _structured("choice"),
        "grammar": lambda words: {"grammar": gbnf(_any_of(words))},
        "regex": lambda words: {"regex": f"({_any_of(words)})"},
        "guided": lambda words: {"guided_choice": words},
    },
    "regex": {
        "structured_outputs": _structured("regex"),
        "grammar": lambda expression: {"grammar": gbnf(expression)},
        "regex": lambda expression: {"regex": expression},
        "guided": lambda expression: {"guided_regex": expression},
    },
    "permutation": {"regex": dict, "json_schema": dict},
}
"""The fields of each form by kind of constraint, the commonest form first.

`structured_outputs` is vLLM's and `guided` that of older ones, `grammar` and `json_object` are llama.cpp's, `regex` is
SGLang's. A permutation goes as one of the other kinds.
"""


def fields(constraint: Constraint, forms: Mapping[str, str], begun: str = "") -> Fields:
    """A constraint as fields of a body.

    forms: which form the server takes, by kind; else the commonest. begun: a beginning of the reply that is given.
    """
    kind, value = constraint
    form = forms.get(kind) or next(iter(FORMS[kind]))
    if kind == "permutation":
        value = permutation_regex(value, begun) if form == "regex" else permutation_schema(value)
        return fields(Constraint(form, value), forms)  # type: ignore[arg-type]  # forms of permutations are kinds
    return FORMS[kind][form](value)


def permutation_regex(value: Sequence[str] | Mapping[str, Any], begun: str = "") -> str:
    """`[2] > [1] > ...`, of the right length; no such expression can forbid that an identifier comes twice.

    A value that is a mapping gives the `identifiers` as they are written, and what stands `before`, `between`, `after`.
    """
    if isinstance(value, Mapping):
        names, texts = list(value["identifiers"]), [value.get(n, d) for n, d in AROUND.items()]
    else:
        names, texts = [f"[{name.strip('[]')}]" for name in value], list(AROUND.values())
    before, between, after = map(_plain, texts)
    one = f"({_any_of(names)})"
    first = one
    if not before and begun.endswith("[") and all(name.startswith("[") for name in names):
        first = f"({_any_of([name[1:] for name in names])})"
    rest = f"({between}{one}){{{len(names) - 1}}}" if len(names) > 1 else ""
    return f"{before}{first}{rest}{after}"


def permutation_schema(value: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """`{"ranking": [2, 1, ...]}`, of the right length."""
    given = value["identifiers"] if isinstance(value, Mapping) else value
    names = [name.strip("[]") for name in given]
    items = {"enum": [int(name) if name.isdecimal() else name for name in names]}
    ranking = {"type": "array", "items": items, "minItems": len(names), "maxItems": len(names)}
    return {
        "type": "object",
        "properties": {"ranking": ranking},
        "required": ["ranking"],
        "additionalProperties": False,
    }


def _plain(word: str) -> str:
    """A text as an expression that matches just this."""
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", word)
