"""A template turns a question into messages and names the parser that turns the reply into an answer."""

from __future__ import annotations

import hashlib
import re
import string
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import yaml
from jinja2 import meta, nodes
from pydantic import ValidationError

from llmrank.data.types import Query
from llmrank.errors import InputError
from llmrank.questions import Answer, Kind, Said, failed
from llmrank.templates.environment import Environment
from llmrank.templates.frames import QUERY_FIELDS, Frame, frame, inserts, marks, verbatim
from llmrank.templates.header import Header
from llmrank.templates.messages import COLLECTED, CONTINUATION
from llmrank.templates.parsers import PARSERS
from llmrank.templates.prepare import safe
from llmrank.templates.shown import Example, Rendered, Shown

__all__ = ["EXAMPLES", "VARIABLES", "Example", "Rendered", "Shown", "Template", "TemplateError", "read_template"]

HEADER = re.compile(r"\A---\n(.*?\n)---\n(.*)\Z", re.S)
VARIABLES: dict[Kind, frozenset[str]] = {
    "grade": frozenset({"query", "document"}),
    "compare": frozenset({"query", "left", "right"}),
    "choose": frozenset({"query", "documents", "n"}),
    "order": frozenset({"query", "documents", "n"}),
    "write": frozenset({"query", "documents", "n"}),
}
EXAMPLES = "examples"
"""Worked examples, in every template: objects with `query`, `documents`, `answer`; empty unless a job has some."""
NOTHING: Mapping[str, str] = MappingProxyType({})
LETTERS = string.ascii_uppercase
CODE = "<template>"  # jinja2's name for a template that comes from no file
OPENS_THINKING = re.compile(r"<think(?:ing)?>\s*\Z")
CLOSES_THINKING = re.compile(r"</think(?:ing)?>|\[/THINK\]", re.I)
BARE_ANSWER = (80, 12)  # characters, and for each item, of an answer to an opened chain of thought that has no thought
VERDICT_TOKENS = 8  # for the answer after a chain of thought that was closed, where the header tells no other number


class TemplateError(InputError):
    """A template file that cannot be used; the sentence names the file and what is wrong in it."""


