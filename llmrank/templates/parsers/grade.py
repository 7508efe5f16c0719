"""Reads grades: one of a template's labels, with its probability where the tokens tell it, or a score on a range."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal

from llmrank.errors import InputError
from llmrank.questions import Grade, Said
from llmrank.templates.parsers import likelihood
from llmrank.templates.parsers.reading import final_part, is_refusal
from llmrank.templates.parsers.verdict import AMBIGUOUS, NO_PICK, Grammar, Pick, final_pick, grammar

Scoring = Literal["probability", "log-odds", "expected", "label"]
BY_TWO: tuple[Scoring, ...] = ("probability", "log-odds")
"""What weighs one label against the other."""


class LabelParser:
    """Reads one of `labels`, given with their values from least to most relevant.

    `scoring` says what the value is: with "probability" P(most relevant) among two labels, with "log-odds" the
    difference of their logits; with "expected" the expected value over the labels' probabilities; with "label" the
    named label's value. All but the last come from the tokens of the reply; where it has none the label's value stands
    in, and the grade is marked `no-logprobs`; log-odds have nothing that could stand in, and the grade has failed.
    """

    def __init__(self, labels: Mapping[str, float], scoring: Scoring = "label") -> None:
        if len(labels) < 2 or any(not label.strip() for label in labels):
            raise InputError("a template that asks for labels needs at least two, none of them empty")
        if len({_folded(label) for label in labels}) < len(labels):
            raise InputError(f"two labels differ only in case or spacing: {', '.join(labels)}; rename one")
        if scoring in BY_TWO and len(labels) != 2:
            raise InputError(
                f"scoring by {scoring} needs two labels, not {len(labels)}; use the scoring 'expected' for more"
            )
        self.labels = {label: float(value) for label, value in labels.items()}
        self.scoring = scoring
        self._by_spelling = {_folded(label): label for label in labels}
        self._by_number = {float(label): label for label in labels if _is_number(label)}
        self._grammar = _label_grammar(list(labels), self.labels)

    def read(self, said: Said, n: int = 1) -> Grade:
        reading = final_part(said.text)
        if reading.reason:
            return Grade(status="failed", reason=reading.reason)
        pick = self._pick(reading.text)
        if isinstance(pick, str):
            if pick == NO_PICK and self.scoring != "label" and not is_refusal(reading.text):
                # P(yes) is defined by the first token, whatever the reply then says.
                first = likelihood.first_place(said, reading, only_short=self.scoring not in BY_TWO)
                if first is not None:
                    return self._likely(first, None)
            return Grade(status="failed", reason=_why(pick, reading.text, "no-label"))
        place = likelihood.place_of(said.tokens, said.text, reading.start + pick.start)
        if place is None or not place.token.top:
            return self._named(pick.name)
        return self._likely(place, pick.name)

    def write(self, grade: Grade, n: int = 1) -> str:
        if grade.label is not None:
            return grade.label
        if grade.value is None:
            return ""
        value = grade.value
        if self.scoring == "probability" and grade.score_kind == "probability":
            low, high = self.labels.values()
            value = low + (high - low) * value
        return min(self.labels, key=lambda label: abs(self.labels[label] - value))

    def _pick(self, text: str) -> Pick | str:
        if text in self.labels:
            return Pick(text, 0)
        label = self._name(text.strip().rstrip("."))
        if label is not None:
            return Pick(label, len(text) - len(text.lstrip()))
        return final_pick(text, self._grammar, self._name)

    def _name(self, matched: str) -> str | None:
        label = self._by_spelling.get(_folded(matched))
        if label is None and self._by_number and _is_number(matched):
            label = self._by_number.get(float(matched))
        return label

    def _named(self, label: str) -> Grade:
        """A grade by the named label alone."""
        if self.scoring == "label":
            return Grade(value=self.labels[label], label=label)
        if self.scoring == "log-odds":
            return Grade(status="failed", reason="no-logprobs")
        return Grade(status="repaired", repairs=("no-logprobs",), value=self.labels[label], label=label)

    def _likely(self, place: likelihood.Place, named: str | None) -> Grade:
        """A grade by the probabilities of the labels at the place where the reply names its label."""
        names = list(self.labels)
        found = likelihood.label_probabilities(place, names)
        if not found:
            # A token that holds more than the label (`"yes"}`) says nothing about the others.
            if named is not None and (self.scoring == "label" or not _begins(place, named)):
                return self._named(named)
            return Grade(status="failed", reason="no-label")
        repairs: tuple[str, ...] = ()
        if self.scoring in BY_TWO and len(found) == 1:
            found = {name: found.get(name, likelihood.least_listed(place)) for name in names}
            repairs = ("label-outside-top",)
        total = sum(found.values())
        distribution = {name: found.get(name, 0.0) / total for name in names}
        label = named if named is not None else max(names, key=lambda name: distribution[name])
        if self.scoring == "probability":
            value, score_kind = distribution[names[-1]], "probability"
        elif self.scoring == "log-odds":
            value, score_kind = math.log(found[names[-1]] / found[names[0]]), "log-odds"
        elif self.scoring == "expected":
            value = math.fsum(p * self.labels[name] for name, p in distribution.items())
            score_kind = "expected-grade"
        else:
            value, score_kind = self.labels[label], "grade"
        return Grade(
            status="repaired" if repairs else "ok",
            repairs=repairs,
            value=value,
            score_kind=score_kind,
            label=label,
            distribution=distribution,
        )


class ScoreParser:
    """Reads a number from `low` to `high`; one outside is a failure, never clipped."""

    def __init__(self, low: float, high: float) -> None:
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"a range of scores needs a lower and a higher end, not {low} and {high}")
        self.low = low
        self.high = high
        self._grammar = _number_grammar(_number(high))

    def read(self, said: Said, n: int = 1) -> Grade:
        reading = final_part(said.text)
        if reading.reason:
            return Grade(status="failed", reason=reading.reason)
        pick = final_pick(reading.text, self._grammar, lambda matched: repr(float(matched)))
        if isinstance(pick, str):
            return Grade(status="failed", reason=_why(pick, reading.text, "no-score"))
        value = float(pick.name)
        if not self.low <= value <= self.high:
            return Grade(status="failed", reason="out-of-range")
        return Grade(value=value, score_kind="score")

    def write(self, grade: Grade, n: int = 1) -> str:
        return "" if grade.value is None else _number(grade.value)


def _why(pick: str, text: str, otherwise: str) -> str:
    if pick == AMBIGUOUS:
        return AMBIGUOUS
    if pick == NO_PICK:
        return "refused" if is_refusal(text) else otherwise
    return "out-of-range"


def _begins(place: likelihood.Place, label: str) -> bool:
    """Whether the token at a place spells the label or its beginning, and nothing else."""
    word = likelihood.spelled(place.token.text).strip().casefold()
    return bool(word) and label.casefold().startswith(word)


def _folded(label: str) -> str:
    return " ".join(_BETWEEN_WORDS.sub(" ", label.casefold()).split()) or label


_BETWEEN_WORDS = re.compile(r"(?<=\w)[-_](?=\w)")
_NUMBER = r"[-+]?\d{1,12}(?:\.\d{1,20})?"
_IS_NUMBER = re.compile(_NUMBER)


def _is_number(text: str) -> bool:
    return _IS_NUMBER.fullmatch(text) is not None


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{Decimal(repr(value)):f}"


_KEYS = (
    r"O|score|label|relevance|relevancy|relevance[_ ](?:score|label|grade)|grade|rating|answer|judge?ment|verdict"
    r"|result|overall(?:[_ ]score)?|decision|output|prediction|value"
)
_SUBJECT = r"\b(?:label|score|grade|rating|relevance|answer|judge?ment|verdict|decision|category|result)"
_BEFORE = r"(?:an?\s+|the\s+)?[\"'(\[]{0,2}"
_NOT_RUBRIC = r"(?!\W{0,3}(?:means?|would|indicates?|requires?|is|if|when|refers?|represents?|stands?|applies|denotes))"
_NO_RESULT = r"(?<!\d to )"  # `the score was 3 to 2` is that of a match
_STATEMENTS = (
    rf"{_SUBJECT}\b(?:\s+(?!from\b|between\b|not\b)\w+){{0,6}}?\s+(?:is|as|be|of|at|to)\s*:?\s+{_NO_RESULT}{_BEFORE}{{B}}{_NOT_RUBRIC}",
    r"\b(?:assign|give|rate|score|grade|judge|label|mark|deserve|earn|get|receive|merit|warrant|(?:scor|rat|grad|judg)ed)"
    rf"(?:s|ed|led)?\b(?:\s+(?!from\b|between\b|not\b)\w+){{0,5}}?:?\s+{_NO_RESULT}{_BEFORE}{{B}}{_NOT_RUBRIC}",
)
_WORD_STATEMENTS = (
    r"\b(?:passage|document|text|it|this|that|output|response|claim|answer|statement)(?:\s+\w+)??\s+"
    rf"(?:is|as|was|seems|appears)\s+(?:considered\s+)?(?:(?!not\b|no\b)\w+\s+)??{_BEFORE}{{B}}",
)
_OVERALL = r"(?<!\w)(?-i:O)[\"']?[ \t]{0,2}[:=]\s{0,3}[\"']?{B}"
_START = r"(?<![\w.+\-/])(?<!\d,)"


def _label_grammar(labels: Sequence[str], values: Mapping[str, float]) -> Grammar:
    numeric = [label for label in labels if _is_number(label)]
    words = sorted((label for label in labels if not _is_number(label)), key=len, reverse=True)
    cores = [r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", word))) for word in words]
    # Any number is read where numbers are labels: one that is no label must fail, not be passed over.
    core = "|".join([*cores, _NUMBER] if numeric else cores)
    # `yes(3)`: the verdict goes before the label.
    verdict = r"(?:(?:yes|no|true|false)\s?\(\s?)?" if numeric and not words else ""
    bare = rf"{_START}{verdict}(?P<label>{core})"
    return grammar(
        bare,
        bare,
        any_label=rf"(?:{core})",
        statements=[*_STATEMENTS, *(_WORD_STATEMENTS if any(len(word) > 3 for word in words) else ())],
        final=[_OVERALL],
        keys=_KEYS,
        top=_number(max(map(float, numeric))) if numeric else None,
    )


def _number_grammar(top: str) -> Grammar:
    bare = rf"{_START}(?P<label>{_NUMBER})%?"
    return grammar(
        bare,
        bare,
        any_label=_NUMBER,
        statements=_STATEMENTS,
        final=[_OVERALL],
        keys=_KEYS,
        top=top,
    )
