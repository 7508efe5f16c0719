"""What an examination says of its systems and of its examiners: means by judge, and how far scores and orders agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

import numpy as np

from llmrank.agree.rankings import tau_b
from llmrank.agree.resampling import Resampling
from llmrank.agree.results import Figure
from llmrank.judge.examiner import Exam
from llmrank.judge.talk import Row, mean_figure

Own = Callable[[str, str], bool]
"""Whether a judge and a system are one model."""


class Mark(NamedTuple):
    """One judge's score of one answer."""

    subject: str
    judge: str
    system: str
    value: float


class Beaten(NamedTuple):
    """Where one judge's order puts a system's answer: the share of the others that it beats, a tie half."""

    subject: str
    judge: str
    system: str
    value: float


class Marks(NamedTuple):
    """A system's mean score and wins: of one judge, or of several together."""

    score: Figure
    """Mean of the scores; n: answers scored."""
    wins: Figure
    """Mean share of the other answers that its own beats, a tie half; n: orders."""

    def json(self) -> Row:
        return {"score": self.score.json(), "wins": self.wins.json()}


class Consistency(NamedTuple):
    """How far the scores of a judge and its orders of the same answers agree."""

    tau_b: Figure
    """Mean over questions of Kendall's tau-b; n: questions where neither ties all answers."""
    pairs: Figure
    """Share of the pairs of answers that both put in the same order; n: pairs that neither ties."""
    tied: int
    """Pairs of answers that scores or order tie: left out of `pairs`."""

    def json(self) -> Row:
        return {"tau_b": self.tau_b.json(), "pairs": self.pairs.json(), "tied": self.tied}


class Results(NamedTuple):
    """All figures of an examination. Subjects are drawn again for the intervals."""

    matrix: Mapping[str, Mapping[str, Marks]]
    """By judge and system."""
    systems: Mapping[str, Marks]
    """By system, over all judges; the best first."""
    without_self: Mapping[str, Marks]
    """By system, over the judges that are another model."""
    consistency: Mapping[str, Consistency]
    """By judge."""
    overall: Consistency
    """Of all judges together."""
    systems_tau_b: Figure
    """tau-b of the systems' mean scores and mean wins; n: systems."""

    def json(self) -> Row:
        return {
            "matrix": {j: {s: marks.json() for s, marks in row.items()} for j, row in self.matrix.items()},
            "systems": {s: marks.json() for s, marks in self.systems.items()},
            "without_self": {s: marks.json() for s, marks in self.without_self.items()},
            "consistency": {j: found.json() for j, found in self.consistency.items()},
            "overall": self.overall.json(),
            "systems_tau_b": self.systems_tau_b.json(),
        }


def results(
    exams: Sequence[Exam], judges: Sequence[str], systems: Sequence[str], own: Own, settings: Resampling
) -> Results:
    """The figures of all exams. What failed is in none of them, and counts in no n."""
    marks, orders = list(_marks(exams)), list(_beaten(exams))

    def of(keep: Callable[[str, str], bool]) -> Marks:
        return Marks(
            mean_figure(((m.subject, m.value) for m in marks if keep(m.judge, m.system)), "subjects", settings),
            mean_figure(((b.subject, b.value) for b in orders if keep(b.judge, b.system)), "subjects", settings),
        )

    matrix = {j: {s: of(lambda judge, system, j=j, s=s: (judge, system) == (j, s)) for s in systems} for j in judges}  # type: ignore[misc]
    everyone = {s: of(lambda judge, system, s=s: system == s) for s in systems}  # type: ignore[misc]
    others = {s: of(lambda judge, system, s=s: system == s and not own(judge, s)) for s in systems}  # type: ignore[misc]
    ranked = sorted(systems, key=lambda s: (-_or_least(everyone[s].score.value), systems.index(s)))
    both = {judge: list(_both(exams, judge)) for judge in judges}
    return Results(
        matrix,
        {s: everyone[s] for s in ranked},
        {s: others[s] for s in ranked},
        {judge: _consistency(found, settings) for judge, found in both.items()},
        _consistency([one for found in both.values() for one in found], settings),
        _systems_tau_b(everyone),
    )


class _Both(NamedTuple):
    """The scores and the places that a judge gave the same answers."""

    subject: str
    scores: tuple[float, ...]
    places: tuple[int, ...]


def _marks(exams: Iterable[Exam]) -> Iterator[Mark]:
    for exam in exams:
        for system, turns in exam.turns.items():
            for turn in turns:
                for judge, value in turn.scores.items():
                    if value is not None:
                        yield Mark(exam.subject, judge, system, value)


def _beaten(exams: Iterable[Exam]) -> Iterator[Beaten]:
    for exam in exams:
        for ranking in exam.rankings:
            places = ranking.places or {}
            for system, place in places.items():
                rest = [other for name, other in places.items() if name != system]
                won = fmean(1.0 if place < other else 0.5 if place == other else 0.0 for other in rest)
                yield Beaten(exam.subject, ranking.examiner, system, won)


def _both(exams: Iterable[Exam], judge: str) -> Iterator[_Both]:
    for exam in exams:
        for ranking in exam.rankings:
            if ranking.examiner != judge or ranking.places is None:
                continue
            known = {s: exam.turns[s][0].scores.get(judge) for s in ranking.places}
            scored = {s: value for s, value in known.items() if value is not None}
            if len(scored) > 1:
                yield _Both(exam.subject, tuple(scored.values()), tuple(ranking.places[s] for s in scored))


def _consistency(found: Sequence[_Both], settings: Resampling) -> Consistency:
    taus = ((one.subject, float(tau_b(np.array(one.scores), -np.array(one.places)))) for one in found)
    pairs: list[tuple[str, float]] = []
    tied = 0
    for one in found:
        for i, j in combinations(range(len(one.scores)), 2):
            by_score, by_place = one.scores[i] - one.scores[j], one.places[j] - one.places[i]
            if by_score and by_place:
                pairs.append((one.subject, float((by_score > 0) == (by_place > 0))))
            else:
                tied += 1
    return Consistency(
        mean_figure(((subject, tau) for subject, tau in taus if np.isfinite(tau)), "subjects", settings),
        mean_figure(pairs, "subjects", settings),
        tied,
    )


def _systems_tau_b(systems: Mapping[str, Marks]) -> Figure:
    known = [
        (m.score.value, m.wins.value)
        for m in systems.values()
        if m.score.value is not None and m.wins.value is not None
    ]
    if len(known) < 2:
        return Figure(None, None, None, len(known), "fewer than two systems have both scores and orders")
    scores, wins = (np.array(column) for column in zip(*known, strict=True))
    note = "all systems tie in their scores or in their wins"
    value = float(tau_b(scores, wins))
    return Figure(value, None, None, len(known), None if np.isfinite(value) else note)


def _or_least(value: float | None) -> float:
    return -np.inf if value is None else value