class Template:
    """One template file, checked. `render` gives its prompt, `read` and `write` its replies."""

    def __init__(self, text: str, *, origin: str = "<template>", variables: Mapping[str, str] | None = None) -> None:
        self.origin = origin
        self.text = text
        self.header, body = _split(text, origin)
        unknown = set(variables or ()) - set(self.header.variables)
        if unknown:
            raise TemplateError(f"{origin}: the template has no variable {min(unknown)!r}")
        self.variables = {**self.header.variables, **(variables or {})}
        self.hash = hashlib.sha256("\0".join([text, *map(str, sorted(self.variables.items()))]).encode()).hexdigest()[
            :16
        ]
        self.verbatim = False
        """It inserts the query and the texts as they are, and asks nothing else about them."""
        self.opens_thinking = False
        """Its prompt ends inside a chain of thought, which the reply goes on with."""
        self.shows_examples = False
        """It has a place for worked examples."""
        self._marks = _any_of(self.header.marks)
        self._frames: dict[int, Frame] = {}
        self.body_line = self.text.count("\n", 0, len(self.text) - len(body))
        """How many lines of the file stand before the prompt."""
        self._jinja = self._compiled(body)
        self._parser = PARSERS[self.header.parser].make(self.header)
        self._check()

    @property
    def name(self) -> str:
        return self.header.name

    @property
    def question(self) -> Kind:
        return self.header.question

    @property
    def most_items(self) -> int | None:
        """How many items it can name; None for any number."""
        return len(LETTERS) if self.header.identifiers == "letters" and self.question in ("choose", "order") else None

    def identifiers(self, n: int) -> Sequence[str]:
        return LETTERS[:n] if self.header.identifiers == "letters" else _numbers(n)

    def render(
        self,
        query: str | Query,
        documents: Sequence[str | Shown],
        given: Mapping[str, str] = NOTHING,
        examples: Sequence[Example] = (),
    ) -> Rendered:
        """The prompt about a query and documents, plain texts or as they are to be shown; passages are made safe.

        given: the texts that the template's header says a method brings, by name.
        """
        if missing := set(self.header.given) - set(given):
            raise TemplateError(f"{self.origin}: the template shows {min(missing)!r}, which must be given")
        asked = query if isinstance(query, Query) else Query("query", safe(query))
        names = self.identifiers(len(documents))
        shown = [d if isinstance(d, Shown) else Shown(i, safe(d)) for i, d in zip(names, documents, strict=True)]
        return self.prompt(asked, shown, {name: safe(text) for name, text in given.items()}, examples)

    def prompt(
        self,
        query: Query,
        documents: Sequence[Shown],
        given: Mapping[str, str] = NOTHING,
        examples: Sequence[Example] = (),
    ) -> Rendered:
        """The prompt about these documents, as they are: nothing is cut or made safe here."""
        if self.verbatim and not examples:
            return self.filled(query, [shown.text for shown in documents])
        if self._marks is not None:
            query = self._unmarked_query(query)
            documents = [d._replace(text=self._unmarked(d.text), title=self._unmarked(d.title)) for d in documents]
            given = {name: self._unmarked(text) for name, text in given.items()}
        return self._as_rendered(self._run(query, documents, given, examples))

    def filled(self, query: Query, texts: Sequence[str]) -> Rendered:
        """`prompt` for a `verbatim` template, which shows nothing of a document but its text."""
        n = len(texts)
        frame = self._frames.get(n)
        if frame is None:
            frame = self._frames[n] = self._frame(n)
        if self._marks is not None:
            query, texts = self._unmarked_query(query), [self._unmarked(text) for text in texts]
        return self._as_rendered(frame.filled(inserts(query, texts), exact=self.header.exact))

    def _unmarked(self, text: str) -> str:
        """The text with a space in every mark by which the prompt tells its parts apart."""
        return text if self._marks is None else self._marks.sub(lambda mark: f"{mark[0][:-1]} {mark[0][-1]}", text)

    def _unmarked_query(self, query: Query) -> Query:
        told = {name: self._unmarked(getattr(query, name)) for name in QUERY_FIELDS}
        return replace(query, **told)

    def _as_rendered(self, messages: tuple[tuple[str, str], ...]) -> Rendered:
        continuation = None
        if messages[-1][0] == CONTINUATION:
            *told, (_, continuation) = messages
            messages = tuple(told)
        if self.header.raw:
            return Rendered(raw=messages[0][1], continuation=continuation)
        return Rendered(messages, continuation=continuation)

    def _frame(self, n: int) -> Frame:
        query, texts = marks(n)
        return frame(self._run(query, [Shown(i, text) for i, text in zip(self.identifiers(n), texts, strict=True)]))

    def _run(
        self,
        query: Query,
        documents: Sequence[Shown],
        given: Mapping[str, str] = NOTHING,
        examples: Sequence[Example] = (),
    ) -> tuple[tuple[str, str], ...]:
        """The messages, or the raw prompt as one message without a role, as the template engine makes them."""
        messages: list[tuple[str, str]] = []
        context = {**self.variables, "query": query, "n": len(documents), COLLECTED: messages, EXAMPLES: examples}
        context |= given
        context |= self._named(documents)
        try:
            text = self._jinja.render(context)
        except Exception as error:  # a template may do anything that the sandbox lets it
            line = next((f.lineno for f in traceback.extract_tb(error.__traceback__)[::-1] if f.filename == CODE), None)
            place = self.origin if line is None else f"{self.origin}:{line + self.body_line}"
            raise TemplateError(f"{place}: the template cannot be rendered ({error})") from error
        told = messages if self.header.exact else [(role, content.strip("\n")) for role, content in messages]
        if self.header.raw:
            return (("", text), *told)
        if text.strip():
            raise TemplateError(f"{self.origin}: the text {text.strip()[:40]!r} stands outside any message block")
        return tuple(told)

    def _named(self, documents: Sequence[Shown]) -> dict[str, Any]:
        if self.question == "grade":
            (document,) = documents
            return {"document": document}
        if self.question == "compare":
            left, right = documents
            return {"left": left, "right": right}
        return {"documents": documents}

    def completion_tokens(self, n: int) -> int:
        """Largest reply about n shown items, thinking included."""
        return self._answer_tokens(n) + self.header.thinking_tokens

    def verdict_tokens(self, n: int) -> int:
        """Largest reply to a chain of thought that was closed for the model."""
        return self._answer_tokens(n) if self.header.thinking_tokens else VERDICT_TOKENS

    def _answer_tokens(self, n: int) -> int:
        return self.header.completion_tokens + n * self.header.completion_tokens_per_item

    def read(self, said: Said, n: int) -> Answer:
        """The answer in a reply about n shown items; never raises."""
        if self.opens_thinking and not CLOSES_THINKING.search(said.text):
            most, per_item = BARE_ANSWER
            if len(said.text.strip()) > most + n * per_item:  # it is all thought: a label in it is no answer
                return failed(self.question, "truncated")
        answer: Answer = self._parser.read(said, n)
        return answer

    def write(self, answer: Answer, n: int) -> str:
        """The reply that says this, in the words that the template asks for."""
        said: str = self._parser.write(answer, n)
        return said

    @property
    def options(self) -> Sequence[str]:
        """The words that name left, right and tie in the replies of a `compare` template."""
        return getattr(self._parser, "options", ())

    def _compiled(self, body: str) -> jinja2.Template:
        environment = Environment()
        try:
            tree = self.tree = environment.parse(body)
            if any(tree.find(kind) for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
                raise TemplateError(
                    f"{self.origin}: a template stands in one file; it cannot include or import another"
                )
            used = meta.find_undeclared_variables(tree)
            self.shows_examples = EXAMPLES in used
            own = {*self.variables, *self.header.given, EXAMPLES}
            if clash := VARIABLES[self.question] & own:
                raise TemplateError(
                    f"{self.origin}: {min(clash)!r} is what every such template has; name yours otherwise"
                )
            self.verbatim = verbatim(tree) and used.isdisjoint({*self.header.given, EXAMPLES})
            unknown = used - VARIABLES[self.question] - own
            if unknown:
                known = ", ".join(sorted(VARIABLES[self.question] | own))
                line = self.body_line + min(name.lineno for name in tree.find_all(nodes.Name) if name.name in unknown)
                first = min(unknown)
                raise TemplateError(
                    f"{self.origin}:{line}: {first!r} is not defined in a `{self.question}` template; there are {known}"
                )
            compiled = environment.from_string(body)
            compiled.globals = dict(compiled.globals)  # a ChainMap that every render would walk through
            return compiled
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"{self.origin}:{error.lineno + self.body_line}: {error.message}") from error

    def _check(self) -> None:
        """Renders it once with made-up documents, so that what is wrong in it shows when it is loaded."""
        n = {"grade": 1, "compare": 2}.get(self.question, 3)
        shown = [Shown(i, "text", "title", 1.0, _AnyMetadata()) for i in self.identifiers(n)]
        rendered = self._as_rendered(self._run(Query("q", "query"), shown, dict.fromkeys(self.header.given, "text")))
        messages = rendered.messages if rendered.raw is None else (("", rendered.raw),)
        if (rendered.continuation is not None) != (self.header.parser == "likelihood"):
            raise TemplateError(
                f"{self.origin}: a {{% continuation %}} block and the parser likelihood go together, one without the "
                "other says nothing"
            )
        if not messages:
            raise TemplateError(
                f'{self.origin}: there is no {{% message "user" %}} block (or the header lacks raw: true)'
            )
        if messages[-1][0] == "assistant" and "prefill" not in self.header.needs:
            raise TemplateError(f"{self.origin}: it ends in an assistant message; say so with needs: [text, prefill]")
        if not any(content.strip() for _, content in messages):
            raise TemplateError(f"{self.origin}: the prompt is empty")
        role, last = messages[-1]
        self.opens_thinking = role in ("", "assistant") and OPENS_THINKING.search(last) is not None


