"""Panels: several judges label the same pairs, and a rule makes one label of theirs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmrank.aggregate.labels import Labels, dawid_skene, glad, majority, mean_label, median_label
from llmrank.aggregate.panels import (
    Weights,
    cohen_kappa,
    effective_judges,
    exam_weights,
    leave_one_out,
    peer_weights,
)
from llmrank.ask.tally import Tally
from llmrank.data.types import Document, Query
from llmrank.errors import InputError
from llmrank.judge.discussion import TURNS, discussed
from llmrank.judge.grader import Grader
from llmrank.judge.judge import Labeller, judging_settings
from llmrank.judge.judgment import Judgment, Labelled, Pairs, Verdict, whole
from llmrank.judge.recipes import DEFAULT
from llmrank.llm.types import Backend
from llmrank.templates import Template
from llmrank.voice import Voices

Table = NDArray[np.float64]
"""Pairs x judges: grades, NaN where a judge gave none."""
Exam = Iterable[tuple[Pairs, Sequence[int]]]
"""Units of work with the human grade of each document."""


class Member(NamedTuple):
    """A judge of a panel."""

    name: str
    backend: str | Backend
    template: str | Template = DEFAULT

    @classmethod
    def parse(cls, text: str, template: str | Template = DEFAULT) -> Member:
        """A judge written as NAME=BACKEND or NAME=BACKEND@TEMPLATE; what follows the last @ is the template."""
        name, sign, rest = text.partition("=")
        if not sign or not name.strip() or not rest.strip():
            raise InputError(f"--judge {text}: write it as NAME=BACKEND or NAME=BACKEND@TEMPLATE")
        backend, at, own = rest.rpartition("@")
        return cls(name.strip(), backend if at else rest, own if at else template)


@dataclass(frozen=True, slots=True)
class Rule:
    """How a panel's labels become one."""

    decide: Callable[[Table, Sequence[float]], Labels]
    """From pairs x judges, and what each judge's vote weighs."""
    summary: str
    late: bool = False
    """It needs the labels of all pairs before it can decide any."""
    exam: bool = False
    """Votes are weighed by an exam."""
    discusses: bool = False
    """Two judges who disagree read each other's answers and answer again."""


def _by_peers(table: Table, weights: Sequence[float]) -> Labels:
    return majority(table, peer_weights(table).weight.tolist(), ties="lower")


RULES: dict[str, Rule] = {
    "majority": Rule(
        lambda table, weights: majority(table, ties="lower"), "the most frequent grade; a tie takes the lower, marked"
    ),
    "strict": Rule(
        lambda table, weights: majority(table, strict=True), "more than half of the votes, else no label: no-majority"
    ),
    "mean": Rule(lambda table, weights: mean_label(table), "the whole number nearest to the mean, halves down"),
    "median": Rule(lambda table, weights: median_label(table), "the median, halves down"),
    "dawid-skene": Rule(
        lambda table, weights: dawid_skene(table), "the likeliest grade, given how each judge errs", late=True
    ),
    "glad": Rule(
        lambda table, weights: glad(table), "the likeliest grade, given able judges and hard pairs", late=True
    ),
    "exam": Rule(
        lambda table, weights: majority(table, weights, ties="lower"),
        "votes weighed by an exam on human judgments (2401.15641)",
        exam=True,
    ),
    "peer-rank": Rule(_by_peers, "votes weighed by the judges' agreement, to a fixed point (2307.02762)", late=True),
    "discussion": Rule(
        lambda table, weights: majority(table, ties="lower"),
        "two judges read each other's answers where they disagree (2307.02762)",
        discusses=True,
    ),
}
"""The rules by the names that `--panel` takes."""


