"""TRACe: how a generated answer stands to the passages that it was written from, sentence by sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from llmrank.agree.resampling import Resampling
from llmrank.agree.results import Figure
from llmrank.data.files import Source as Path
from llmrank.data.files import open_lines
from llmrank.data.records import DOC_TEXT, QUERY_ID, BadRecord, Record, load, name_in, take_id, take_string
from llmrank.data.types import Document, Query
from llmrank.errors import InputError
from llmrank.judge.judge import judging_settings
from llmrank.judge.judgment import Source
from llmrank.judge.sentences import letters, sentences
from llmrank.judge.talk import Conversation, Row, Talk, Worked, mean_figure, source_row
from llmrank.llm.types import Backend
from llmrank.questions import Status
from llmrank.templates import Template
from llmrank.voice import Part

TEMPLATE = "rag/sentences"
QUESTION = ("question", "query")
PASSAGES = ("passages", "documents", "contexts")
RESPONSE = ("response", "answer")
SYSTEM = ("item_id", "system")
LISTS = ("relevant", "used", "supported", "unsupported")
"""The lists of keys that the reply holds."""
Unit = Literal["sentences", "characters"]
"""What the length of a sentence is counted in."""


class RagAnswer(NamedTuple):
    """A generated answer with the passages that it was written from."""

    id: str
    question: str
    passages: tuple[str, ...]
    response: str
    system: str = ""
    """Which system wrote it, where a question has several answers."""


class Keyed(NamedTuple):
    """An answer and its passages in sentences, by their keys: `0a`, `0b`, `1a` of the passages, `a`, `b` of it."""

    passages: tuple[Mapping[str, str], ...]
    response: Mapping[str, str]

    @property
    def context(self) -> dict[str, str]:
        """The sentences of all passages."""
        return {key: text for passage in self.passages for key, text in passage.items()}


class Lists(NamedTuple):
    """What a reply names: keys in the order of the text. None: the reply has no such list."""

    relevant: tuple[str, ...] | None
    used: tuple[str, ...] | None
    supported: tuple[str, ...] | None
    unsupported: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The four figures of one answer. None: it does not exist, or the reply does not tell; never a 0 in its place."""

    relevance: float | None
    """Length of the passages' relevant sentences / length of all their sentences."""
    utilisation: float | None
    """Length of the sentences that the answer used / length of all sentences."""
    completeness: float | None
    """Length of the relevant sentences that it used / length of the relevant ones; None where none is relevant."""
    adherence: bool | None
    """The passages support every sentence of the answer; None where the reply leaves one open and names no
    unsupported one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """One answer's figures with the lists and the reply that they come from."""

    answer: RagAnswer
    status: Status
    reason: str | None = None
    repairs: tuple[str, ...] = ()
    trace: Trace | None = None
    lists: Lists | None = None
    keyed: Keyed
    unknown_keys: int = 0
    """Keys in the reply that name no sentence, and were left out."""
    source: Source | None = None
    """None where there was nothing to ask."""

    def row(self) -> Row:
        """The object of the output file."""
        trace, lists, keyed = self.trace, self.lists, self.keyed
        sentences = {"passages": len(keyed.context), "response": len(keyed.response)}
        told: Row = {"query_id": self.answer.id}
        if self.answer.system:
            told["item_id"] = self.answer.system
        told |= {name: None if trace is None else getattr(trace, name) for name in FIGURES}
        told |= {"status": self.status, "reason": self.reason, "repairs": self.repairs}
        told |= {"unknown_keys": self.unknown_keys, "sentences": sentences}
        told |= {name: None if lists is None else getattr(lists, name) for name in LISTS}
        source = source_row(self.source) if self.source is not None else dict.fromkeys(Source._fields)
        return told | {name: source[name] for name in ("raw", "key", "template", "template_hash", "model")}


FIGURES = ("relevance", "utilisation", "completeness", "adherence")


