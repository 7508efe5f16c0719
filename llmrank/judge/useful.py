"""Recipes that ask what a document is good for: for writing the answer, as the answer, as a citation."""

from __future__ import annotations

import asyncio

from llmrank.data.types import Document
from llmrank.judge.recipes import Asking, recipe
from llmrank.judge.texts import texts_of
from llmrank.questions import Grade
from llmrank.voice import Part


@recipe(
    "utility",
    source="2504.05220",
    template="utility/useful",
    calls=lambda n, passages: (n, 2 * n + 1) if n else 0,
    rounds=lambda n, passages: (1, 3) if n else 0,
    formula=("n to 2n + 1", "1 to 3"),
    parts=lambda passages: {
        "relevance": Part("relevance/binary", "grade"),
        "answer": Part("utility/pseudo-answer", "write", shown=passages),
    },
    together=True,
)
async def utility(item: Document, ask: Asking, *, passages: int = 5) -> Grade:
    """Selects what is relevant, has an answer written from it, and judges each by its use for that answer.

    n to 2n + 1 calls, three rounds. The answer is written from the first `passages` documents found relevant, in the
    order given; what is not relevant is of no use. Where the answer cannot be written, use is judged without it.
    """
    found = await asyncio.gather(*(ask.grade(document, by="relevance") for document in ask.pool))
    relevant = [document for document, grade in zip(ask.pool, found, strict=True) if grade.label == "yes"]
    own = found[ask.pool.index(item)]
    if own.label != "yes":
        return own
    answer = await ask.write(relevant[:passages], by="answer")
    return await ask.grade(item, given={"answer": answer.text or ""})


@recipe(
    "answer-match",
    source="reference-based answer matching",
    template="answers/match",
    calls=lambda n, references: (0, n),
    rounds=lambda n, references: (0, min(n, 1)),
    fault=lambda references: (
        "the recipe answer-match needs --option references=FILE, JSONL of query_id and text"
        if references is None
        else None
    ),
)
async def answer_match(item: Document, ask: Asking, *, references: str | None = None) -> Grade:
    """Whether an answer says what a reference answer to the query says.

    n calls, one round. `references`: JSONL of query_id and text; of several for a query any will do, and all are shown.
    A query without one fails (`no-reference`).
    """
    assert references is not None
    lines = texts_of(references, "--option references").get(ask.query.id, ())
    if not lines:
        return Grade(status="failed", reason="no-reference")
    return await ask.grade(item, given={"reference": "\nor: ".join(line.text for line in lines)})


@recipe(
    "citation",
    source="support of a claim by its citation, as in the TREC RAG track 2504.15205",
    template="citation/support",
)
async def citation(item: Document, ask: Asking) -> Grade:
    """Whether a passage supports the claim that cites it, in full, in part or not; the query is the claim.

    n calls, one round.
    """
    return await ask.grade(item, given={"claim": ask.query.text})
