"""Cross-system consistency: the claims of each system's answer, checked against what the other systems answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal, NamedTuple

from llmrank.agree.resampling import Resampling
from llmrank.agree.results import Figure
from llmrank.data.types import Candidates, Document
from llmrank.errors import InputError
from llmrank.judge.judge import judging_settings
from llmrank.judge.judgment import Source
from llmrank.judge.sentences import sentences
from llmrank.judge.talk import Conversation, Row, Talk, Told, Worked, mean_figure, source_row, together
from llmrank.llm.types import Backend
from llmrank.questions import Grade, Status
from llmrank.templates import Template
from llmrank.voice import Part

SPLIT, CHECK = "split", "check"
MOST = 40
"""Claims of one answer that are checked, the first ones."""
By = Literal["claims", "sentences"]


class Check(NamedTuple):
    """One claim against the answer of one other system."""

    item_id: str
    value: float | None
    """1 supported, 0.5 silent, 0 contradicted, the mean where there are several samples; None where it failed."""
    label: str | None
    """The label of the first sample."""
    sources: tuple[Source, ...]


class Claim(NamedTuple):
    """One claim of an answer."""

    text: str
    checks: tuple[Check, ...]

    @property
    def consistency(self) -> float | None:
        """The mean over the systems whose check did not fail."""
        values = [check.value for check in self.checks if check.value is not None]
        return fmean(values) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedAnswer:
    """One system's answer to one query, by how far the others bear out what it claims."""

    query_id: str
    item_id: str
    claims: tuple[Claim, ...] = ()
    status: Status = "ok"
    """`failed` where nothing is known of it; `repaired` where something is missing from what is."""
    reason: str | None = None
    repairs: tuple[str, ...] = ()
    source: Source | None = None
    """The reply that split it into claims; None where its sentences were taken."""

    @property
    def consistency(self) -> float | None:
        """The mean over its claims, of those that could be checked."""
        values = [value for claim in self.claims if (value := claim.consistency) is not None]
        return fmean(values) if values else None

    def without_evidence(self) -> CheckedAnswer:
        """The same without texts and replies, which take memory."""
        claims = (Claim("", tuple(c._replace(sources=()) for c in claim.checks)) for claim in self.claims)
        return replace(self, claims=tuple(claims), source=None)

    def row(self) -> Row:
        """The object of the output file."""
        checks = [check for claim in self.claims for check in claim.checks]
        return {
            "query_id": self.query_id,
            "item_id": self.item_id,
            "consistency": self.consistency,
            "claims_checked": sum(claim.consistency is not None for claim in self.claims),
            "checks": sum(check.value is not None for check in checks),
            "labels": dict(Counter(check.label for check in checks if check.label is not None)),
            "status": self.status,
            "reason": self.reason,
            "repairs": self.repairs,
            "split": None if self.source is None else source_row(self.source),
            "claims": [
                {
                    "text": claim.text,
                    "consistency": claim.consistency,
                    "checks": [
                        {"item_id": check.item_id, "value": check.value, "label": check.label}
                        | {"replies": [source_row(source) for source in check.sources]}
                        for check in claim.checks
                    ],
                }
                for claim in self.claims
            ],
        }


