"""Long documents: nothing is lost when they are split, the best passages are asked about, and failures are told."""

from __future__ import annotations

import asyncio
import math
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import Candidates, Document, InputError, Query, Reranker
from llmrank.ask.base import Ask
from llmrank.ask.passages import Passages, Splitting, best, combined, split
from llmrank.cli.main import run
from llmrank.data.requests import iter_requests
from llmrank.data.types import Passage
from llmrank.llm import Reply, Request
from llmrank.llm.backends.lexical import WORD
from llmrank.llm.backends.simulated import SimulatedBackend
from llmrank.plan import plan
from llmrank.questions import Answer, Grade, Order, Question, failed

ANY_TEXT = st.text(st.sampled_from("ab é水。.!?\n\t\"') 7-\u200b"), max_size=300) | st.text(max_size=80)


@given(ANY_TEXT, st.integers(1, 20))
def test_passages_hold_the_whole_text_in_its_order(text: str, most: int) -> None:
    spans = split(text, most)
    assert (spans[0].start if spans else 0, spans[-1].end if spans else 0) == (0, len(text))
    for span in spans:
        assert span.words == len(WORD.findall(text[span.start : span.end])) <= most
    for one, other in pairwise(spans):
        assert one.start < other.start <= one.end < other.end


def test_windows_are_whole_sentences_half_of_each_also_in_the_next() -> None:
    text = " ".join(f"Sentence number {i} has seven words." for i in range(40))
    shown = [text[span.start : span.end] for span in split(text, 30)]
    assert all(passage.startswith("Sentence") and passage.strip().endswith("words.") for passage in shown)
    assert [passage.count("Sentence") for passage in shown[:-1]] == [5] * (len(shown) - 1)
    assert "number 3 " in shown[0]
    assert "number 3 " in shown[1]
    assert "number 3 " not in shown[2]


@given(st.text(max_size=200), st.integers(1, 30))
def test_a_text_of_so_many_words_is_one_passage(text: str, most: int) -> None:
    assert (len(split(text, most)) < 2) == (len(WORD.findall(text)) <= most)


def test_a_sentence_without_end_and_a_script_without_spaces_are_split_too() -> None:
    assert len(split("word " * 1000, 100)) == 19
    assert len(split("水" * 1000, 100)) == 19
    assert [span.words for span in split("one. two. three.", 1)] == [1, 1, 1]


@given(
    st.lists(st.lists(st.sampled_from(["bm25", "ranks", "the", "moon", "tax"]), max_size=8).map(" ".join), min_size=1),
    st.integers(1, 5),
)
def test_the_best_are_those_that_bm25_scores_highest(texts: list[str], count: int) -> None:
    """Against the formula written out, over the passages as the collection."""
    bags = [text.split() for text in texts]
    mean = sum(map(len, bags)) / len(bags) or 1.0

    def score(bag: list[str]) -> float:
        total = 0.0
        for word in ("bm25", "ranks"):
            df = sum(word in other for other in bags)
            idf, tf = math.log(1 + (len(bags) - df + 0.5) / (df + 0.5)), bag.count(word)
            total += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(bag) / mean)) if tf else 0.0
        return total

    chosen = best(texts, "how BM25 ranks", count)
    scores = list(map(score, bags))
    assert chosen == sorted(chosen)
    assert len(chosen) == min(count, len(texts))
    left = [scores[i] for i in range(len(texts)) if i not in chosen]
    assert not left or min(scores[i] for i in chosen) >= max(left) - 1e-9


def test_equally_good_passages_are_taken_from_the_front() -> None:
    assert best(["a", "b", "c", "d"], "moon", 2) == [0, 1]
    assert best(["a", "", "moon", "moon"], "moon", 1) == [2]


