"""Models that examine models: they write questions, follow up on the answers, score these and rank them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from llmrank.data.types import Document, Query
from llmrank.errors import InputError
from llmrank.judge.judge import judging_settings
from llmrank.judge.judgment import Source
from llmrank.judge.talk import Conversation, Row, Talk, Worked, same_model, source_row, together
from llmrank.llm.types import Backend
from llmrank.questions import Order, Status, Written
from llmrank.voice import Part

KINDS = ("question", "follow-up", "answer", "score", "rank")
"""What is asked, each through the template `examiner/KIND`."""
ASKS = {"question": "write", "follow-up": "write", "answer": "write", "score": "grade", "rank": "order"}


class Turn(NamedTuple):
    """A question to one system, its answer, and the marks of the answer by examiner."""

    round: int
    """0 for the question that all systems get, from 1 for follow-ups."""
    question: str
    asked: Source
    """The reply that wrote the question."""
    answer: str | None = None
    """None where the answer failed: then it is neither scored nor ranked."""
    said: Source | None = None
    scores: Mapping[str, float | None] = {}
    """By examiner; None where the mark failed."""
    score_sources: Mapping[str, Source] = {}


class Ranked(NamedTuple):
    """One examiner's order of the answers to a question."""

    examiner: str
    shown: tuple[str, ...]
    """The systems in the order in which their answers were shown, which is drawn for each question."""
    places: Mapping[str, int] | None
    """Each system's place from 1, those that tie sharing the first of theirs; None where the order failed."""
    status: Status
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """One question of one examiner on one subject, with all that came of it."""

    subject: str
    examiner: str
    number: int
    status: Status
    """Of the question; where it failed there is nothing else."""
    reason: str | None
    repeated: bool
    """The examiner wrote this very question before."""
    question: str | None
    source: Source
    turns: Mapping[str, tuple[Turn, ...]]
    """By system."""
    rankings: tuple[Ranked, ...] = ()

    def without_evidence(self) -> Exam:
        """The same without the replies behind scores and answers, which take memory."""
        turns = {
            system: tuple(
                turn._replace(question="", answer=turn.answer and "", said=None, score_sources={}) for turn in of
            )
            for system, of in self.turns.items()
        }
        return replace(self, turns=turns)

    def rows(self) -> list[Row]:
        """The objects of the output file."""
        place = {"subject": self.subject, "examiner": self.examiner, "number": self.number}
        first = {**place, "kind": "question", "round": 0, "system": None, "text": self.question}
        rows = [first | {"repeated": self.repeated} | source_row(self.source)]
        for system, turns in self.turns.items():
            for turn in turns:
                at = {**place, "round": turn.round, "system": system}
                if turn.round:
                    rows.append({**at, "kind": "follow-up", "text": turn.question} | source_row(turn.asked))
                if turn.said is not None:
                    rows.append({**at, "kind": "answer", "text": turn.answer} | source_row(turn.said))
                for judge, value in turn.scores.items():
                    marked = {**at, "kind": "score", "judge": judge, "score": value}
                    rows.append(marked | source_row(turn.score_sources[judge]))
        for ranking in self.rankings:
            told = {**place, "kind": "rank", "round": 0, "judge": ranking.examiner, "shown": ranking.shown}
            rows.append(told | {"places": ranking.places} | source_row(ranking.source))
        return [row for row in rows if row["status"] != "unasked"]


