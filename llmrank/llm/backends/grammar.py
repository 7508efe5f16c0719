"""A regular expression as a grammar of llama.cpp's (GBNF), for the expressions that hold replies to a form."""

from __future__ import annotations

import re

from llmrank.errors import InputError

CLASSES = {"d": "0-9", "w": "a-zA-Z0-9_", "s": r" \t\n\r"}
CONTROLS = {"n": r"\n", "t": r"\t", "r": r"\r"}
COUNT = re.compile(r"\{\d+(,\d*)?\}")


def gbnf(expression: str) -> str:
    """The grammar whose one rule is the expression. Takes literals, classes, groups, `|` and counts, no more."""
    reader = _Reader(expression)
    rule = reader.alternatives()
    if reader.at < len(expression):
        raise reader.error()
    return f"root ::= {rule}"


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def error(self) -> InputError:
        return InputError(f"the expression {self.text!r} cannot be put as a grammar (at character {self.at + 1})")

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        if self.at >= len(self.text):
            raise self.error()
        self.at += 1
        return self.text[self.at - 1]

    def alternatives(self) -> str:
        options = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            options.append(self.sequence())
        return " | ".join(options)

    def sequence(self) -> str:
        parts: list[str] = []
        while self.peek() not in ("", "|", ")"):
            part = self.one()
            if self.peek() and self.peek() in "*+?":
                part += self.take()
            elif count := COUNT.match(self.text, self.at):
                part, self.at = part + count[0], count.end()
            parts.append(part)
        return " ".join(parts) or '""'

    def one(self) -> str:
        sign = self.take()
        if sign == "(":
            if self.text.startswith("?:", self.at):
                self.at += 2
            inside = self.alternatives()
            if self.take() != ")":
                raise self.error()
            return f"({inside})"
        if sign == "[":
            return self.character_class()
        if sign == ".":
            return r"[^\n]"
        if sign == "\\":
            return self.escaped()
        if sign in "^$*+?{":
            self.at -= 1
            raise self.error()
        return _quoted(sign)

    def escaped(self) -> str:
        sign = self.take()
        if sign.lower() in CLASSES:
            return f"[{'^' if sign.isupper() else ''}{CLASSES[sign.lower()]}]"
        if sign.isalnum() and sign not in CONTROLS:
            self.at -= 1
            raise self.error()
        return f'"{CONTROLS[sign]}"' if sign in CONTROLS else _quoted(sign)

    def character_class(self) -> str:
        inside = self.take() if self.peek() == "^" else ""
        while (sign := self.take()) != "]" or inside in ("", "^"):
            if sign == "\\":
                sign = self.take()
                inside += CLASSES.get(sign) or CONTROLS.get(sign) or f"\\{sign}"
            else:
                inside += f"\\{sign}" if sign in "[]" else sign
        return f"[{inside}]"


def _quoted(sign: str) -> str:
    return '"' + {'"': r"\"", "\\": r"\\", "\n": r"\n"}.get(sign, sign) + '"'
