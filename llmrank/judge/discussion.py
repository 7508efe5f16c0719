"""A discussion of two judges: each reads what the other answered, and answers again in the same form."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from llmrank.ask.tally import Tally
from llmrank.ask.templated import TemplateAsk
from llmrank.data.types import Document, Query
from llmrank.judge.grader import Grader
from llmrank.judge.judgment import Judgment
from llmrank.llm.types import Request
from llmrank.questions import Answer, Grade, Question
from llmrank.templates.prepare import safe

TURNS = 2
"""How often the two may answer again."""
TURN = """Another assessor was asked the same and answered:

{other}

Your grade is {own}, theirs is {theirs}. Look at the query and the passage once more, weigh their answer, and decide:
keep your grade where you still think it right, change it where theirs is better. Answer again in the form asked for.
"""


class _Turn(TemplateAsk):
    """Asks the template's question with the judge's own answer and the other's after it."""

    own: Judgment
    other: Judgment

    def request(self, question: Question) -> Request | Answer:
        request = super().request(question)
        if not isinstance(request, Request):
            return request
        turn = TURN.format(other=safe(self.other.raw or ""), own=self.own.grade, theirs=self.other.grade)
        if request.prompt is not None:
            request.prompt = f"{request.prompt}{self.own.raw}\n\n{turn}"
        else:
            request.messages = (*request.messages, ("assistant", self.own.raw or ""), ("user", turn))
        return request


async def discussed(
    graders: Mapping[str, Grader], query: Query, document: Document, labels: Mapping[str, Judgment]
) -> tuple[dict[str, Judgment], list[tuple[str, Tally]]]:
    """The labels of two judges who disagree after one more turn, in which each has read the other's answer."""
    (one, first), (two, second) = labels.items()
    tallies = {one: Tally(), two: Tally()}
    turns = ((one, first, second), (two, second, first))
    answered = await asyncio.gather(
        *(_answer(graders[name], query, document, own, other, tallies[name]) for name, own, other in turns)
    )
    made = {name: new for (name, _, _), new in zip(turns, answered, strict=True)}
    return made, [(graders[name].template.name, tally) for name, tally in tallies.items()]


async def _answer(
    grader: Grader, query: Query, document: Document, own: Judgment, other: Judgment, tally: Tally
) -> Judgment:
    ask = _Turn(grader.voices[""].manner(), query, tally)
    ask.own, ask.other = own, other
    question = Question("grade", (document,))
    evidence = await ask.evidence(question)
    grade = evidence.answer
    assert isinstance(grade, Grade)
    if not grade.usable:
        return own  # who does not answer again has not changed its mind
    source = grader.source(question, evidence)
    made = grader.judgment(query.id, document.id, grade, [source], 0)
    before = own.sources or ((own.source,) if own.source else ())
    return replace(made, member=own.member, sources=(*before, source))
