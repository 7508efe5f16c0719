"""Cross-system consistency: what is a claim, what is checked against what, and what follows."""

from __future__ import annotations

from typing import Any

import pytest

from llmrank.agree.resampling import Resampling
from llmrank.data.types import Candidates, Document, Query
from llmrank.errors import InputError
from llmrank.judge.crosscheck import CheckedAnswer, CrossCheck, system_figures
from llmrank.llm.types import Failure, Request
from tests.judge.scripted import Scripted

ANSWERS = {"A": "Paris is the capital. It is old.", "B": "Paris is the capital.", "C": "Paris is not the capital."}
QUERY = Candidates(Query("q", "capital of France"), tuple(Document(name, text) for name, text in ANSWERS.items()))


def honest(prompt: str, request: Request) -> str | Failure:
    """Splits at sentences; a claim is supported by a text that has it, contradicted by one that has its negation."""
    assert request.about is not None
    text = request.about.documents[0].text
    if request.about.question.kind == "write":
        return "\n".join(f"{i}. {part.strip(' .')}." for i, part in enumerate(text.split(". "), 1))
    claim = dict(request.about.question.given)["claim"]
    if claim in text:
        return "supported"
    opposite = claim.replace(" is not ", " is ") if " not " in claim else claim.replace(" is ", " is not ")
    return "contradicted" if opposite in text else "silent"


def check(say: Any = honest, query: Candidates = QUERY, **settings: Any) -> tuple[dict[str, CheckedAnswer], Scripted]:
    model = Scripted(say)
    with CrossCheck(backend=model, **{"ledger": "none", "retries": 0, **settings}) as checker:
        (found,) = checker.run([query])
    return {answer.item_id: answer for answer in found}, model


def test_a_claim_counts_by_what_each_other_answer_says_of_it() -> None:
    found, model = check()
    capital, old = found["A"].claims
    assert [(c.item_id, c.label, c.value) for c in capital.checks] == [("B", "supported", 1), ("C", "contradicted", 0)]
    assert [c.value for c in old.checks] == [0.5, 0.5]
    assert {name: answer.consistency for name, answer in found.items()} == {"A": 0.5, "B": 0.5, "C": 0.0}
    assert len(model.prompts) == 3 + 2 * (2 + 1 + 1)  # three splits, each claim against two others
    assert {answer.status for answer in found.values()} == {"ok"}


def test_sentences_may_stand_for_claims() -> None:
    found, model = check(by="sentences")
    assert [claim.text for claim in found["A"].claims] == ["Paris is the capital.", "It is old."]
    assert all(answer.source is None for answer in found.values())
    assert len(model.prompts) == 2 * (2 + 1 + 1)


def test_a_check_that_failed_counts_nowhere() -> None:
    def fails(prompt: str, request: Request) -> str | Failure:
        assert request.about is not None
        if request.about.question.kind == "grade" and request.about.documents[0].id == "C":
            return "maybe"
        return honest(prompt, request)

    found, _ = check(fails)
    assert found["A"].consistency == (1 + 0.5) / 2
    assert (found["A"].status, found["A"].repairs) == ("repaired", ("fewer-checks",))
    row = found["A"].row()
    assert (row["checks"], row["claims_checked"]) == (2, 2)
    assert row["claims"][0]["checks"][1]["replies"][0]["status"] == "failed"
    assert found["C"].status == "ok"


@pytest.mark.parametrize(
    ("say", "query", "reason"),
    [
        (honest, Candidates(QUERY.query, QUERY.documents[:1]), "no-other-answer"),
        (honest, Candidates(QUERY.query, (Document("A", " "), QUERY.documents[1])), "empty-answer"),
        (lambda *_: "", QUERY, "empty"),
        (lambda *_: Failure("bad-request"), QUERY, "bad-request"),
        (lambda p, r: honest(p, r) if r.about.question.kind == "write" else "who knows", QUERY, "no-label"),
    ],
)
def test_an_answer_of_which_nothing_is_known_has_no_consistency(say: Any, query: Candidates, reason: str) -> None:
    found, _ = check(say, query)
    assert found["A"].status == "failed"
    assert found["A"].reason == reason
    assert found["A"].consistency is None
    assert found["A"].row()["consistency"] is None


def test_samples_of_a_check_are_averaged() -> None:
    def wavers(prompt: str, request: Request) -> str | Failure:
        assert request.about is not None
        if request.about.question.kind == "write":
            return honest(prompt, request)
        return ("supported", "contradicted", "silent", "supported")[request.sample]

    found, _ = check(wavers, samples=4, temperature=1.0)
    assert found["B"].consistency == (1 + 0 + 0.5 + 1) / 4
    with pytest.raises(InputError, match="set --temperature"):
        check(wavers, samples=4)


def test_systems_are_told_with_their_n_and_what_is_missing() -> None:
    answers = list(check()[0].values())
    alone = CheckedAnswer(query_id="r", item_id="A", status="failed", reason="no-other-answer")
    figures = system_figures([*answers, alone], Resampling(100))
    assert list(figures) == ["A", "B", "C"]
    assert (figures["A"].consistency.value, figures["A"].consistency.n, figures["A"].missing) == (0.5, 1, 1)
    assert figures["A"].claims == 2
    assert figures["A"].labels == {"supported": 1, "contradicted": 1, "silent": 2}
    only = system_figures([alone], Resampling(100))["A"]
    assert (only.consistency.value, only.consistency.n, only.missing) == (None, 0, 1)


def test_a_template_that_cannot_check_claims_is_refused() -> None:
    with pytest.raises(InputError, match="cannot check claims"):
        CrossCheck(backend=Scripted(honest), check="relevance/umbrela", ledger="none")