@pytest.mark.parametrize(
    ("combine", "value", "kind"),
    [("max", 0.9, "probability"), ("mean", 0.5, "probability"), ("sum", 1.0, "probability-sum")],
)
def test_grades_of_passages_are_put_together(combine: Any, value: float, kind: str) -> None:
    low, high = Grade(value=0.1, score_kind="probability"), Grade(value=0.9, score_kind="probability", label="yes")
    grade = combined([low, high], combine)
    assert (grade.value, grade.score_kind, grade.status) == (pytest.approx(value), kind, "ok")
    fewer = combined([low, failed("grade", "x"), high], combine)  # type: ignore[list-item]
    assert (fewer.value, fewer.status, fewer.repairs) == (pytest.approx(value), "repaired", ("fewer-passages",))
    none = combined([failed("grade", "timeout")] * 2, combine)  # type: ignore[list-item]
    assert (none.value, none.status, none.reason) == (None, "failed", "timeout")
    mended = replace(low, status="repaired", repairs=("closed",))
    assert combined([mended, high], combine).repairs == ("closed",)


class Recorder(Ask):
    """Keeps what it is asked, and answers by what is shown."""

    def __init__(self, judge: Callable[[Question], Answer]) -> None:
        self.asked: list[Question] = []
        self._judge = judge

    async def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        return self._judge(question)


FILLER = "Nothing of interest is said in this sentence at all. "
LONG = FILLER * 6 + "The goldfish grows slowly. " + FILLER * 6 + "A goldfish eats flakes. " + FILLER * 6
QUERY = Query("q", "goldfish")


def ask(judge: Callable[[Question], Answer], **how: Any) -> tuple[Recorder, Passages]:
    recorder = Recorder(judge)
    return recorder, Passages(recorder, QUERY, Splitting(**{"words": 24, "count": 3} | how))


def by_words(question: Question) -> Answer:
    (item,) = question.items
    return Grade(value=float("slowly" in item.text))  # type: ignore[attr-defined]


def test_a_document_is_graded_by_its_best_passages_and_a_short_one_as_it_is() -> None:
    recorder, asking = ask(by_words, combine="max")
    assert asyncio.run(asking.grade(Document("long", LONG, "Title", 3.5, {"url": "u"}))).value == 1.0
    shown: Sequence[Any] = [item for question in recorder.asked for item in question.items]
    assert len(shown) == len({item.id for item in shown}) == 3
    assert all(isinstance(item, Passage) and "oldfish" in item.text for item in shown)
    assert {(item.of, item.title, item.score, item.metadata["url"]) for item in shown} == {("long", "Title", 3.5, "u")}
    short = Document("short", "slowly it grows")
    assert asyncio.run(asking.grade(short, by="part", given={"criterion": "c"}, sample=2)).value == 1.0
    assert recorder.asked[-1] == Question("grade", (short,), False, "part", (("criterion", "c"),), 2)
    assert recorder.asked[-1].items[0] is short


def test_of_first_the_first_passage_alone_is_asked_about() -> None:
    recorder, asking = ask(by_words, combine="first")
    assert asyncio.run(asking.grade(Document("long", LONG))).value == 0.0
    ((shown,),) = [question.items for question in recorder.asked]
    assert LONG.startswith(shown.text)  # type: ignore[attr-defined]


def test_other_questions_show_the_best_passages_in_their_order_and_nothing_twice() -> None:
    recorder, asking = ask(lambda q: Order(permutation=(1, 0)), count=4)
    long, short = Document("long", LONG, "T"), Document("short", "brief")
    assert asyncio.run(asking.order([long, short])).apply([long, short]) == [short, long]
    ((first, second),) = [question.items for question in recorder.asked]
    assert (first.id, first.title, second) == ("long", "T", short)  # type: ignore[attr-defined]
    text = first.text  # type: ignore[attr-defined]
    assert text.count("grows slowly") == text.count("eats flakes") == 1
    assert text.index("grows slowly") < text.index("eats flakes")
    assert len(text) < len(LONG)


class ByText:
    """A judge with a ledger name, which says yes where the passage shown has the word; counts what it is asked."""

    model = "by-text"

    def __init__(self, fails: str = "\0") -> None:
        self.prompts: list[str] = []
        self.fails = fails

    async def complete(self, request: Request) -> Reply:
        assert request.about is not None
        text = request.about.documents[0].text
        self.prompts.append(text)
        return Reply("no idea" if self.fails in text else "3" if "slowly" in text else "0")


