"""A job that makes synthetic topics: writes queries, sends them on their round trip, and writes what is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from llmrank.ask.examples import normal
from llmrank.data.corpus import iter_corpus
from llmrank.data.files import Source
from llmrank.data.inputs import room
from llmrank.data.qrels import format_grade
from llmrank.data.types import Candidates, Document, Query
from llmrank.data.wanted import WantedDocuments, temporary_database
from llmrank.errors import InputError
from llmrank.jobs.outputs import Outputs, write
from llmrank.judge.roundtrip import Corpus, Found, full_text, nearest
from llmrank.judge.talk import Row, rows_text
from llmrank.judge.talkjob import OnProgress, TalkEnd, ask_all
from llmrank.judge.topics import (
    Checked,
    Checker,
    Topic,
    Triple,
    Writer,
    by_grades,
    by_lexical_rank,
    by_run,
    drawn,
    kept,
    triples,
    without_repeats,
)

GRADE = 1
"""Of a source document in the qrels."""


class RoundTrip(NamedTuple):
    """What a query must pass to be kept."""

    top: int = 20
    """Its document must stand so high by BM25, and in the run; 0: anywhere."""
    run: Mapping[str, Sequence[str]] | None = None
    """A run over the written queries, by their ids."""
    check_depth: int = 10
    """How many documents are graded, the best by BM25 and the source."""
    check_top: int = 1
    """Its document must stand so high once they are graded; 0: anywhere."""
    negatives: int = 1
    """Negatives for each query in the triples."""
    negative_depth: int = 100
    """They are drawn from so many of the best by BM25."""


@dataclass(slots=True)
class TopicEnd(TalkEnd):
    """How such a job ended."""

    documents: int = 0
    short: int = 0
    """Documents of the corpus that are too short to be asked about."""
    topics: Counter[str] = field(default_factory=Counter)
    """Queries by what became of them."""
    triples: int = 0

    def json(self) -> Row:
        told = {"documents": self.documents, "too_short": self.short, "triples": self.triples}
        queries = {"written": self.topics.total(), "kept": self.topics["kept"]}
        dropped = {why: count for why, count in self.topics.most_common() if why != "kept"}
        return {**told, "queries": queries | {"dropped": dropped}, **TalkEnd.json(self)}


def corpus_of(path: Source) -> Corpus:
    """The documents of a file, as often as they are wanted."""
    return lambda: (document for _, document in iter_corpus(path))


def documents_of(corpus: Corpus, name: Source, count: int, seed: int) -> tuple[list[Document], int]:
    """The documents to write for, and how many of the corpus are too short; the whole corpus is read and checked."""
    documents, short = drawn(corpus, count, seed)
    if not documents:
        raise InputError(f"{name}: no document is long enough for a query to be written for it")
    repeated = [doc_id for doc_id, times in Counter(d.id for d in documents).items() if times > 1]
    if repeated:
        raise InputError(f"{name}: document {repeated[0]} is there twice; ids must differ")
    return documents, short


def run_topics(
    writer: Writer,
    checker: Checker | None,
    documents: Sequence[Document],
    corpus: Source,
    trip: RoundTrip,
    files: Outputs,
    *,
    manifest: Mapping[str, Any] | None = None,
    short: int = 0,
    on_progress: OnProgress | None = None,
) -> TopicEnd:
    """Writes queries for the documents, keeps those that pass, and writes all files under their names at the end.

    Until then OUT.partial holds the queries written so far, with their provenance.
    """
    end = TopicEnd(documents=len(documents), short=short)
    written: dict[str, tuple[Topic, ...]] = {}

    def take(topics: tuple[Topic, ...]) -> str:
        written[topics[0].document.id] = topics
        return rows_text(topic.row() for topic in topics if topic.status != "unasked")

    _, spool = ask_all(writer, documents, files, take, on_progress, end)
    topics = [topic for document in documents for topic in written.get(document.id, ()) if topic.status != "unasked"]
    try:
        _round_trip(writer, checker, topics, corpus, trip, files, on_progress, end)
    except InputError as error:
        if end.totals.sums["calls"]:
            error.exit_code = 1  # not the 2 that says that nothing was sent
        raise
    spool.remove()
    files.write_manifest(manifest)
    return end


def _round_trip(
    writer: Writer,
    checker: Checker | None,
    topics: list[Topic],
    corpus: Source,
    trip: RoundTrip,
    files: Outputs,
    on_progress: OnProgress | None,
    end: TopicEnd,
) -> None:
    """Decides which topics are kept, and writes the files."""
    topics = without_repeats(topics, (training.query for training in writer.training))
    texts = {topic.id: topic.text for topic in topics if topic.open and topic.text is not None}
    found: Mapping[str, Sequence[Found]] = {}
    if trip.top or checker is not None or files.triples:
        depth = max(trip.top, trip.negative_depth, trip.check_depth)
        found = nearest(texts, corpus_of(corpus), depth)
        topics = by_lexical_rank(topics, found, trip.top)
    if trip.run is not None:
        topics = by_run(topics, trip.run, trip.top)
    with room(), closing(temporary_database()) as database:
        near = WantedDocuments(database)
        near.want(hit.doc_id for topic in topics if topic.open for hit in found.get(topic.id, ()))
        near.load(corpus)
        if checker is not None:
            topics = _checked(checker, topics, found, near, trip, on_progress, end)
        topics = kept(topics)
        end.topics = Counter(topic.why or "" for topic in topics)
        same = {topic.id: _same_text(topic, found.get(topic.id, ()), near) for topic in topics if topic.why == "kept"}
        made = triples(topics, found, same, trip.negatives, writer.settings.seed) if found else iter(())
        _write(files, topics, made, near, end)


def _checked(
    checker: Checker,
    topics: list[Topic],
    found: Mapping[str, Sequence[Found]],
    near: WantedDocuments,
    trip: RoundTrip,
    on_progress: OnProgress | None,
    end: TopicEnd,
) -> list[Topic]:
    order: dict[str, list[str]] = {}
    asked: list[Topic] = [topic for topic in topics if topic.open]
    for topic in asked:
        best = [hit.doc_id for hit in found[topic.id][: trip.check_depth]]
        order[topic.id] = best if topic.document.id in best else [*best, topic.document.id]

    def requests() -> Iterator[Candidates]:
        for topic in asked:
            shown = (topic.document if i == topic.document.id else near.get(i) for i in order[topic.id])
            yield Candidates(Query(topic.id, topic.text or ""), tuple(replace(d, score=None) for d in shown))

    checked: dict[str, Checked] = {}

    def take(one: Checked) -> str:
        checked[one.query_id] = one
        return ""

    end.later = True
    _, spool = ask_all(checker, requests(), Outputs("-"), take, on_progress, end)
    spool.remove()
    return by_grades(topics, checked, order, trip.check_top, checker.voices[""].template.header.labels)


def _same_text(topic: Topic, near: Iterable[Found], texts: WantedDocuments) -> frozenset[str]:
    own = normal(full_text(topic.document))
    return frozenset(hit.doc_id for hit in near if normal(full_text(texts.get(hit.doc_id))) == own)


def _write(
    files: Outputs, topics: Sequence[Topic], made: Iterator[Triple], texts: WantedDocuments, end: TopicEnd
) -> None:
    held = [topic for topic in topics if topic.why == "kept"]
    write(files.output, (_query_line(topic, files.output) for topic in held))
    if files.qrels is not None:
        write(files.qrels, (format_grade(topic.id, topic.document.id, GRADE) for topic in held))
    if files.triples is not None:
        write(files.triples, _counted(made, files.triples, texts, {t.id: t.document for t in held}, end))
    if files.provenance is not None:
        write(files.provenance, (rows_text([topic.row()]) for topic in topics))


def _query_line(topic: Topic, path: str) -> str:
    if is_jsonl(path):
        row = {"query_id": topic.id, "text": topic.text, "synthetic": True, "doc_id": topic.document.id}
        return orjson.dumps(row).decode() + "\n"
    return f"{topic.id}\t{topic.text}\n"


def _counted(
    made: Iterable[Triple], path: str, texts: WantedDocuments, sources: Mapping[str, Document], end: TopicEnd
) -> Iterator[str]:
    """Triples as lines: with all texts as JSON, else the three ids with tabs between."""
    for triple in made:
        end.triples += 1
        if not is_jsonl(path):
            yield f"{triple.query_id}\t{triple.positive}\t{triple.negative}\n"
            continue
        positive, negative = full_text(sources[triple.query_id]), full_text(texts.get(triple.negative))
        row = {
            "query_id": triple.query_id,
            "query": triple.query,
            "positive_id": triple.positive,
            "positive": positive,
            "positive_score": triple.positive_score,
            "negative_id": triple.negative,
            "negative": negative,
            "negative_score": triple.negative_score,
            "score_kind": triple.score_kind,
            "synthetic": True,
        }
        yield orjson.dumps(row).decode() + "\n"


def is_jsonl(path: str) -> bool:
    """Whether a file is to hold JSON lines, by its name."""
    return path.endswith((".jsonl", ".json", ".ndjson"))