class _AnyMetadata(dict[str, str]):
    """Has whatever a template asks for."""

    def __missing__(self, key: str) -> str:
        return "value"


@lru_cache(maxsize=256)
def _numbers(n: int) -> tuple[str, ...]:
    return tuple(map(str, range(1, n + 1)))


def _split(text: str, origin: str) -> tuple[Header, str]:
    match = HEADER.match(text.replace("\r\n", "\n"))
    if match is None:
        raise TemplateError(f"{origin}: a template begins with a YAML header between two lines of `---`")
    try:
        fields = yaml.safe_load(match[1])
        header = Header.model_validate(fields)
    except yaml.YAMLError as error:
        raise TemplateError(f"{origin}: the header is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "header"
        line = header_line(text, str(first["loc"][0]) if first["loc"] else "")
        raise TemplateError(f"{origin}:{line}: {place}: {first['msg'].removeprefix('Value error, ')}") from error
    return header, match[2]


def header_line(text: str, field: str) -> int:
    """The line of a file on which a field of its header begins; 1 where the header lacks it."""
    header = text.replace("\r\n", "\n").partition("\n---\n")[0]
    return next((i for i, line in enumerate(header.split("\n"), 1) if line.startswith(f"{field}:")), 1)


def _any_of(marks: Sequence[str]) -> re.Pattern[str] | None:
    """What finds any of the marks: by a word's beginning only where one stands there."""
    if not marks:
        return None
    longest_first = sorted(marks, key=len, reverse=True)
    return re.compile("|".join((r"(?<!\w)" if mark[0].isalnum() else "") + re.escape(mark) for mark in longest_first))


def read_template(path: Path, variables: Mapping[str, str] | None = None, *, origin: str | None = None) -> Template:
    """The template in a file."""
    origin = origin or str(path)
    return Template(text_of(path, origin), origin=origin, variables=variables)


def text_of(path: Path, origin: str) -> str:
    """What stands in the file of a template."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TemplateError(f"{origin}: byte {error.start} of the template is no UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise TemplateError(f"{origin}: the template cannot be read ({error.strerror or error})") from error
