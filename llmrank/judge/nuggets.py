"""Nuggets: the facts that an answer must hold, created, weighed and looked for in every document."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, NamedTuple

from llmrank.data.types import Document
from llmrank.errors import InputError
from llmrank.judge.recipes import Asking, recipe
from llmrank.judge.texts import texts_of
from llmrank.questions import Grade
from llmrank.voice import Part

BATCH = 10
"""Passages that are shown at once to collect nuggets from."""
MOST = 30
Score = Literal["vital-strict", "vital", "all-strict", "all"]


class Nugget(NamedTuple):
    """One fact."""

    text: str
    vital: bool
    """An answer without it is no good answer; else it is okay to have."""


class NuggetScores(NamedTuple):
    """The share of the nuggets that a text holds; None where there are none to hold."""

    all: float | None
    """Of all nuggets; partial support counts a half."""
    all_strict: float | None
    """Of all nuggets; only full support counts."""
    vital: float | None
    vital_strict: float | None


def nugget_scores(support: Sequence[float], vital: Sequence[bool]) -> NuggetScores:
    """The four scores of a text. `support` of each nugget: 1 full, 0.5 partial, 0 none; `vital`: which are vital.

    AutoNuggetizer, 2411.09607.
    """
    vitals = [value for value, is_vital in zip(support, vital, strict=True) if is_vital]
    return NuggetScores(
        _share(support),
        _share([value == 1 for value in support]),
        _share(vitals),
        _share([value == 1 for value in vitals]),
    )


def _share(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _steps(n: int, passages: int, nuggets: str | None) -> int:
    return 0 if nuggets is not None else -(-min(n, passages) // BATCH)


@recipe(
    "nuggets",
    source="AutoNuggetizer, TREC RAG track 2411.09607",
    template="nuggets/assign",
    calls=lambda n, score, passages, nuggets: (
        _steps(n, passages, nuggets),
        _steps(n, passages, nuggets) + MOST * (n + 1),
    ),
    rounds=lambda n, score, passages, nuggets: (_steps(n, passages, nuggets), _steps(n, passages, nuggets) + 2),
    formula=("passages/10 + nuggets x (n + 1)", "passages/10 + 2"),
    parts=lambda score, passages, nuggets: {
        "create": Part("nuggets/create", "write", shown=BATCH),
        "importance": Part("nuggets/importance", "grade"),
    },
    together=True,
    scale=(0, 1),
)
async def nuggets(
    item: Document, ask: Asking, *, score: Score = "vital-strict", passages: int = 20, nuggets: str | None = None
) -> Grade:
    """Collects the facts that an answer must hold, tells vital ones from others, and looks for each in the document.

    passages/10 + nuggets x (n + 1) calls in passages/10 + 2 rounds, with at most 30 nuggets. They are created from the
    first `passages` documents of the query, ten at a time, or read from `nuggets`, JSONL of query_id, text and, if
    known, importance (vital or okay). `score` is the label: the share of the vital nuggets, or of all, that the
    document supports; partial support counts a half, or nothing in the strict ones. The label is that share as a whole
    number; the share itself stands in `expected`. A nugget whose question failed fails the label.
    """
    known = await _nuggets(ask, passages, nuggets)
    if isinstance(known, Grade):
        return known
    found = await asyncio.gather(*(ask.grade(item, given={"nugget": nugget.text}) for nugget in known))
    lost = next((grade for grade in found if grade.value is None), None)
    if lost is not None:
        return lost
    scores = nugget_scores([grade.value or 0.0 for grade in found], [nugget.vital for nugget in known])
    value: float | None = getattr(scores, score.replace("-", "_"))
    if value is None:
        return Grade(status="failed", reason="no-vital-nugget")
    return Grade(value=value, score_kind="nugget-score")


async def _nuggets(ask: Asking, passages: int, path: str | None) -> list[Nugget] | Grade:
    """The query's nuggets, or the failed label where there are none."""
    texts: Sequence[str]
    weights: dict[str, str] = {}
    if path is not None:
        lines = texts_of(path, "--option nuggets").get(ask.query.id, ())
        texts = [line.text for line in lines]
        weights = {line.text: str(line.fields["importance"]) for line in lines if "importance" in line.fields}
        for weight in weights.values():
            if weight not in ("vital", "okay"):
                raise InputError(f"--option nuggets {path}: importance {weight!r} is neither vital nor okay")
    else:
        texts = await _created(ask, passages)
    if not texts:
        return Grade(status="failed", reason="no-nuggets")
    open_texts = [text for text in texts if text not in weights]
    weighing = (ask.grade(Document(f"nugget: {text}", text), by="importance") for text in open_texts)
    weighed = dict(zip(open_texts, await asyncio.gather(*weighing), strict=True))
    if lost := next((grade for grade in weighed.values() if grade.label is None), None):
        return lost
    weights |= {text: grade.label or "" for text, grade in weighed.items()}
    return [Nugget(text, weights[text] == "vital") for text in texts]


async def _created(ask: Asking, passages: int) -> Sequence[str]:
    found: tuple[str, ...] = ()
    shown = ask.pool[:passages]
    for start in range(0, len(shown), BATCH):
        listed = "\n".join(f"{i}. {text}" for i, text in enumerate(found, 1))
        written = await ask.write(shown[start : start + BATCH], by="create", given={"found": listed})
        found = tuple(dict.fromkeys(written.parts))[:MOST] or found  # what could not be read adds nothing
    return found
