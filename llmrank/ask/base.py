"""`Ask`, what a strategy holds: its verbs over one coroutine, and the wrappers that belong to a question."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import cast

from llmrank.questions import Answer, Choice, Grade, Order, Preference, Question, Written, failed

NOTHING: Mapping[str, str] = MappingProxyType({})
Entry = tuple[Question, "asyncio.Future[Answer]"]
"""A question that was asked, and what becomes its answer."""


class Ask:
    """Asks questions about items. A strategy awaits the four verbs; a wrapper overrides `answer`."""

    async def answer(self, question: Question) -> Answer:
        raise NotImplementedError  # every Ask is a source of answers or a wrapper around one

    async def every(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers to questions of which none waits for another, in their order."""
        return await asyncio.gather(*map(self.answer, questions))

    async def known(self, questions: Sequence[Question]) -> list[Answer | None]:
        """The answers that need not be asked for, each counted as any other; None for the rest."""
        return [None] * len(questions)

    async def grades(self, items: Sequence[Hashable], *, given: Mapping[str, str] = NOTHING) -> list[Grade]:
        """How relevant each of the items is, by a question each."""
        told = tuple(given.items())
        return cast("list[Grade]", await self.every([Question("grade", (item,), False, "", told) for item in items]))

    async def comparisons(self, pairs: Sequence[tuple[Hashable, Hashable]]) -> list[Preference]:
        """Which item of each pair is better; the first of a pair is shown first."""
        return cast("list[Preference]", await self.every([Question("compare", pair) for pair in pairs]))

    async def orders(self, groups: Sequence[Sequence[Hashable]]) -> list[Order]:
        """The items of each group from best to worst."""
        return cast("list[Order]", await self.every([Question("order", tuple(group)) for group in groups]))

    async def grade(
        self, item: Hashable, *, by: str = "", given: Mapping[str, str] = NOTHING, sample: int = 0
    ) -> Grade:
        """How relevant the item is."""
        return cast(Grade, await self.answer(Question("grade", (item,), False, by, tuple(given.items()), sample)))

    async def compare(self, left: Hashable, right: Hashable) -> Preference:
        """Which of two items is better; `left` is shown first."""
        return cast(Preference, await self.answer(Question("compare", (left, right))))

    async def choose(self, items: Sequence[Hashable], *, worst: bool = False) -> Choice:
        """The best (or worst) of the items."""
        return cast(Choice, await self.answer(Question("choose", tuple(items), worst)))

    async def order(self, items: Sequence[Hashable]) -> Order:
        """The items from best to worst."""
        return cast(Order, await self.answer(Question("order", tuple(items))))

    async def write(
        self, items: Sequence[Hashable] = (), *, by: str = "", given: Mapping[str, str] = NOTHING, sample: int = 0
    ) -> Written:
        """A text about the query, and about the items where there are some."""
        question = Question("write", tuple(items), False, by, tuple(given.items()), sample)
        return cast(Written, await self.answer(question))


class By(Ask):
    """Marks every question as one of a part of the method, so that this part's template and model answer it."""

    def __init__(self, inner: Ask, part: str) -> None:
        self._inner = inner
        self._part = part

    async def answer(self, question: Question) -> Answer:
        return await self._inner.answer(self._marked(question))

    async def every(self, questions: Sequence[Question]) -> list[Answer]:
        return await self._inner.every(list(map(self._marked, questions)))

    def _marked(self, question: Question) -> Question:
        return question if question.by else question._replace(by=self._part)


class Routed(Ask):
    """Hands each question to the source that answers for the part of the method which asks it."""

    def __init__(self, sources: Mapping[str, Ask]) -> None:
        self._sources = sources

    async def answer(self, question: Question) -> Answer:
        return await self._sources[question.by].answer(question)

    async def known(self, questions: Sequence[Question]) -> list[Answer | None]:
        known: list[Answer | None] = [None] * len(questions)
        for part in dict.fromkeys(question.by for question in questions):
            places = [i for i, question in enumerate(questions) if question.by == part]
            found = await self._sources[part].known([questions[i] for i in places])
            for i, answer in zip(places, found, strict=True):
                known[i] = answer
        return known


