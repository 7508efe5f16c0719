"""Synthetic topics: queries written for documents, kept where their own document is found again by them."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast

from llmrank.ask.examples import Examples, Picked, Select, normal
from llmrank.data.examples import Judged, TrainingQuery
from llmrank.data.types import Candidates, Document, Query
from llmrank.errors import InputError
from llmrank.judge.judge import judging_settings
from llmrank.judge.judgment import Source
from llmrank.judge.roundtrip import Corpus, Found, full_text
from llmrank.judge.talk import Conversation, Row, Talk, Told, Worked, source_row, together
from llmrank.llm.types import Backend
from llmrank.questions import Grade, Status, Written
from llmrank.settings import Settings
from llmrank.templates import Example, Template
from llmrank.templates.prepare import safe
from llmrank.voice import Part

TEMPLATE = "topics/query"
LONGEST = 64
"""Words of a query at most; more is no query."""
SHORTEST = 8
"""Words that a document must have for a query to be written for it."""
QUOTES = "\"'“”‘’«»`* "
LEADS = ("query:", "search query:", "question:", "q:")
Why = Literal["kept", "failed", "repeated", "rank", "run-rank", "reranked", "not-checked", "check-failed"]
"""What became of a query: kept, or why not."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A written query with where it comes from and what became of it."""

    id: str
    document: Document
    """What it was written for."""
    number: int
    """Which of the document's queries it is, from 0."""
    text: str | None
    status: Status
    source: Source
    reason: str | None = None
    repairs: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    """Ids of the training queries that the prompt showed."""
    why: Why | None = None
    """None as long as that is not decided."""
    lexical_rank: int | None = None
    """Its document's place by BM25; None where it is not found, or was not looked for."""
    run_rank: int | None = None
    reranked: int | None = None
    """Its document's place once the best by BM25 were graded."""
    score: float | None = None
    """Its document's grade."""
    graded: Mapping[str, float] = field(default_factory=dict)
    """The grades of the documents that were graded, its own too."""
    ungraded: int = 0
    """Documents whose grade failed: they are left out of the order."""
    score_source: Source | None = None

    @property
    def open(self) -> bool:
        """Whether it is still to be decided on."""
        return self.why is None

    def row(self) -> Row:
        """The object of the provenance file."""
        checked = None if self.score_source is None else source_row(self.score_source)
        return {
            "query_id": self.id,
            "text": self.text,
            "doc_id": self.document.id,
            "synthetic": True,
            "kept": None if self.open else self.why == "kept",
            "dropped": None if self.why in (None, "kept") else self.why,
            "lexical_rank": self.lexical_rank,
            "run_rank": self.run_rank,
            "reranked": self.reranked,
            "score": self.score,
            "ungraded": self.ungraded,
            "examples": self.examples,
            **source_row(self.source),
            "status": self.status,
            "reason": self.reason,
            "repairs": self.repairs,
            "check": checked,
        }


class Writer(Talk[Document, tuple[Topic, ...]]):
    """Writes queries that documents answer (InPars 2202.05144, Promptagator 2209.11755), a unit of work a document.

    training: worked examples, of which the settings' `shots` and `select` choose some for each document, never one that
    shares it. each: queries for a document; further ones need a temperature, which the template has.
    """

    unused = {  # noqa: RUF012  a table
        "samples": "it would put several queries together into one; name --each for several queries a document",
        "passages": "a document is shown from its beginning, cut by --passage-tokens; leave it out",
    }

    def __init__(
        self,
        *,
        backend: str | Backend,
        template: str | Template = TEMPLATE,
        training: Sequence[TrainingQuery] = (),
        training_name: str = "",
        each: int = 1,
        **settings: Any,
    ) -> None:
        self.each, self.backend = each, backend
        super().__init__({"": Part(template, "write", backend)}, judging_settings(settings), "writing topics")
        shown = self.voices[""].template
        temperature = self.settings.temperature
        if each > 1 and not (shown.header.temperature if temperature is None else temperature):
            raise InputError(f"--each {each}: all queries of a document are one at temperature 0; set --temperature")
        if training and not shown.shows_examples:
            raise InputError(f"--template {shown.name} shows no examples; take one that does, such as {TEMPLATE}")
        self._examples = _examples(training, training_name, self.settings) if training else None

    @property
    def training(self) -> Sequence[TrainingQuery]:
        """The worked examples."""
        return () if self._examples is None else self._examples.training

    async def work(self, request: Document) -> Worked[tuple[Topic, ...]]:
        """The queries for one document."""
        picked, ids = self._picked(request)
        # What the document begins with stands for the query where a local backend answers without a model.
        query = Query(f"syn-{request.id}", " ".join(full_text(request).split()[:SHORTEST]))
        conversation = Conversation(self, query, {"": picked})
        told = await together(conversation.write("", [request], sample=number) for number in range(self.each))
        topics = tuple(self._topic(conversation, request, number, one, ids) for number, one in enumerate(told))
        return conversation.worked(topics)

    def _topic(
        self,
        conversation: Conversation,
        document: Document,
        number: int,
        told: Told[Written],
        examples: tuple[str, ...],
    ) -> Topic:
        answer, status, reason = told.answer, told.answer.status, told.answer.reason
        text, repairs, source = None, answer.repairs, told.source
        if answer.usable:
            text = bare_query(answer.text or "")
            words = len(text.split())
            if not words or words > LONGEST:
                status, reason, text = "failed", "too-long" if words else "empty", None
                source = conversation.reread(told, status, reason=reason)
            elif text != (answer.text or "").strip():
                status, repairs = "repaired", (*repairs, "trimmed")
                source = conversation.reread(told, status, repairs=("trimmed",))
        name = f"syn-{document.id}" + (f"-{number + 1}" if self.each > 1 else "")
        why: Why | None = "failed" if status == "failed" else None
        return Topic(name, document, number, text, status, source, reason, repairs, examples, why)

    def _picked(self, document: Document) -> tuple[Picked, tuple[str, ...]]:
        if self._examples is None:
            return Picked(), ()
        asked = Query(f"syn-{document.id}", full_text(document))
        chosen, kept_out = self._examples.pick(asked, [document])
        shown = [self._examples.training[i] for i in reversed(chosen)]  # the nearest stands next to the question
        worded = tuple(Example(safe(t.query), (safe(_best(t).text),), safe(t.query)) for t in shown)
        return Picked(worded, kept_out), tuple(t.query_id for t in shown)