def test_a_reranker_counts_every_prompt_and_marks_what_failed() -> None:
    documents = [Document("dull", FILLER * 20), Document("long", LONG), Document("short", "slowly")]
    more: dict[str, Any] = {"ledger": "none", "passages": "mean", "passage_words": 24, "passage_count": 4}
    backend = ByText("flakes")
    with Reranker("graded", backend=backend, **more) as reranker:
        planned = plan(reranker, [Candidates(QUERY, tuple(documents))]).calls.json()
        ranking = reranker.rank("goldfish", documents)
    assert planned == ranking.row.calls == ranking.row.questions == len(backend.prompts) == 4 + 4 + 1
    assert (ranking.row.failed, ranking.row.rounds, ranking.ids) == (1, 1, ["short", "long", "dull"])
    assert ranking.scores == [3.0, 2.0, 0.0]  # of the three passages of `long` that were graded two are a 3


def test_the_simulated_judge_knows_a_passage_by_its_document() -> None:
    judge = SimulatedBackend({"q": {f"d{i}": i for i in range(4)}})
    documents = tuple(Document(f"d{i}", LONG * (1 + i % 2)) for i in range(4))
    for passages in ("first", "max", "mean"):
        with Reranker("graded", backend=judge, ledger="none", passages=passages, passage_words=24) as reranker:
            (ranking,) = reranker.rank_many([Candidates(QUERY, documents)])
        assert ranking.ids == ["d3", "d2", "d1", "d0"]
        assert ranking.row.calls == (4 if passages == "first" else 16)


@pytest.mark.parametrize("method", ["yes-no", "criteria", "rubric-score", "answer-scent", "heapsort", "sliding-window"])
def test_on_real_documents_the_plan_is_what_the_job_asks(method: str, shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "corpora" / "noveleval.tar.gz") as archive:
        archive.extract("noveleval/data.json", tmp_path, filter="data")
    requests = [candidates for _, candidates in iter_requests(tmp_path / "noveleval" / "data.json")][:3]
    grades = {c.query.id: {d.id: i % 3 for i, d in enumerate(c.documents)} for c in requests}
    more: dict[str, Any] = {"ledger": "none", "passages": "max", "passage_words": 40, "passage_count": 2}
    with Reranker(method, backend=SimulatedBackend(grades), **more) as reranker:
        planned, rankings = plan(reranker, requests), reranker.rank_many(requests)
    with Reranker(method, backend=SimulatedBackend(grades), ledger="none") as plain:
        whole = plan(plain, requests)
    calls = sum(ranking.row.calls for ranking in rankings)
    assert planned.calls.low <= calls <= planned.calls.high
    if reranker.method.question == "grade":
        assert whole.calls.expected < planned.calls.expected == calls
    assert all(sorted(ranking.ids) == sorted(d.id for d in c.documents) for ranking, c in zip(rankings, requests))  # noqa: B905


def test_cranfield_documents_are_split_without_loss(shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "corpora" / "cranfield.tar.gz") as archive:
        archive.extract("cranfield/cran.all.1400", tmp_path, filter="data")
    texts = (tmp_path / "cranfield" / "cran.all.1400").read_text(encoding="latin-1").split("\n.W\n")[1:]
    assert len(texts) >= 1400
    several = 0
    for text in texts:
        spans = split(text)
        several += len(spans) > 1
        assert spans[0].start == 0
        assert spans[-1].end == len(text)
        assert all(other.start <= one.end for one, other in pairwise(spans))
    assert several > 700


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"passages": "best"}, "--passages best: there are first, max, mean and sum"),
        ({"passage_words": 100}, "--passage-words 100: documents are not split; add --passages"),
        ({"passages": "first", "passage_count": 2}, "--passage-count 2: with --passages first only the first"),
        ({"passages": "max", "passage_count": 0}, "--passage-count 0: "),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as error:
        Reranker("graded", backend="lexical", ledger="none", **settings)
    assert str(error.value).startswith(problem)


def test_the_flags_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rerank", "--help"]) == 0
    told = capsys.readouterr().out
    for flag in ("--passages", "--passage-words", "--passage-count"):
        assert flag in told
