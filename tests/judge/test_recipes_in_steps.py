"""Recipes of several steps: what each asks, in which order, and how its label comes about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmrank import Document, Judge, Query
from llmrank.ask.base import Ask, Remember
from llmrank.ask.virtual import VirtualLoop
from llmrank.data.qrels import read_qrels
from llmrank.errors import InputError
from llmrank.judge.nuggets import nugget_scores
from llmrank.judge.recipes import Asking, Recipe, all_recipes
from llmrank.llm.backends.simulated import SimulatedBackend
from llmrank.llm.types import Failure, Reply, Request
from llmrank.questions import Answer, Grade, Question, Written, failed

RECIPES = all_recipes()
DOCUMENTS = tuple(Document(f"d{i}", f"Text number {i}.") for i in range(4))
GRADES = {"q": {"d0": 0, "d1": 1, "d2": 2, "d3": 3}}
QUERY = Query("q", "what is bm25")


class Scripted(Ask):
    """Answers by a function of the question, one unit of time each; keeps what was asked."""

    def __init__(self, script: Callable[[Question], Answer]) -> None:
        self._script = script
        self.asked: list[Question] = []

    async def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        await asyncio.sleep(1)
        return self._script(question)


def run(
    recipe: Recipe, script: Callable[[Question], Answer], **options: Any
) -> tuple[list[Grade], list[Question], float]:
    """The grades of all documents, what was asked, and in how many rounds."""
    scripted, loop = Scripted(script), VirtualLoop()
    ask = Remember(scripted)
    values = recipe.checked(options)

    async def all_of_them() -> list[Grade]:
        return list(await asyncio.gather(*(recipe.run(d, Asking(ask, QUERY, DOCUMENTS), **values) for d in DOCUMENTS)))

    grades = loop.run(all_of_them())
    calls, rounds = recipe.calls(len(DOCUMENTS), **values), recipe.rounds(len(DOCUMENTS), **values)
    for seen, planned in ((len(scripted.asked), calls), (loop.time(), rounds)):
        least, most = (planned, planned) if isinstance(planned, int) else planned
        assert least <= seen <= most
    return grades, scripted.asked, loop.time()


def number(question: Question) -> int:
    return int(question.items[0].id[1:])  # type: ignore[attr-defined]


def _references(folder: Path) -> Path:
    path = folder / "references.jsonl"
    path.write_text(json.dumps({"query_id": "q", "text": "a ranking function"}) + "\n")
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_judges_and_leaves_evidence(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = (
        {"references": str(_references(tmp_path))} if "references" in RECIPES[name].options else {}
    )
    options |= {"score": "all"} if "score" in RECIPES[name].options else {}
    with Judge(name, backend=SimulatedBackend(GRADES), ledger="none", options=options) as judge:
        judgments = judge.judge(QUERY, DOCUMENTS)
    assert [j.doc_id for j in judgments] == [d.id for d in DOCUMENTS]
    assert all(j.usable for j in judgments), judgments
    assert all(j.key and j.raw is not None and j.template_hash and j.model for j in judgments)
    grades = [j.expected if j.expected is not None else j.grade for j in judgments]
    assert grades[0] <= grades[-1]  # type: ignore[operator]
    if name != "nuggets":  # the simulated judge knows nothing of facts
        assert grades[0] < grades[-1]  # type: ignore[operator]


@pytest.mark.parametrize("name", ["four-criteria", "rubric-questions", "binary-then-refine"])
def test_the_evidence_stands_in_the_order_of_asking_whichever_reply_came_first(name: str, tmp_path: Path) -> None:
    class Backward(SimulatedBackend):
        """Answers the last request first."""

        waiting = 200

        async def complete(self, request: Request) -> Reply | Failure:
            self.waiting -= 1
            for _ in range(self.waiting):
                await asyncio.sleep(0)
            return await super().complete(request)

    lines = []
    for backend in (Backward(GRADES), SimulatedBackend(GRADES)):  # the second finds all in the ledger
        with Judge(name, backend=backend, ledger=str(tmp_path / "l"), model_id="one") as judge:
            lines.append([judgment.line() for judgment in judge.judge(QUERY, DOCUMENTS)])
    assert lines[0] == lines[1]


def test_the_reply_that_decided_is_that_of_the_last_step() -> None:
    with Judge("binary-then-refine", backend=SimulatedBackend(GRADES), ledger="none") as judge:
        none, *_, best = judge.judge(QUERY, DOCUMENTS)
    assert (none.raw, none.template, none.grade) == ("no", "relevance/binary", 0)
    assert (best.raw, best.template, best.grade) == ("3", "relevance/refine", 3)
    assert [source.raw for source in best.sources] == ["yes", "3"]
    assert best.key == best.sources[1].key


def test_every_step_that_grades_is_held_to_its_labels() -> None:
    asked: list[tuple[str, ...]] = []

    class Watched(SimulatedBackend):
        async def complete(self, request: Request) -> Reply | Failure:
            assert request.constraint is not None
            asked.append(tuple(request.constraint.value))
            return await super().complete(request)

    with Judge("binary-then-refine", backend=Watched(GRADES), ledger="none", constrain=True) as judge:
        assert judge.judge(QUERY, DOCUMENTS)[3].grade == 3
    assert set(asked) == {("no", "yes"), ("1", "2", "3")}


@pytest.mark.parametrize("name", RECIPES)
def test_what_fails_is_no_zero(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    needed = {"references": str(_references(tmp_path))} if name == "answer-match" else {}
    grades, _, _ = run(recipe, lambda q: failed(q.kind, "empty"), **needed)
    assert all(grade.status == "failed" and grade.value is None and grade.reason for grade in grades)


def test_binary_then_refine_asks_on_only_where_it_is_relevant() -> None:
    def script(question: Question) -> Answer:
        if question.by == "refine":
            return Grade(value=2.0, label="2", distribution={"1": 0.25, "2": 0.5, "3": 0.25})
        yes = number(question) >= 2
        return Grade(
            value=0.8 if yes else 0.1,
            score_kind="probability",
            label="yes" if yes else "no",
            distribution={"no": 0.2, "yes": 0.8} if yes else {"no": 0.9, "yes": 0.1},
        )

    grades, asked, rounds = run(RECIPES["binary-then-refine"], script)
    assert (len(asked), rounds) == (6, 2)
    assert grades[3].label == "2"
    assert grades[3].distribution == pytest.approx({"0": 0.2, "1": 0.2, "2": 0.4, "3": 0.2})
    assert grades[3].value == pytest.approx(1.6)


def test_what_was_repaired_in_the_first_step_is_told_of_the_label() -> None:
    def script(question: Question) -> Answer:
        if question.by == "refine":
            return Grade(value=2.0, label="2")
        return Grade(status="repaired", repairs=("asked-again",), value=1.0, label="yes")

    grades, _, _ = run(RECIPES["binary-then-refine"], script)
    assert {(grade.label, grade.status, grade.repairs) for grade in grades} == {("2", "repaired", ("asked-again",))}


@pytest.mark.parametrize(
    ("values", "by_sum", "by_rules"),
    [
        ((3, 3, 3, 3), 3, 3),
        ((3, 1, 3, 2), 2, 2),
        ((1, 1, 2, 1), 1, 1),
        ((1, 1, 1, 1), 0, 1),
        ((0, 2, 0, 3), 1, 0),
    ],
)
def test_four_criteria_make_one_label(values: tuple[int, ...], by_sum: int, by_rules: int) -> None:
    """In the order exactness, coverage, topicality, contextual fit."""

    def script(question: Question) -> Answer:
        names = ("Exactness", "Coverage", "Topicality", "Contextual")
        told = dict(question.given)["criterion"]
        return Grade(value=float(values[next(i for i, n in enumerate(names) if told.startswith(n))]))

    assert run(RECIPES["four-criteria"], script)[0][0].value == by_sum
    assert run(RECIPES["four-criteria"], script, combine="rules")[0][0].value == by_rules


def test_rubric_questions_are_written_once_a_query() -> None:
    def script(question: Question) -> Answer:
        if question.kind == "write":
            return Written(text="", parts=("who", "when", "where"))
        asked = dict(question.given)["question"]
        return Grade(value={"who": 5.0, "when": 4.0, "where": 0.0}[asked] if number(question) else 0.0)

    recipe = RECIPES["rubric-questions"]
    best, asked, rounds = run(recipe, script)
    assert (sum(q.kind == "write" for q in asked), len(asked), rounds) == (1, 13, 2)
    assert [grade.value for grade in best] == [0, 5, 5, 5]
    assert run(recipe, script, combine="mean")[0][1].value == 3
    assert run(recipe, script, combine="cover")[0][1].value == pytest.approx(10 / 3)


def test_utility_is_asked_only_of_what_is_relevant_beside_an_answer_written_from_it() -> None:
    def script(question: Question) -> Answer:
        if question.kind == "write":
            return Written(text="an answer")
        if question.by == "relevance":
            return Grade(value=0.5, label="yes" if number(question) > 1 else "no")
        return Grade(value=1.0, label="yes")

    grades, asked, _ = run(RECIPES["utility"], script)
    assert [grade.label for grade in grades] == ["no", "no", "yes", "yes"]
    (written,) = [q for q in asked if q.kind == "write"]
    assert [d.id for d in written.items] == ["d2", "d3"]  # type: ignore[attr-defined]
    assert {dict(q.given)["answer"] for q in asked if not q.by and q.kind == "grade"} == {"an answer"}


def test_nuggets_are_created_weighed_and_looked_for() -> None:
    support = {"d0": (0, 0), "d1": (0.5, 1), "d2": (1, 0), "d3": (1, 1)}

    def script(question: Question) -> Answer:
        if question.by == "create":
            return Written(text="", parts=("vital fact", "other fact"))
        if question.by == "importance":
            text = question.items[0].text  # type: ignore[attr-defined]
            return Grade(value=1.0, label="vital" if text.startswith("vital") else "okay")
        which = ("vital fact", "other fact").index(dict(question.given)["nugget"])
        return Grade(value=float(support[question.items[0].id][which]))  # type: ignore[attr-defined]

    def scores(score: str) -> list[float | None]:
        return [grade.value for grade in run(RECIPES["nuggets"], script, score=score)[0]]

    assert scores("vital-strict") == [0, 0, 1, 1]
    assert scores("vital") == [0, 0.5, 1, 1]
    assert scores("all-strict") == [0, 0.5, 0.5, 1]
    assert scores("all") == [0, 0.75, 0.5, 1]
    assert nugget_scores([], []).all is None
    assert nugget_scores([1.0], [False]).vital_strict is None


def test_known_nuggets_are_not_asked_for_anew(tmp_path: Path) -> None:
    path = tmp_path / "nuggets.jsonl"
    lines: list[Mapping[str, str]] = [
        {"query_id": "q", "text": "one", "importance": "vital"},
        {"query_id": "q", "text": "two", "importance": "okay"},
        {"query_id": "other", "text": "three"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, asked, rounds = run(RECIPES["nuggets"], lambda q: Grade(value=1.0), nuggets=str(path))
    assert (len(asked), rounds) == (8, 1)
    path.write_text('{"query_id": "q"}\n')
    with pytest.raises(InputError, match=r"nuggets\.jsonl:1: text is missing"):
        run(RECIPES["nuggets"], lambda q: Grade(value=1.0), nuggets=f"{tmp_path}/./nuggets.jsonl")


@pytest.mark.parametrize("name", ["answer-match", "absolute-rubric"])
def test_a_query_without_reference_fails_by_that_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"qid": "another", "reference": "42"}\n')
    with Judge(name, backend=SimulatedBackend(GRADES), ledger="none", options={"references": str(path)}) as judge:
        judgments = judge.judge(QUERY, DOCUMENTS)
    assert {j.reason for j in judgments} == {"no-reference"}
    assert all(j.grade is None and j.key is None for j in judgments)


def test_what_a_recipe_cannot_do_without_is_told_first() -> None:
    with pytest.raises(InputError, match="references=FILE"):
        Judge("answer-match", backend=SimulatedBackend(GRADES))


def test_recipes_are_told_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmrank.cli.main import run as program

    monkeypatch.chdir(tmp_path)
    Path("q.tsv").write_text("q\twhat is bm25\n")
    Path("c.tsv").write_text("".join(f"{d.id}\t{d.text}\n" for d in DOCUMENTS))
    Path("pairs.tsv").write_text("".join(f"q\t{d.id}\n" for d in DOCUMENTS))
    Path("truth.qrels").write_text("".join(f"q 0 {d} {g}\n" for d, g in GRADES["q"].items()))
    files = ("--queries", "q.tsv", "--corpus", "c.tsv", "--pairs", "pairs.tsv", "--ledger", "none")
    judge = ("--backend", "simulated:truth.qrels", "--template", "binary-then-refine", "--output", "out.qrels")
    assert program(["judge", *files, *judge, "--quiet"]) == 0
    assert set(read_qrels("out.qrels")["q"]) == {d.id for d in DOCUMENTS}
