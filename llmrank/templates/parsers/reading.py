"""What every parser does first: find the part of a reply that answers, in plain characters."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

NAMES = (
    r"(?:passage|document|doc|text|item|candidate|option|article|paragraph|snippet|psg|abstract|chunk|output"
    r"|response|assistant|id|(?:text)?abschnitt|textstelle|dokument|pasaje|documento|texto|段落|文档|文章|文本|代码)"
)
"""The nouns by which prompts and models name what is shown: `Passage 3`, `Output (a)`, `Abschnitt B`, `段落 2`."""


class Reading(NamedTuple):
    """The answering part of a reply, or why there is none."""

    text: str
    start: int = 0
    """Where `text` begins in the plain form of the reply (see `plain`)."""
    reason: str | None = None
    """`empty` or `truncated`, where there is nothing to be read."""


def final_part(reply: str) -> Reading:
    """What a reply says after its reasoning, inside its last `<answer>` where it has one, without markup.

    Everything is done in place, at equal length, so that an offset in `text` leads back to the token it came from.
    """
    text = plain(reply)
    start, end = 0, len(text)
    if "<" in text or "[/THINK]" in text or "[THINK]" in text:
        after = _after_reasoning(text)
        if after is None:
            return Reading("", reason="truncated")
        start, end = _answer(text, after)
    if _MARKUP_HINT.search(text, start, end):
        part = _MARKUP.sub(_blank, text[start:end])
    else:
        part = text[start:end]
    part = part.rstrip()
    return Reading(part, start) if part else Reading("", start, "empty")


def plain(text: str) -> str:
    """Digits of any script and look-alikes of brackets and signs as ASCII, one character at a time."""
    return text if text.isascii() else "".join(map(_plain_character, text))


def is_refusal(text: str) -> bool:
    """Whether a reply that names no answer says that it will not give one."""
    return _REFUSAL.search(text) is not None


def declines(text: str) -> bool:
    """Whether a reply says outright that it cannot do what it was asked, whatever labels its sentences hold."""
    return _DECLINE.search(text) is not None


def is_declined(before: str) -> bool:
    """Whether what follows these words is what a reply says it cannot do: `I cannot rank [1] > [2]`."""
    return _DECLINED.search(before) is not None


_LOOKALIKES = {
    **dict.fromkeys("≻⟩〉›»→➔➜➡⇒❯▶≥⊳", ">"),
    **dict.fromkeys("≈≡∼", "="),
    **dict.fromkeys("【〔〖「『", "["),
    **dict.fromkeys("】〕〗」』", "]"),
    **dict.fromkeys("、،؛", ","),
    **dict.fromkeys("‘’ʼ", "'"),
    **dict.fromkeys("“”„", '"'),
    **dict.fromkeys("‐‑‒–—−", "-"),
    **dict.fromkeys("•·◦▪‣", "-"),
    "。": ".",
    "\ufe0f": "",  # an emoji digit is a digit, a variation selector and an enclosing key
    "\u20e3": "",
}


@lru_cache(maxsize=8192)
def _plain_character(char: str) -> str:
    if char.isascii():
        return char
    if char in _LOOKALIKES:
        return _LOOKALIKES[char]
    category = unicodedata.category(char)
    if category in ("Nd", "No"):
        value = unicodedata.numeric(char, -1.0)
        if value >= 0 and value.is_integer():
            digits = str(int(value))
            # Circled and parenthesised numbers are whole numbers: two of them side by side are not one.
            return digits if category == "Nd" or _is_script(char) else f" {digits} "
    if category == "Cf":
        return ""
    if category[0] == "Z":
        return " " if category == "Zs" else "\n"
    compatible = unicodedata.normalize("NFKC", char)
    return compatible if compatible.isascii() else char


def _is_script(char: str) -> bool:
    return unicodedata.decomposition(char).startswith(("<super>", "<sub>"))


_REASONING = re.compile(
    r"<(?P<close>/?)(?:seed:)?(?P<name>think|reason|thought)(?:ing)?\b[^<>]{0,80}>|\[(?P<close2>/?)THINK\]", re.I
)


def _after_reasoning(text: str) -> int | None:
    """The end of the last closed reasoning block; None where a block is left open."""
    end, open_blocks = 0, list[str]()
    for tag in _REASONING.finditer(text):
        name = (tag["name"] or "think").lower()
        if not (tag["close"] or tag["close2"]):
            open_blocks.append(name)
            continue
        end = tag.end()
        # Some models open a block twice and close it once; some open it in the prompt. A close ends what it can.
        open_blocks = open_blocks[: open_blocks.index(name)] if name in open_blocks else []
    return None if open_blocks else end


_ANSWER_OPEN = re.compile(r"<answer\b[^<>]{0,80}>", re.I)
_ANSWER_CLOSE = re.compile(r"</answer\s{0,3}>", re.I)


def _answer(text: str, start: int) -> tuple[int, int]:
    """Bounds of the last `<answer>` that says something; of all from `start` where there is none."""
    opened = [m.end() for m in _ANSWER_OPEN.finditer(text, start)]
    closed = [(m.start(), m.end()) for m in _ANSWER_CLOSE.finditer(text, start)]
    if closed and (not opened or opened[0] > closed[0][1]):
        opened.insert(0, start)  # its opening was in the prompt
    bound = len(text)
    for begin in reversed(opened):
        while closed and closed[-1][0] >= begin:
            bound = closed.pop()[0]
        if text[begin:bound].strip():
            return begin, bound
        bound = begin
    return start, len(text)


_MARKUP_HINT = re.compile(r"[*`\\&]|<[|/s]|</?answer", re.I)
_MARKUP = re.compile(r"```[\w+-]{0,20}|[*`]|<\|[\w/]{1,30}\|>|</?s>|</?answer>|&gt;|&#62;|\\succ\b|\\>", re.I)
_SIGNS = {"&gt;", "&#62;", "\\succ", "\\>"}


def _blank(markup: re.Match[str]) -> str:
    found = markup[0]
    return (">" if found.lower() in _SIGNS else "").ljust(len(found))


_TASK = (
    r"(?:rank|order|sort|judge|assess|evaluate|determine|decide|compare|rate|grade|score|label|answer|help|assist"
    r"|comply|choose|select|provide|fulfil|complete|do (?:this|that)|process|access|see|say)"
)
_CANNOT = r"(?:cannot|can ?not|can't|could ?n[o']t|won't|will not|refuse to|must decline to)"
_NOT_ABLE = rf"(?:{_CANNOT}|(?:am |'m )?(?:unable|not able) to)"
_DECLINING = rf"\b(?:i|we)\b ?(?:am |'m )?(?:sorry,? (?:but )?i )?{_NOT_ABLE} (?:\w+ )?{_TASK}\b"
_DECLINE = re.compile(_DECLINING, re.I)
_DECLINED = re.compile(rf"{_DECLINING}[^.,;:\n]{{0,60}}\Z", re.I)
_REFUSAL = re.compile(
    rf"\bsorry\b|\b(?:i|we) ?{_NOT_ABLE}\b|\bi (?:apologi[sz]e|decline)\b|\bas an ai\b|\bi do not feel\b"
    rf"|\b(?:unable|impossible|not possible|not able) to {_TASK}\b|\b(?:cannot|can't) be {_TASK}",
    re.I,
)
