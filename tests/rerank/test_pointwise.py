"""Pointwise methods: what their scores are, what they ask, and what they do where a reply fails or breaks off."""

from __future__ import annotations

import json
import math
import random
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import Candidates, Document, InputError, Query, Reranker
from llmrank.cli.main import run as program
from llmrank.data.requests import iter_requests
from llmrank.llm import Reply, Request
from llmrank.llm.backends.simulated import Errors, SimulatedBackend
from llmrank.llm.types import CAPABILITIES
from llmrank.plan import plan
from llmrank.questions import Answer, Grade, Preference, Question, Token, Written, failed
from llmrank.rerank.anchored import GENERAL, anchors_for, grade_of
from llmrank.rerank.criteria import CRITERIA, named
from llmrank.rerank.methods import METHODS, Ranked, all_methods
from llmrank.rerank.rubric import trimmed
from tests.oracles import Judge, perfect, run

all_methods()
NEW = (
    *("query-likelihood", "reason-then-verdict", "explain-label", "rubric-score"),
    *("answer-scent", "reference-anchored", "criteria"),
)
KINDS = {
    "query-likelihood": "log-likelihood",
    "reason-then-verdict": "probability",
    "explain-label": "expected-grade",
    "rubric-score": "score",
    "answer-scent": "log-likelihood",
    "reference-anchored": "anchored-grade",
    "criteria": "expected-grade-sum",
}


class Scripted:
    """A backend that says what a function of the request says; it can do everything."""

    model = "scripted"
    capabilities = frozenset(CAPABILITIES)

    def __init__(self, say: Callable[[Request], Reply]) -> None:
        self.requests: list[Request] = []
        self._say = say

    async def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        return self._say(request)


def rank(method: str, say: Callable[[Request], Reply], n: int = 1, **more: Any) -> tuple[Any, list[Request]]:
    backend = Scripted(say)
    with Reranker(method, backend=backend, ledger="none", **more) as reranker:
        return reranker.rank("what do goldfish eat", [f"text {i}" for i in range(n)]), backend.requests


def prompt_of(request: Request) -> str:
    return request.prompt or "\n".join(content for _, content in request.messages)


def strategy(name: str, judge: Judge, n: int = 3, **options: object) -> tuple[Ranked, int, float]:
    return run(METHODS[name], n, judge, **options)


# --- all of them


@pytest.mark.parametrize("name", NEW)
def test_a_perfect_judge_gives_the_order_up_to_ties_of_score(name: str) -> None:
    for n in range(106):
        worth = dict(enumerate(map(float, random.Random(n).sample(range(n), n))))
        ranked, _, _ = strategy(name, perfect(worth), n)
        scores = ranked.scores or []
        for i, j in zip(range(n), range(1, n), strict=False):
            same = scores[i] == scores[j]
            assert ranked.items[i] < ranked.items[j] if same else worth[ranked.items[i]] > worth[ranked.items[j]]
        assert name == "reference-anchored" or len(set(scores)) == n


