"""Reads what a model wrote freely: a text, the items of a list, a JSON object."""

from __future__ import annotations

import re
from typing import Any

import orjson

from llmrank.questions import Said, Written
from llmrank.templates.parsers.reading import final_part, is_refusal

FENCE = re.compile(r"```[a-z]{0,12}\s*\n(.*?)```", re.S)
BULLET = re.compile(r"\s{0,8}(?:[-*•–]|\(?\d{1,3}[.):]|\[\d{1,3}\][.:]?|[A-Za-z][.)])\s+(.*)")
LONGEST_REFUSAL = 300  # characters; a longer text that says such a thing says other things too


class TextParser:
    """Reads the whole reply after its reasoning."""

    def read(self, said: Said, n: int = 0) -> Written:
        reading = final_part(said.text)
        if reading.reason:
            return Written(status="failed", reason=reading.reason)
        # The reply's own characters: `reading` has its digits and brackets made plain.
        text = said.text[reading.start : reading.start + len(reading.text)].strip()
        if len(text) <= LONGEST_REFUSAL and is_refusal(reading.text):
            return Written(status="failed", reason="refused")
        return Written(text=text)

    def write(self, answer: Written, n: int = 0) -> str:
        return answer.text or ""


class ListParser:
    """Reads a JSON list of strings, or a list of lines, numbered or bulleted or neither."""

    def read(self, said: Said, n: int = 0) -> Written:
        whole = TextParser().read(said)
        if whole.text is None:
            return whole
        parts = _json_items(whole.text) or _line_items(whole.text)
        if not parts:
            return Written(status="failed", reason="no-list")
        return Written(text="\n".join(parts), parts=parts)

    def write(self, answer: Written, n: int = 0) -> str:
        return "\n".join(f"{i}. {part}" for i, part in enumerate(answer.parts or (answer.text or "",), 1))


class ObjectParser:
    """Reads a JSON object; `parts` are its keys, `text` the object as compact JSON."""

    def read(self, said: Said, n: int = 0) -> Written:
        whole = TextParser().read(said)
        if whole.text is None:
            return whole
        found = _json_object(whole.text)
        if found is None:
            return Written(status="failed", reason="no-object")
        return Written(text=orjson.dumps(found).decode(), parts=tuple(found))

    def write(self, answer: Written, n: int = 0) -> str:
        text = answer.text or ""
        return text if _json_object(text) is not None else orjson.dumps({"text": text}).decode()


def _json_object(text: str) -> dict[str, Any] | None:
    fenced = FENCE.search(text)
    inside = fenced[1] if fenced else text
    start, end = inside.find("{"), inside.rfind("}")
    if not 0 <= start < end:
        return None
    try:
        found: dict[str, Any] = orjson.loads(inside[start : end + 1])
    except orjson.JSONDecodeError:
        return None
    return found or None


def _json_items(text: str) -> tuple[str, ...]:
    fenced = FENCE.search(text)
    inside = fenced[1] if fenced else text
    start, end = inside.find("["), inside.rfind("]")
    if not 0 <= start < end:
        return ()
    try:
        items = orjson.loads(inside[start : end + 1])
    except orjson.JSONDecodeError:
        return ()
    return tuple(_flat(item) for item in items if isinstance(item, str) and item.strip())


def _line_items(text: str) -> tuple[str, ...]:
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("```")]
    listed = [_flat(match[1]) for line in lines if (match := BULLET.fullmatch(line)) and match[1].strip()]
    if listed:  # what stands around a list introduces or ends it
        return tuple(listed)
    return tuple(_flat(line) for line in lines if not line.rstrip().endswith(":"))


def _flat(text: str) -> str:
    return " ".join(text.split())
