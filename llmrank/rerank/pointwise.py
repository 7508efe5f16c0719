"""Pointwise methods: every candidate is graded on its own, by one question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from llmrank.ask.base import Ask
from llmrank.questions import Grade
from llmrank.rerank.methods import Item, Method, Ranked, between, by_score, method

ONE_EACH: dict[str, Any] = {
    "question": "grade",
    "calls": lambda n, **options: n,
    "rounds": lambda n, **options: min(n, 1),
    "formula": ("n", "1"),
    "shown": lambda n, **options: 1,
}
OR_TWO: dict[str, Any] = ONE_EACH | {
    "calls": lambda n: between(n, 2 * n),
    "rounds": lambda n: between(min(n, 1), 2 * min(n, 1)),
    "formula": ("n to 2n", "1 to 2"),
}
EXPLAINING = {"explanation-first": "pointwise/explain-label", "label-first": "pointwise/label-explain"}


async def pointwise(items: Sequence[Item], ask: Ask) -> Ranked:
    """Grades every candidate and sorts by the grade.

    n calls, one round. Exact up to ties of grade; equal grades keep first-stage order, and a candidate whose
    question failed keeps its place.
    """
    return by_grade(items, await ask.grades(items))


async def query_likelihood(items: Sequence[Item], ask: Ask) -> Ranked:
    """Scores every candidate by how likely a model finds the query after it: the mean log-probability of its tokens.

    n calls, one round, nothing is generated. Exact up to ties of score. 0 is certain; the query being the same for
    all candidates, mean and sum rank alike.
    """
    return await pointwise(items, ask)


async def reason_then_verdict(items: Sequence[Item], ask: Ask) -> Ranked:
    """Has the model think about every candidate, then say true or false; the score is P(true) at that word.

    n to 2n calls, one round or two: a chain of thought that used up its tokens is cut at its last whole sentence and
    closed, and the verdict alone is asked for (`repaired: closed`). Exact up to ties of score.
    """
    return await pointwise(items, ask)


def _explaining(outer: Method, given: Mapping[str, Any]) -> Method:
    """The method with the template of its order."""
    return replace(outer, template=EXPLAINING.get(str(given.get("order")), outer.template))


async def explain_label(
    items: Sequence[Item], ask: Ask, *, order: Literal["explanation-first", "label-first"] = "explanation-first"
) -> Ranked:
    """Has every candidate explained and labelled 0 to 3, in either order; the score is the expected label.

    n calls, one round. `order=explanation-first`: the label follows from the explanation. `order=label-first`: the
    label is all that is generated; more --max-completion-tokens have it explained after that. Exact up to ties of
    grade.
    """
    return await pointwise(items, ask)


def by_grade(items: Sequence[Item], grades: Sequence[Grade]) -> Ranked:
    """The items by falling grade; where grades are of several kinds the kind of the scores names them all."""
    return by_score(items, [grade.value for grade in grades], kind_of(grades))


def kind_of(grades: Sequence[Grade]) -> str:
    """What the grades are. Those of different kinds would stand on different scales; naming all of them says so."""
    return "+".join(sorted({grade.score_kind for grade in grades if grade.value is not None})) or "grade"


for _name, _template, _needs, _source in (
    ("pointwise", "pointwise/yes-no", ("text",), "any `grade` template"),
    ("yes-no", "pointwise/yes-no", ("text", "logprobs"), "RG-YN 2310.14122; target words of monoT5 2003.06713"),
    ("graded", "pointwise/graded", ("text",), "fine-grained relevance labels 2310.14122"),
):
    method(name=_name, template=_template, needs=_needs, source=_source, **ONE_EACH)(pointwise)

method(
    template="pointwise/query-likelihood",
    needs=("prompt-logprobs",),
    source="UPR 2204.07496; RankingGPT 2311.16720",
    **ONE_EACH,
)(query_likelihood)
method(
    template="pointwise/reason-then-verdict",
    needs=("text", "logprobs", "later-logprobs"),
    source="Rank1 2502.18418; 2505.03786",
    **OR_TWO,
)(reason_then_verdict)
method(
    template=EXPLAINING["explanation-first"],
    source="InteRank 2504.03947; ExaRanker 2301.10521",
    around=_explaining,
    **ONE_EACH,
)(explain_label)
