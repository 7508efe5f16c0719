"""Answer scent: one model writes the answer to be expected, another tells how likely each candidate makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llmrank.ask.base import Ask
from llmrank.rerank.methods import Item, Part, Ranked, between, method
from llmrank.rerank.pointwise import by_grade

ANSWER = "answer"


@method(
    question="grade",
    source="ASRank 2501.15245",
    template="pointwise/answer-likelihood",
    needs=("prompt-logprobs",),
    calls=lambda n, writer: between(min(n, 1), n + min(n, 1)),
    rounds=lambda n, writer: between(min(n, 1), 2 * min(n, 1)),
    formula=("1 + n", "2"),
    shown=lambda n, **options: 1,
    parts=lambda writer: {ANSWER: Part("pointwise/expected-answer", "write", writer, shown=0)},
    brings=(ANSWER,),
)
async def answer_scent(items: Sequence[Item], ask: Ask, *, writer: str | None = None) -> Ranked | list[Item]:
    """Has an expected answer written once for the query, and scores every candidate by how likely it makes that answer.

    1 + n calls, two rounds; where no answer was written, nothing more is asked and the order stays. The score is the
    mean log-probability of the answer's tokens after the candidate and the query. `writer`: the SPEC of another model
    to write the answer, such as openai:MODEL. Exact up to ties of score.
    """
    if not items:
        return []
    written = await ask.write(by=ANSWER)
    if written.text is None:
        return list(items)
    given = {ANSWER: written.text}
    return by_grade(items, await asyncio.gather(*(ask.grade(item, given=given) for item in items)))
