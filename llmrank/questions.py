"""The questions that a method may ask, and their answers: plain frozen types.

Four are about candidates: `grade`, `compare`, `choose`, `order`. The fifth, `write`, asks for a text that later
questions show: an expected answer, sub-questions, a rubric.

A question names its items; an answer is about the items *as they were shown*, by 0-based position. Every answer
carries how it was read: `ok`, `repaired` (with what was repaired), `failed` (with a typed reason), or `unasked`
(a budget or a deadline came first). An answer that failed or was not asked changes nothing when it is applied.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar

Kind = Literal["grade", "compare", "choose", "order", "write"]
Status = Literal["ok", "repaired", "failed", "unasked"]
Item = TypeVar("Item", bound=Hashable)

KINDS: tuple[Kind, ...] = ("grade", "compare", "choose", "order", "write")


class Question(NamedTuple):
    """One question about some items, in the order in which they are to be shown."""

    kind: Kind
    items: tuple[Hashable, ...]
    worst: bool = False
    """Only for `choose`: the worst item is wanted, not the best."""
    by: str = ""
    """Which part of the method asks it: a template of its own, a stage of a cascade; empty for its main part."""
    given: tuple[tuple[str, str], ...] = ()
    """Texts besides query and items, as (name, text): what an earlier `write` gave, a criterion, a rubric."""
    sample: int = 0
    """Which of several replies to the same question is meant."""


class Token(NamedTuple):
    """One generated token: its text, its log-probability, and the most likely tokens at its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    """(token, log-probability) of the most likely tokens here, most likely first; at most 20 are used."""


class Said(Protocol):
    """What a parser reads: the text of a reply and, where the backend gave them, its tokens."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> Sequence[Token] | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an answer was read; part of every answer."""

    status: Status = "ok"
    repairs: tuple[str, ...] = ()
    """What was repaired, e.g. `missing`, `repeated`, `out-of-range`."""
    reason: str | None = None
    """Why it failed, e.g. `empty`, `truncated`, `no-identifier`, `refused`, `timeout`."""

    @property
    def usable(self) -> bool:
        return self.status in ("ok", "repaired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade(Outcome):
    """The answer to `grade`: a number that rises with relevance, or None."""

    value: float | None = None
    score_kind: str = "grade"
    """What `value` is: `probability`, `expected-grade`, `grade`, ..."""
    label: str | None = None
    """The label that was named (or the likeliest), as the template spells it."""
    distribution: Mapping[str, float] | None = None
    """Probability of each label of the template, where log-probabilities are known; sums to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference(Outcome):
    """The answer to `compare`: left's share of the win, in [0, 1], or None.

    1.0 is a win of left, 0.0 of right, 0.5 a tie. Where option log-probabilities are known `p_left` holds P(left).
    """

    share: float | None = None
    p_left: float | None = None

    @property
    def winner(self) -> Literal["left", "right", "tie"] | None:
        if self.share is None:
            return None
        return "left" if self.share > 0.5 else "right" if self.share < 0.5 else "tie"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Outcome):
    """The answer to `choose`: the 0-based position of the chosen item, or None."""

    index: int | None = None
    distribution: tuple[float, ...] | None = None
    """Probability of each shown item, where log-probabilities are known; sums to 1."""

    def of(self, shown: Sequence[Item]) -> Item | None:
        """The chosen item, or None where the question failed."""
        return None if self.index is None else shown[self.index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Outcome):
    """The answer to `order`: a permutation of 0-based positions, best first, or None."""

    permutation: tuple[int, ...] | None = None
    ties: tuple[tuple[int, ...], ...] | None = None
    """The tie groups of the reply in its order, where it had any; they concatenate to what the reply named."""
    scores: tuple[float | None, ...] | None = None
    """The score of each shown item, in the order shown, where the model gave every item its own."""

    def apply(self, shown: Sequence[Item]) -> list[Item]:
        """The shown items in the answered order; as they were where the question failed."""
        if self.permutation is None:
            return list(shown)
        return [shown[i] for i in self.permutation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written(Outcome):
    """The answer to `write`: a text, or None."""

    text: str | None = None
    parts: tuple[str, ...] = ()
    """The text's parts where a list was asked for: its lines, its items."""


Answer = Grade | Preference | Choice | Order | Written
ANSWERS: dict[Kind, type[Answer]] = {
    "grade": Grade,
    "compare": Preference,
    "choose": Choice,
    "order": Order,
    "write": Written,
}


def failed(kind: Kind, reason: str) -> Answer:
    """The answer to a question that got no usable reply."""
    return ANSWERS[kind](status="failed", reason=reason)


def unasked(kind: Kind, reason: str) -> Answer:
    """The answer to a question that a budget or a deadline left unasked."""
    return ANSWERS[kind](status="unasked", reason=reason)
