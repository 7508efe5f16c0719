"""Permutation self-consistency: any method over several orders of its input, and a consensus of the rankings."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from math import factorial
from typing import Any, cast

from llmrank.ask.base import Ask, mirrored
from llmrank.errors import InputError
from llmrank.questions import Answer, Choice, Preference, Question
from llmrank.rerank.methods import Count, Item, Method, Ranked, between, by_score, find, method

OWN = ("shuffles", "inner", "consensus", "focus")


def _inner(name: str) -> Method:
    try:
        inner = find(name)
    except InputError as error:
        raise InputError(str(error).replace("--method ", "--option inner=", 1)) from None
    if inner.name == "permutation-consistency":
        raise InputError("--option inner=permutation-consistency: a method cannot wrap itself; name another")
    return inner


def _around(outer: Method, given: Mapping[str, Any]) -> Method:
    """The method with the template, the needs and the options of the method that it wraps."""
    inner = _inner(str(given.get("inner", outer.options["inner"].default))).given(given)
    own = {name: outer.options[name] for name in OWN}
    return replace(
        outer,
        question=inner.question,
        template=inner.template,
        needs=inner.needs,
        shown=lambda n, shuffles, inner, consensus, focus, **options: find(inner).shown(n, **options),
        whole=inner.whole,
        apart=inner.apart,
        worst=inner.worst,
        problem=lambda n, query_id, shuffles, inner, consensus, focus, **options: find(inner).problem(
            n, **options, **({"query_id": query_id} if find(inner).knows_query else {})
        ),
        parts=lambda shuffles, inner, consensus, focus, **options: find(inner).parts(**options),
        brings=inner.brings,
        fault=lambda shuffles, inner, consensus, focus, **options: find(inner).fault(**options),
        options=own | {name: option for name, option in inner.options.items() if name not in own},
    )


def _expected(n: int, shuffles: int, inner: str, focus: bool, options: Mapping[str, Any]) -> tuple[Count, Count]:
    """Calls and rounds: runs may come upon the same questions, which are asked once."""
    wrapped = _inner(inner)
    values = options or wrapped.checked({})
    calls, rounds = wrapped.expected(n, values)
    runs = min(shuffles, factorial(n)) if n < 20 else shuffles
    if runs == 1 or calls == 0:
        return calls, rounds
    (fewest, most), (_, longest) = _ends(calls), _ends(rounds)
    most *= runs
    if wrapped.question == "compare" and not wrapped.apart:
        most = min(most, n * (n - 1) // 2 * (1 + values.get("swap", True)))  # a pair is one question for all runs
    again = focus and runs > 2 and fewest < most  # else one run asks all that there is to ask
    return between(fewest, most), between(min(1, longest), longest * (1 + again))


def _ends(count: Count) -> tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


@method(
    question="order",
    source="permutation self-consistency, PermSC 2310.07712",
    template="listwise/rank",
    calls=lambda n, shuffles, inner, consensus, focus, **options: _expected(n, shuffles, inner, focus, options)[0],
    rounds=lambda n, shuffles, inner, consensus, focus, **options: _expected(n, shuffles, inner, focus, options)[1],
    formula=("shuffles x those of inner", "those of inner"),
    shown=lambda n, shuffles, inner, consensus, focus, **options: find(inner).shown(
        n, **(options or find(inner).checked({}))
    ),
    around=_around,
)
async def permutation_consistency(
    items: Sequence[Item],
    ask: Ask,
    *,
    shuffles: int = 5,
    inner: str = "sliding-window",
    consensus: str = "kemeny",
    focus: bool = False,
    seed: int = 0,
    query_id: str = "",
    **options: Any,
) -> Ranked | list[Item]:
    """Runs `inner` over several orders of its input, all at once, and takes the consensus of the rankings.

    `shuffles` times the calls of `inner`, less what runs have in common; the rounds of `inner`; its options are options
    here. The input is shuffled in pairs, a shuffle and its reverse, and an odd `shuffles` has first-stage order as one
    more: what a model says of places rather than candidates cancels out. `consensus`: `kemeny`, the order that goes
    against the fewest preferences (exact where few candidates run in circles, else by local search), or `borda`. Ties
    keep first-stage order, and so does what is below the k of an `inner` that has one. With a perfect judge as `inner`.
    A run in which no question was answered does not count. `focus` looks first, with one shuffle and its reverse, where
    the ranking flips, and asks only these stretches again, unless all at once is cheaper.
    """
    wrapped = _inner(inner)
    values = options or wrapped.checked({})
    place: dict[Hashable, int] = {item: i for i, item in enumerate(items)}

    async def run(number: int, order: list[int]) -> list[list[int]] | None:
        # What asks both orders of a pair further in, as stages do, must find two questions there.
        heard = _InFirstStageOrder(ask, {} if wrapped.apart else place)
        ranked = await wrapped.run([items[i] for i in order], heard, values, seed=seed + number, query_id=query_id)
        ranking = [place[item] for item in ranked.items]
        ranked_to = min(values["k"], len(ranking)) if "k" in values else len(ranking)
        rest = [ranking[ranked_to:]] if ranked_to < len(ranking) else []
        return [[i] for i in ranking[:ranked_to]] + rest if heard.answers else None

    orders = _shuffled(len(items), shuffles, random.Random(seed))
    if focus and len(orders) > 2:
        return await _focused(items, orders, run, consensus, lambda stretches: _cheaper(stretches, wrapped, values))
    rankings = await asyncio.gather(*(run(number, order) for number, order in enumerate(orders)))
    told = [ranking for ranking in rankings if ranking is not None]
    return _consensus(items, told, consensus) if told and len(items) > 1 else list(items)


async def _focused(
    items: Sequence[Item],
    orders: Sequence[list[int]],
    run: Callable[[int, list[int]], Awaitable[list[list[int]] | None]],
    consensus: str,
    cheaper: Callable[[Sequence[Sequence[int]]], bool],
) -> list[Item]:
    """One shuffle and its reverse, then the other orders for the stretches in which these two rank differently."""
    *rest, one, other = orders  # of an odd number, too, the last two are a pair
    first = [ranking for ranking in await asyncio.gather(run(0, one), run(1, other)) if ranking is not None]
    if not first:
        return list(items)
    settled = [[place for group in ranking for place in group] for ranking in first]
    stretches = _stretches(settled)
    if not cheaper([stretch for stretch in stretches if len(stretch) > 1]):
        stretches = [list(range(len(items)))]
    members = [set(stretch) for stretch in stretches]
    jobs = [(part, order) for part, inside in enumerate(members) if len(inside) > 1 for order in rest]
    again = await asyncio.gather(
        *(run(2 + i, [item for item in order if item in members[part]]) for i, (part, order) in enumerate(jobs))
    )
    decided: list[Item] = []
    for part, inside in enumerate(members):
        numbered = {item: i for i, item in enumerate(sorted(inside))}
        heard = [ranking for (of, _), ranking in zip(jobs, again, strict=True) if of == part and ranking is not None]
        known = [[[i] for i in ranking if i in inside] for ranking in settled]
        rankings = [[[numbered[i] for i in group] for group in ranking if group] for ranking in (*known, *heard)]
        ranked = _consensus([items[i] for i in numbered], rankings, consensus) if len(inside) > 1 else None
        decided += [items[i] for i in numbered] if ranked is None else _items(ranked)
    return decided


def _items(ranked: Ranked | list[Item]) -> list[Item]:
    return ranked.items if isinstance(ranked, Ranked) else ranked


def _stretches(rankings: Sequence[list[int]]) -> list[list[int]]:
    """The items in the order of their mean places, parted wherever no pair of both sides stands the other way round."""
    places = [{item: place for place, item in enumerate(ranking)} for ranking in rankings]
    mean = sorted(places[0], key=lambda item: (sum(place[item] for place in places), item))
    parts: list[list[int]] = [[]]
    for count, item in enumerate(mean, 1):
        parts[-1].append(item)
        if count < len(mean) and all(max(place[i] for i in mean[:count]) < count for place in places):
            parts.append([])
    return parts


def _cheaper(stretches: Sequence[Sequence[int]], inner: Method, values: Mapping[str, Any]) -> bool:
    """Whether the stretches take fewer questions, at most, than all their items at once."""
    apart = sum(_ends(inner.expected(len(stretch), values)[0])[1] for stretch in stretches)
    return apart <= _ends(inner.expected(sum(map(len, stretches)), values)[0])[1]


def _shuffled(n: int, count: int, draw: random.Random) -> list[list[int]]:
    """So many different orders, first-stage order first where their number is odd, the others in pairs of reverses."""
    known = dict.fromkeys([tuple(range(n))] if count % 2 or n < 2 else [])
    most = min(count, factorial(n)) if n < 20 else count
    while len(known) < most:
        order = tuple(draw.sample(range(n), n))
        if order not in known and order[::-1] not in known:
            known |= {order: None, order[::-1]: None}
        elif len(known) + 1 == most:
            known[order] = None  # every order is wanted, and this one's reverse is first-stage order
    return [list(order) for order in known][:most]


def _consensus(items: Sequence[Item], rankings: list[list[list[int]]], method: str) -> Ranked | list[Item]:
    if method == "borda":
        from llmrank.aggregate.consensus import borda
        from llmrank.aggregate.results import rounded

        points = borda(rankings)
        assert points.value is not None
        scores = rounded(points.value) * points.value.max()
        return by_score(items, scores.tolist(), "borda")  # ids are places, and all are there, in rising order
    from llmrank.aggregate.medians import kemeny

    # First-stage order has so little weight that it decides nothing but ties.
    weights = [1.0] * len(rankings) + [1 / (1 + len(items)) ** 2]
    best = kemeny([*rankings, [[i] for i in range(len(items))]], weights)
    return [items[cast(int, i)] for i in best.ranking]


class _InFirstStageOrder(Ask):
    """Shows pairs and sets in first-stage order, in which one is one question for all runs; counts usable answers."""

    def __init__(self, inner: Ask, place: Mapping[Hashable, int]) -> None:
        self._inner = inner
        self._place = place
        self.answers = 0

    async def answer(self, question: Question) -> Answer:
        shown = self._shown(question)
        return self._told(question, shown, await self._inner.answer(shown))

    async def every(self, questions: Sequence[Question]) -> list[Answer]:
        shown = list(map(self._shown, questions))
        return list(map(self._told, questions, shown, await self._inner.every(shown)))

    def _shown(self, question: Question) -> Question:
        if question.kind in ("compare", "choose") and all(item in self._place for item in question.items):
            return question._replace(items=tuple(sorted(question.items, key=self._place.__getitem__)))
        return question

    def _told(self, question: Question, asked: Question, answer: Answer) -> Answer:
        """The answer about the items as the question has them."""
        self.answers += answer.usable
        items, shown = question.items, asked.items
        if shown == items:
            return answer
        if isinstance(answer, Preference):
            return mirrored(answer)
        choice = cast(Choice, answer)
        if choice.index is None:
            return choice
        shares = None if choice.distribution is None else dict(zip(shown, choice.distribution, strict=True))
        return replace(
            choice,
            index=items.index(shown[choice.index]),
            distribution=None if shares is None else tuple(shares[item] for item in items),
        )