class Tracer(Talk[RagAnswer, Traced]):
    """Has a model name the sentences behind the TRACe figures (RAGBench 2407.11005), one question an answer.

    unit: how long a sentence is, 1 each (`sentences`) or its characters. What else is given are settings.
    """

    unused = {  # noqa: RUF012  a table
        "samples": "the keys of several replies have no mean; leave it out",
        "examples": "the prompt has no place for worked examples; leave it out",
        "passages": "passages are shown whole, sentence by sentence; leave it out",
        "passage_tokens": "a passage that is cut would change what its figures are shares of; leave it out",
    }

    def __init__(
        self,
        *,
        backend: str | Backend,
        template: str | Template = TEMPLATE,
        unit: Unit = "sentences",
        **settings: Any,
    ) -> None:
        self.unit = unit
        part = Part(template, "write", backend, whole=True)
        super().__init__({"": part}, judging_settings(settings), "TRACe")
        header = self.voices[""].template.header
        if header.parser != "object" or "response" not in header.given:
            raise InputError(
                f"--template {header.name}: a template of TRACe has the parser object and shows `response` "
                f"(given: [response]), as {TEMPLATE} does"
            )

    async def work(self, request: RagAnswer) -> Worked[Traced]:
        """The figures of one answer."""
        conversation = Conversation(self, Query(request.id, request.question))
        keyed = keyed_sentences(request)
        if not keyed.response or not keyed.context:
            reason = "no-passages" if keyed.response else "empty-response"
            return conversation.worked(Traced(answer=request, status="failed", reason=reason, keyed=keyed))
        shown = [
            Document(f"{request.id}/{request.system}/{place}", _lines(passage))
            for place, passage in enumerate(keyed.passages)
            if passage
        ]
        told = await conversation.write("", shown, given={"response": _lines(keyed.response)})
        answer = told.answer
        if not answer.usable or answer.text is None:
            traced = Traced(answer=request, status=answer.status, reason=answer.reason, keyed=keyed, source=told.source)
            return conversation.worked(traced)
        lists, unknown, repairs = read_lists(orjson.loads(answer.text), keyed)
        if lists is None:
            source = conversation.reread(told, "failed", reason="no-lists")
            return conversation.worked(
                Traced(answer=request, status="failed", reason="no-lists", keyed=keyed, source=source)
            )
        status: Status = "repaired" if repairs or answer.repairs else "ok"
        traced = Traced(
            answer=request,
            status=status,
            repairs=(*answer.repairs, *repairs),
            trace=trace_of(lists, keyed, self.unit),
            lists=lists,
            keyed=keyed,
            unknown_keys=unknown,
            source=conversation.reread(told, status, repairs=repairs),
        )
        return conversation.worked(traced)


def keyed_sentences(answer: RagAnswer) -> Keyed:
    """The answer and its passages in sentences, each under its key."""
    passages = tuple(
        {f"{place}{letters(i)}": text for i, text in enumerate(sentences(passage))}
        for place, passage in enumerate(answer.passages)
    )
    return Keyed(passages, {letters(i): text for i, text in enumerate(sentences(answer.response))})


def read_lists(said: Mapping[str, Any], keyed: Keyed) -> tuple[Lists | None, int, tuple[str, ...]]:
    """The lists in a reply's object, how many keys name no sentence, and what was repaired; no lists: None."""
    repairs: dict[str, None] = {}
    unknown = 0
    found: dict[str, tuple[str, ...] | None] = {}
    for name in LISTS:
        known = keyed.response if name.endswith("supported") else keyed.context
        given = said.get(name)
        if isinstance(given, str):
            given = given.replace(",", " ").split()
            repairs["no-list"] = None
        if not isinstance(given, list):
            found[name] = None
            repairs[f"missing-{name}"] = None
            continue
        keys = [_key(key) for key in given]
        strange = [key for key in keys if key not in known]
        unknown += len(strange)
        named = set(keys)
        if strange:
            repairs["unknown-key"] = None
        if len(named) < len(keys):
            repairs["repeated"] = None
        found[name] = tuple(key for key in known if key in named)
    if all(keys is None for keys in found.values()):
        return None, unknown, ()
    supported, unsupported = found["supported"], found["unsupported"]
    if supported and unsupported and set(supported) & set(unsupported):
        repairs["contradictory"] = None
        found["supported"] = tuple(key for key in supported if key not in set(unsupported))
    return Lists(**found), unknown, tuple(repairs)