class Remember(Ask):
    """Asks the same question once. A set that was chosen from is the same question in any order."""

    def __init__(self, inner: Ask) -> None:
        self._inner = inner
        self._answers: dict[Hashable, Entry] = {}
        self._asking: set[asyncio.Task[object]] = set()

    async def answer(self, question: Question) -> Answer:
        key = _same(question)
        own: Entry = question, asyncio.get_running_loop().create_future()
        # `setdefault` hashes the items once, where looking first would do it twice.
        while (known := self._answers.setdefault(key, own)) is not own:
            if not known[1].done():
                await asyncio.wait({known[1]})
            if not known[1].cancelled():
                return self._told(question, *known)
        return await self._asked(key, own)

    async def every(self, questions: Sequence[Question]) -> list[Answer]:
        """As `answer` for each; what need not be asked for takes no task of its own, which would cost as much again."""
        new = asyncio.get_running_loop().create_future
        mine: list[tuple[Hashable, Entry]] = []
        entries: list[Entry] = []
        coroutines: dict[int, Coroutine[object, object, Answer]] = {}
        for question in questions:
            key, entry = _same(question), (question, new())
            entries.append(self._answers.setdefault(key, entry))
            if entries[-1] is entry:
                mine.append((key, entry))
        try:
            found = await self._inner.known([question for _, (question, _) in mine])
            for (_, (_, future)), answer in zip(mine, found, strict=True):
                if answer is not None:
                    future.set_result(answer)
            unknown = {id(entry): key for key, entry in mine if not entry[1].done()}
            for i, (question, entry) in enumerate(zip(questions, entries, strict=True)):
                if not entry[1].done() or entry[1].cancelled():
                    key = unknown.pop(id(entry), None)
                    coroutines[i] = self.answer(question) if key is None else self._asked(key, entry)
            asked = dict(zip(coroutines, await asyncio.gather(*coroutines.values()), strict=True))
        except BaseException:
            for key, entry in mine:
                self._forget(key, entry)
            raise
        return [
            asked[i] if i in asked else self._told(question, *entry)
            for i, (question, entry) in enumerate(zip(questions, entries, strict=True))
        ]

    async def _asked(self, key: Hashable, own: Entry) -> Answer:
        """The answer to a question that is entered as being asked."""
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._asking.add(task)
        try:
            answer = await self._inner.answer(own[0])
        except BaseException:
            self._forget(key, own)
            raise
        finally:
            self._asking.discard(task)
        if not own[1].done():
            own[1].set_result(answer)
        return answer

    def _forget(self, key: Hashable, own: Entry) -> None:
        """Whoever waits for the answer asks for itself."""
        if not own[1].done():
            del self._answers[key]
            own[1].cancel()

    def _told(self, question: Question, asked: Question, future: asyncio.Future[Answer]) -> Answer:
        answer = future.result()
        return answer if asked.items == question.items else _reindexed(cast(Choice, answer), asked, question)

    async def stop(self) -> None:
        """Ends the questions that are still being asked: after an error nobody waits for them."""
        rest = self._asking - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)

    def answered(self) -> dict[Question, Answer]:
        """All questions that were answered, as they were asked."""
        return {q: f.result() for q, f in self._answers.values() if f.done() and not f.cancelled()}


class BothOrders(Ask):
    """Asks each comparison in both orders at once; a disagreement is a tie of half a win."""

    def __init__(self, inner: Ask) -> None:
        self._inner = inner

    async def answer(self, question: Question) -> Answer:
        if question.kind != "compare":
            return await self._inner.answer(question)
        turned = question._replace(items=question.items[::-1])
        forth, back = await asyncio.gather(self._inner.answer(question), self._inner.answer(turned))
        return agreed(cast(Preference, forth), mirrored(cast(Preference, back)))

    async def every(self, questions: Sequence[Question]) -> list[Answer]:
        if any(question.kind != "compare" for question in questions):
            return await super().every(questions)
        turned = [question._replace(items=question.items[::-1]) for question in questions]
        both = cast(
            "list[Preference]",
            await self._inner.every([q for pair in zip(questions, turned, strict=True) for q in pair]),
        )
        return [agreed(forth, mirrored(back)) for forth, back in zip(both[::2], both[1::2], strict=True)]


