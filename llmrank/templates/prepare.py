"""Making a text safe to show: a passage is data; it cannot forge a message boundary, an identifier or a mark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
BIDI = "\u202a-\u202e\u2066-\u2069"  # they would reorder what is printed around them
OPENING, CLOSING = "[［【", "]］】"
GAP = "[\\s\u200b-\u200f\u2060\ufeff]{0,8}"  # bounded, so that no text takes more than linear time
NUMBER = "[\\d\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089\u2460-\u2473]{1,5}"
NAME = "(?:(?:passage|document|doc|text|item|candidate|id)[s#:_.]{0,2})?"
SUSPECT = re.compile(rf"[<{re.escape(OPENING)}{CONTROLS}{BIDI}\ud800-\udfff]")
SUSPECT_BYTES = bytes(c for c in range(128) if SUSPECT.match(chr(c)))
CONTROL = re.compile(rf"[{CONTROLS}\ud800-\udfff]")
DIRECTION = re.compile(rf"[{BIDI}]")
IDENTIFIER = re.compile(
    rf"[{re.escape(OPENING)}]({GAP}{NAME}{GAP}\#?(?:{NUMBER}|[A-Za-zＡ-Ｚａ-ｚ]){GAP})[{re.escape(CLOSING)}]", re.I
)
# The marks by which chat formats in use separate messages, thinking, tools and answers.
MARK = re.compile(
    r"""<(?= \|[^|<>\s]{1,40}\|?> | [^|<>\s]{1,40}\|> | ｜[^｜<>]{1,40}｜>
           | /?s> | sop> | extra_id_\d{1,3}> | unused\d{1,3}> | </?SYS>>
           | (?:bos|eos|pad|unk|mask|sep|cls)(?:_token)?>
           | (?:start|end)_of_(?:turn|text|image)>
           | /?(?:seed:)?(?:think|thinking|thought|reason|reasoning|answer|system|user|assistant|tool_call
                            |tool_response|tools)\s{0,4}> )
      | \[(?= /?(?:INST|THINK|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|SYSTEM_PROMPT|IMG|gMASK|ARGS)\]
             | \|[^|\[\]\s]{1,40}\|\] )""",
    re.X | re.I,
)


def safe(text: str, *, identifiers: bool = True) -> str:
    """The text with control characters as spaces, chat marks broken by a space, and `[7]` as `(7)`.

    Everything else, line breaks and any script included, stays as it is. Without `identifiers` brackets stay too, for
    prompts that name no items. Takes time linear in the text.
    """
    # The common case is told in a fraction of the time that the expressions below take.
    if len(text.encode().translate(None, SUSPECT_BYTES)) == len(text) if text.isascii() else not SUSPECT.search(text):
        return text
    text = CONTROL.sub(" ", text)
    text = DIRECTION.sub("", text)
    text = MARK.sub(lambda mark: mark.group() + " ", text)
    return IDENTIFIER.sub(lambda found: f"({found[1].strip()})", text) if identifiers else text


def safe_values(value: Any) -> Any:
    """Metadata with every string in it made safe."""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, Mapping):
        return {safe_values(name): safe_values(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [safe_values(item) for item in value]
    return value
