"""`Prompting`: what questions of one query show, made safe, cut where it would not fit, and rendered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llmrank.ask.examples import Picked
from llmrank.ask.manner import Manner
from llmrank.ask.tally import Tally
from llmrank.data.types import Document, Query
from llmrank.questions import Question
from llmrank.templates import Rendered, Shown
from llmrank.templates.fitting import fit
from llmrank.templates.prepare import safe, safe_values

AT_ONCE = 1 << 20  # characters that are looked at together
PER_MESSAGE = 16  # tokens that a chat template may add around a message


class Prompting:
    """Makes the prompts of one query. Each document is prepared, and counted, once."""

    def __init__(self, manner: Manner, query: Query, tally: Tally, documents: Sequence[Document] = ()) -> None:
        self._manner = manner
        self._template = manner.template
        self._ahead = documents
        """Those that nobody has looked at yet: to look at all together takes less than at each in its turn."""
        self._tally = tally
        self._names_items = self._template.question != "grade"
        told = (query.text, query.description, query.narrative, query.instruction)
        self._shown_query = Query(query.id, *map(self._safe, told))
        self._prepared: dict[str, Prepared] = {}
        self._plain: dict[str, str] = {}
        """Texts by id that can be shown as they are."""
        self._tokens: dict[str, int] = {}
        self._frames: dict[tuple[int | str, ...], int] = {}
        self._rooms: dict[int, int] = {}
        picked = manner.examples(query, documents) if manner.examples else Picked()
        self._examples = picked.examples
        self._fills = self._template.verbatim and not self._examples and manner.passage_tokens is None
        tally.kept_out = max(tally.kept_out, picked.kept_out)

    def rendered(self, documents: Sequence[Document], question: Question) -> Rendered | None:
        """The prompt, its texts cut where it would not fit the context; None where it cannot fit."""
        manner = self._manner
        n = len(documents)
        room = self._rooms.get(n)
        if room is None:
            completion = manner.max_completion_tokens or self._template.completion_tokens(n)
            room = self._rooms[n] = manner.context - completion
        if self._fills and (filled := self._filled(documents, room)) is not None:
            return filled
        given = {name: self._safe(text) for name, text in question.given}
        prepared = [self._prepared.get(d.id) or self._prepare(d) for d in documents]
        texts = [p.text for p in prepared]
        cap = manner.passage_tokens
        if cap is not None and max((p.size for p in prepared), default=0) > cap:
            texts = [self._capped(d, p, cap) for d, p in zip(documents, prepared, strict=True)]
        if sum([p.size for p in prepared]) <= room:
            rendered = self._render(documents, prepared, texts, given)
            if _size(rendered) <= room:  # bytes bound tokens from above: nothing need be counted
                return rendered
        spare = 0
        for _ in range(2):  # a template may show a text twice, or metadata: then the excess is taken off as well
            fitted = self._fitted(documents, texts, room - spare, given)
            if fitted is None:
                return None
            rendered = self._render(documents, prepared, fitted, given)
            excess = sum(manner.counter.count(text) + PER_MESSAGE for text in _texts(rendered)) - room
            if excess <= 0:
                return rendered
            spare += 2 * excess
        return None

    def _filled(self, documents: Sequence[Document], room: int) -> Rendered | None:
        """The prompt where every text can be shown as it is, as most can: one look at all of them together tells."""
        if self._ahead:
            ahead, self._ahead = self._ahead, ()
            if sum([len(d.text) for d in ahead]) <= AT_ONCE:
                self._learn(ahead)
        plain = self._plain
        try:
            texts = [plain[d.id] for d in documents]
        except KeyError:
            if not self._learn([d for d in documents if d.id not in plain]):
                return None
            texts = [plain[d.id] for d in documents]
        if sum(map(len, texts)) > room:
            return None
        rendered = self._template.filled(self._shown_query, texts)
        return rendered if _size(rendered) <= room else None

    def _learn(self, documents: Sequence[Document]) -> bool:
        """Whether all of the texts can be shown as they are."""
        if any(d.title for d in documents) or not self._prepared.keys().isdisjoint([d.id for d in documents]):
            return False
        together = "\n".join([d.text for d in documents])
        if not together.isascii() or self._safe(together) is not together:
            return False
        self._plain.update([(d.id, d.text) for d in documents])
        return True

    def _render(
        self,
        documents: Sequence[Document],
        prepared: Sequence[Prepared],
        texts: Sequence[str],
        given: dict[str, str],
    ) -> Rendered:
        if self._template.verbatim and not self._examples:
            return self._template.filled(self._shown_query, texts)
        names = self._template.identifiers(len(documents))
        together = zip(names, texts, prepared, documents, strict=True)
        shown = [Shown(name, text, p.title, d.score, safe_values(d.metadata)) for name, text, p, d in together]
        return self._template.prompt(self._shown_query, shown, given, self._examples)

    def _fitted(
        self, documents: Sequence[Document], texts: list[str], room: int, given: dict[str, str]
    ) -> list[str] | None:
        """The texts, cut so that the prompt has at most so many tokens; None where they cannot be."""
        counter, n = self._manner.counter, len(documents)
        frame = self._frames.get((n, *given.values()))
        if frame is None:
            empty = [Shown(name, "") for name in self._template.identifiers(n)]
            said = _texts(self._template.prompt(self._shown_query, empty, given, self._examples))
            frame = sum(counter.count(text) + PER_MESSAGE for text in said)
            self._frames[n, *given.values()] = frame
        sizes = [self._count(d, text) for d, text in zip(documents, texts, strict=True)]
        if self._manner.whole:
            return texts if frame + sum(sizes) <= room else None
        fitted = fit(texts, sizes, room - frame, counter)
        if fitted is not None:
            self._tally.cut.update(d.id for d, a, b in zip(documents, texts, fitted, strict=True) if a != b)
        return fitted

    def _prepare(self, document: Document) -> Prepared:
        title, text = "", document.text
        if document.title:
            title = self._safe(document.title)
            text = f"{document.title}\n{text}"
        text = self._safe(text)
        size = len(text) if text.isascii() else len(text.encode())
        prepared = self._prepared[document.id] = Prepared(text, title, size)
        return prepared

    def _safe(self, text: str) -> str:
        return safe(text, identifiers=self._names_items)

    def _capped(self, document: Document, prepared: Prepared, cap: int) -> str:
        if prepared.size <= cap or self._count(document, prepared.text) <= cap:
            return prepared.text
        self._tally.cut.add(document.id)
        return self._manner.counter.cut(prepared.text, cap)

    def _count(self, document: Document, text: str) -> int:
        """Tokens of the document's text, counted once for its full text."""
        if text is not self._prepared[document.id].text:
            return self._manner.counter.count(text)
        tokens = self._tokens.get(document.id)
        if tokens is None:
            tokens = self._tokens[document.id] = self._manner.counter.count(text)
        return tokens


class Prepared(NamedTuple):
    """A document's text, made safe once."""

    text: str
    title: str
    size: int
    """Length in bytes: no tokeniser makes more tokens of it."""


def _texts(rendered: Rendered) -> list[str]:
    texts = [content for _, content in rendered.messages] if rendered.raw is None else [rendered.raw]
    return texts if rendered.continuation is None else [*texts, rendered.continuation]


def _size(rendered: Rendered) -> int:
    """Bytes of the prompt, with room for what a chat template adds."""
    texts = _texts(rendered)
    return sum([len(t) if t.isascii() else len(t.encode()) for t in texts]) + PER_MESSAGE * len(texts)