class CrossCheck(Talk[Candidates, tuple[CheckedAnswer, ...]]):
    """Checks what each answer claims against all other answers to its query (CrossCheckGPT 2405.13684, text).

    by: what is checked, `claims` that a model splits an answer into, or its `sentences`, which saves a question. The
    answers are the documents of each request, their ids the systems'. `samples` replies are taken of each check.
    """

    unused = {  # noqa: RUF012  a table
        "examples": "the prompts have no place for worked examples; leave it out",
        "passages": "answers are shown whole; leave it out",
    }

    def __init__(
        self,
        *,
        backend: str | Backend,
        by: By = "claims",
        split: str | Template = "claims/split",
        check: str | Template = "claims/check",
        **settings: Any,
    ) -> None:
        self.by = by
        parts = {CHECK: Part(check, "grade", backend)}
        if by == "claims":
            parts = {SPLIT: Part(split, "write", backend), **parts}
        super().__init__(parts, judging_settings(settings), "cross-checking")
        header = self.voices[CHECK].template.header
        values = list(header.labels.values())
        if "claim" not in header.given or not values or (values[0], values[-1]) != (0, 1):
            raise InputError(
                f"the template {header.name} cannot check claims: it must show `claim` (given: [claim]) and have "
                "labels from 0, contradicted, to 1, supported, as claims/check does"
            )

    async def work(self, request: Candidates) -> Worked[tuple[CheckedAnswer, ...]]:
        """All answers to one query."""
        conversation = Conversation(self, request.query)
        answers = request.documents
        checked = await together(
            self._answer(conversation, request.query.id, answer, [other for other in answers if other is not answer])
            for answer in answers
        )
        return conversation.worked(tuple(checked))

    async def _answer(
        self, conversation: Conversation, query_id: str, answer: Document, others: list[Document]
    ) -> CheckedAnswer:
        def without(status: Status, reason: str | None, source: Source | None = None) -> CheckedAnswer:
            return CheckedAnswer(query_id=query_id, item_id=answer.id, status=status, reason=reason, source=source)

        if not others:
            return without("failed", "no-other-answer")
        if not answer.text.strip():
            return without("failed", "empty-answer")
        repairs: tuple[str, ...] = ()
        source = None
        if self.by == "sentences":
            texts = sentences(answer.text)
        else:
            told = await conversation.write(SPLIT, [answer])
            source = told.source
            if not told.answer.usable:
                return without(told.answer.status, told.answer.reason, source)
            texts = list(dict.fromkeys(told.answer.parts))
            repairs = told.answer.repairs
        if len(texts) > MOST:
            texts, repairs = texts[:MOST], (*repairs, "fewer-claims")
        claims = await together(self._claim(conversation, text, others) for text in texts)
        return _put_together(query_id, answer.id, claims, repairs, source)

    async def _claim(self, conversation: Conversation, text: str, others: list[Document]) -> Claim:
        return Claim(text, tuple(await together(self._check(conversation, text, other) for other in others)))

    async def _check(self, conversation: Conversation, claim: str, other: Document) -> Check:
        told = await together(
            conversation.grade(CHECK, other, given={"claim": claim}, sample=sample)
            for sample in range(self.settings.samples)
        )
        values = [value for one in told if (value := _value(one)) is not None]
        label = next((one.answer.label for one in told if one.answer.usable), None)
        return Check(other.id, fmean(values) if values else None, label, tuple(one.source for one in told))


class SystemFigures(NamedTuple):
    """One system over all queries."""

    consistency: Figure
    """Mean over its answers, queries drawn again for the interval; n: answers."""
    claims: int
    """Claims that could be checked."""
    labels: Mapping[str, int]
    """How often its claims were supported, met with silence, contradicted."""
    missing: int
    """Answers of which nothing is known: they are left out."""

    def json(self) -> Row:
        return {
            "consistency": self.consistency.json(),
            "claims": self.claims,
            "labels": dict(self.labels),
            "missing": self.missing,
        }


def system_figures(answers: Iterable[CheckedAnswer], settings: Resampling) -> dict[str, SystemFigures]:
    """Each system's consistency, the most consistent first; those without a figure last."""
    by_system: dict[str, list[tuple[str, float]]] = {}
    claims: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    labels: dict[str, Counter[str]] = {}
    for answer in answers:
        values = by_system.setdefault(answer.item_id, [])
        counts = labels.setdefault(answer.item_id, Counter())
        if (value := answer.consistency) is None:
            missing[answer.item_id] += 1
            continue
        values.append((answer.query_id, value))
        for claim in answer.claims:
            claims[answer.item_id] += claim.consistency is not None
            counts.update(check.label for check in claim.checks if check.label is not None)
    found = {
        system: SystemFigures(mean_figure(values, "topics", settings), claims[system], labels[system], missing[system])
        for system, values in by_system.items()
    }

    def place(system: str) -> tuple[float, str]:
        value = found[system].consistency.value
        return (1.0 if value is None else -value), system

    ranked = sorted(found, key=place)
    return {system: found[system] for system in ranked}


def _put_together(
    query_id: str, item_id: str, claims: list[Claim], repairs: tuple[str, ...], source: Source | None
) -> CheckedAnswer:
    checks = [check for claim in claims for check in claim.checks]
    answer = CheckedAnswer(query_id=query_id, item_id=item_id, claims=tuple(claims), source=source)
    if answer.consistency is None:
        first = checks[0].sources[0]
        return replace(answer, status="unasked" if first.status == "unasked" else "failed", reason=first.reason)
    if any(check.value is None for check in checks):
        repairs = (*repairs, "fewer-checks")
    return replace(answer, status="repaired" if repairs else "ok", repairs=repairs)


def _value(told: Told[Grade]) -> float | None:
    return told.answer.value if told.answer.usable else None
