"""Label files read on a scale: what lies outside it stops the command, is dropped or is clipped, and is counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from llmrank.data.files import Source, spooled
from llmrank.data.qrels import iter_qrels, read_qrels
from llmrank.errors import InputError

Policy = Literal["error", "drop", "clip"]
Labels = Mapping[str, Mapping[str, int]]
"""Labels by topic and document."""

MOST_LABELS = 1_000
"""A scale of more labels is a mistake; tables of counts grow with its square."""


class Scale(NamedTuple):
    """The labels there are: all whole numbers from `low` to `high`."""

    low: int
    high: int

    def __contains__(self, label: object) -> bool:
        return isinstance(label, int) and self.low <= label <= self.high

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"

    @property
    def labels(self) -> range:
        return range(self.low, self.high + 1)

    @property
    def cuts(self) -> range:
        """Every cut that leaves labels on both sides."""
        return range(self.low + 1, self.high + 1)


def parse_scale(text: str) -> Scale:
    """A scale as people write it: `0-3`."""
    match = re.fullmatch(r"\s*(-?\d+)\s*-\s*(-?\d+)\s*", text)
    if not match or int(match[1]) > int(match[2]):
        raise InputError(f"the scale {text!r} is not LOW-HIGH, as in 0-3")
    return _checked(Scale(int(match[1]), int(match[2])), "--scale")


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A label file after the out-of-range policy."""

    file: str
    """Its name, as given."""
    labels: Labels
    """All its labels on the scale."""
    policy: Policy
    outside: Mapping[int, int]
    """How often each label outside the scale occurs in the file, before the policy acted."""

    @property
    def pairs(self) -> int:
        return sum(map(len, self.labels.values()))

    def out_of_range(self) -> dict[str, Any]:
        """What the policy met, as JSON has it."""
        values = {str(label): count for label, count in sorted(self.outside.items())}
        return {"policy": self.policy, "labels": sum(values.values()), "values": values}

    def remark(self, scale: Scale) -> str | None:
        """What the policy moved, as a sentence; None where it had nothing to do."""
        if not self.outside:
            return None
        did = {"drop": "left out", "clip": f"moved to the nearest end of {scale}", "error": "met"}[self.policy]
        values = ", ".join(f"{label} ({count})" for label, count in sorted(self.outside.items()))
        return f"labels of {self.file} outside {scale} (times) were {did}: {values}"


def read_labels(path: Source, scale: Scale | None = None, policy: Policy = "error") -> tuple[LabelFile, Scale]:
    """A qrels file on a scale; without one, the range of its own labels.

    policy : what happens to a label outside the scale. `error` stops, naming its line; `drop` leaves the pair out;
        `clip` takes the nearest label of the scale.
    """
    with spooled(path) as source:
        raw = read_qrels(source)
        if scale is None:
            scale = _own_scale(raw, source)
        outside = Counter(label for judged in raw.values() for label in judged.values() if label not in scale)
        if outside and policy == "error":
            raise _first_outside(source, scale)
    return LabelFile(str(path), _on_scale(raw, scale, policy) if outside else raw, policy, dict(outside)), scale


def _own_scale(raw: Labels, source: Source) -> Scale:
    found = {label for judged in raw.values() for label in judged.values()}
    if not found:
        raise InputError(f"{source}: the file has no labels, so there is nothing to agree with")
    return _checked(Scale(min(found), max(found)), str(source))


def _checked(scale: Scale, where: str) -> Scale:
    if len(scale.labels) > MOST_LABELS:
        raise InputError(f"{where}: a scale of {len(scale.labels):,} labels ({scale}) is too long; name one by --scale")
    return scale


def _first_outside(source: Source, scale: Scale) -> InputError:
    line = next(line for line in iter_qrels(source) if line.grade not in scale)
    problem = f"the label {line.grade} is outside the scale {scale}; name the scale by --scale, or say what to do by"
    return InputError.at(source, line.line, f"{problem} --out-of-range drop or clip")


def _on_scale(raw: Labels, scale: Scale, policy: Policy) -> Labels:
    if policy == "drop":
        kept = {topic: {doc: label for doc, label in judged.items() if label in scale} for topic, judged in raw.items()}
        return {topic: judged for topic, judged in kept.items() if judged}
    return {
        topic: {doc: min(max(label, scale.low), scale.high) for doc, label in judged.items()}
        for topic, judged in raw.items()
    }
