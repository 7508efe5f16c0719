"""Synthetic topics: what queries are written for, which are kept, and what comes out of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.ask.examples import BM25
from llmrank.data.examples import Judged, TrainingQuery
from llmrank.data.types import Document, Query
from llmrank.errors import InputError
from llmrank.jobs.outputs import Outputs
from llmrank.judge.roundtrip import analysed, nearest
from llmrank.judge.topicjob import RoundTrip, TopicEnd, corpus_of, documents_of, run_topics
from llmrank.judge.topics import Checker, Writer, bare_query, by_run, drawn, examples_of, kept, without_repeats
from llmrank.llm.backends.lexical import words
from llmrank.llm.types import Failure, Request
from tests.judge.scripted import Scripted

WORDS = [f"word{letter}" for letter in "abcdefghijklmnopqrs"]


def documents(n: int = 60) -> list[Document]:
    draw = random.Random(3)
    return [Document(f"d{i}", f"number{i} " + " ".join(draw.choices(WORDS, k=20))) for i in range(n)]


DOCUMENTS = documents()


def first_words(prompt: str, request: Request) -> str:
    """A query that only its document answers best."""
    assert request.about is not None
    return " ".join(request.about.documents[0].text.split()[:4])


def corpus(folder: Path, listed: Iterable[Document] = DOCUMENTS) -> Path:
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps({"docid": d.id, "text": d.text}) + "\n" for d in listed))
    return path


def job(
    folder: Path, say: Any = first_words, trip: RoundTrip = RoundTrip(), check: Any = None, n: int = 20, **more: Any
) -> tuple[TopicEnd, list[dict[str, Any]], Scripted]:
    """How a job ended, the rows of its provenance, and the model."""
    model = Scripted(say)
    path = more.pop("corpus", None) or corpus(folder)
    names = {name: str(folder / name) for name in ("qrels", "provenance", "triples.jsonl")}
    files = Outputs(
        str(folder / "out.tsv"),
        qrels=names["qrels"],
        provenance=names["provenance"],
        triples=more.pop("triples", names["triples.jsonl"]),
    )
    writer = Writer(backend=model, **{"ledger": "none", "retries": 0, **more})
    checker = None if check is None else Checker(writer, template="relevance/umbrela", backend=check)
    listed, short = documents_of(corpus_of(path), path, n, 0)
    end = run_topics(writer, checker, listed, path, trip, files, short=short)
    rows = [json.loads(line) for line in (folder / "provenance").read_text().splitlines()]
    return end, rows, model


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


class TestTheSample:
    def test_hangs_on_the_ids_and_the_seed_alone(self) -> None:
        chosen, _ = drawn(lambda: DOCUMENTS, 10, 0)
        turned, _ = drawn(lambda: DOCUMENTS[::-1], 10, 0)
        assert {d.id for d in chosen} == {d.id for d in turned}
        assert [d.id for d in chosen] == [d.id for d in DOCUMENTS if d in chosen]
        fewer, _ = drawn(lambda: DOCUMENTS, 5, 0)
        assert set(fewer) < set(chosen)
        assert {d.id for d in drawn(lambda: DOCUMENTS, 10, 1)[0]} != {d.id for d in chosen}

    def test_has_no_document_that_is_too_short(self) -> None:
        short = [Document("a", "too short"), Document("b", ""), Document("c", " ".join(WORDS))]
        assert drawn(lambda: short, 10, 0) == ([short[2]], 2)
        with pytest.raises(InputError, match="no document is long enough"):
            documents_of(lambda: short[:2], "c.jsonl", 5, 0)
        with pytest.raises(InputError, match="document c is there twice"):
            documents_of(lambda: [short[2]] * 2, "c.jsonl", 5, 0)


class TestBm25:
    @settings(max_examples=40)
    @given(st.integers(0, 10_000), st.integers(1, 12))
    def test_is_that_of_an_index(self, seed: int, depth: int) -> None:
        draw = random.Random(seed)
        texts = [" ".join(draw.choices([*WORDS[:6], "the"], k=draw.randint(0, 9))) for _ in range(12)]
        queries = {str(i): " ".join(draw.choices([*WORDS[:7], "the"], k=3)) for i in range(4)}
        listed = [Document(str(i), text) for i, text in enumerate(texts)]
        index = BM25([analysed(text) for text in texts])
        for query_id, found in nearest(queries, lambda: listed, depth).items():
            scores = index.scores(words(queries[query_id]))
            assert [hit.score for hit in found] == pytest.approx(sorted(scores.values(), reverse=True)[:depth])
            assert all(hit.score == pytest.approx(scores[int(hit.doc_id)]) for hit in found)

    def test_keeps_equal_ones_as_they_stand(self) -> None:
        same = [Document(str(i), "one two") for i in (3, 1, 2)]
        assert [hit.doc_id for hit in nearest({"q": "one"}, lambda: same, 2)["q"]] == ["3", "1"]

    def test_of_nothing_is_nothing(self) -> None:
        assert nearest({"q": "one"}, list, 5) == {"q": []}
        assert nearest({}, lambda: DOCUMENTS, 5) == {}


class TestAQuery:
    @pytest.mark.parametrize(
        ("written", "query"),
        [
            ('"what is bm25"', "what is bm25"),
            ("Query: what is bm25\n\nI chose this since ...", "what is bm25"),
            ("\n  **what   is\tbm25** ", "what is bm25"),
            ("", ""),
            ('""', ""),
        ],
    )
    def test_is_bare(self, written: str, query: str) -> None:
        assert bare_query(written) == query

    def test_that_cannot_be_used_is_failed_and_dropped(self, tmp_path: Path) -> None:
        replies = iter(["", "word " * 80, Failure("bad-request"), "Query: worda"])
        how: dict[str, Any] = {"n": 4, "concurrency": 1, "retry_format": False}
        end, rows, _ = job(tmp_path, lambda *_: next(replies), RoundTrip(top=0), **how)
        assert [row["reason"] for row in rows] == ["empty", "too-long", "bad-request", None]
        assert [row["dropped"] for row in rows] == ["failed", "failed", "failed", None]
        assert (rows[3]["text"], rows[3]["status"], rows[3]["repairs"]) == ("worda", "repaired", ["trimmed"])
        assert (end.totals.sums["failed"], end.totals.sums["repaired"]) == (3, 1)
        assert len(lines(tmp_path / "out.tsv")) == len(lines(tmp_path / "qrels")) == 1

    def test_that_another_said_or_an_example_says_is_dropped(self, tmp_path: Path) -> None:
        end, rows, _ = job(tmp_path, lambda *_: "the same, always!", trip=RoundTrip(top=0))
        assert [row["dropped"] for row in rows] == [None] + ["repeated"] * 19
        assert end.topics == {"kept": 1, "repeated": 19}
        topics = [t for (t,) in Writer(backend=Scripted(first_words), ledger="none").run(DOCUMENTS[:2])]
        assert topics[0].text is not None
        assert [t.why for t in without_repeats(topics, [topics[0].text.upper()])] == ["repeated", None]


class TestTheRoundTrip:
    def test_keeps_what_finds_its_document(self, tmp_path: Path) -> None:
        end, rows, _ = job(tmp_path)
        assert end.topics == {"kept": 20}
        assert all(row["kept"] and row["lexical_rank"] == 1 and row["synthetic"] for row in rows)
        queries, qrels = lines(tmp_path / "out.tsv"), lines(tmp_path / "qrels")
        assert [q[0] for q in queries] == [q[0] for q in qrels] == [row["query_id"] for row in rows]
        assert all(query == f"syn-{doc_id}" and grade == "1" for query, _, doc_id, grade in qrels)
        assert not (tmp_path / "out.tsv.partial").exists()
        assert all(row["key"] and row["template_hash"] and row["model"] == "scripted" for row in rows)

    def test_drops_what_finds_others_first(self, tmp_path: Path) -> None:
        other = {d.id: f"number{(i + 1) % 60}" for i, d in enumerate(DOCUMENTS)}
        end, rows, _ = job(tmp_path, lambda p, r: other[r.about.documents[0].id])
        assert end.topics == {"rank": 20}
        assert {row["lexical_rank"] for row in rows} == {None}
        assert (tmp_path / "out.tsv").read_text() == ""
        assert job(tmp_path, lambda p, r: other[r.about.documents[0].id], RoundTrip(top=0))[0].topics == {"kept": 20}

    def test_keeps_ranks_up_to_the_top(self, tmp_path: Path) -> None:
        def vague(prompt: str, request: Request) -> str:
            assert request.about is not None
            return " ".join(request.about.documents[0].text.split()[1:4])

        _, rows, _ = job(tmp_path, vague, RoundTrip(top=5))
        index = BM25([analysed(d.text) for d in DOCUMENTS])
        place = {d.id: i for i, d in enumerate(DOCUMENTS)}
        for row in rows:
            ranked = index.ranked(words(row["text"]))
            assert row["lexical_rank"] == ranked.index(place[row["doc_id"]]) + 1
            assert row["kept"] == (row["lexical_rank"] <= 5)
        assert len({row["kept"] for row in rows}) == 2

    def test_may_go_by_a_run_of_ones_own(self) -> None:
        topics = [t for (t,) in Writer(backend=Scripted(first_words), ledger="none").run(DOCUMENTS[:3])]
        told = kept(by_run(topics, {"syn-d0": ["d9", "d0"], "syn-d1": ["d9", "d8", "d1"]}, 2))
        assert [(t.why, t.run_rank) for t in told] == [("kept", 2), ("run-rank", 3), ("not-checked", None)]

    def test_may_have_a_model_grade_the_nearest(self, tmp_path: Path) -> None:
        def grades(prompt: str, request: Request) -> str | Failure:
            assert request.about is not None
            query_id, doc_id = request.about.query.id, request.about.documents[0].id
            own = query_id == f"syn-{doc_id}"
            number = int(query_id.removeprefix("syn-d"))
            if own and number % 3 == 1:
                return "I cannot tell."
            return f"##final score: {(3 if number % 3 else 0) if own else 1}"

        judge = Scripted(grades, "judge")
        end, rows, writer = job(tmp_path, check=judge, trip=RoundTrip(check_depth=4), retry_format=False)
        for row in rows:
            expected = ("reranked", "check-failed", None)[int(row["doc_id"][1:]) % 3]
            assert row["dropped"] == expected
            assert row["score"] == {"reranked": 0, "check-failed": None, None: 3}[expected]
            assert row["ungraded"] == (expected == "check-failed")
            assert row["check"]["key"]
        assert (len(writer.prompts), len(judge.prompts)) == (20, 20 * 4)
        assert end.topics.total() == 20
        for line in (tmp_path / "triples.jsonl").read_text().splitlines():
            triple = json.loads(line)
            assert (triple["score_kind"], triple["positive_score"], triple["negative_score"]) == ("grade", 3, 1)

    def test_spends_one_budget_for_writing_and_grading(self, tmp_path: Path) -> None:
        judge = Scripted(lambda *_: "##final score: 2", "judge")
        end, rows, writer = job(tmp_path, check=judge, max_calls=50)
        assert len(writer.prompts) + len(judge.prompts) == 50
        assert end.ended_by is not None
        assert end.topics["not-checked"] > 0
        assert end.topics.total() == len(rows) == 20

    def test_asked_again_asks_nothing(self, tmp_path: Path) -> None:
        judges = [Scripted(lambda *_: "##final score: 2", "judge") for _ in range(2)]
        told = [job(tmp_path, check=judge, ledger=str(tmp_path / "l")) for judge in judges]
        assert [len(judge.prompts) + len(model.prompts) for judge, (_, _, model) in zip(judges, told, strict=True)] == [
            20 + 200,
            0,
        ]
        assert told[0][1] == told[1][1]


class TestTriples:
    def test_have_near_negatives_that_are_not_the_source(self, tmp_path: Path) -> None:
        twin = Document("twin", DOCUMENTS[0].text.upper() + "!")
        path = corpus(tmp_path, [*DOCUMENTS, twin])
        end, _, _ = job(tmp_path, corpus=path, n=61, trip=RoundTrip(negatives=3, negative_depth=30))
        triples = [json.loads(line) for line in (tmp_path / "triples.jsonl").read_text().splitlines()]
        assert end.triples == len(triples) > 100
        near = nearest({t["query_id"]: t["query"] for t in triples}, corpus_of(path), 30)
        texts = {d.id: d.text for d in [*DOCUMENTS, twin]}
        for triple in triples:
            scores = {hit.doc_id: hit.score for hit in near[triple["query_id"]]}
            assert triple["negative_id"] in scores
            assert triple["negative_score"] == scores[triple["negative_id"]]
            assert {triple["positive_id"], triple["negative_id"]} != {"d0", "twin"}
            assert triple["positive_id"] != triple["negative_id"]
            assert (texts[triple["positive_id"]], texts[triple["negative_id"]]) == (
                triple["positive"],
                triple["negative"],
            )
            assert triple["synthetic"] is True

    def test_are_ids_where_the_name_says_no_json(self, tmp_path: Path) -> None:
        job(tmp_path, triples=str(tmp_path / "triples.tsv"))
        assert {len(line) for line in lines(tmp_path / "triples.tsv")} == {3}

    def test_are_the_same_for_the_same_seed(self, tmp_path: Path) -> None:
        told = []
        for seed in (0, 0, 1):
            job(tmp_path, seed=seed)
            told.append((tmp_path / "triples.jsonl").read_text())
        assert told[0] == told[1] != told[2]


class TestExamples:
    TRAINING = tuple(
        TrainingQuery(i + 1, f"t{i}", f"asks for {d.text.split()[0]}", (Judged(d.text, d.id, worth=1.0),))
        for i, d in enumerate(DOCUMENTS[:6])
    )

    def test_are_shown_but_never_the_document_itself(self) -> None:
        model = Scripted(first_words)
        with Writer(backend=model, training=self.TRAINING, ledger="none", shots=5) as writer:
            topics = [t for (t,) in writer.run(DOCUMENTS[:8])]
        for topic, document in zip(topics, DOCUMENTS, strict=False):
            prompt = next(p for p in model.prompts if p.endswith(document.text))
            assert len(topic.examples) == 5
            for training in self.TRAINING:
                shown = training.query_id in topic.examples
                assert (training.query in prompt) == shown
                assert not (shown and training.documents[0].doc_id == document.id)

    def test_may_come_from_judged_queries(self) -> None:
        queries = {f"q{i}": Query(f"q{i}", f"query {i}") for i in range(3)}
        qrels = {"q0": {"d1": 1, "d2": 3}, "q1": {"d3": 0}, "q2": {"elsewhere": 1}, "q9": {"d4": 1}}
        (found,) = examples_of(queries, qrels, lambda: DOCUMENTS)
        assert (found.query_id, found.query, found.documents[0].doc_id) == ("q0", "query 0", "d2")

    def test_without_a_relevant_document_are_refused(self) -> None:
        bad = [TrainingQuery(7, "t", "q", (Judged("text", worth=0.0),))] * 2
        with pytest.raises(InputError, match=r"^ex\.jsonl:7: none of its documents is relevant"):
            Writer(backend=Scripted(first_words), training=bad, training_name="ex.jsonl", ledger="none")


def test_several_queries_for_a_document_are_several_samples(tmp_path: Path) -> None:
    def numbered(prompt: str, request: Request) -> str:
        return f"{first_words(prompt, request)} take{request.sample}"

    end, rows, _ = job(tmp_path, numbered, each=3, n=2)
    assert [row["query_id"].rpartition("-")[2] for row in rows] == ["1", "2", "3"] * 2
    assert end.topics == {"kept": 6}
    with pytest.raises(InputError, match="--each 3: all queries of a document are one at temperature 0"):
        Writer(backend=Scripted(numbered), each=3, temperature=0, ledger="none")