class Panel(Labeller):
    """Labels with several judges: `Panel([Member("a", "openai:A"), Member("b", "openai:B")], "majority")`.

    rule: one of `RULES`. escalate: judges are asked in their order, each only about the pairs of which those before it
    are less sure than this margin, the difference between the probabilities of the two likeliest grades in the mean of
    their distributions (a bare label is all of its judge's; one alone is never sure). exam: pairs of known grade for
    the rule `exam`, as (query, document, grade); pass_mark: the least share of right answers. What else is given are
    settings, for all judges. Everything is checked here, before any request.
    """

    def __init__(
        self,
        members: Sequence[Member],
        rule: str = "majority",
        *,
        escalate: float | None = None,
        exam: Exam | None = None,
        pass_mark: float | None = None,
        constrain: bool = False,
        options: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        if rule not in RULES:
            raise InputError(f"--panel {rule}: there is no such rule; there are {', '.join(RULES)}")
        self.rule_name, self.rule = rule, RULES[rule]
        self.escalate, self.pass_mark = escalate, pass_mark
        self.exam = exam
        self.weights: Weights | None = None
        """What an exam made of the judges, once they sat it."""
        self.settings = judging_settings(settings)
        _check_members(members, self)
        self.models = Voices(self.settings, members[0].backend)
        how: dict[str, Any] = {"options": options, "variables": variables, "constrain": constrain}
        self.graders = {m.name: Grader(self.models, m.template, backend=m.backend, **how) for m in members}
        self.together = any(grader.recipe.together for grader in self.graders.values())
        self.late = self.rule.late
        scales = {grader.scale for grader in self.graders.values()}
        if len(scales) > 1:
            told = "; ".join(f"{name} has {_scale(grader.scale)}" for name, grader in self.graders.items())
            raise InputError(f"the judges of a panel must grade on one scale: {told}; take templates that go together")
        super().__init__()

    async def numbered(self, requests: Iterable[Pairs], /) -> AsyncIterator[tuple[int, Labelled]]:
        if self.exam is not None and self.weights is None:
            await self.sit(self.exam)
        async for numbered in super().numbered(requests):
            yield numbered

    async def label(self, pairs: Pairs) -> Labelled:
        members, tallies = await self._members(pairs)
        if self.rule.discusses:
            await self._discuss(pairs, members, tallies)
        asked = [tuple(of_pair.values()) for of_pair in members]
        if self.late:
            finals = [_pending(pairs.query, document) for document in pairs.documents]
        else:
            finals = self._finals(pairs, asked)
        verdicts = tuple(Verdict(final, labels) for final, labels in zip(finals, asked, strict=True))
        return Labelled(pairs, verdicts, tuple(tallies))

    def conclude(self, verdicts: Sequence[Verdict]) -> list[Judgment]:
        if not self.late:
            return super().conclude(verdicts)
        outcomes = self.outcomes(self.table([verdict.members for verdict in verdicts]))
        return [
            self.decided(v.judgment.query_id, v.judgment.doc_id, self.row(v.members), outcomes, place)
            for place, v in enumerate(verdicts)
        ]

    def row(self, members: Sequence[Judgment]) -> list[float]:
        """One pair's grades in the order of the judges, NaN for one that gave none."""
        given = {j.member: float("nan") if j.grade is None else float(j.grade) for j in members}
        return [given.get(name, float("nan")) for name in self.graders]

    def table(self, labels: Iterable[Sequence[Judgment]]) -> Table:
        return np.array([self.row(members) for members in labels], dtype=np.float64).reshape(-1, len(self.graders))

    def outcomes(self, table: Table) -> Labels:
        """What the rule makes of all labels."""
        weights = np.ones(len(self.graders)) if self.weights is None else self.weights.weight
        return self.rule.decide(table, weights.tolist())

    def decided(self, query_id: str, doc_id: str, row: Sequence[float], outcomes: Labels, place: int) -> Judgment:
        """The panel's judgment of one pair; `row` holds the judges' grades, `place` is the row of the outcomes."""
        label, voted = outcomes.label[place], sum(grade == grade for grade in row)
        base = Judgment(query_id=query_id, doc_id=doc_id, grade=None, status="failed", samples=voted)
        if label is None:
            return replace(base, reason="no-majority" if voted else "no-label")
        repairs = ("tie",) if outcomes.tied is not None and outcomes.tied[place] else ()
        distribution, expected = _distribution(outcomes, place, row)
        return replace(
            base,
            grade=whole(float(label)),
            status="repaired" if repairs else "ok",
            repairs=repairs,
            distribution=distribution,
            expected=expected if outcomes.distribution is not None else round(float(label), 9),
        )

    async def sit(self, exam: Exam) -> Weights:
        """Has every judge answer the exam, and weighs their votes by it."""
        units = list(exam)
        if not units:
            raise InputError("--exam: it holds no judged pair; an exam needs some")
        judged = await asyncio.gather(*(self._members(pairs, everyone=True) for pairs, _ in units))
        truth = np.array([grade for _, grades in units for grade in grades], dtype=np.float64)
        table = self.table(tuple(of_pair.values()) for members, _ in judged for of_pair in members)
        scale = next(iter(self.graders.values())).scale
        grades = len(scale) if len(scale) > 2 or next(iter(self.graders.values())).template.header.labels else None
        self.weights = exam_weights(truth, table, grades, self.pass_mark)
        if not self.weights.weight.any():
            raise InputError(f"--exam: none of the {len(self.graders)} judges passed; take others, or --panel majority")
        return self.weights

    def diagnosis(self, table: Table, finals: NDArray[np.float64]) -> dict[str, Any]:
        """What each judge adds to the panel, and how many judges it is worth, for the report."""
        out = None
        if len(self.graders) > 2 and len(table):
            out = leave_one_out(table, self.outcomes_of)
        effective = effective_judges(table, finals)
        members = {}
        for j, name in enumerate(self.graders):
            members[name] = {
                "labels": int((~np.isnan(table[:, j])).sum()),
                "kappa_with_panel": _number(cohen_kappa(table[:, j], finals)),
                "kappa_with_rest": None if out is None else _number(out.agreement[j]),
                "changed_without": None if out is None else _number(out.changed[j]),
                "weight": None if self.weights is None else _number(self.weights.weight[j]),
                "exam_score": None if self.weights is None else _number(self.weights.score[j]),
            }
        return {
            "rule": self.rule_name,
            "members": members,
            "effective_judges": {
                "value": _number(effective.value),
                "n": effective.n,
                "note": "errors are taken against the panel's own label, which understates what judges share"
                + (f"; {effective.note}" if effective.note else ""),
            },
        }

    def outcomes_of(self, table: Table) -> Labels:
        """What the rule makes of the labels of some of the judges, all votes alike where they were weighed."""
        return self.rule.decide(table, [1.0] * table.shape[1])

    async def _members(
        self, pairs: Pairs, everyone: bool = False
    ) -> tuple[list[dict[str, Judgment]], list[tuple[str, Tally]]]:
        """Each judge's label of each pair, and what was asked for it; with `escalate` only of unsure pairs."""
        labels: list[dict[str, Judgment]] = [{} for _ in pairs.documents]
        tallies: list[tuple[str, Tally]] = []

        async def ask(name: str, rows: Sequence[int]) -> None:
            documents = [pairs.documents[row] for row in rows]
            judgments, spent = await self.graders[name].label(pairs.query, documents, pairs.documents)
            tallies.extend(spent)
            for row, judgment in zip(rows, judgments, strict=True):
                labels[row][name] = replace(judgment, member=name)

        every = range(len(pairs.documents))
        if self.escalate is None or everyone:
            await asyncio.gather(*(ask(name, every) for name in self.graders))
            # In the order of the judges, whichever was first to answer.
            return [{name: of_pair[name] for name in self.graders} for of_pair in labels], tallies
        for name in self.graders:
            unsure = [row for row in every if self.margin(labels[row]) < self.escalate]
            if unsure:
                await ask(name, unsure)
        return labels, tallies

    def margin(self, labels: Mapping[str, Judgment]) -> float:
        """How far the likeliest grade is ahead of the next, in the mean of the judges' distributions."""
        usable = [(name, j) for name, j in labels.items() if j.grade is not None]
        if not usable or (len(usable) == 1 and usable[0][1].distribution is None):
            return -1.0
        mass: dict[float, float] = {}
        for name, judgment in usable:
            for grade, share in self.graders[name].by_grade(judgment).items():
                mass[grade] = mass.get(grade, 0.0) + share / len(usable)
        first, second = sorted([*mass.values(), 0.0], reverse=True)[:2]
        return first - second

    async def _discuss(
        self, pairs: Pairs, members: list[dict[str, Judgment]], tallies: list[tuple[str, Tally]]
    ) -> None:
        """Lets the two judges answer again, each with the other's answer before it, until they agree or turns end."""
        for _ in range(TURNS):
            split = [row for row, labels in enumerate(members) if _disagree(list(labels.values()))]
            if not split:
                return
            told = await asyncio.gather(
                *(discussed(self.graders, pairs.query, pairs.documents[row], members[row]) for row in split)
            )
            for row, (labels, spent) in zip(split, told, strict=True):
                members[row] = labels
                tallies.extend(spent)

    def _finals(self, pairs: Pairs, asked: Sequence[Sequence[Judgment]]) -> list[Judgment]:
        table = self.table(asked)
        outcomes = self.outcomes(table)
        finals = []
        for place, (document, labels) in enumerate(zip(pairs.documents, asked, strict=True)):
            final = self.decided(pairs.query.id, document.id, table[place].tolist(), outcomes, place)
            if not final.usable and labels and all(label.status == "unasked" for label in labels):
                final = replace(final, status="unasked", reason=labels[0].reason)
            finals.append(final)
        return finals


def _distribution(outcomes: Labels, place: int, row: Sequence[float]) -> tuple[dict[str, float], float]:
    """The shares of the votes, or the rule's own probabilities, by grade, and the grade expected under them."""
    if outcomes.distribution is not None:
        shares = dict(zip(map(float, outcomes.classes), outcomes.distribution[place].tolist(), strict=True))  # type: ignore[arg-type]
    else:
        votes = Counter(grade for grade in row if grade == grade)
        shares = {grade: votes[grade] / votes.total() for grade in sorted(votes)}
    expected = sum(grade * share for grade, share in shares.items())
    return {f"{grade:g}": round(share, 9) for grade, share in shares.items() if share > 0}, round(expected, 9)


def _check_members(members: Sequence[Member], panel: Panel) -> None:
    names = [member.name for member in members]
    if len(names) < 2:
        raise InputError("--panel needs at least two judges: name them with --judge NAME=BACKEND")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"--judge {twice}: two judges have this name; give each its own")
    if panel.rule.discusses and len(names) != 2:
        raise InputError(f"--panel {panel.rule_name} is between two judges, here are {len(names)}")
    if panel.rule.exam and panel.exam is None:
        raise InputError("--panel exam needs an exam: name human judgments of some pairs with --exam QRELS")
    if panel.exam is not None and not panel.rule.exam:
        raise InputError("--exam goes with --panel exam; other rules make no use of it")
    if panel.escalate is not None and not 0 <= panel.escalate <= 1:
        raise InputError(f"--escalate {panel.escalate:g}: a margin lies between 0 and 1")
    if panel.escalate is not None and panel.rule.discusses:
        raise InputError(f"--escalate and --panel {panel.rule_name}: a discussion needs both judges; leave out one")


def _pending(query: Query, document: Document) -> Judgment:
    return Judgment(query_id=query.id, doc_id=document.id, grade=None, status="unasked", reason="pending")


def _disagree(labels: Sequence[Judgment]) -> bool:
    grades = {label.grade for label in labels if label.grade is not None}
    return len(grades) > 1


def _scale(scale: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in scale) or "no scale of its own"


def _number(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 6)
