"""Few-shot examples: which training queries a prompt shows, and in whose words; never the query itself."""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from llmrank.data.examples import Judged, TrainingQuery, read_examples
from llmrank.data.types import Document, Query
from llmrank.errors import InputError
from llmrank.questions import Answer, Choice, Grade, Kind, Order, Preference
from llmrank.templates import Example, Template
from llmrank.templates.prepare import safe

Select = Literal["bm25", "difficulty", "random"]
WORD = re.compile(r"\w+")
K1, B = 0.9, 0.4  # of BM25, as is usual for short texts
FEW_SHOT: dict[Kind, str] = {
    "grade": "pointwise/few-shot",
    "compare": "pairwise/few-shot",
    "choose": "setwise/few-shot",
    "order": "listwise/few-shot",
}
"""A template that shows examples, for each question."""


class Picked(NamedTuple):
    """The examples for one query."""

    examples: tuple[Example, ...] = ()
    kept_out: int = 0
    """Training queries that would have come before these, but are the query itself or share a document with it."""


class Examples:
    """The training queries of a job, and which of them go with a query: the same ones whenever it is asked."""

    def __init__(
        self, path: str, training: Sequence[TrainingQuery], *, shots: int, select: Select = "bm25", seed: int = 0
    ) -> None:
        if len(training) < shots:
            raise InputError(f"--shots {shots}: {path} holds {len(training)} examples; add some, or show fewer")
        self.path = path
        self.training = training
        self._shots = shots
        self._texts = [normal(t.query) for t in training]
        self._shown = [
            ({normal(d.text) for d in t.documents}, {d.doc_id for d in t.documents} - {""}) for t in training
        ]
        self._order: Sequence[int] | None = None
        if select == "bm25":
            self._bm25 = BM25([text.split() for text in self._texts])
        elif select == "random":
            self._order = random.Random(seed).sample(range(len(training)), len(training))
        else:
            hardness = _difficulties(path, training)
            self._order = sorted(range(len(training)), key=lambda i: -hardness[i])
        self._last: tuple[object, tuple[tuple[int, ...], int]] | None = None

    @classmethod
    def read(cls, path: str, *, shots: int, select: Select = "bm25", seed: int = 0) -> Examples:
        """Those in a file; raises InputError, which names the line, for what is no example."""
        return cls(path, read_examples(path), shots=shots, select=select, seed=seed)

    def worded(
        self, template: Template, cut: Callable[[str], str] = str
    ) -> Callable[[Query, Sequence[Document]], Picked]:
        """What gives a query's examples in the words of a template. `cut` shortens the text of a document.

        All examples must fit the template: raises InputError, which names the line, where one does not.
        """
        worded: dict[int, tuple[Example, ...]] = {}
        for i, training in enumerate(self.training):
            try:
                worded[i] = tuple(_worded(training, template, cut))
            except ValueError as problem:
                raise InputError.at(self.path, training.line, f"{problem}, as {template.name} takes them") from None

        def picked(query: Query, documents: Sequence[Document] = ()) -> Picked:
            chosen, kept_out = self.pick(query, documents)
            # The one that comes first is the nearest to the question itself.
            return Picked(tuple(example for i in reversed(chosen) for example in worded[i]), kept_out)

        return picked

    def pick(self, query: Query, documents: Sequence[Document] = ()) -> tuple[tuple[int, ...], int]:
        """The places of the training queries to show, best first, and how many before them were kept out."""
        key = (query, tuple(documents))
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        asked, ids = normal(query.text), {d.id for d in documents}
        texts = {normal(f"{d.title}\n{d.text}") for d in documents} | {normal(d.text) for d in documents}
        chosen: list[int] = []
        kept_out = 0
        for i in self._by_merit(asked):
            if len(chosen) == self._shots:
                break
            shown, shown_ids = self._shown[i]
            same = self.training[i].query_id == query.id or self._texts[i] == asked
            if same or shown & texts or shown_ids & ids:
                kept_out += 1
            else:
                chosen.append(i)
        self._last = key, (tuple(chosen), kept_out)
        return self._last[1]

    def _by_merit(self, asked: str) -> Iterator[int]:
        if self._order is not None:
            yield from self._order
            return
        similar = self._bm25.ranked(asked.split())
        yield from similar
        known = set(similar)
        yield from (i for i in range(len(self.training)) if i not in known)


