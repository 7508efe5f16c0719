"""Recipes that grade by a rubric: a fixed one, questions written for the query, criteria derived by comparing."""

from __future__ import annotations

import asyncio
from statistics import fmean
from typing import Literal

from llmrank.data.types import Document
from llmrank.judge.recipes import Asking, recipe
from llmrank.judge.texts import texts_of
from llmrank.questions import Grade
from llmrank.voice import Part

MOST_QUESTIONS = 20
ANSWERED = 4.0
"""The grade from which a question counts as answered."""
RUBRIC = "How well the response does what the instruction asks: it is correct, complete, to the point and clear."


@recipe(
    "rubric-questions",
    source="RUBRIC and EXAM++ (Farzi and Dietz, ICTIR 2024)",
    template="rubric/answered",
    calls=lambda n, combine: (min(n, 1), min(n, 1) + n * MOST_QUESTIONS),
    rounds=lambda n, combine: (min(n, 1), 2 * min(n, 1)),
    formula=("1 + n x questions", "2"),
    parts=lambda combine: {"questions": Part("rubric/questions", "write", shown=0)},
    scale=(0, 1, 2, 3, 4, 5),
)
async def rubric_questions(item: Document, ask: Asking, *, combine: Literal["best", "mean", "cover"] = "best") -> Grade:
    """Has questions written that a good answer settles, once a query, and grades how well the document answers each.

    1 + n x questions calls, of at most 20 questions, two rounds. `combine`: the `best` grade over the questions; the
    `mean`; or `cover`, five times the share of the questions that are answered with 4 or more. A question that failed
    is left out; without any the label fails.
    """
    written = await ask.write(by="questions")
    if not written.usable:
        return Grade(status="failed", reason=f"questions-{written.reason}")
    questions = written.parts[:MOST_QUESTIONS]
    grades = await asyncio.gather(*(ask.grade(item, given={"question": question}) for question in questions))
    told = [grade for grade in grades if grade.usable and grade.value is not None]
    if not told:
        return grades[0]
    values = [grade.value or 0.0 for grade in told]
    if combine == "best":
        return max(told, key=lambda grade: grade.value or 0.0)
    value = fmean(values) if combine == "mean" else 5 * fmean(value >= ANSWERED for value in values)
    repairs = ("fewer-questions",) if len(told) < len(grades) else ()
    return Grade(status="repaired" if repairs else "ok", repairs=repairs, value=value, score_kind=f"rubric-{combine}")


@recipe(
    "absolute-rubric",
    source="Prometheus 2 2405.01535; Selene 2501.17195",
    template="rubric/absolute",
    parts=lambda rubric, references: (
        {} if references is None else {"reference": Part("rubric/absolute-reference", "grade")}
    ),
)
async def absolute_rubric(item: Document, ask: Asking, *, rubric: str = RUBRIC, references: str | None = None) -> Grade:
    """Scores a response from 1 to 5 by a rubric, feedback first; the query is the instruction.

    n calls, one round. `rubric`: the rubric in words. `references`: JSONL of query_id and text, a response to each
    query that would get 5, shown beside what is scored; a query without one fails (`no-reference`).
    """
    if references is None:
        return await ask.grade(item, given={"rubric": rubric})
    lines = texts_of(references, "--option references").get(ask.query.id)
    if lines is None:
        return Grade(status="failed", reason="no-reference")
    return await ask.grade(item, by="reference", given={"rubric": rubric, "reference": lines[0].text})


@recipe(
    "derived-criteria",
    source="PC2 2505.06698",
    template="derived/grade",
    calls=lambda n, answers: (min(n, 1) * answers, n + min(n, 1) * (answers + 1)),
    rounds=lambda n, answers: (min(n, 1), 3 * min(n, 1)),
    fault=lambda answers: None if answers >= 1 else f"--option answers={answers}: it must be at least 1",
    formula=("n + answers + 1", "3"),
    parts=lambda answers: {
        "answer": Part("examiner/answer", "write", shown=0),
        "criteria": Part("derived/criteria", "write", shown=answers),
    },
)
async def derived_criteria(item: Document, ask: Asking, *, answers: int = 2) -> Grade:
    """Has auxiliary answers to the query written and compared, and grades by the criteria that tell them apart.

    n + `answers` + 1 calls, three rounds; from 0 to 10.
    """
    writing = (ask.write(by="answer", given={"question": ask.query.text}, sample=i) for i in range(answers))
    written = [answer for answer in await asyncio.gather(*writing) if answer.text is not None]
    if not written:
        return Grade(status="failed", reason="no-auxiliary-answer")
    shown = [Document(f"auxiliary {i}", answer.text or "") for i, answer in enumerate(written, 1)]
    criteria = await ask.write(shown, by="criteria")
    if not criteria.usable:
        return Grade(status="failed", reason=f"criteria-{criteria.reason}")
    listed = "\n".join(f"{i}. {part}" for i, part in enumerate(criteria.parts, 1))
    return await ask.grade(item, given={"criteria": listed})
