"""Long documents: split into passages, of which those that share most with the query are asked about."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, NamedTuple, TypeGuard, cast

from llmrank.ask.base import Ask
from llmrank.data.types import Anchor, Document, Passage, Query
from llmrank.llm.backends.lexical import WORD, words
from llmrank.questions import Answer, Grade, Question

Combination = Literal["first", "max", "mean", "sum"]
WORDS = 150
"""Words of a passage, half of them also in the next, as for FirstP, MaxP and SumP (1905.09217)."""
COUNT = 4
"""Passages of a document that are asked about, as in IDCM (2105.09816)."""
K1, B = 1.2, 0.75  # BM25's usual constants
SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]{0,4}\s+|[。！？][”’」』）]?|\n\s*")


@dataclass(frozen=True, slots=True)
class Splitting:
    """How long documents are split, and what their passages' grades make together."""

    combine: Combination = "max"
    words: int = WORDS
    count: int = COUNT


class Span(NamedTuple):
    """A stretch of a text, by its characters, and how many words it has."""

    start: int
    end: int
    words: int


class Passages(Ask):
    """Grades a document by its passages, and shows it by its best ones in other questions.

    With `first` that is the first passage alone; else the `count` passages that BM25 finds best for the query among the
    document's own. A grade is then the highest of theirs, the mean or the sum; a passage whose question failed is left
    out, and the grade marked `fewer-passages`. Other questions show these passages as one text, in their order. A
    document of one passage stays as it is.
    """

    def __init__(self, inner: Ask, query: Query, splitting: Splitting) -> None:
        self._inner = inner
        self._query = query.text
        self._splitting = splitting
        self._graded: dict[str, tuple[Document, ...]] = {}
        self._shown: dict[str, Document] = {}

    async def answer(self, question: Question) -> Answer:
        if question.kind != "grade":
            shown = tuple(self._as_shown(item) if _is_candidate(item) else item for item in question.items)
            return await self._inner.answer(question._replace(items=shown))
        (item,) = question.items
        if not _is_candidate(item):
            return await self._inner.answer(question)
        parts = self._parts(item)
        answers = await asyncio.gather(*(self._inner.answer(question._replace(items=(part,))) for part in parts))
        return combined(cast(Sequence[Grade], answers), self._splitting.combine)

    def _parts(self, document: Document) -> tuple[Document, ...]:
        """The passages that are graded."""
        parts = self._graded.get(document.id)
        if parts is None:
            spans = self._chosen(document.text)
            parts = (document,)
            if spans is not None:
                names = (f"{document.id}\x1f{span.start}" for span in spans)  # no other document's id
                texts = (document.text[span.start : span.end].strip() for span in spans)
                parts = tuple(_passage(document, name, text) for name, text in zip(names, texts, strict=True))
            self._graded[document.id] = parts
        return parts

    def _as_shown(self, document: Document) -> Document:
        """The document with the text that questions about several documents show."""
        shown = self._shown.get(document.id)
        if shown is None:
            spans, shown = self._chosen(document.text), document
            if spans is not None:
                texts = [document.text[start:end].strip() for start, end in _merged(spans)]
                shown = _passage(document, document.id, "\n".join(texts))
            self._shown[document.id] = shown
        return shown

    def _chosen(self, text: str) -> list[Span] | None:
        """The passages that are asked about, in their order; None for a text of one passage."""
        how = self._splitting
        spans = split(text, how.words)
        if len(spans) < 2:
            return None
        if how.combine == "first":
            return spans[:1]
        return [spans[i] for i in best([text[span.start : span.end] for span in spans], self._query, how.count)]


def split(text: str, most: int = WORDS) -> list[Span]:
    """Windows of whole sentences with so many words at most, each beginning where half of the last one's are past.

    Together they hold the whole text. A longer sentence is split between words. Words are those of any script; in
    scripts without spaces every character is one.
    """
    units = list(_units(text, most))
    spans: list[Span] = []
    first = 0
    while first < len(units):
        end, count = first, 0
        while end < len(units) and (end == first or count + units[end].words <= most):
            count += units[end].words
            end += 1
        if not spans or units[end - 1].end > spans[-1].end:
            spans.append(Span(units[first].start, units[end - 1].end, count))
        if end == len(units):
            break
        past = units[first].words
        first += 1
        while first < end and past < most // 2:
            past += units[first].words
            first += 1
    return spans


def best(texts: Sequence[str], query: str, count: int) -> list[int]:
    """The places of the texts that BM25 finds best for the query, with these texts as the collection, in their order.

    Equal ones are taken from the front.
    """
    wanted = words(query)
    bags = [Counter(WORD.findall(text.casefold())) for text in texts]
    lengths = [bag.total() for bag in bags]
    mean = fmean(lengths) or 1.0
    found = Counter(word for bag in bags for word in wanted & bag.keys())
    weight = {word: math.log(1 + (len(bags) - n + 0.5) / (n + 0.5)) for word, n in found.items()}

    def score(i: int) -> float:
        shares = ((weight[word], bags[i][word]) for word in sorted(weight) if bags[i][word])
        return math.fsum(w * f * (K1 + 1) / (f + K1 * (1 - B + B * lengths[i] / mean)) for w, f in shares)

    scores = list(map(score, range(len(texts))))
    return sorted(sorted(range(len(texts)), key=lambda i: -scores[i])[:count])


def combined(grades: Sequence[Grade], combine: Combination) -> Grade:
    """The grade of a document from those of its passages."""
    usable = [grade for grade in grades if grade.usable and grade.value is not None]
    if len(grades) == 1 or not usable:
        return next((grade for grade in grades if grade.status == "failed"), grades[0])
    repairs = dict.fromkeys(repair for grade in usable for repair in grade.repairs)
    if len(usable) < len(grades):
        repairs["fewer-passages"] = None
    values = [grade.value for grade in usable if grade.value is not None]
    if combine in ("first", "max"):
        together = usable[values.index(max(values))]
    else:
        kind = "+".join(dict.fromkeys(grade.score_kind for grade in usable))
        together = (
            Grade(value=math.fsum(values), score_kind=f"{kind}-sum")
            if combine == "sum"
            else Grade(value=fmean(values), score_kind=kind)
        )
    return replace(together, status="repaired" if repairs else "ok", repairs=tuple(repairs))


def _is_candidate(item: Hashable) -> TypeGuard[Document]:
    return isinstance(item, Document) and not isinstance(item, Passage | Anchor)


def _passage(document: Document, name: str, text: str) -> Passage:
    return Passage(name, text, document.title, document.score, document.metadata, of=document.id)


def _units(text: str, most: int) -> Iterator[Span]:
    """The text's sentences; one of more words than a passage may have, in pieces of half as many."""
    start = 0
    for end in [*(match.end() for match in SENTENCE_END.finditer(text)), len(text)]:
        begins = [match.start() for match in WORD.finditer(text, start, end)]
        size = max(1, most // 2)
        if len(begins) > most:
            cuts = begins[size::size]
            for cut in cuts:
                yield Span(start, cut, size)
                start = cut
            yield Span(start, end, len(begins) - size * len(cuts))
        elif end > start:
            yield Span(start, end, len(begins))
        start = end


def _merged(spans: Sequence[Span]) -> Iterator[tuple[int, int]]:
    """The stretches that the spans cover, in their order, those that overlap or touch as one."""
    start, end, _ = spans[0]
    for span in spans[1:]:
        if span.start > end:
            yield start, end
            start = span.start
        end = span.end
    yield start, end