class Checked(NamedTuple):
    """The grades of documents for one query."""

    query_id: str
    grades: dict[str, Told[Grade]]
    """By document; of those that were asked."""


class Checker(Talk[Candidates, Checked]):
    """Grades documents for queries, each alone: the second half of a round trip, and the soft scores of triples."""

    def __init__(self, writer: Writer, *, template: str | Template, backend: str | Backend | None = None) -> None:
        """backend: a model of its own, which spends from the writer's budget; else the writer's."""
        part = Part(template, "grade", backend or writer.backend)
        super().__init__({"": part}, writer.settings, "checking topics", writer.models)

    async def work(self, request: Candidates) -> Worked[Checked]:
        """The grades of one query's documents."""
        conversation = Conversation(self, request.query)
        told = await together(conversation.grade("", document) for document in request.documents)
        grades = {d.id: one for d, one in zip(request.documents, told, strict=True) if one.answer.status != "unasked"}
        return conversation.worked(Checked(request.query.id, grades))


def drawn(corpus: Corpus, count: int, seed: int) -> tuple[list[Document], int]:
    """A seeded sample of the documents, in the order of the corpus, and how many are too short to be asked about.

    A document's chance hangs on its own id, so that no order of the corpus and no other document changes the draw.
    """
    held: list[tuple[int, int, Document]] = []
    short = 0
    for place, document in enumerate(corpus()):
        if len(full_text(document).split(None, SHORTEST)) < SHORTEST:
            short += 1
            continue
        digest = hashlib.blake2b(f"{seed}\0{document.id}".encode(errors="surrogatepass"), digest_size=8).digest()
        entry = (-int.from_bytes(digest, "big"), -place, document)
        if len(held) < count:
            heapq.heappush(held, entry)
        elif entry[:2] > held[0][:2]:
            heapq.heapreplace(held, entry)
    return [document for _, _, document in sorted(held, key=lambda entry: -entry[1])], short


def without_repeats(topics: Iterable[Topic], known: Iterable[str] = ()) -> list[Topic]:
    """The topics, of which those that say what an earlier one or a known query says are dropped as `repeated`."""
    seen = {normal(text) for text in known}
    told = []
    for topic in topics:
        if topic.open and topic.text is not None:
            text = normal(topic.text)
            topic = replace(topic, why="repeated") if text in seen else topic
            seen.add(text)
        told.append(topic)
    return told


def by_lexical_rank(topics: Iterable[Topic], found: Mapping[str, Sequence[Found]], top: int) -> list[Topic]:
    """The topics with their documents' ranks by BM25; those below `top` are dropped (`top` 0: none is)."""
    return [
        topic if not topic.open else _ranked(topic, "lexical_rank", "rank", [d.doc_id for d in found[topic.id]], top)
        for topic in topics
    ]


def by_run(topics: Iterable[Topic], run: Mapping[str, Sequence[str]], top: int) -> list[Topic]:
    """The same by a run of the user's own over the written queries; a query that the run lacks is `not-checked`."""
    return [
        topic
        if not topic.open
        else _ranked(topic, "run_rank", "run-rank", run[topic.id], top)
        if topic.id in run
        else replace(topic, why="not-checked")
        for topic in topics
    ]


