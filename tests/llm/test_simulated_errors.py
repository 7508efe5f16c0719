"""The simulated judge errs exactly as often and in the way that it is told to."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from llmrank.llm.backends.simulated import MALFORMED, REFUSED
from tests.llm.test_simulated import GRADES, KINDS, SHOWN, TEMPLATES, answers, judge, replies, request

DRAWS = 1200


def many(kind: str, *grades: int) -> tuple[dict[str, dict[str, int]], list[list[str]]]:
    """Qrels, and sets of new documents of these grades: a draw each."""
    sets = [[f"{i}-{place}" for place in range(len(grades))] for i in range(DRAWS)]
    qrels = {d: grade for documents in sets for d, grade in zip(documents, grades, strict=True)}
    return {"q": qrels | {"the highest": 3}}, sets


def share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found)


def about(probability: float) -> Any:
    """Within four standard errors of a probability: the draws are fixed, so this holds or it does not."""
    return pytest.approx(probability, abs=4 * (probability * (1 - probability) / DRAWS) ** 0.5 + 1e-9)


def test_noise_is_gaussian_with_the_stated_deviation() -> None:
    """The worse of two documents, d of the scale apart, wins with probability Phi(-d / (sigma sqrt 2))."""
    grades, sets = many("compare", 2, 1)
    for noise, expected in ((0.2, 0.1193), (1 / 3, 0.2398), (2.0, 0.4531)):
        found = answers(judge(grades, noise=noise), "pairwise/prefer", sets)
        assert share(a.winner == "right" for a in found) == about(expected)
    values = [a.value for a in answers(judge(grades, noise=0.1), "a range", ([d] for d, _ in sets))]
    mean = sum(values) / DRAWS
    deviation = (sum((v - mean) ** 2 for v in values) / DRAWS) ** 0.5
    assert mean == pytest.approx(200 / 3, abs=4 * 10 / DRAWS**0.5)
    assert deviation == pytest.approx(10, abs=4 * 10 / (2 * DRAWS) ** 0.5)


def test_noise_is_drawn_anew_for_every_question() -> None:
    grades = {"q": dict.fromkeys("abcdef", 1) | {"high": 2}}
    backend = judge(grades, noise=0.3)
    by_grade = {a.value for a in answers(backend, "a range", [[d] for d in "abcdef"])}
    assert len(by_grade) == 6  # not the same for every document
    winners = answers(backend, "pairwise/prefer", itertools.permutations("abcdef", 2))
    assert {a.winner for a in winners} == {"left", "right"}
    there_and_back = {
        (a.winner, b.winner)
        for a, b in zip(
            answers(backend, "pairwise/prefer", itertools.combinations("abcdef", 2)),
            answers(backend, "pairwise/prefer", (p[::-1] for p in itertools.combinations("abcdef", 2))),
            strict=True,
        )
    }
    assert len(there_and_back) == 4  # either order is a question of its own


def test_even_a_great_deal_of_noise_is_read_as_ok() -> None:
    for kind, template in KINDS.items():
        _, sets = many(kind, *range(SHOWN[kind]))
        for noise in (1, 30, 1e6):
            found = answers(judge(noise=noise), template, sets[:60])
            assert {a.status for a in found} == {"ok"}
    assert {a.status for a in answers(judge(noise=30), "pointwise/yes-no", (s[:1] for s in sets[:60]))} == {"ok"}


@pytest.mark.parametrize("highest", [1, 2, 3])
def test_a_label_is_replaced_by_each_other_one_alike(highest: int) -> None:
    """Whatever the grades' scale: one that lies between two labels has one label that would have been said."""
    for grade in range(highest + 1):
        grades, sets = many("grade", grade)
        grades["q"]["the highest"] = highest
        grades["q"] = {d: min(g, highest) for d, g in grades["q"].items()}
        clean = answers(judge(grades), "pointwise/graded", sets[:1])[0].label
        noisy = Counter(a.label for a in answers(judge(grades, label_noise=0.3), "pointwise/graded", sets))
        for label in "0123":
            assert noisy[label] / DRAWS == about(0.7 if label == clean else 0.1)
    always = answers(judge(grades, label_noise=1), "pointwise/yes-no", sets[:50])
    assert {a.label for a in always} == {"no"}


def test_label_noise_leaves_other_questions_alone() -> None:
    for kind in ("compare", "choose", "order"):
        shown = [["d0", "d3", "d1", "d2"][: SHOWN[kind]]]
        assert answers(judge(label_noise=1), KINDS[kind], shown) == answers(judge(), KINDS[kind], shown)


