"""What a ranking teaches a student: documents, order, scores, and the answers behind them, as one JSON line a query."""

from __future__ import annotations

import json
from typing import Any, cast

from llmrank.data.types import Document
from llmrank.questions import Answer, Choice, Grade, Order, Question
from llmrank.rerank.beliefs import pairs
from llmrank.rerank.ranking import Ranking


def teacher_line(ranking: Ranking) -> str:
    """The line for one query. `ranking` must hold its answers (`Reranker(..., keep_answers=True)`).

    `documents` stand best first; `order` are their ids, `scores` theirs in that order or null. `pairs` are the
    comparisons that were asked, each once with both its orders put together: `share` is the left document's share of
    the win, `p_left` its probability where the model gave one (instruction distillation 2311.01555; sampled pairwise
    distillation 2507.04820). `labels` are single documents' grades, `lists` the sets and windows with what was chosen
    or ordered.
    """
    return json.dumps(_taught(ranking), ensure_ascii=False) + "\n"


def _taught(ranking: Ranking) -> dict[str, Any]:
    query = ranking.query
    return {
        "query": {"qid": query.id, "text": query.text},
        "documents": [_document(hit.document) for hit in ranking],
        "order": ranking.ids,
        "scores": ranking.scores,
        "score_kind": ranking.row.score_kind,
        "status": ranking.row.status,
        "pairs": [
            {
                "left": cast(Document, left).id,
                "right": cast(Document, right).id,
                "share": told.share,
                "p_left": told.p_left,
                "status": told.status,
            }
            for left, right, told in pairs(ranking.answers)
            if told.usable
        ],
        "labels": [
            {"docid": _ids(q)[0], "value": a.value, "score_kind": a.score_kind, "label": a.label}
            | {"distribution": None if a.distribution is None else dict(a.distribution)}
            for q, a in ranking.answers.items()
            if isinstance(a, Grade) and a.usable
        ],
        "lists": [_listed(q, a) for q, a in ranking.answers.items() if isinstance(a, Choice | Order) and a.usable],
    }


def _document(document: Document) -> dict[str, Any]:
    told: dict[str, Any] = {"docid": document.id, "text": document.text}
    if document.title:
        told["title"] = document.title
    if document.score is not None:
        told["score"] = document.score
    return told


def _listed(question: Question, answer: Answer) -> dict[str, Any]:
    ids = _ids(question)
    if isinstance(answer, Choice):
        chosen = None if answer.index is None else ids[answer.index]
        probabilities = None if answer.distribution is None else list(answer.distribution)
        return {"shown": ids, "worst" if question.worst else "best": chosen, "distribution": probabilities}
    order = cast(Order, answer)
    return {"shown": ids, "order": [ids[i] for i in order.permutation or ()]}


def _ids(question: Question) -> list[str]:
    return [cast(Document, item).id for item in question.items]
