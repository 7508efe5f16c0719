"""A recipe, its templates and a model put together: from a query and its documents to judgments with their evidence."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple, cast

from llmrank.ask.base import Ask, Remember
from llmrank.ask.manner import Manner
from llmrank.ask.passages import COUNT, WORDS, Combination, Passages, Splitting
from llmrank.ask.tally import Tally
from llmrank.ask.templated import Evidence, TemplateAsk
from llmrank.data.types import Document, Query
from llmrank.errors import InputError
from llmrank.judge.judgment import Judgment, Source, whole
from llmrank.judge.recipes import Asking, Count, find
from llmrank.llm.types import Backend
from llmrank.questions import Answer, Grade, Question
from llmrank.templates import Template, load
from llmrank.voice import Voices


class Grader:
    """One judge: a recipe over one model. Everything is checked when it is made; raises InputError in one sentence."""

    def __init__(
        self,
        models: Voices,
        template: str | Template,
        *,
        backend: str | Backend | None = None,
        options: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
        constrain: bool = False,
    ) -> None:
        self.settings = models.settings
        self.recipe, main = find(template)
        self.options = self.recipe.checked(options or {})
        if variables:
            main = Template(main.text, origin=main.origin, variables=variables)
        self.template = main
        self.parts = self.recipe.parts(**self.options)
        self.voices = {"": models.voice(main, backend, constrain=constrain)}
        """The template and the model of each part of the recipe, by the name under which it asks."""
        for name, part in self.parts.items():
            of_part = part.template if isinstance(part.template, Template) else load(part.template)
            held = constrain and part.question == "grade"  # what is written has no form to be held to
            self.voices[name] = models.voice(of_part, part.backend or backend, whole=part.whole, constrain=held)
        self._values = self._label_values()
        self._check()

    @property
    def name(self) -> str:
        """The recipe's name: of a plain one that of its template."""
        return self.recipe.name

    @property
    def scale(self) -> tuple[float, ...]:
        """The grades that it can give, rising; of a range of scores the two ends."""
        header = self.template.header
        return self.recipe.scale or tuple(header.labels.values()) or tuple(header.range or ())

    def expected(self, n: int) -> tuple[Count, Count]:
        """Questions and rounds for n documents of a query, one sample each."""
        return self.recipe.calls(n, **self.options), self.recipe.rounds(n, **self.options)

    async def label(
        self, query: Query, documents: Sequence[Document], pool: Sequence[Document] | None = None
    ) -> tuple[list[Judgment], list[tuple[str, Tally]]]:
        """A judgment of each document, and what each template was asked for them."""
        for voice in self.voices.values():
            if voice.asks_a_server and not voice.settled:
                longest = max((len(d.text) for d in documents), default=0)
                await voice.ready(f"judging with --template {voice.template.name}", longest)
        tallies = {part: Tally() for part in self.voices}
        calls, rounds = self.expected(len(documents))
        ends = None
        if self.settings.deadline is not None:
            ends = asyncio.get_running_loop().time() + self.settings.deadline
        for tally in tallies.values():
            tally.expected_calls, tally.expected_rounds, tally.ends = _middle(calls), _middle(rounds), ends
        # No example may share a document with what is judged; what else is in the unit must not matter.
        apart = self.settings.examples is not None and not self.recipe.together
        groups = [[d] for d in documents] if apart else [documents]
        samples = {d: self._samples(query, tallies, group) for group in groups for d in group[:1]}
        whole_pool = tuple(documents if pool is None else pool)
        try:
            first = next(iter(samples.values()), [])
            judging = (self._judge(query, d, whole_pool, samples.get(d, first)) for d in documents)
            judgments = await asyncio.gather(*judging)
        except BaseException:
            for of_group in samples.values():
                for sample in of_group:
                    await sample.remembered.stop()
            raise
        return judgments, [(voice.template.name, tallies[part]) for part, voice in self.voices.items()]

    def by_grade(self, judgment: Judgment) -> dict[float, float]:
        """A judgment's distribution by the values of its labels; all on its grade where there is none."""
        if judgment.grade is None:
            return {}
        shares: dict[float, float] = {}
        for label, share in (judgment.distribution or {}).items():
            value = self._values.get(label)
            if value is None:
                if not label.lstrip("-").isdigit():  # the empirical distribution goes by grades
                    return {float(judgment.grade): 1.0}
                value = float(label)
            shares[value] = shares.get(value, 0.0) + share
        return shares or {float(judgment.grade): 1.0}

    async def run_recipe(self, query: Query, documents: Sequence[Document], ask: Ask) -> None:
        """The recipe over some other source of answers: a counter, an oracle, remembered answers."""
        pool = tuple(documents)
        await asyncio.gather(
            *(self.recipe.run(d, Asking(self.by_passages(ask, query), query, pool), **self.options) for d in documents)
        )

    def asks(
        self,
        query: Query,
        tallies: Mapping[str, Tally],
        sample: int = 0,
        documents: Sequence[Document] = (),
        manners: Mapping[str, Manner] | None = None,
    ) -> dict[str, TemplateAsk]:
        """What asks the questions of each part about one query."""
        made = {}
        for part, tally in tallies.items():
            manner = self.voices[part].manner() if manners is None else manners[part]
            made[part] = TemplateAsk(manner, query, tally, sample=sample, documents=documents)
        return made

    def _samples(self, query: Query, tallies: Mapping[str, Tally], documents: Sequence[Document]) -> list[_Sample]:
        """What answers the questions about the documents, once for each sample."""
        recorded = [_Recorded(self.asks(query, tallies, i, documents)) for i in range(self.settings.samples)]
        return [_Sample(of_sample, Remember(of_sample)) for of_sample in recorded]

    async def _judge(
        self, query: Query, document: Document, pool: tuple[Document, ...], samples: Sequence[_Sample]
    ) -> Judgment:
        made = await asyncio.gather(*(self._sampled(query, document, pool, sample) for sample in samples))
        if len(made) == 1:
            return made[0]
        return together(made, mean=not (self.template.header.labels or self.recipe.scale))

    async def _sampled(self, query: Query, document: Document, pool: tuple[Document, ...], sample: _Sample) -> Judgment:
        witness = _Witness(sample.remembered)
        grade = await self.recipe.run(document, Asking(self.by_passages(witness, query), query, pool), **self.options)
        evidence = [sample.recorded.evidence[question] for question in witness.asked]
        sources = [self.source(q, e) for q, e in zip(witness.asked, evidence, strict=True)]
        return self.judgment(query.id, document.id, grade, sources, _deciding(witness.asked, evidence, grade))

    def by_passages(self, ask: Ask, query: Query) -> Ask:
        """The ask as it shows long documents: by their passages, where that is wanted."""
        settings = self.settings
        if settings.passages is None:
            return ask
        words, count = settings.passage_words or WORDS, settings.passage_count or COUNT
        return Passages(ask, query, Splitting(cast(Combination, settings.passages), words, count))

    def judgment(
        self, query_id: str, doc_id: str, grade: Grade, sources: Sequence[Source], deciding: int | None
    ) -> Judgment:
        """A grade as a judgment: a whole number, with what is known beside it."""
        number, expected = self._number(grade)
        return Judgment(
            query_id=query_id,
            doc_id=doc_id,
            grade=number,
            status=grade.status,
            reason=grade.reason,
            repairs=grade.repairs,
            distribution=grade.distribution,
            expected=expected,
            source=None if deciding is None else sources[deciding],
            sources=tuple(sources) if len(sources) > 1 else (),
            samples=1,
        )

    def _number(self, grade: Grade) -> tuple[int | None, float | None]:
        """The grade as a whole number, and what is expected of it where that is another."""
        if grade.value is None or not grade.usable:
            return None, None
        value, expected = grade.value, None
        if grade.distribution is not None and all(label in self._values for label in grade.distribution):
            expected = sum(p * self._values[label] for label, p in grade.distribution.items())
        elif grade.score_kind == "probability" and len(self.template.header.labels) == 2:
            low, high = self.template.header.labels.values()
            value = expected = low + (high - low) * value
        elif value != int(value):
            expected = value
        if grade.label is not None and grade.label in self._values:
            value = self._values[grade.label]
        return whole(value), None if expected is None else round(expected, 9)

    def source(self, question: Question, evidence: Evidence) -> Source:
        """The reply behind an answer."""
        voice = self.voices[question.by]
        exchange = evidence.exchange
        reply = exchange.reply if exchange is not None else None
        return Source(
            question.by,
            voice.template.name,
            voice.template.hash,
            voice.clients.current().identity.model,
            exchange.key.hex() if exchange is not None and exchange.key else None,
            None if reply is None else reply.text,
            evidence.answer.status,
            evidence.answer.reason,
        )

    def _label_values(self) -> dict[str, float]:
        """What each label is worth; the main template's count where two templates share one."""
        values: dict[str, float] = {}
        for voice in reversed(self.voices.values()):
            values |= voice.template.header.labels
        return values

    def _check(self) -> None:
        """Recipe, templates and backends must go together; what does not is told before the first call."""
        recipe, template, who = self.recipe, self.template, "judging"
        if template.question != recipe.question:
            raise InputError(
                f"--template {template.name} asks `{template.question}`; a judge needs a template that asks "
                f"`{recipe.question}`, such as relevance/umbrela"
            )
        self.voices[""].check(recipe.needs, who)
        for name, part in self.parts.items():
            voice = self.voices[name]
            if voice.template.question != part.question:
                raise InputError(
                    f"{who}: the template {voice.template.name} asks `{voice.template.question}`, here one is needed "
                    f"that asks `{part.question}`"
                )
            voice.check(part.needs, who)


