"""Rankings in JSON replies: a list of identifiers, alone or under a key."""

from __future__ import annotations

import re
from typing import Any

import orjson

from llmrank.templates.parsers.chains import Chain, Groups
from llmrank.templates.parsers.identifiers import Identifiers, position_of
from llmrank.templates.parsers.reading import NAMES


def json_chain(text: str, kind: Identifiers) -> Chain | None:
    """The ranking in the JSON value that the text holds; None where there is none, or it does not parse."""
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing) + 1
        if start < 0 or end <= start:
            continue
        try:
            value = orjson.loads(text[start:end])
        except ValueError:
            continue
        groups = _ranking(value, kind, depth=0)
        if groups:
            return Chain(groups, start, end, "json", listed=True, leads=True, ends=True, whole=True)
    return None


def is_json_error(text: str) -> bool:
    """Whether the text is a server's error as JSON: what it lists are no identifiers."""
    return _ERROR.match(text) is not None and "rank" not in text.lower()


_ERROR = re.compile(r"[\s\[]{0,9}\{\s{0,9}[\"'](?:errors?|detail|message|fault|object|code|status)[\"']\s{0,9}:", re.I)
_RANKINGS: tuple[str, ...] = (
    "ranking",
    "rankings",
    "ranked",
    "rank",
    "order",
    "permutation",
    "sorted",
    "ranked_passages",
    "answer",
)
_RANKINGS = (*_RANKINGS, "result", "results", "output", "response", "passages", "documents", "ids", "identifiers")
_NAMES_OF_ONE: tuple[str, ...] = (
    "id",
    "identifier",
    "passage",
    "passage_id",
    "document",
    "document_id",
    "doc",
    "doc_id",
    "docid",
)
_NAMES_OF_ONE = (*_NAMES_OF_ONE, "item", "label", "index", "number", "letter")


def _ranking(value: Any, kind: Identifiers, depth: int) -> Groups | None:
    """The ranking that a JSON value is, or holds under a key that says so, or under its only key."""
    if isinstance(value, list):
        return _groups(value, kind)
    if not isinstance(value, dict) or depth > 3:
        return None
    by_key = {str(key).lower(): inner for key, inner in value.items()}
    keys = [key for key in _RANKINGS if key in by_key] or (list(by_key) if len(by_key) == 1 else [])
    return next((groups for key in keys if (groups := _ranking(by_key[key], kind, depth + 1))), None)


def _groups(values: list[Any], kind: Identifiers) -> Groups | None:
    """A list's positions; an inner list is a tie. None if anything in it is no identifier."""
    groups: Groups = []
    for value in values:
        tied = [_position(inner, kind) for inner in (value if isinstance(value, list) else [value])]
        group = [position for position in tied if position is not None]
        if len(group) < len(tied) or not group:
            return None
        groups.append(group)
    return groups


_IDENTIFIER = {
    "numbers": re.compile(
        rf"[\s\[(#]{{0,9}}(?:{NAMES}[\s_]{{0,3}}[:#-]?\s{{0,3}})?[\[(#]?(\d{{1,40}})[\s\])]{{0,9}}", re.I
    ),
    "letters": re.compile(rf"[\s\[(#]{{0,9}}(?:{NAMES}[\s_]{{0,3}}[:#-]?\s{{0,3}})?[\[(#]?([A-Z])[\s\])]{{0,9}}", re.I),
}


def _position(value: Any, kind: Identifiers) -> int | None:
    if isinstance(value, dict):
        by_key = {str(key).lower(): inner for key, inner in value.items()}
        return next((_position(by_key[key], kind) for key in _NAMES_OF_ONE if key in by_key), None)
    if isinstance(value, int) and not isinstance(value, bool):
        return value - 1 if kind == "numbers" else None
    match = _IDENTIFIER[kind].fullmatch(value) if isinstance(value, str) else None
    return position_of(match[1], kind) if match is not None else None