@pytest.mark.parametrize("bias", [0.2, 1.0])
def test_what_is_shown_first_wins_as_often_as_stated(bias: float) -> None:
    grades, pairs = many("compare", 0, 3)
    found = answers(judge(grades, order_bias=bias), "pairwise/prefer", pairs)
    assert share(a.winner == "left" for a in found) == about(bias)
    grades, sets = many("choose", 0, 1, 3, 2)
    found = answers(judge(grades, order_bias=bias), "setwise/best", sets)
    assert {a.index for a in found} <= {0, 2}
    assert share(a.index == 0 for a in found) == about(bias)
    grades, sets = many("choose", 3, 1, 0, 2)
    found = answers(judge(grades, order_bias=bias), "the worst", sets)
    assert share(a.index == 0 for a in found) == about(bias)
    grades, sets = many("order", 0, 1, 3, 2)
    found = answers(judge(grades, order_bias=bias), "listwise/rank", sets)
    assert share(a.permutation == (0, 2, 3, 1) for a in found) == about(bias)
    assert {a.permutation for a in found} <= {(0, 2, 3, 1), (2, 3, 1, 0)}  # the others stand as they should
    shown = [[d] for d in GRADES["q"]]
    assert answers(judge(order_bias=1), "pointwise/graded", shown) == answers(judge(), "pointwise/graded", shown)


def test_grades_nearer_than_a_share_of_the_scale_tie() -> None:
    pairs = [["d0", "d1"], ["d1", "d0"], ["d0", "d2"], ["d3", "d0"], ["d2", "d3"], ["d1", "d1b"]]

    def winners(ties: float) -> list[str | None]:
        return [a.winner for a in answers(judge(ties=ties), "pairwise/prefer", pairs)]

    assert winners(0) == ["right", "left", "right", "left", "right", "left"]
    assert winners(0.3) == ["right", "left", "right", "left", "right", "left"]
    assert winners(0.34) == ["tie", "tie", "right", "left", "tie", "tie"]
    assert winners(0.7) == ["tie", "tie", "tie", "left", "tie", "tie"]
    tied = answers(judge(ties=0.34), "pairwise/prefer", pairs)[0]
    assert (tied.status, tied.share) == ("ok", 0.5)
    assert tied.p_left is not None  # its two rivals are still told
    assert tied.p_left < 0.5


@pytest.mark.parametrize("name", [name for name, t in TEMPLATES.items() if t.question == "order"])
def test_documents_that_tie_stand_in_the_order_shown(name: str) -> None:
    """Else the reply would tell apart what its judge cannot."""
    shown = [["d0", "d2", "d3", "unlisted"]]
    (order,) = answers(judge(ties=0.34), name, shown)
    assert order.status == "ok"
    assert order.permutation == (1, 2, 0, 3)
    if (
        TEMPLATES[name].header.completion_tokens > 1 or TEMPLATES[name].header.parser == "scores"
    ):  # one letter cannot say that others tie
        assert order.ties == ((1, 2), (0, 3))
    (order,) = answers(judge(ties=0.2), name, shown)
    assert order.permutation == (2, 1, 0, 3)
    assert answers(judge(ties=0.34), "setwise/best", shown)[0].index == 1  # d2, shown before d3
    assert answers(judge(ties=0.2), "setwise/best", shown)[0].index == 2
    if TEMPLATES[name].header.parser != "scores":  # where equal documents have equal scores
        assert answers(judge(), name, shown)[0].ties is None


READ = [n for n, t in TEMPLATES.items() if t.question != "write" and t.header.parser != "likelihood"]
"""Templates whose replies have a form: any text is a text, and nothing is generated for a likelihood."""


@pytest.mark.parametrize("name", READ)
def test_malformed_and_refused_replies_fail_in_their_stated_shares(name: str) -> None:
    template = TEMPLATES[name]
    n = SHOWN[template.question]
    sets = [[f"{i}-{place}" for place in range(n)] for i in range(DRAWS // 4)]
    backend = judge(malformed=0.3, refused=0.5)
    said = replies(backend, [request(template, documents) for documents in sets])
    malformed, refused = share(r.text in MALFORMED for r in said), share(r.text == REFUSED for r in said)
    assert malformed == pytest.approx(0.3, abs=4 * (0.21 / len(sets)) ** 0.5)
    assert refused == pytest.approx(0.5, abs=4 * (0.25 / len(sets)) ** 0.5)
    assert {r.text for r in said} >= {*MALFORMED, REFUSED}
    for reply in said:
        answer = template.read(reply, n)
        faulty = reply.text in MALFORMED or reply.text == REFUSED
        assert answer.status == ("failed" if faulty else "ok")
        if reply.text == REFUSED:
            assert answer.reason == "refused"
    assert {template.read(r, n).status for r in replies(judge(malformed=1), [request(template, sets[0])])} == {"failed"}
