"""Panels: several judges, one label; who is asked, what the rule makes of it, and what is kept of every judge."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llmrank import Document, InputError, Query
from llmrank.judge.judge import unit
from llmrank.judge.panels import RULES, Member, Panel
from llmrank.llm import Reply, Request
from tests.judge.saying import Scripted, by_text, constant, likely

BASIC = "relevance/basic"


def panel(labels: list[str], rule: str = "majority", **more: Any) -> Panel:
    """Judges that say one digit of each document's text: the first judge the first one, and so on; x is unreadable."""

    def says(place: int) -> Scripted:
        return Scripted(lambda request: by_text(request)[place], model=f"m{place}")

    members = [Member(name, says(place), BASIC) for place, name in enumerate(labels)]
    return Panel(members, rule, ledger="none", retry_format=False, **more)


def backends(made: Panel) -> list[Scripted]:
    return [grader.voices[""].backend for grader in made.graders.values()]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("majority", {"333": 3, "331": 3, "123": 1, "300": 0, "3x3": 3, "31x": 1, "xxx": None}),
        ("strict", {"333": 3, "331": 3, "123": None, "300": 0, "3x3": 3, "31x": None, "xxx": None}),
        ("mean", {"333": 3, "331": 2, "123": 2, "300": 1, "3x3": 3, "32x": 2, "xxx": None}),
        ("median", {"333": 3, "331": 3, "123": 2, "300": 0, "3x3": 3, "32x": 2, "xxx": None}),
        ("dawid-skene", {"333": 3, "331": 3, "300": 0, "111": 1, "000": 0, "222": 2, "xxx": None}),
    ],
)
def test_one_label_of_three(rule: str, expected: dict[str, int | None]) -> None:
    with panel(["a", "b", "c"], rule) as made:
        judged = made.judge("q", list(expected))
    assert {text: j.grade for text, j in zip(expected, judged, strict=True)} == expected
    failed = [j for j in judged if j.grade is None]
    assert {(j.status, j.reason) for j in failed} <= {("failed", "no-majority"), ("failed", "no-label")}
    assert all(j.member is None and j.raw is None for j in judged)
    assert [j.samples for j in judged] == [3 - text.count("x") for text in expected]


def test_a_tie_is_marked_and_the_shares_of_the_votes_are_kept() -> None:
    with panel(["a", "b", "c"]) as made:
        tied, clear = made.judge("q", ["123", "112"])
    assert (tied.grade, tied.status, tied.repairs) == (1, "repaired", ("tie",))
    assert (clear.grade, clear.status, clear.repairs) == (1, "ok", ())
    assert clear.distribution == pytest.approx({"1": 2 / 3, "2": 1 / 3})
    assert clear.expected == pytest.approx(4 / 3)


@pytest.mark.parametrize("rule", ["majority", "dawid-skene"])
def test_the_label_of_every_member_is_kept(rule: str) -> None:
    made = panel(["a", "b", "c"], rule)

    async def work() -> Any:
        pairs = unit(Query("q", "x"), [(5, Document("d", "132"))])
        return [labelled async for _, labelled in made.numbered([pairs])]

    ((_, ((_, members),), tallies),) = made._background.run(work())
    assert [(m.member, m.grade, m.model) for m in members] == [("a", 1, "m0"), ("b", 3, "m1"), ("c", 2, "m2")]
    assert sum(tally.questions for _, tally in tallies) == 3


def test_later_judges_are_asked_only_where_the_earlier_ones_are_unsure() -> None:
    made = panel(["a", "b", "c"], escalate=0.5)
    texts = ["11x", "12x", "330", "1x3", "xx2"]
    with made:
        judged = made.judge("q", texts)
    assert [len(b.asked) for b in backends(made)] == [5, 5, 3]  # a bare label alone is never sure
    assert backends(made)[2].asked == ["1", "3", "4"]
    assert [j.grade for j in judged] == [1, 1, 3, 1, 2]


def test_a_judge_with_probabilities_may_be_sure_alone() -> None:
    def says(request: Request) -> Reply:
        p = {"sure": 0.9, "unsure": 0.6}[by_text(request)]
        return likely(["3"], **{"3": math.log(p), "0": math.log(1 - p)})

    cheap, dear = Scripted(says, capabilities=("text", "logprobs")), Scripted(constant("0"), model="dear")
    with Panel([Member("cheap", cheap, BASIC), Member("dear", dear, BASIC)], escalate=0.5, ledger="none") as made:
        judged = made.judge("q", ["sure", "unsure"])
    assert dear.asked == ["1"]
    assert [j.grade for j in judged] == [3, 0]