class OtherOrderWhereItMatters(Ask):
    """Asks the other order only after an answer against the item shown first.

    For methods that show what stood first in the first stage first, and let a disagreement leave it there: then no
    other answer could change what they do, and they do what they would do with both orders.
    """

    def __init__(self, inner: Ask) -> None:
        self._inner = inner

    async def answer(self, question: Question) -> Answer:
        forth = await self._inner.answer(question)
        if not isinstance(forth, Preference) or (forth.share is not None and forth.share >= 0.5):
            return forth
        back = await self._inner.answer(question._replace(items=question.items[::-1]))
        return agreed(forth, mirrored(cast(Preference, back)))


class OneOrder(Ask):
    """Asks each pair in the order in which it first comes up, and in no other."""

    def __init__(self, inner: Ask) -> None:
        self._inner = inner
        self._shown: dict[Hashable, tuple[Hashable, ...]] = {}

    async def answer(self, question: Question) -> Answer:
        if question.kind != "compare":
            return await self._inner.answer(question)
        shown = self._as_shown(question)
        return _turned(await self._inner.answer(shown), shown, question)

    async def every(self, questions: Sequence[Question]) -> list[Answer]:
        if any(question.kind != "compare" for question in questions):
            return await super().every(questions)
        shown = list(map(self._as_shown, questions))
        return list(map(_turned, await self._inner.every(shown), shown, questions))

    def _as_shown(self, question: Question) -> Question:
        items = self._shown.setdefault(question._replace(items=(frozenset(question.items),)), question.items)
        return question._replace(items=items)


def mirrored(answer: Preference) -> Preference:
    """The same preference with left and right exchanged."""
    return replace(
        answer,
        share=None if answer.share is None else 1 - answer.share,
        p_left=None if answer.p_left is None else 1 - answer.p_left,
    )


def agreed(one: Preference, other: Preference) -> Preference:
    """One preference from the two orders of a pair, both told from the same left.

    P(left) is the mean of both (RankFusion 2406.00231). Where one order has no answer the other decides, and the
    answer is marked `one-order`.
    """
    if one.share is None or other.share is None:
        known = one if one.share is not None else other
        if known.share is None:
            return one if one.status == "failed" else other
        return replace(known, status="repaired", repairs=(*known.repairs, "one-order"))
    both = one.p_left is not None and other.p_left is not None
    return Preference(
        share=one.share if one.winner == other.winner else 0.5,
        p_left=(one.p_left + other.p_left) / 2 if both else None,  # type: ignore[operator]  # both are known here
        status="repaired" if "repaired" in (one.status, other.status) else "ok",
        repairs=tuple(dict.fromkeys(one.repairs + other.repairs)),
    )


def _same(question: Question) -> Hashable:
    """What is equal for questions that have one answer."""
    return question._replace(items=(frozenset(question.items),)) if question.kind == "choose" else question


def _turned(answer: Answer, shown: Question, question: Question) -> Answer:
    return answer if shown.items == question.items else mirrored(cast(Preference, answer))


def _reindexed(answer: Choice, asked: Question, question: Question) -> Answer:
    """An answer about the same set in another order."""
    if answer.index is None:
        return answer if answer.status == "unasked" else failed("choose", answer.reason or "failed")
    place = {item: i for i, item in enumerate(question.items)}
    distribution = answer.distribution
    if distribution is not None:
        by_item = dict(zip(asked.items, distribution, strict=True))
        distribution = tuple(by_item[item] for item in question.items)
    return replace(answer, index=place[asked.items[answer.index]], distribution=distribution)
