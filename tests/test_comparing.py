"""Comparing items two by two: the rows that come out, and what `aggregate` and `agree` make of them."""

from __future__ import annotations

from typing import Any

import pytest

from llmrank.comparing import Comparer
from llmrank.data.types import Document
from llmrank.errors import InputError
from llmrank.llm.backends.simulated import Errors, SimulatedBackend

SYSTEMS = ["alpha", "beta two", "gamma", "delta", "epsilon"]
WORTH = {"alpha": 4, "beta two": 3, "gamma": 2, "delta": 1, "epsilon": 0}
ITEMS = [Document(name, f"answer of {name}" + " word" * i) for i, name in enumerate(SYSTEMS)]


def comparer(errors: Errors | None = None, **options: Any) -> Comparer:
    backend = SimulatedBackend({"query": WORTH}, errors)
    return Comparer(backend=backend, ledger="none", **options)


def test_every_pair_is_asked_in_both_orders_and_stands_in_a_row_each() -> None:
    rows = comparer().compare("what is it", ITEMS)
    assert len(rows) == 20
    assert {(row["left"], row["right"]) for row in rows} == {(a, b) for a in SYSTEMS for b in SYSTEMS if a != b}
    for row in rows:
        left_wins = WORTH[row["left"]] > WORTH[row["right"]]
        assert row["winner"] == ("left" if left_wins else "right")
        assert (row["p_left"] > 0.5) == left_wins
        assert row["left_length"] == len(next(i.text for i in ITEMS if i.id == row["left"]))
        assert row["status"] == "ok"
        assert row["key"]


def test_without_swap_a_pair_is_asked_once() -> None:
    rows = comparer(swap=False).compare("what is it", ITEMS)
    assert len(rows) == 10
    assert len({frozenset((row["left"], row["right"])) for row in rows}) == 10


@pytest.mark.parametrize(
    ("pairs", "options", "most"), [("sample", {}, 8), ("bracket", {}, 8), ("active", {"budget": 12}, 12)]
)
def test_fewer_pairs_hang_together_all_the_same(pairs: str, options: dict[str, Any], most: int) -> None:
    rows = comparer(pairs=pairs, options=options).compare("what is it", ITEMS)
    assert 8 <= len(rows) <= most
    linked = {rows[0]["left"]}
    for _ in SYSTEMS:
        linked |= {row["left"] for row in rows if row["right"] in linked}
        linked |= {row["right"] for row in rows if row["left"] in linked}
    assert linked == set(SYSTEMS)


def test_a_failed_question_has_an_empty_winner_and_ties_are_told() -> None:
    rows = comparer(Errors(refused=0.5, seed=3), retry_format=False).compare("what is it", ITEMS)
    lost = [row for row in rows if row["status"] == "failed"]
    assert 3 < len(lost) < 17
    assert all(row["winner"] == "" and row["reason"] == "refused" and row["raw"] for row in lost)
    rows = comparer(Errors(ties=0.3)).compare("what is it", ITEMS)
    assert {row["winner"] for row in rows if abs(WORTH[row["left"]] - WORTH[row["right"]]) == 1} == {"tie"}


def test_samples_give_left_a_share_of_the_win() -> None:
    rows = comparer(Errors(noise=0.5), samples=8, temperature=1.0).compare("what is it", ITEMS)
    shares = [row["winner"] for row in rows if not isinstance(row["winner"], str)]
    assert shares
    assert all(0 < share < 1 for share in shares)


def test_what_cannot_be_compared_is_told_at_once() -> None:
    with pytest.raises(InputError, match="there are all, sample, bracket, active"):
        comparer(pairs="some")
    with pytest.raises(InputError, match="asks `grade`"):
        Comparer("relevance/umbrela", backend=SimulatedBackend({}))
