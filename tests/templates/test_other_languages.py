"""Replies in German, Spanish and Chinese to templates that ask in these languages."""

from __future__ import annotations

import pytest

from llmrank.llm.types import Reply
from llmrank.questions import Choice, Order, Preference
from llmrank.templates import load

ORDERS = [
    "Die Reihenfolge ist: [3] > [1] > [2]",
    "Die Reihenfolge ist [3], [1], [2].",
    "Abschnitt 3, Abschnitt 1, Abschnitt 2",
    "1. Textabschnitt 3\n2. Textabschnitt 1\n3. Textabschnitt 2",
    "Dokument 3 > Dokument 1 > Dokument 2",
    "Pasaje 3, Pasaje 1, Pasaje 2",
    "El orden es: [3] > [1] > [2]",
    "排序结果：[3] > [1] > [2]",
    "段落3 > 段落1 > 段落2",
    "段落 3，段落 1，段落 2",
    "【3】＞【1】＞【2】",
    "[３]、[１]、[２]",
]
SECOND = [
    "B",
    "B。",
    "Ｂ",
    "**B**",
    "Abschnitt B",
    "Abschnitt [B]",
    "Antwort: B",
    "Antwort: Abschnitt B",
    "Respuesta: B",
    "Pasaje B",
    "段落 B",
    "段落B",
    "答案：B",
    "答案：段落B",
]
NO_CHOICE = ["A oder B", "A o B", "A或B", "Keiner der Abschnitte.", "都不是"]


@pytest.mark.parametrize("text", ORDERS)
@pytest.mark.parametrize("name", ["listwise/german", "listwise/chinese"])
def test_orders(name: str, text: str) -> None:
    order = load(name).read(Reply(text), 3)
    assert isinstance(order, Order)
    assert (order.status, order.permutation) == ("ok", (2, 0, 1))


@pytest.mark.parametrize(
    "text", [*SECOND, "Abschnitt B beantwortet die Anfrage am besten.", "Der beste Abschnitt ist B."]
)
@pytest.mark.parametrize("name", ["setwise/german", "setwise/chinese"])
def test_choices(name: str, text: str) -> None:
    assert load(name).read(Reply(text), 3) == Choice(index=1)


@pytest.mark.parametrize("text", [*SECOND, "Abschnitt B ist besser.", "El pasaje B es mejor."])
@pytest.mark.parametrize("name", ["pairwise/german", "pairwise/chinese"])
def test_preferences(name: str, text: str) -> None:
    assert load(name).read(Reply(text), 2) == Preference(share=0.0)


IN_WORDS = ["Stufe: 2", "Bewertung: 2", "Niveau: 2", "Puntuación: 2", "Nivel: 2", "等级：2", "评分：2", "相关性：2"]


@pytest.mark.parametrize("text", ["2", "２", "Antwort: 2", "答案：2", "**2**", *IN_WORDS])
@pytest.mark.parametrize("name", ["pointwise/german", "pointwise/chinese"])
def test_grades(name: str, text: str) -> None:
    assert load(name).read(Reply(text), 1).value == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["Unentschieden", "gleich gut", "empate", "平局", "一样好"])
def test_ties(text: str) -> None:
    assert load("pairwise/german").read(Reply(text), 2) == Preference(share=0.5)


@pytest.mark.parametrize("text", [*NO_CHOICE, "Abschnitt B ist nicht besser."])
@pytest.mark.parametrize("name", ["setwise/german", "pairwise/chinese"])
def test_what_is_no_answer(name: str, text: str) -> None:
    assert load(name).read(Reply(text), 2).status == "failed"