class BM25:
    """Okapi BM25 over texts in words."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._lengths = [len(words) for words in texts]
        self._mean = sum(self._lengths) / max(1, len(texts)) or 1.0
        for i, words in enumerate(texts):
            for word, count in Counter(words).items():
                self._postings[word].append((i, count))

    def ranked(self, words: Iterable[str]) -> list[int]:
        """The places of the texts that share a word with these, best first; equal ones as they stand."""
        scores = self.scores(words)
        return sorted(scores, key=lambda i: (-scores[i], i))

    def scores(self, words: Iterable[str]) -> dict[int, float]:
        """The scores of the texts that share a word with these."""
        scores: dict[int, float] = defaultdict(float)
        n = len(self._lengths)
        for word in words:
            postings = self._postings.get(word, ())
            idf = math.log(1 + (n - len(postings) + 0.5) / (len(postings) + 0.5))
            for i, count in postings:
                scores[i] += idf * count * (K1 + 1) / (count + K1 * (1 - B + B * self._lengths[i] / self._mean))
        return dict(scores)


def check_shown(path: str, templates: Iterable[Template]) -> None:
    """Raises InputError where none of the templates shows examples, and names one that does."""
    told = list(templates)
    if not any(template.shows_examples for template in told):
        names = ", ".join(dict.fromkeys(template.name for template in told))
        instead = ", ".join(dict.fromkeys(FEW_SHOT[t.question] for t in told if t.question in FEW_SHOT))
        raise InputError(f"--examples {path}: --template {names} shows no examples; take one that does: {instead}")


def normal(text: str) -> str:
    """The words of a text without case and punctuation, by which two texts are taken for the same."""
    return " ".join(WORD.findall(text.casefold()))


def _difficulties(path: str, training: Sequence[TrainingQuery]) -> list[float]:
    """How hard each is: as the file says, else the share of the query's words that its best document lacks.

    The measure of PaRaDe (2310.14408) is minus the mean log-likelihood of the query given its relevant document; it
    takes a model, and goes into the file as `difficulty`.
    """
    told = [t.difficulty for t in training]
    known = [difficulty for difficulty in told if difficulty is not None]
    if len(known) == len(told):
        return known
    if known:
        line = next(t.line for t in training if t.difficulty is None)
        raise InputError.at(path, line, "it has no `difficulty`, others have; give it to all of them or to none")
    return [_lacking(t.query, max(t.documents, key=_worth).text) for t in training]


def _worth(document: Judged) -> float:
    return -math.inf if document.worth is None else document.worth


def _lacking(query: str, text: str) -> float:
    words = set(normal(query).split())
    return len(words - set(normal(text).split())) / max(1, len(words))


def _worded(training: TrainingQuery, template: Template, cut: Callable[[str], str]) -> Iterator[Example]:
    """The examples that a training query gives; raises ValueError where it gives none."""
    identifiers = template.question != "grade"

    def example(documents: Sequence[Judged], answer: Answer) -> Example:
        texts = tuple(cut(safe(d.text, identifiers=identifiers)) for d in documents)
        return Example(safe(training.query, identifiers=identifiers), texts, template.write(answer, len(texts)))

    for documents, answer in ANSWERED[template.question](training, template):
        yield example(documents, answer)


Answered = Iterator[tuple[Sequence[Judged], Answer]]


def _graded(training: TrainingQuery, template: Template) -> Answered:
    """The best and the worst of its documents, each with its label: a prompt should not see one label only."""
    documents = sorted(training.documents, key=_worth, reverse=True)
    for document in documents if len(documents) < 2 else (documents[0], documents[-1]):
        if document.label is None:
            raise ValueError("documents need a `label` or a `grade`")
        yield [document], _grade(document.label, template)


def _grade(label: str | float, template: Template) -> Grade:
    labels = template.header.labels
    if not labels:  # a score on a range
        low, high = template.header.range or (0.0, 1.0)
        if isinstance(label, str) or not low <= label <= high:
            raise ValueError(f"the grade {label!r} must be a number from {low:g} to {high:g}")
        return Grade(value=float(label))
    spelled = label if isinstance(label, str) else f"{label:g}"
    if spelled in labels:
        return Grade(label=spelled)
    if not isinstance(label, str) and len(labels) == 2:
        return Grade(label=list(labels)[label > 0])
    raise ValueError(f"the label {label!r} must be one of {', '.join(labels)}")


def _pair(training: TrainingQuery, template: Template) -> Answered:
    """Its best and its worst document, in both orders: what stands first must not be what wins."""
    left, right = _ends(training)
    share = 0.5 if left.worth == right.worth else float(_worth(left) > _worth(right))
    if share == 0.5 and len(template.options) < 3:
        raise ValueError("the two documents of a pair must not tie")
    yield [left, right], Preference(share=share)
    yield [right, left], Preference(share=1 - share)


def _ends(training: TrainingQuery) -> tuple[Judged, Judged]:
    """The best and the worst document, as they stand in the file."""
    documents = _several(training)
    best = max(range(len(documents)), key=lambda i: _worth(documents[i]))
    worst = min((i for i in range(len(documents)) if i != best), key=lambda i: _worth(documents[i]))
    return documents[min(best, worst)], documents[max(best, worst)]


def _set(training: TrainingQuery, template: Template) -> Answered:
    documents, worst = _several(training), template.header.worst
    if worst and training.only_best and len(documents) > 2:
        raise ValueError("the documents need grades or a whole order, of which the worst is known")
    wanted = (min if worst else max)(range(len(documents)), key=lambda i: _worth(documents[i]))
    yield documents, Choice(index=wanted)


def _list(training: TrainingQuery, template: Template) -> Answered:
    documents = _several(training)
    if training.only_best and len(documents) > 2:
        raise ValueError("the documents need grades or a whole order, not only a best one")
    order = sorted(range(len(documents)), key=lambda i: -_worth(documents[i]))
    yield documents, Order(permutation=tuple(order))


def _several(training: TrainingQuery) -> tuple[Judged, ...]:
    documents = training.documents
    if len(documents) < 2 or any(d.worth is None for d in documents):
        raise ValueError("there must be two or more documents, with an `answer` or with grades that are numbers")
    return documents


def _written(training: TrainingQuery, template: Template) -> Answered:
    raise ValueError("examples are for templates that ask about documents")


ANSWERED: dict[Kind, Callable[[TrainingQuery, Template], Answered]] = {
    "grade": _graded,
    "compare": _pair,
    "choose": _set,
    "order": _list,
    "write": _written,
}