class Examination(Talk[Query, tuple[Exam, ...]]):
    """Examines systems on subjects (a language model as examiner, 2306.04181).

    Each examiner writes `questions` a subject. All systems answer; `rounds` - 1 times each examiner follows up on each
    system's last answer. Answers are scored 1 to 5, and the answers to the question that all had are ranked, shown in
    an order drawn by the seed: by the examiner that asked, or, where `mark_all`, by every examiner. Without examiners
    every system examines all (peer examination). Models are named, by SPEC or as backends.
    """

    unused = {  # noqa: RUF012  a table
        "samples": "questions and answers are written once; leave it out",
        "examples": "the prompts have no place for worked examples; leave it out",
        "passages": "answers are shown whole; leave it out",
    }

    def __init__(
        self,
        systems: Mapping[str, str | Backend],
        examiners: Mapping[str, str | Backend] | None = None,
        *,
        questions: int = 3,
        rounds: int = 2,
        mark_all: bool = False,
        templates: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.systems = dict(systems)
        self.examiners = dict(examiners or systems)
        self.questions, self.rounds, self.mark_all = questions, rounds, mark_all
        if not self.systems:
            raise InputError("there is no system to examine: name one or more, as NAME=SPEC")
        if questions < 1 or rounds < 1:
            raise InputError("an examination has one question and one round at least")
        for name in self.systems.keys() & self.examiners.keys():
            if not same_model(self.systems[name], self.examiners[name]):
                raise InputError(f"{name} names one model as a system and another as an examiner; names must differ")
        chosen = {kind: f"examiner/{kind}" for kind in KINDS} | dict(templates or {})
        parts = {
            _part(kind, name): Part(chosen[kind], ASKS[kind], backend)  # type: ignore[arg-type]  # a table of kinds
            for kind in KINDS
            for name, backend in (self.systems if kind == "answer" else self.examiners).items()
        }
        super().__init__(parts, judging_settings(settings), "examining")

    def own(self, examiner: str, system: str) -> bool:
        """Whether the examiner and the system are one model, under whatever names."""
        return same_model(self.examiners[examiner], self.systems[system])

    @property
    def calls_per_subject(self) -> int:
        """Questions to models for one subject, where nothing fails."""
        exams = len(self.examiners) * self.questions
        judges = len(self.examiners) if self.mark_all else 1
        answers = len(self.systems) * self.rounds
        follow_ups = len(self.systems) * (self.rounds - 1)
        return exams * (1 + follow_ups + answers * (1 + judges) + judges * (len(self.systems) > 1))

    async def work(self, request: Query) -> Worked[tuple[Exam, ...]]:
        """All questions on one subject."""
        conversation = Conversation(self, request)
        of_examiners = await together(self._examiner(conversation, request, name) for name in self.examiners)
        return conversation.worked(tuple(exam for exams in of_examiners for exam in exams))

    async def _examiner(self, conversation: Conversation, subject: Query, examiner: str) -> list[Exam]:
        """One examiner's questions, each written with those before it in view."""
        asked: list[str] = []
        written = []
        for number in range(self.questions):
            given = {"asked": "\n".join(f"- {text}" for text in asked)}
            told = await conversation.write(_part("question", examiner), given=given, sample=number)
            text = _one_line(told.answer)
            written.append((number, text, told.answer, told.source, text in asked))
            if text is not None and text not in asked:
                asked.append(text)
        return await together(
            self._exam(
                conversation,
                Exam(
                    subject=subject.id,
                    examiner=examiner,
                    number=number,
                    status=answer.status,
                    reason=answer.reason,
                    repeated=repeated,
                    question=text,
                    source=source,
                    turns={},
                ),
            )
            for number, text, answer, source, repeated in written
        )

    async def _exam(self, conversation: Conversation, exam: Exam) -> Exam:
        if exam.question is None or exam.repeated:
            return exam
        turns = await together(self._turns(conversation, exam, system) for system in self.systems)
        by_system = dict(zip(self.systems, turns, strict=True))
        judges = list(self.examiners) if self.mark_all else [exam.examiner]
        rankings = await together(self._rank(conversation, exam, by_system, judge) for judge in judges)
        return replace(exam, turns=by_system, rankings=tuple(ranking for ranking in rankings if ranking is not None))

    async def _turns(self, conversation: Conversation, exam: Exam, system: str) -> tuple[Turn, ...]:
        """The question, the answer, the follow-ups; ended by the first of them that fails."""
        assert exam.question is not None
        question, asked = exam.question, exam.source
        turns: list[Turn] = []
        for number in range(self.rounds):
            if turns:
                last = turns[-1]
                if last.answer is None:
                    break
                shown = [_document(exam, system, last)]
                follow_up = await conversation.write(
                    _part("follow-up", exam.examiner), shown, given={"question": last.question}
                )
                text, asked = _one_line(follow_up.answer), follow_up.source
                if text is None:
                    turns.append(Turn(number, "", asked))
                    break
                question = text
            told = await conversation.write(_part("answer", system), given={"question": question})
            answer = (told.answer.text or "").strip() if told.answer.usable else ""
            turns.append(Turn(number, question, asked, answer or None, told.source))
        return tuple(await together(self._scored(conversation, exam, system, turn) for turn in turns))

    async def _scored(self, conversation: Conversation, exam: Exam, system: str, turn: Turn) -> Turn:
        if turn.answer is None:
            return turn
        judges = list(self.examiners) if self.mark_all else [exam.examiner]
        document, given = _document(exam, system, turn), {"question": turn.question}
        told = await together(conversation.grade(_part("score", judge), document, given=given) for judge in judges)
        marks = list(zip(judges, told, strict=True))
        return turn._replace(
            scores={judge: one.answer.value if one.answer.usable else None for judge, one in marks},
            score_sources={judge: one.source for judge, one in marks},
        )

    async def _rank(
        self, conversation: Conversation, exam: Exam, turns: Mapping[str, tuple[Turn, ...]], judge: str
    ) -> Ranked | None:
        """The judge's order of the answers to the question that all systems had; None where there is one or none."""
        assert exam.question is not None
        answered = [system for system, of_system in turns.items() if of_system and of_system[0].answer is not None]
        if len(answered) < 2:
            return None
        draw = random.Random(f"{self.settings.seed}\0{exam.subject}\0{exam.examiner}\0{exam.number}\0{judge}")
        draw.shuffle(answered)
        shown = [_document(exam, system, turns[system][0]) for system in answered]
        told = await conversation.order(_part("rank", judge), shown, given={"question": exam.question})
        places = _places(told.answer, answered) if told.answer.usable else None
        return Ranked(judge, tuple(answered), places, told.answer.status, told.source)


def _places(order: Order, shown: Sequence[str]) -> dict[str, int] | None:
    if order.permutation is None:
        return None
    tied = {i: group for group in order.ties or () for i in group}
    position = {i: place for place, i in enumerate(order.permutation, 1)}
    return {shown[i]: min(position[other] for other in tied.get(i, (i,))) for i in order.permutation}


def _document(exam: Exam, system: str, turn: Turn) -> Document:
    return Document(f"{exam.examiner}/{exam.number}/{turn.round}/{system}", turn.answer or "")


def _one_line(written: Written) -> str | None:
    """A written question on one line; None where it failed or is empty."""
    return " ".join((written.text or "").split()) or None if written.usable else None


def _part(kind: str, name: str) -> str:
    return f"{kind}@{name}"
