"""Models that examine models: what is asked of whom, and what the marks say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from llmrank.agree.resampling import Resampling
from llmrank.data.types import Query
from llmrank.errors import InputError
from llmrank.judge.examiner import Exam, Examination
from llmrank.judge.marks import Results, results
from llmrank.llm.types import Failure, Request
from tests.judge.scripted import Scripted

SUBJECTS = [Query("s1", "retrieval"), Query("s2", "statistics"), Query("s3", "chess")]
WORTH = {"good": 5, "fair": 3, "poor": 1}
Say = Callable[[str, Request], str | Failure]


def model(name: str, override: Callable[[str, Request], str | Failure | None] = lambda *_: None) -> Scripted:
    """Answers in its own style; marks answers by what their style is worth; asks numbered questions."""

    def say(prompt: str, request: Request) -> str | Failure:
        if (told := override(prompt, request)) is not None:
            return told
        assert request.about is not None
        question, documents = request.about.question, request.about.documents
        part, given = question.by.partition("@")[0], dict(question.given)
        if part == "question":
            return f"What is {request.about.query.text} {given['asked'].count('- ')}?"
        if part == "follow-up":
            return f"Why so, {documents[0].text.split()[1]}?"
        if part == "answer":
            return f"A {name} answer to {given['question']}"
        worths = [WORTH[d.text.split()[1]] for d in documents]
        if part == "score":
            return f"Some reasons.\n##final score: {worths[0]}"
        return " > ".join(f"[{i + 1}]" for i in sorted(range(len(worths)), key=lambda i: -worths[i]))

    return Scripted(say, name)


def examine(
    systems: Mapping[str, Scripted], examiners: Mapping[str, Scripted] | None = None, **more: Any
) -> tuple[list[Exam], Examination]:
    settings = {"ledger": "none", "retries": 0, **more}
    with Examination(systems, examiners, **settings) as examination:
        exams = [exam for of_subject in examination.run(SUBJECTS) for exam in of_subject]
    return exams, examination


def figures(exams: list[Exam], examination: Examination) -> Results:
    judges, systems = list(examination.examiners), list(examination.systems)
    return results(exams, judges, systems, examination.own, Resampling(200))


def peers() -> dict[str, Scripted]:
    return {name: model(name) for name in WORTH}


def test_every_question_reaches_every_system_and_is_followed_up() -> None:
    exams, _ = examine(peers(), {"boss": model("boss")}, questions=2, rounds=3)
    assert [(e.subject, e.examiner, e.number) for e in exams] == [
        (s.id, "boss", number) for s in SUBJECTS for number in range(2)
    ]
    assert exams[0].question == "What is retrieval 0?"
    assert exams[1].question == "What is retrieval 1?"  # it was shown the first
    for exam in exams:
        assert list(exam.turns) == list(WORTH)
        for system, turns in exam.turns.items():
            assert [turn.round for turn in turns] == [0, 1, 2]
            assert [turn.question for turn in turns] == [exam.question, *[f"Why so, {system}?"] * 2]
            assert {turn.scores["boss"] for turn in turns} == {WORTH[system]}
        (ranking,) = exam.rankings
        assert ranking.places == {"good": 1, "fair": 2, "poor": 3}
    assert len({exam.rankings[0].shown for exam in exams}) > 1  # drawn anew for each question


@pytest.mark.parametrize("mark_all", [False, True])
def test_the_number_of_calls_is_known_before(mark_all: bool) -> None:
    systems = peers()
    _, examination = examine(systems, questions=2, rounds=2, mark_all=mark_all)
    asked = sum(len(system.prompts) for system in systems.values())
    assert asked == len(SUBJECTS) * examination.calls_per_subject


def test_nobody_is_told_who_answered() -> None:
    systems = {f"name-of-{name}": model(name) for name in WORTH}
    examine(systems)
    assert not any("name-of" in prompt for system in systems.values() for prompt in system.prompts)


def test_scores_and_orders_of_one_mind_agree() -> None:
    found = figures(*examine(peers(), questions=2))
    assert list(found.systems) == ["good", "fair", "poor"]
    assert (found.overall.tau_b.value, found.overall.tau_b.n) == (1, 3 * 3 * 2)
    assert (found.overall.pairs.value, found.overall.pairs.n, found.overall.tied) == (1, 3 * 3 * 2 * 3, 0)
    assert (found.systems_tau_b.value, found.systems_tau_b.n) == (1, 3)
    assert found.matrix["good"]["poor"].score.value == 1
    assert found.matrix["good"]["poor"].score.n == 3 * 2 * 2  # subjects x questions x rounds
    assert found.matrix["good"]["fair"].wins.value == 0.5
    json.dumps(found.json())


def test_an_order_against_the_scores_is_found_out() -> None:
    def reverses(prompt: str, request: Request) -> str | None:
        assert request.about is not None
        if request.about.question.kind != "order":
            return None
        worths = [WORTH[d.text.split()[1]] for d in request.about.documents]
        # the best and the worst exchanged
        order = sorted(range(3), key=lambda i: {5: 2, 3: 1, 1: 0}[worths[i]])
        return " > ".join(f"[{i + 1}]" for i in order)

    found = figures(*examine(peers(), {"odd": model("odd", reverses), "even": model("even")}))
    assert found.consistency["odd"].tau_b.value == -1
    assert found.consistency["odd"].pairs.value == 0
    assert found.consistency["even"].tau_b.value == 1
    assert found.overall.pairs.value == 0.5


def test_tau_is_that_of_an_independent_library() -> None:
    scores = {"good": 4, "fair": 4, "poor": 2}

    def marks(prompt: str, request: Request) -> str | None:
        assert request.about is not None
        styles = [d.text.split()[1] for d in request.about.documents if d.text.startswith("A ")]
        if request.about.question.kind == "grade":
            return f"##final score: {scores[styles[0]]}"
        if request.about.question.kind == "order":
            wanted = ["fair", "poor", "good"]
            return " > ".join(f"[{styles.index(style) + 1}]" for style in wanted)
        return None

    found = figures(*examine(peers(), {"boss": model("boss", marks)}, questions=1))
    expected = kendalltau(list(scores.values()), [-3, -1, -2]).statistic
    assert found.overall.tau_b.value == pytest.approx(expected)
    assert (found.overall.pairs.value, found.overall.pairs.n, found.overall.tied) == (0.5, 6, 3)


def test_marks_by_itself_can_be_left_out() -> None:
    def vain(name: str) -> Scripted:
        def marks(prompt: str, request: Request) -> str | None:
            assert request.about is not None
            if request.about.question.kind != "grade":
                return None
            return f"##final score: {5 if request.about.documents[0].text.startswith(f'A {name}') else 2}"

        return model(name, marks)

    exams, examination = examine({name: vain(name) for name in WORTH}, mark_all=True, questions=1, rounds=1)
    found = figures(exams, examination)
    for name in WORTH:
        assert found.matrix[name][name].score.value == 5
        assert found.systems[name].score.value == 3
        assert (found.without_self[name].score.value, found.without_self[name].score.n) == (2, 2 * 9)


def test_a_model_is_itself_under_another_name_too() -> None:
    one, other = model("good"), model("poor")
    _, examination = examine({"a": one, "b": other}, {"judge": one})
    assert (examination.own("judge", "a"), examination.own("judge", "b")) == (True, False)


def test_what_fails_is_in_no_mean() -> None:
    def fails(prompt: str, request: Request) -> str | Failure | None:
        assert request.about is not None
        question = request.about.question
        if question.kind == "grade" and "poor" in request.about.documents[0].text:
            return "no score at all"
        if question.kind == "order":
            return "I will look at 20 answers."
        return None

    exams, examination = examine(peers(), {"boss": model("boss", fails)}, retry_format=False)
    found = figures(exams, examination)
    assert (found.systems["poor"].score.value, found.systems["poor"].score.n) == (None, 0)
    assert found.systems["good"].score.value == 5
    assert found.overall.tau_b.n == found.overall.pairs.n == found.systems["good"].wins.n == 0
    kinds = Counter((row["kind"], row["status"]) for exam in exams for row in exam.rows())
    assert kinds["score", "failed"] == 3 * 3 * 2
    assert kinds["rank", "failed"] == 3 * 3


def test_an_answer_that_failed_is_neither_marked_nor_followed_up() -> None:
    systems = peers() | {"mute": Scripted(lambda *_: Failure("bad-request"), "mute")}
    exams, _ = examine(systems, {"boss": model("boss")})
    for exam in exams:
        (turn,) = exam.turns["mute"]
        assert turn.answer is None
        assert not turn.scores
        assert "mute" not in exam.rankings[0].shown
        assert len(exam.turns["good"]) == 2


def test_a_question_that_failed_or_is_asked_before_has_no_answers() -> None:
    stuck = model("boss", lambda p, r: "What is it?" if r.about and r.about.question.by == "question@boss" else None)
    exams, _ = examine(peers(), {"boss": stuck}, questions=3)
    assert [exam.repeated for exam in exams] == [False, True, True] * 3
    assert all(bool(exam.turns) is not exam.repeated for exam in exams)
    broken = model("boss", lambda p, r: Failure("bad-request"))
    exams, examination = examine(peers(), {"boss": broken})
    assert all(exam.status == "failed" and exam.question is None and not exam.turns for exam in exams)
    assert figures(exams, examination).systems["good"].score.value is None


def test_the_same_again_asks_nothing(tmp_path: Path) -> None:
    first, again = peers(), peers()
    settings = {"ledger": str(tmp_path / "l"), "questions": 2}
    one, _ = examine(first, **settings)
    two, _ = examine(again, **settings)
    assert sum(len(m.prompts) for m in first.values()) > 0
    assert sum(len(m.prompts) for m in again.values()) == 0
    assert [row for e in one for row in e.rows()] == [row for e in two for row in e.rows()]


def test_places_of_ties_are_shared() -> None:
    tied = model("boss", lambda p, r: "[3] > [1] = [2]" if r.about and r.about.question.kind == "order" else None)
    exams, _ = examine(peers(), {"boss": tied}, questions=1)
    assert all(sorted(exam.rankings[0].places.values()) == [1, 2, 2] for exam in exams if exam.rankings[0].places)
    wins = figures(*examine(peers(), {"boss": tied}, questions=1)).systems
    total = sum(marks.wins.value * marks.wins.n for marks in wins.values() if marks.wins.value is not None)
    assert np.isclose(total, 3 * (1 + 0.25 + 0.25))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"systems": {}}, "no system to examine"),
        ({"systems": peers(), "questions": 0}, "one question and one round at least"),
        ({"systems": {"a": model("a")}, "examiners": {"a": model("a")}}, "a names one model as a system and another"),
        ({"systems": peers(), "samples": 2}, "^--samples: "),
        ({"systems": peers(), "model_id": "m"}, "^--model-id gives one model a name"),
        (
            {"systems": peers(), "templates": {"score": "examiner/rank"}},
            "asks `order`, here one is needed that asks `grade`",
        ),
    ],
)
def test_what_makes_no_examination_is_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Examination(**arguments, ledger="none")