def trace_of(lists: Lists, keyed: Keyed, unit: Unit = "sentences") -> Trace:
    """The four figures, as RAGBench 2407.11005 defines them, over the sentences of all passages together."""
    context = keyed.context

    def length(keys: Iterable[str]) -> float:
        return float(sum(1 if unit == "sentences" else len(context[key]) for key in keys))

    def share(part: Iterable[str], whole: Iterable[str]) -> float | None:
        total = length(whole)
        return length(part) / total if total else None

    relevant, used = lists.relevant, lists.used
    return Trace(
        relevance=None if relevant is None else share(relevant, context),
        utilisation=None if used is None else share(used, context),
        completeness=None
        if relevant is None or used is None
        else share([key for key in relevant if key in set(used)], relevant),
        adherence=_adherence(lists, keyed),
    )


def trace_figures(traces: Iterable[tuple[str, Trace]], settings: Resampling) -> dict[str, Figure]:
    """The mean of each figure over the (question id, trace) pairs that have it, questions drawn again."""
    values: dict[str, list[tuple[str, float]]] = {name: [] for name in FIGURES}
    for query_id, trace in traces:
        for name in FIGURES:
            value = getattr(trace, name)
            if value is not None:
                values[name].append((query_id, float(value)))
    return {name: mean_figure(pairs, "topics", settings) for name, pairs in values.items()}


def iter_answers(path: Path) -> Iterator[RagAnswer]:
    """The answers in a JSONL file: `query_id`, `question`, `passages`, `response` and, if several systems, `item_id`.

    Also read are `id`, `query`, `documents`, `answer` and `system`, as RAGBench and others write them; a passage is a
    text, or an object with one. Raises InputError, which names the line.
    """
    first_lines: dict[tuple[str, str], int] = {}
    for number, line in open_lines(path):
        if not line.strip():
            continue
        try:
            answer = _answer(load(line))
        except BadRecord as problem:
            raise InputError.at(path, number, str(problem)) from None
        first = first_lines.setdefault((answer.id, answer.system), number)
        if first != number:
            cure = "ids must differ, or item_id name different systems"
            raise InputError.at(path, number, f"{answer.id} is there already, in line {first}; {cure}")
        yield answer
    if not first_lines:
        raise InputError(f"{path}: there are no answers in it; write one JSON object a line")


def _answer(record: Record) -> RagAnswer:
    query_id = take_id(record, QUERY_ID)
    name = name_in(record, PASSAGES)
    listed = record[name] if name else None
    if not isinstance(listed, list):
        raise BadRecord(f"no list of passages: expected one of {', '.join(PASSAGES)}")
    passages = tuple(_passage(passage, place) for place, passage in enumerate(listed))
    system = take_id(record, SYSTEM) if name_in(record, SYSTEM) else ""
    return RagAnswer(query_id, _text(record, QUESTION), passages, _text(record, RESPONSE), system)


def _passage(passage: Any, place: int) -> str:
    if isinstance(passage, str):
        return passage
    if not isinstance(passage, dict) or (name := name_in(passage, DOC_TEXT)) is None:
        raise BadRecord(f"passage {place} is neither a text nor an object with one of {', '.join(DOC_TEXT)}")
    text, title = take_string(passage, name), take_string(passage, "title")
    return f"{title}\n\n{text}" if title else text


def _text(record: Record, names: Sequence[str]) -> str:
    name = name_in(record, tuple(names))
    if name is None:
        raise BadRecord(f"no {names[0]}: expected one of {', '.join(names)}")
    return take_string(record, name)


def _lines(keyed: Mapping[str, str]) -> str:
    return "\n".join(f"{key}: {text}" for key, text in keyed.items())


def _key(said: object) -> str:
    """A key as the reply spells it, without what stands around it: `[0A]`, `0a.`, `0a: The text`."""
    return str(said).split(":")[0].strip(" \t[](){}.\"'").casefold()


def _adherence(lists: Lists, keyed: Keyed) -> bool | None:
    supported, unsupported = lists.supported, lists.unsupported
    if unsupported:
        return False
    if supported is None:  # only what is not supported was named: nothing
        return None if unsupported is None else True
    if set(supported) == set(keyed.response):
        return True
    return None if unsupported is not None else False