def by_grades(
    topics: Iterable[Topic],
    checked: Mapping[str, Checked],
    order: Mapping[str, Sequence[str]],
    top: int,
    labels: Mapping[str, float] | None = None,
) -> list[Topic]:
    """The same by grades of `order`'s documents, of which equal ones keep their order.

    labels: the values of the template's labels; where their probabilities are known the expected one is the grade.

    Where the source document's own grade failed nothing is known (`check-failed`); another document whose grade failed
    is left out of the order.
    """
    told = []
    for topic in topics:
        grades = checked[topic.id].grades if topic.id in checked else {}
        own = grades.get(topic.document.id)
        if not topic.open:
            told.append(topic)
        elif own is None:
            told.append(replace(topic, why="not-checked"))
        else:
            values = {d: value for d, g in grades.items() if (value := _expected(g.answer, labels or {})) is not None}
            topic = replace(topic, graded=values, ungraded=len(order[topic.id]) - len(values), score_source=own.source)
            if topic.document.id not in values:
                told.append(replace(topic, why="check-failed"))
                continue
            ranked = sorted((d for d in order[topic.id] if d in values), key=lambda d: -values[d])
            topic = replace(topic, score=values[topic.document.id])
            told.append(_ranked(topic, "reranked", "reranked", ranked, top))
    return told


class Triple(NamedTuple):
    """A training example: a query, a document that answers it and one that does not."""

    query_id: str
    query: str
    positive: str
    negative: str
    positive_score: float
    negative_score: float
    score_kind: str
    """`grade` where a model graded both, else `bm25`."""


def triples(
    topics: Iterable[Topic],
    found: Mapping[str, Sequence[Found]],
    same: Mapping[str, frozenset[str]],
    negatives: int,
    seed: int,
) -> Iterator[Triple]:
    """Triples of the kept topics: negatives are drawn from the documents near the query by BM25.

    Not drawn are the source and what has its text (`same`, by query), and, where documents were graded, what was not
    graded or not below the source. `found` must hold the BM25 scores; a source that is not in it gets none.
    """
    for topic in topics:
        if topic.why != "kept":
            continue
        own, near = topic.document.id, found[topic.id]
        scores = dict(topic.graded) or {hit.doc_id: hit.score for hit in near}
        if own not in scores:
            continue
        limit = scores[own] if topic.graded else None
        pool = [
            hit.doc_id
            for hit in near
            if hit.doc_id != own
            and hit.doc_id not in same[topic.id]
            and hit.doc_id in scores
            and (limit is None or scores[hit.doc_id] < limit)
        ]
        draw = random.Random(f"{seed}\0{topic.id}")
        for negative in sorted(draw.sample(pool, min(negatives, len(pool))), key=pool.index):
            kind = "grade" if topic.graded else "bm25"
            yield Triple(topic.id, topic.text or "", own, negative, scores[own], scores[negative], kind)


def kept(topics: Iterable[Topic]) -> list[Topic]:
    """The topics, of which all that nothing dropped are kept; what was not asked is left out."""
    return [replace(topic, why="kept") if topic.open else topic for topic in topics if topic.status != "unasked"]


def bare_query(written: str) -> str:
    """A query as one types it: its first line with text, without quotes around it or a word such as `Query:` before."""
    line = next((line for line in written.splitlines() if line.strip(QUOTES)), "")
    flat = " ".join(line.split()).strip(QUOTES)
    for lead in LEADS:
        if flat.casefold().startswith(lead):
            flat = flat[len(lead) :].strip(QUOTES)
            break
    return flat


def examples_of(
    queries: Mapping[str, Query], qrels: Mapping[str, Mapping[str, int]], corpus: Corpus
) -> list[TrainingQuery]:
    """Training queries from judged ones: each with its best document, of several the first in the qrels."""
    wanted = {}
    for query_id, grades in qrels.items():
        best = max(grades, key=lambda d: grades[d], default=None)
        if query_id in queries and best is not None and grades[best] > 0:
            wanted[query_id] = best
    ids = set(wanted.values())
    texts = {document.id: full_text(document) for document in corpus() if document.id in ids}
    return [
        TrainingQuery(line, query_id, queries[query_id].text, (Judged(texts[best], best, worth=1.0),))
        for line, (query_id, best) in enumerate(wanted.items(), 1)
        if best in texts
    ]


def _examples(training: Sequence[TrainingQuery], name: str, settings: Settings) -> Examples:
    for one in training:
        if (worth := _best(one).worth) is not None and worth <= 0:
            raise InputError.at(name, one.line, "none of its documents is relevant; a query is shown with one that is")
    select = cast(Select, settings.select)
    return Examples(name, training, shots=settings.shots, select=select, seed=settings.seed)


def _expected(grade: Grade, labels: Mapping[str, float]) -> float | None:
    if not grade.usable or grade.value is None:
        return None
    if grade.distribution is not None and all(label in labels for label in grade.distribution):
        return round(sum(p * labels[label] for label, p in grade.distribution.items()), 9)
    return grade.value


def _best(training: TrainingQuery) -> Judged:
    return max(training.documents, key=lambda d: float("-inf") if d.worth is None else d.worth)


RankField = Literal["lexical_rank", "run_rank", "reranked"]


def _ranked(topic: Topic, name: RankField, dropped: Why, order: Sequence[str], top: int) -> Topic:
    rank = next((place for place, doc_id in enumerate(order, 1) if doc_id == topic.document.id), None)
    found: dict[str, Any] = {name: rank}
    if top and (rank is None or rank > top):
        found["why"] = dropped
    return replace(topic, **found)