@pytest.mark.parametrize("name", NEW)
def test_on_real_text_a_judge_that_knows_gives_the_ideal_order(name: str, shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "corpora" / "noveleval.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    requests = [candidates for _, candidates in iter_requests(tmp_path / "noveleval" / "data.json")][:4]
    grades = {c.query.id: {d.id: (i * 7) % 3 for i, d in enumerate(c.documents)} for c in requests}
    with Reranker(name, backend=SimulatedBackend(grades), ledger="none") as reranker:
        planned, rankings = plan(reranker, requests), reranker.rank_many(requests)
    for ranking in rankings:
        said = [grades[ranking.query.id][i] for i in ranking.ids]
        assert said == sorted(said, reverse=True)
        assert (ranking.row.score_kind, ranking.row.failed, ranking.row.repaired) == (KINDS[name], 0, 0)
    assert planned.calls.expected == sum(ranking.row.calls for ranking in rankings)
    assert planned.rounds.expected == max(ranking.row.rounds for ranking in rankings)


@pytest.mark.parametrize("name", [name for name in NEW if "prompt-logprobs" not in METHODS[name].needs])
def test_the_lexical_judge_prefers_what_has_the_querys_words(name: str) -> None:
    texts = ["The moon is full.", "What a goldfish eats: flakes.", "A goldfish, and what grows."]
    with Reranker(name, backend="lexical", ledger="none") as reranker:
        ranking = reranker.rank("what goldfish eats", texts)
    assert (ranking.ids, ranking.row.failed) == (["1", "2", "0"], 0)


@pytest.mark.parametrize("name", NEW)
def test_the_command_runs_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    candidates = [{"docid": f"d{i}", "doc": {"text": f"text {i}"}} for i in range(5)]
    request = {"query": {"qid": "q", "text": "goldfish"}, "candidates": candidates}
    (tmp_path / "requests.jsonl").write_text(json.dumps(request) + "\n")
    (tmp_path / "qrels").write_text("".join(f"q 0 d{i} {i % 4}\n" for i in range(5)))
    job = ["--requests", f"{tmp_path}/requests.jsonl", "--backend", f"simulated:{tmp_path}/qrels", "--method", name]
    assert program(["plan", "rerank", *job, "--ledger", "none", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["calls"]
    expected = planned if isinstance(planned, int) else planned["expected"]
    outputs = ["--output", f"{tmp_path}/out", "--ledger", "none"]
    assert program(["rerank", *job, *outputs, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["calls"] == expected
    assert (tmp_path / "out").read_text().split()[2] == "d3"


# --- query-likelihood and answer-scent


def likely(text: str, values: list[float]) -> Reply:
    return Reply("", tokens=tuple(Token(text, value) for value in values))


def test_the_likelihood_is_the_mean_over_the_querys_tokens() -> None:
    values = {"text 0": [-1.0, -3.0], "text 1": [-0.5]}

    def say(request: Request) -> Reply:
        assert request.continuation == " what do goldfish eat"
        assert request.prompt is not None
        assert request.prompt.startswith("Passage: text ")
        return likely("t", next(told for text, told in values.items() if text in request.prompt))

    ranking, _ = rank("query-likelihood", say, 2)
    assert (ranking.ids, ranking.scores, ranking.row.score_kind) == (["1", "0"], [-0.5, -2.0], "log-likelihood")


def test_the_expected_answer_is_written_once_and_its_likelihood_scores() -> None:
    def say(request: Request) -> Reply:
        if request.continuation is None:
            return Reply("They eat flakes.")
        assert request.continuation == " They eat flakes."
        return likely("t", [-float(prompt_of(request).split("text ")[1][0])])

    ranking, asked = rank("answer-scent", say, 4)
    assert (ranking.ids, ranking.scores) == (["0", "1", "2", "3"], [0.0, -1.0, -2.0, -3.0])
    assert (ranking.row.calls, ranking.row.rounds, len(asked)) == (5, 2, 5)
    assert "what do goldfish eat" in prompt_of(asked[0])


def test_without_an_expected_answer_nothing_else_is_asked() -> None:
    ranking, asked = rank("answer-scent", lambda _: Reply("I'm sorry, but I can't help with that."), 4)
    assert (ranking.ids, ranking.scores, len(asked)) == (["0", "1", "2", "3"], None, 1)
    assert (ranking.row.status, ranking.row.reasons) == ("failed", {"refused": 1})


def test_another_model_may_write_the_expected_answer(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("query 0 1 1\n")
    options = {"writer": f"simulated:{tmp_path}/qrels"}
    ranking, asked = rank("answer-scent", lambda _: likely("t", [-1.0]), 3, options=options)
    assert (ranking.row.ok, len(asked)) == (4, 3)
    with pytest.raises(InputError):
        Reranker("answer-scent", backend=Scripted(lambda _: Reply("")), options={"writer": "nobody:x"}, ledger="none")


@pytest.mark.parametrize("name", ["query-likelihood", "answer-scent"])
def test_samples_of_what_is_not_drawn_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"--samples 3: .* nothing is drawn"):
        Reranker(name, backend=Scripted(lambda _: Reply("")), samples=3, temperature=1.0, ledger="none")


# --- reason-then-verdict

ODDS = (("true", math.log(0.6)), ("false", math.log(0.2)))


def spoken(text: str, at: str, *, finish: str = "stop", **more: Any) -> Reply:
    """A reply of which the last occurrence of a word is a token with its rivals."""
    start = text.rindex(at)
    before, after = text[:start], text[start + len(at) :]
    tokens = [Token(before, 0.0, ((before, 0.0),)), Token(at, ODDS[0][1], ODDS), Token(after, 0.0, ((after, 0.0),))]
    return Reply(text, finish=finish, tokens=[t for t in tokens if t.text], **more)


def test_the_score_is_the_probability_of_the_verdict_after_the_thinking() -> None:
    text = "<think>Is it true or false? It might be false.</think>\n\ntrue"
    ranking, _ = rank("reason-then-verdict", lambda _: spoken(text, "true"))
    assert ranking.scores == pytest.approx([0.75])
    assert (ranking.row.calls, ranking.row.rounds, ranking.row.repaired) == (1, 1, 0)


def test_tokens_of_thinking_that_a_server_split_off_are_not_taken_for_the_verdict() -> None:
    said = spoken("Is it true? So it seems. true", "true")
    reply = Reply("true", tokens=said.tokens, reasoning="Is it true? So it seems.", finish="stop")
    misleading = Token("true", math.log(0.1), (("false", math.log(0.9)), ("true", math.log(0.1))))
    reply.tokens = (misleading, *(said.tokens or ()))
    ranking, _ = rank("reason-then-verdict", lambda _: reply)
    assert ranking.scores == pytest.approx([0.75])


@pytest.mark.parametrize(
    "thought",
    [
        Reply("<think>The query asks about food. The passage is tru", finish="length"),
        Reply("The query asks about food. It is true that fish eat. The passage", finish="length"),
        Reply("", reasoning="The query asks about food. The pas", finish="length"),
    ],
)
def test_a_chain_that_breaks_off_is_closed_once_and_asked_for_its_verdict(thought: Reply) -> None:
    def say(request: Request) -> Reply:
        return spoken("true", "true") if len(request.messages) > 2 else thought

    ranking, asked = rank("reason-then-verdict", say, 2)
    assert ranking.scores == pytest.approx([0.75, 0.75])
    assert (ranking.row.questions, ranking.row.calls, ranking.row.rounds) == (2, 4, 2)
    assert ranking.row.repairs == {"closed": 2}
    closed = [request for request in asked if len(request.messages) > 2]
    assert len(closed) == 2
    for request in closed:
        (_, kept), (role, told) = request.messages[-2:]
        assert kept.endswith("about food." if "that fish" not in kept else "fish eat.")
        assert role == "user"
        assert "true or false" in told
        assert request.sampling.max_tokens <= 16


def test_a_verdict_that_came_before_the_cut_stands() -> None:
    text = "<think>Yes.</think> true, since the passage says what they eat and how"
    ranking, asked = rank("reason-then-verdict", lambda _: spoken(text, "true", finish="length"))
    assert (ranking.scores, len(asked)) == ([pytest.approx(0.75)], 1)


def test_a_closed_chain_without_a_verdict_has_failed_and_keeps_its_place() -> None:
    def say(request: Request) -> Reply:
        if "text 1" in prompt_of(request):
            return Reply("<think>Hm. And", finish="length")
        return spoken("<think>Hm.</think>true", "true")

    ranking, asked = rank("reason-then-verdict", say, 3)
    assert (ranking.ids, ranking.scores[1], len(asked)) == (["0", "1", "2"], None, 4)
    assert ranking.row.reasons == {"truncated": 1}


# --- explain-label


def test_the_order_of_explanation_and_label_is_a_template_of_its_own() -> None:
    seen: dict[str, str] = {}
    for order, text in (("explanation-first", "It names flakes, not 0 things.\nGrade: 3"), ("label-first", "3\nIt")):
        ranking, (request,) = rank("explain-label", lambda _, text=text: Reply(text), options={"order": order})  # type: ignore[misc]
        assert ranking.scores == [3.0]
        assert ranking.row.repairs == {"no-logprobs": 1}
        seen[order] = prompt_of(request)
        assert (request.sampling.max_tokens > 100) == (order == "explanation-first")
    assert len(set(seen.values())) == 2
    with pytest.raises(InputError, match="order=both: there are explanation-first, label-first"):
        Reranker("explain-label", backend="lexical", options={"order": "both"}, ledger="none")


# --- rubric-score


def by_sample(values: Mapping[int, list[float | None]]) -> Judge:
    def answer(question: Question) -> Answer:
        value = values[question.items[0]][question.sample]  # type: ignore[index]
        return failed("grade", "x") if value is None else Grade(value=value, score_kind="score")

    return answer


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
def test_a_trimmed_mean_lies_among_the_values_and_forgets_the_farthest(values: list[float]) -> None:
    assert min(values) - 1e-9 <= trimmed(values) <= max(values) + 1e-9
    assert len(values) < 2 or trimmed([*values, 1e9]) <= 100


def test_replies_are_put_together_and_their_spread_is_kept() -> None:
    values: dict[int, list[float | None]] = {
        0: [10, 20, 90],
        1: [50, None, 52],
        2: [None, None, None],
        3: [None, 60, None],
    }
    told = {i: [v for v in row if v is not None] for i, row in values.items()}
    for combine, function in (("mean", fmean), ("median", median), ("trimmed", trimmed)):
        ranked, asked, _ = strategy("rubric-score", by_sample(values), 4, samples=3, combine=combine)
        assert (asked, ranked.score_kind) == (12, "score")
        assert ranked.spread is not None
        assert ranked.scores is not None
        for item, score, spread in zip(ranked.items, ranked.scores, ranked.spread, strict=True):
            assert score == (function(told[item]) if told[item] else None)
            assert spread == (stdev(told[item]) if len(told[item]) > 1 else None)
        assert ranked.items[2] == 2


def test_the_spread_of_noisy_replies_is_in_the_ranking_and_tells_the_noise() -> None:
    documents = tuple(Document(f"d{i}", "x") for i in range(30))
    judge = SimulatedBackend({"q": {d.id: 2 for d in documents} | {"top": 4}}, Errors(noise=0.1))
    with Reranker("rubric-score", backend=judge, options={"samples": 8}, depth=25, ledger="none") as reranker:
        (ranking,) = reranker.rank_many([Candidates(Query("q", "x"), documents)])
    assert ranking.spread is not None
    assert ranking.spread[25:] == (None,) * 5
    assert fmean(s for s in ranking.spread[:25] if s is not None) == pytest.approx(10, rel=0.25)


def test_samples_of_the_job_are_samples_of_the_method() -> None:
    def reranker(**more: Any) -> Reranker:
        return Reranker("rubric-score", backend="lexical", ledger="none", **more)

    assert (reranker().options["samples"], reranker().samples) == (5, 1)
    assert (reranker(samples=3).options["samples"], reranker(samples=3).samples) == (3, 1)
    assert reranker(temperature=0).options["samples"] == 1
    with pytest.raises(InputError, match="both say how many replies"):
        reranker(samples=3, options={"samples": 4})
    for both in ({"samples": 3}, {"options": {"samples": 3}}):
        with pytest.raises(InputError, match="all samples are one at temperature 0"):
            reranker(temperature=0, **both)
    assert reranker(samples=3).rank("q", ["a", "b"]).row.calls == 6


# --- criteria


def by_criterion(grades: Mapping[str, list[float | None]]) -> Judge:
    def answer(question: Question) -> Answer:
        value = next(row for word, row in grades.items() if word in dict(question.given)["criterion"])
        said = value[question.items[0]]  # type: ignore[index]
        return failed("grade", "x") if said is None else Grade(value=said)

    return answer


GRADES: dict[str, list[float | None]] = {"short": [3, 2, 0, None], "true": [0, 2, 0, 2]}


@pytest.mark.parametrize(
    ("options", "scores"),
    [
        ({}, {0: 3, 1: 4, 2: 0, 3: 4}),
        ({"weights": "3,1"}, {0: 9, 1: 8, 2: 0, 3: 8}),
        ({"combine": "weights", "weights": "0,1"}, {0: 0, 1: 2, 2: 0, 3: 2}),
        ({"combine": "min"}, {0: 0, 1: 2, 2: 0, 3: 2}),
    ],
)
def test_criteria_are_put_together(options: dict[str, str], scores: dict[int, float]) -> None:
    given = {"criteria": "is short; is true", **options}
    ranked, asked, rounds = strategy("criteria", by_criterion(GRADES), 4, **given)
    assert (asked, rounds) == (8, 1)
    assert dict(zip(ranked.items, ranked.scores or (), strict=True)) == scores


def test_a_sum_of_log_sigmoids_does_not_make_up_for_a_weak_criterion() -> None:
    grades: dict[str, list[float | None]] = {"short": [3, 2, 1], "true": [0, 1.2, 1]}
    given = {"criteria": "is short; is true"}
    summed, _, _ = strategy("criteria", by_criterion(grades), **given)
    ranked, _, _ = strategy("criteria", by_criterion(grades), combine="log-sigmoid", **given)
    assert summed.items == [1, 0, 2]
    middles = [median(row) for row in grades.values()]  # type: ignore[type-var]
    expected = [
        sum(-math.log1p(math.exp(-(row[i] - middle))) for row, middle in zip(grades.values(), middles, strict=True))  # type: ignore[operator]
        for i in range(3)
    ]
    assert dict(zip(ranked.items, ranked.scores or (), strict=True)) == pytest.approx(dict(enumerate(expected)))
    assert ranked.score_kind == "log-sigmoid-sum"


def test_a_final_prompt_shows_the_grades_by_criteria() -> None:
    def say(request: Request) -> Reply:
        prompt = prompt_of(request)
        if "By single criteria" in prompt:
            return Reply("3" if prompt.count("Grade: 2") == 4 else "0")
        assert sum(criterion in prompt for criterion in CRITERIA.values()) == 1
        return Reply("2" if "text 1" in prompt else "1")

    ranking, asked = rank("criteria", say, 3, options={"combine": "prompt"})
    assert (ranking.ids, ranking.scores) == (["1", "0", "2"], [3.0, 0.0, 0.0])
    assert (len(asked), ranking.row.rounds) == (15, 2)


def test_each_criterion_is_a_question_of_its_own_to_a_noisy_judge() -> None:
    judge = SimulatedBackend({"q": {"d": 2, "top": 4}}, Errors(noise=0.3))
    with Reranker("criteria", backend=judge, ledger="none", keep_answers=True) as reranker:
        (ranking,) = reranker.rank_many([Candidates(Query("q", "x"), (Document("d", "x"),))])
    values = {answer.value for answer in ranking.answers.values() if isinstance(answer, Grade)}
    assert len(values) == 4


def test_criteria_are_names_or_words_of_ones_own() -> None:
    assert named("exactness, coverage") == [CRITERIA["exactness"], CRITERIA["coverage"]]
    assert named("topicality; short, and to the point ;") == [CRITERIA["topicality"], "short, and to the point"]
    assert named("short, and to the point") == ["short, and to the point"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"criteria": "exactness,clarity"}, "clarity is not among the criteria with a name"),
        ({"criteria": " ; "}, "name at least one"),
        ({"combine": "product"}, "combine=product: there are sum, weights, min, log-sigmoid, prompt"),
        ({"combine": "weights"}, "combine=weights: say which"),
        ({"weights": "1,2"}, "one weight for each of the 4 criteria"),
        ({"weights": "a,b,c,d"}, "numbers separated by commas"),
        ({"weights": "1,1,1,-1"}, "no weight must be below 0"),
        ({"weights": "0,0,0,0"}, "no weight must be below 0, and one must be above"),
        ({"weights": "1,1,1,nan"}, "no weight must be below 0, and one must be above"),
        ({"weights": "1,1,1,1", "combine": "min"}, "combine=min weighs nothing"),
    ],
)
def test_bad_criteria_are_one_sentence(options: dict[str, str], problem: str) -> None:
    with pytest.raises(InputError) as error:
        METHODS["criteria"].checked(options)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("method", "template", "problem"),
    [
        ("pointwise", "pointwise/criterion", "shows 'criterion', which the method pointwise does not bring"),
        ("criteria", "pointwise/graded", "does not show 'criterion', by which the method criteria works"),
        ("answer-scent", "pointwise/query-likelihood", "does not show 'answer'"),
    ],
)
def test_a_template_shows_what_the_method_brings(method: str, template: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Reranker(method, template=template, backend=Scripted(lambda _: Reply("")), ledger="none")


# --- reference-anchored


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_the_grade_rises_with_every_bit_of_a_win(grades: list[int], one: float, other: float) -> None:
    few, many = sorted([one * len(grades), other * len(grades)])
    assert grade_of(grades, few) <= grade_of(grades, many)
    if many - few > 1e-6:
        assert grade_of(grades, few) < grade_of(grades, many)
    for grade in set(grades):
        wins = sum(g < grade for g in grades) + sum(g == grade for g in grades) / 2
        assert grade_of(grades, wins) == pytest.approx(grade)


def wins_over(worth: Mapping[int, float]) -> Judge:
    """A judge that compares a worth with the grade of an anchor."""

    def answer(question: Question) -> Answer:
        left, right = (
            getattr(item, "grade", None) if hasattr(item, "grade") else worth[item] for item in question.items
        )  # type: ignore[index]
        return Preference(share=0.5 if left == right else float(left > right))  # type: ignore[operator]

    return answer


def test_a_candidate_gets_the_grade_of_the_anchors_that_it_ties_with() -> None:
    worth = {i: float(i) for i in range(4)} | {4: 2.5, 5: -1.0, 6: 9.0}
    ranked, asked, rounds = strategy("reference-anchored", wins_over(worth), 7)
    grades = dict(zip(ranked.items, ranked.scores or (), strict=True))
    assert [grades[i] for i in range(4)] == [0.0, 1.0, 2.0, 3.0]
    assert 2 < grades[4] < 3 < grades[6]
    assert grades[5] < 0
    assert (asked, rounds) == (7 * len(GENERAL), 1)
    both, asked, _ = strategy("reference-anchored", wins_over(worth), 7, swap=True)
    assert (both.items, both.scores, asked) == (ranked.items, ranked.scores, 2 * 7 * len(GENERAL))


def test_a_judge_that_always_prefers_the_first_tells_nothing() -> None:
    ranked, _, _ = strategy("reference-anchored", lambda _: Preference(share=1.0), 9)
    assert ranked.items == list(range(9))
    assert len(set(ranked.scores or ())) == 1


def anchors(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_anchors_of_a_file_count_for_their_query_and_show_their_own(tmp_path: Path) -> None:
    listed = anchors(
        tmp_path / "anchors.jsonl",
        {"text": "for all", "grade": 1},
        {"text": "of one query", "grade": 2, "query_id": "q1", "id": "d9"},
        {"text": "of one query too", "grade": 0, "query_id": 2},
        {"text": "with a query", "grade": 2.5, "query": "why is the sky blue"},
    )
    assert [anchor.text for anchor in anchors_for(listed, "q1")] == ["for all", "of one query", "with a query"]
    assert [anchor.text for anchor in anchors_for(listed, "other")] == ["for all", "with a query"]
    backend = Scripted(lambda _: Reply("A"))
    requests = [Candidates(Query(q, f"query {q}"), (Document("d", "a candidate"),)) for q in ("q1", "other")]
    with Reranker("reference-anchored", backend=backend, options={"anchors": listed}, ledger="none") as reranker:
        planned, rankings = plan(reranker, requests).calls, reranker.rank_many(requests)
    assert [ranking.row.calls for ranking in rankings] == [3, 2]
    assert (planned.low, planned.expected, planned.high) == (4, 5, 6)
    sky = [prompt_of(request) for request in backend.requests if "with a query" in prompt_of(request)]
    assert len(sky) == 2
    for prompt in sky:
        assert prompt.index("why is the sky blue") < prompt.index("with a query")
        assert prompt.count("why is the sky blue") == 1
        assert "query q1" in prompt or "query other" in prompt


def test_a_query_without_anchors_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    listed = anchors(tmp_path / "anchors.jsonl", {"text": "t", "grade": 1, "query_id": "q1"})
    backend = Scripted(lambda _: Reply("A"))
    reranker = Reranker("reference-anchored", backend=backend, options={"anchors": listed}, ledger="none")
    with pytest.raises(InputError, match=r"query q2: .* has no anchor for it"):
        reranker.rank(Query("q2", "x"), ["a"])
    assert backend.requests == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file holds no anchors"),
        ("{}\n", "1: the anchor has no text"),
        ('{"text": "t", "grade": 1}\n{"text": "t"}\n', "2: the anchor has no grade"),
        ('{"text": "t", "grade": true}\n', "1: the anchor has no grade"),
        ('{"text": "t", "grade": 1, "query": []}\n', "1: the query of the anchor is no text"),
        ("text\n", "1: invalid JSON"),
    ],
)
def test_bad_anchors_are_one_sentence(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "anchors.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        Reranker("reference-anchored", backend="lexical", options={"anchors": str(path)}, ledger="none")
    assert problem in str(error.value)
    assert str(path) in str(error.value)


def test_an_anchor_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl"):
        Reranker("reference-anchored", backend="lexical", options={"anchors": f"{tmp_path}/none.jsonl"}, ledger="none")


def test_wrapped_in_another_method_it_knows_its_query_and_its_parts(tmp_path: Path) -> None:
    listed = anchors(tmp_path / "a.jsonl", {"text": "t", "grade": 1, "query_id": "q"})
    judge = SimulatedBackend({"q": {"d1": 2, "d2": 1}})
    documents = tuple(Document(f"d{i}", "x") for i in range(3))
    for options in ({"inner": "reference-anchored", "anchors": listed}, {"inner": "answer-scent"}):
        with Reranker("permutation-consistency", backend=judge, options=options, ledger="none") as reranker:
            (ranking,) = reranker.rank_many([Candidates(Query("q", "x"), documents)])
        assert ranking.ids[0] == "d1"


def test_written_texts_are_in_the_oracles() -> None:
    assert isinstance(perfect({})(Question("write", ())), Written)