class _Sample(NamedTuple):
    recorded: _Recorded
    remembered: Remember


class _Recorded(Ask):
    """Hands each question to the part that asks it, and keeps the evidence of its answer."""

    def __init__(self, sources: Mapping[str, TemplateAsk]) -> None:
        self._sources = sources
        self.evidence: dict[Question, Evidence] = {}

    async def answer(self, question: Question) -> Answer:
        evidence = await self._sources[question.by].evidence(question)
        self.evidence[question] = evidence
        return evidence.answer


class _Witness(Ask):
    """Notes what is asked for one document, in the order of asking: that of the answers changes from run to run."""

    def __init__(self, inner: Ask) -> None:
        self._inner = inner
        self.asked: list[Question] = []

    async def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        return await self._inner.answer(question)


def together(samples: Sequence[Judgment], *, mean: bool = False) -> Judgment:
    """One judgment of several samples: the most frequent grade, the lower of two that are as frequent.

    With `mean`, for scores, the whole number nearest to their mean. The distribution is the mean of those that
    log-probabilities gave, else the shares of the samples, which `empirical` holds in either case.
    """
    grades = [(j, j.grade) for j in samples if j.grade is not None]
    sources = tuple(s for j in samples for s in (j.sources or ([j.source] if j.source else [])))
    if not grades:
        first = next((j for j in samples if j.status == "failed"), samples[0])
        return replace(first, sources=sources, samples=len(samples))
    counts = Counter(grade for _, grade in grades)
    expected = round(fmean(grade if j.expected is None else j.expected for j, grade in grades), 9)
    most = max(counts.values())
    tied = [grade for grade, count in counts.items() if count == most]
    grade = whole(expected) if mean else min(tied)
    repairs = dict.fromkeys(repair for j, _ in grades for repair in j.repairs)
    if len(grades) < len(samples):
        repairs["fewer-samples"] = None
    if len(tied) > 1 and not mean:
        repairs["tie"] = None
    empirical = {str(g): counts[g] / len(grades) for g in sorted(counts)}
    known = [j.distribution for j, _ in grades if j.distribution is not None]
    return replace(
        next((j for j, g in grades if g == grade), grades[0][0]),
        grade=grade,
        status="repaired" if repairs else "ok",
        repairs=tuple(repairs),
        distribution=_mean(known) if len(known) == len(grades) else empirical,
        empirical=empirical,
        expected=expected,
        sources=sources,
        samples=len(samples),
    )


def _mean(distributions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    labels = dict.fromkeys(label for distribution in distributions for label in distribution)
    return {label: fmean(d.get(label, 0.0) for d in distributions) for label in labels}


def _deciding(asked: Sequence[Question], evidence: Sequence[Evidence], grade: Grade) -> int | None:
    """Which of the questions gave the grade: its own answer, else the last one that graded."""
    for i, found in enumerate(evidence):
        if found.answer is grade:
            return i
    grading = [i for i, question in enumerate(asked) if question.kind == "grade"]
    return grading[-1] if grading else len(asked) - 1 if asked else None


def _middle(count: Count) -> float:
    return count if isinstance(count, int) else sum(count) / 2
