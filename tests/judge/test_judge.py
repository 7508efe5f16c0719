"""`Judge` in Python: what becomes a label, what does not, and the evidence that each label carries."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import Document, InputError, Judge, Judgment, Query
from llmrank.judge.judgment import whole
from llmrank.llm import Reply, Request
from llmrank.llm.ledger import Ledger
from tests.judge.saying import Scripted, by_text, constant, likely

LOGPROBS = ("text", "logprobs", "later-logprobs")


def one(say: str | Reply, template: str = "relevance/umbrela", **more: object) -> Judgment:
    backend = Scripted(lambda request: say, capabilities=LOGPROBS)
    with Judge(template, backend=backend, ledger="none", **more) as judge:
        return judge.judge("what is bm25", ["a ranking function"])[0]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("I cannot judge this passage as it was published in 2019.", "refused"),
        ("##final score: 10", "out-of-range"),
        ("10", "out-of-range"),
        ("-1", "out-of-range"),
        ("##final score: 1\n##final score: 3", "ambiguous"),
        ("<think>It is clearly a 3. ##final score: 3", "truncated"),
        ("<think>##final score: 3</think>", "empty"),
        ("0, 1, 2 or 3", "no-label"),
        ("The scale goes from 0 to 3.", "no-label"),
        ("Error: upstream returned 502", None),
        ("Thank you! There were 3 passages about this.", "no-label"),
        ("", "empty"),
    ],
)
def test_what_settles_on_no_label_is_a_failure_with_its_reason_and_never_a_zero(said: str, reason: str | None) -> None:
    judgment = one(said)
    assert (judgment.grade, judgment.status, judgment.distribution) == (None, "failed", None)
    assert judgment.reason
    assert reason is None or judgment.reason == reason
    assert judgment.raw == said


@pytest.mark.parametrize(
    ("said", "grade"),
    [
        ("##final score: 2", 2),
        ("##final score: 0", 0),
        ("M: 1\nT: 2\nO: 3", 3),
        ("<think>Perhaps a 1?</think>\n##final score: 3", 3),
        ("3", 3),
        ('{"O": 2}', 2),
        ("The passage defines it. Final score: 1", 1),
    ],
)
def test_a_label_is_read_in_any_of_its_forms(said: str, grade: int) -> None:
    judgment = one(said)
    assert (judgment.grade, judgment.status, judgment.reason) == (grade, "ok", None)


def test_a_label_carries_its_evidence(tmp_path: Path) -> None:
    backend = Scripted(constant("##final score: 2"), model="some-model")
    with Judge(backend=backend, ledger=str(tmp_path / "l")) as judge:
        (judgment,) = judge.judge(Query("q7", "what"), [Document("d3", "text")])
        template = judge.grader.template
    told = judgment.json()
    contract = "query_id doc_id grade status reason distribution expected raw template template_hash model samples key"
    assert set(contract.split()) <= set(told)
    assert (told["query_id"], told["doc_id"], told["grade"], told["raw"]) == ("q7", "d3", 2, "##final score: 2")
    assert (told["template"], told["template_hash"]) == ("relevance/umbrela", template.hash)
    assert (told["model"], told["samples"]) == ("some-model", 1)
    (row,) = Ledger(tmp_path / "l").rows()
    assert told["key"] == row.key.hex()


def test_an_unreadable_reply_is_asked_for_once_more_and_both_replies_are_kept(tmp_path: Path) -> None:
    def rambles_first(request: Request) -> str:
        return "##final score: 1" if len(request.messages) > 1 else "Hard to say!"

    backend = Scripted(rambles_first)
    for calls in (2, 0):
        with Judge(backend=backend, ledger=str(tmp_path / "l")) as judge:
            (judgment,) = judge.judge("q", ["d"])
        assert (judgment.grade, judgment.status, judgment.repairs) == (1, "repaired", ("asked-again",))
        assert judgment.raw == "##final score: 1"
        assert len(backend.asked) == calls
        backend.asked.clear()
    assert len(list(Ledger(tmp_path / "l").rows())) == 2
    with Judge(backend=backend, ledger=str(tmp_path / "l"), retry_failed=True) as judge:  # it did not fail in the end
        assert judge.judge("q", ["d"])[0].status == "repaired"
    assert backend.asked == []
    with Judge(backend=backend, ledger="none", retry_format=False) as judge:
        assert judge.judge("q", ["d"])[0].status == "failed"
    assert len(backend.asked) == 1


def test_what_failed_twice_is_asked_again_only_when_that_is_wanted(tmp_path: Path) -> None:
    backend = Scripted(constant("Hard to say!"))
    settings = {"backend": backend, "ledger": str(tmp_path / "l")}
    for calls in (2, 0):
        assert Judge(**settings).judge("q", ["d"])[0].status == "failed"
        assert len(backend.asked) == calls
        backend.asked.clear()
    backend.say = constant("##final score: 3")
    assert Judge(**settings, retry_failed=True).judge("q", ["d"])[0].grade == 3
    assert Judge(**settings).judge("q", ["d"])[0].grade == 3
    assert len(backend.asked) == 1


def test_logprobs_give_a_distribution_and_what_is_expected_after_reasoning_too() -> None:
    half = math.log(0.5)
    logprobs = {"3": math.log(0.3), "1": math.log(0.1), "2": half, "yes": math.log(0.05)}
    for words in (["2"], ["##final", " score: ", "2"], ["<think>", "maybe a 3 or ", "3", "</think>", "2"]):
        judgment = one(likely(words, **logprobs))
        assert judgment.grade == 2
        assert judgment.distribution == pytest.approx({"0": 0, "1": 0.1 / 0.9, "2": 0.5 / 0.9, "3": 0.3 / 0.9})
        assert judgment.expected == pytest.approx((0.1 + 1.0 + 0.9) / 0.9, abs=1e-6)
    plain = one("2")
    assert (plain.distribution, plain.expected, plain.empirical) == (None, None, None)


def test_samples_give_the_empirical_distribution_beside_that_of_the_logprobs() -> None:
    def says(request: Request) -> Reply:
        label = "3311"[request.sample // 1009]
        return likely([label], **{"1": math.log(0.4), "3": math.log(0.6)})

    backend = Scripted(says, capabilities=LOGPROBS)
    with Judge("relevance/basic", backend=backend, ledger="none", samples=4, temperature=1.0) as judge:
        (judgment,) = judge.judge("q", ["d"])
    assert judgment.grade == 1  # a tie takes the lower grade, and is marked
    assert (judgment.status, judgment.repairs, judgment.samples) == ("repaired", ("tie",), 4)
    assert judgment.empirical == {"1": 0.5, "3": 0.5}
    assert judgment.distribution == pytest.approx({"0": 0, "1": 0.4, "2": 0, "3": 0.6})
    assert judgment.expected == pytest.approx(2.2)
    assert len({source.key for source in judgment.sources}) == 4
    assert judgment.raw == "1"


def test_samples_that_failed_are_left_out_and_told_of() -> None:
    backend = Scripted(lambda request: "12x2"[request.sample // 1009])
    settings = {"ledger": "none", "samples": 4, "temperature": 1.0, "retry_format": False}
    with Judge("relevance/basic", backend=backend, **settings) as judge:
        (judgment,) = judge.judge("q", ["d"])
    assert (judgment.grade, judgment.status, judgment.repairs) == (2, "repaired", ("fewer-samples",))
    assert judgment.empirical == pytest.approx({"1": 1 / 3, "2": 2 / 3})


def test_a_constrained_reply_is_one_of_the_labels() -> None:
    backend = Scripted(lambda request: request.constraint.value[2], capabilities=("text", "choice"))
    with Judge(backend=backend, ledger="none", constrain=True) as judge:
        assert judge.judge("q", ["d"])[0].grade == 2
    assert backend.requests[0].constraint.kind == "choice"
    with pytest.raises(InputError, match=r"needs choice .* does not have"):
        Judge(backend=Scripted(constant("2")), constrain=True)
    with pytest.raises(InputError, match="--constrain does not go with"):
        Judge("pointwise/rubric", backend=backend, constrain=True)


def test_grades_are_whole_numbers_and_the_score_is_kept() -> None:
    template = "---\nname: t\ndescription: d\nquestion: grade\nparser: score\nrange: [0, 10]\nsource: s\n---\n"
    template += '{% message "user" %}{{ query.text }} {{ document.text }}{% endmessage %}'
    from llmrank.templates import Template

    with Judge(Template(template), backend=Scripted(by_text), ledger="none") as judge:
        judged = judge.judge("q", ["7.5", "7.6", "3", "11"])
    assert [j.grade for j in judged] == [7, 8, 3, None]  # halves go down
    assert [j.expected for j in judged] == [7.5, 7.6, None, None]
    backend = Scripted(lambda request: likely(["yes"], yes=-0.4, no=-1.2), capabilities=LOGPROBS)
    with Judge("pointwise/yes-no", backend=backend, ledger="none") as judge:
        (judgment,) = judge.judge("q", ["d"])
    assert judgment.grade == 1
    assert judgment.expected == pytest.approx(math.exp(-0.4) / (math.exp(-0.4) + math.exp(-1.2)), abs=1e-6)


@given(st.integers(-50, 50), st.floats(0, 1))
def test_halves_go_down_and_everything_else_to_the_nearest(base: int, part: float) -> None:
    value = base + part
    assert abs(whole(value) - value) <= 0.5 + 1e-6
    assert whole(base + 0.5) == base


def test_judgments_come_in_the_order_of_the_documents() -> None:
    texts = [str(i % 4) for i in range(70)]
    with Judge("relevance/basic", backend=Scripted(by_text), ledger="none") as judge:
        judged = judge.judge("q", texts)
        assert [(j.doc_id, j.grade) for j in judged] == [(str(i), i % 4) for i in range(70)]
        queries = [Query("a", "x"), Query("b", "y")]
        pairs = [(queries[i % 2], Document(f"d{i}", texts[i])) for i in range(20)]
        judged = judge.judge_pairs(pairs)
        assert [(j.query_id, j.doc_id, j.grade) for j in judged] == [("ab"[i % 2], f"d{i}", i % 4) for i in range(20)]
        assert judge.judge("q", []) == []
        with pytest.raises(InputError, match="the document x is given twice"):
            judge.judge("q", [Document("x", "1"), Document("x", "2")])


def test_the_coroutine_forms_give_the_same() -> None:
    async def work() -> None:
        judge = Judge("relevance/basic", backend=Scripted(by_text), ledger="none")
        direct = judge.judge("q", ["1", "2"])  # also inside a running loop
        assert await judge.ajudge("q", ["1", "2"]) == direct
        pairs = [("q", Document("0", "1")), ("q", Document("1", "2"))]
        assert await judge.ajudge_pairs(pairs) == direct
        assert sorted([j.grade async for j in judge.astream(pairs)]) == [1, 2]
        await judge.aclose()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("listwise/rank", "asks `order`; a judge needs a template that asks `grade`"),
        ("relevance/umbrella", "did you mean relevance/umbrela"),
    ],
)
def test_a_template_that_cannot_judge_is_told_before_the_first_call(template: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Judge(template, backend=Scripted(constant("2")))


def test_a_budget_leaves_pairs_unasked_which_is_no_failure() -> None:
    with Judge("relevance/basic", backend=Scripted(by_text), ledger="none", max_calls=3) as judge:
        judged = judge.judge("q", ["1"] * 8)
    assert sorted(j.status for j in judged) == ["ok"] * 3 + ["unasked"] * 5
    assert all(j.grade is None for j in judged if j.status == "unasked")