def test_judges_who_pass_an_exam_vote_with_its_weight() -> None:
    query = Query("exam", "x")
    # The first is always right; the others agree with each other, and are right once in four.
    texts = [f"{g}{(g + 1) % 4 if i % 4 else g}{(g + 1) % 4 if i % 4 else g}" for i in range(24) for g in (i % 4,)]
    exam = unit(query, [(i, Document(f"e{i}", text)) for i, text in enumerate(texts)])
    with panel(["a", "b", "c"], "exam", exam=[(exam, [i % 4 for i in range(24)])]) as made:
        judged = made.judge("q", ["122", "033"])
    assert [j.grade for j in judged] == [1, 0]
    assert made.weights is not None
    assert made.weights.score.tolist() == [1.0, 0.25, 0.25]
    nobody = panel(["a", "b"], "exam", exam=[(exam, [3 - i % 4 for i in range(24)])], pass_mark=0.99)
    with nobody, pytest.raises(InputError, match="none of the 2 judges passed"):
        nobody.judge("q", ["12"])


def test_two_judges_who_disagree_read_each_other_and_answer_again() -> None:
    def stubborn(request: Request) -> str:
        return "3"

    def gives_way(request: Request) -> str:
        turn = request.messages[-1][1]
        return "3" if "answered:\n\n3\n" in turn else "1"

    one, other = Scripted(stubborn, model="one"), Scripted(gives_way, model="other")
    with Panel([Member("a", one, BASIC), Member("b", other, BASIC)], "discussion", ledger="none") as made:
        (judged,) = made.judge("q", ["text"])
    assert (judged.grade, judged.status, judged.samples) == (3, "ok", 2)
    assert [role for role, _ in one.requests[1].messages] == ["user", "assistant", "user"]
    assert "answered:\n\n1\n" in one.requests[1].messages[-1][1]
    assert (len(one.asked), len(other.asked)) == (2, 2)
    with panel(["a", "b"], "discussion") as made:  # neither gives way
        (judged,) = made.judge("q", ["20"])
        assert (judged.grade, judged.repairs) == (0, ("tie",))
        assert [len(b.asked) for b in backends(made)] == [3, 3]


def test_a_panel_spends_from_one_budget() -> None:
    with panel(["a", "b"], max_calls=6) as made:
        judged = made.judge("q", ["11"] * 5)
    assert sum(len(b.asked) for b in backends(made)) == 6
    assert {j.status for j in judged} <= {"ok", "unasked"}


@pytest.mark.parametrize(
    ("members", "more", "told"),
    [
        (["a"], {}, "at least two judges"),
        (["a", "a"], {}, "two judges have this name"),
        (["a", "b"], {"rule": "magic"}, "there is no such rule; there are majority"),
        (["a", "b"], {"rule": "exam"}, "name human judgments of some pairs with --exam"),
        (["a", "b"], {"exam": []}, "--exam goes with --panel exam"),
        (["a", "b", "c"], {"rule": "discussion"}, "between two judges, here are 3"),
        (["a", "b"], {"rule": "discussion", "escalate": 0.1}, "a discussion needs both judges"),
        (["a", "b"], {"escalate": 2.0}, "lies between 0 and 1"),
    ],
)
def test_what_cannot_be_a_panel_is_told_before_the_first_call(
    members: list[str], more: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        panel(members, **more)


def test_judges_of_a_panel_grade_on_one_scale() -> None:
    members = [Member("a", Scripted(constant("1")), BASIC), Member("b", Scripted(constant("1")), "relevance/binary")]
    with pytest.raises(InputError, match="a has 0, 1, 2, 3; b has 0, 1"):
        Panel(members)


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ("a=openai:gpt", ("a", "openai:gpt", "t")),
        ("a=openai:gpt@relevance/basic", ("a", "openai:gpt", "relevance/basic")),
        ("a=simulated:q?seed=1&noise=0@x@y", ("a", "simulated:q?seed=1&noise=0@x", "y")),
        ("a=lexical", ("a", "lexical", "t")),
    ],
)
def test_a_member_is_written_in_one_word(text: str, member: tuple[str, str, str]) -> None:
    assert Member.parse(text, "t") == member
    for bad in ("lexical", "=lexical", "a="):
        with pytest.raises(InputError, match="write it as NAME=BACKEND"):
            Member.parse(bad)


def test_every_rule_says_in_a_sentence_what_it_does() -> None:
    assert all(rule.summary for rule in RULES.values())
