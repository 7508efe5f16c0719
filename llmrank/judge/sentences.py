"""Sentences of a text, and the keys by which a prompt names them."""

from __future__ import annotations

import re
import string

WORD = re.compile(r"\S+")
ABBREVIATIONS = frozenset(
    WORD.findall(
        "al approx ca cf co corp dept dr e.g est gen gov i.e inc jr ltd mr mrs ms prof rev sen sgt sr st u.k u.s vs"
    )
)
BEFORE_NUMBERS = frozenset(WORD.findall("art ch eq fig figs lt no nos p pp ref refs sec vol vols"))
# A line break ends a sentence where a list item follows or the line before it is blank; elsewhere it is a space.
BREAK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*•–]\s|\(?\d{1,3}[.)]\s))")
END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)|[。！？｡]+[」』”’）]*""")
BEFORE = re.compile(r"[^\s(\[\"'“‘«]*\Z")
LETTERS = string.ascii_lowercase


def sentences(text: str) -> list[str]:
    """The sentences of a text, each on one line; a text without any end of a sentence is one.

    Split after `.`, `!`, `?` and their Chinese and Japanese forms, at blank lines and before items of a list; not
    after an initial, a common abbreviation or the number of an item, nor before a small letter.
    """
    found: list[str] = []
    for block in BREAK.split(text):
        start = 0
        for end in END.finditer(block):
            if _is_end(block, start, end):
                found.append(block[start : end.end()])
                start = end.end()
        found.append(block[start:])
    flat = (" ".join(sentence.split()) for sentence in found)
    return [sentence for sentence in flat if sentence]


def letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ...: the key of the sentence with this number, from 0."""
    key = ""
    number += 1
    while number:
        number, last = divmod(number - 1, len(LETTERS))
        key = LETTERS[last] + key
    return key


def _is_end(block: str, start: int, end: re.Match[str]) -> bool:
    if end[0][0] in "。！？｡":
        return True
    following = block[end.end() : end.end() + 40].lstrip()
    if following[:1].islower():
        return False
    if end[0] != ".":
        return True
    word = BEFORE.search(block, max(start, end.start() - 24), end.start())
    last = word[0].casefold() if word else ""
    if not block[start : end.start()].strip(" ()\t").strip(string.digits):  # the number of an item
        return False
    if last in BEFORE_NUMBERS and following[:1].isdigit():
        return False
    return not (last in ABBREVIATIONS or (len(last) == 1 and last.isalpha()))
