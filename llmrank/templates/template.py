"""A template turns a question into messages and names the parser that turns the reply into an answer."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jinja2
import yaml
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import ValidationError

from llmrank.data.types import Query
from llmrank.errors import InputError
from llmrank.questions import Answer, Kind, Said
from llmrank.templates.frames import Frame, frame, inserts, marks, verbatim
from llmrank.templates.header import Header
from llmrank.templates.messages import COLLECTED, CONTINUATION, MessageExtension
from llmrank.templates.parsers import PARSERS
from llmrank.templates.prepare import safe

HEADER = re.compile(r"\A---\n(.*?\n)---\n(.*)\Z", re.S)
VARIABLES: dict[Kind, frozenset[str]] = {
    "grade": frozenset({"query", "document"}),
    "compare": frozenset({"query", "left", "right"}),
    "choose": frozenset({"query", "documents", "n"}),
    "order": frozenset({"query", "documents", "n"}),
    "write": frozenset({"query", "documents", "n"}),
}
EXAMPLES = "examples"
"""Worked examples, known to every template: objects with `query`, `documents`, `answer`; empty unless a job has some."""
NOTHING: Mapping[str, str] = MappingProxyType({})
LETTERS = string.ascii_uppercase


class TemplateError(InputError):
    """A template file that cannot be used; the sentence names the file and what is wrong in it."""


class Shown(NamedTuple):
    """A document as a template sees it."""

    identifier: str
    """How the prompt names it: `1`, `2`, ... or `A`, `B`, ..."""
    text: str
    """Its title, if any, and its text, made safe and cut to fit."""
    title: str = ""
    score: float | None = None
    """The first stage's score, where known."""
    metadata: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt: chat messages as (role, content), or one raw text."""

    messages: tuple[tuple[str, str], ...] = ()
    raw: str | None = None
    continuation: str | None = None
    """The text whose log-probability after the prompt is wanted."""


class Example(NamedTuple):
    """A worked example as a template sees it."""

    query: str
    documents: tuple[str, ...]
    answer: str
    """In the words that the template asks for."""


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
        self._frames: dict[int, Frame] = {}
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
        return self._as_rendered(self._run(query, documents, given, examples))

    def filled(self, query: Query, texts: Sequence[str]) -> Rendered:
        """`prompt` for a `verbatim` template, which shows nothing of a document but its text."""
        n = len(texts)
        frame = self._frames.get(n)
        if frame is None:
            frame = self._frames[n] = self._frame(n)
        return self._as_rendered(frame.filled(inserts(query, texts)))

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
            raise TemplateError(f"{self.origin}: the template cannot be rendered ({error})") from error
        if self.header.raw:
            return (("", text), *messages)
        if text.strip():
            raise TemplateError(f"{self.origin}: the text {text.strip()[:40]!r} stands outside any message block")
        return tuple(messages)

    def _named(self, documents: Sequence[Shown]) -> dict[str, Any]:
        if self.question == "grade":
            (document,) = documents
            return {"document": document}
        if self.question == "compare":
            left, right = documents
            return {"left": left, "right": right}
        return {"documents": documents}

    def completion_tokens(self, n: int) -> int:
        return self.header.completion_tokens + n * self.header.completion_tokens_per_item

    def read(self, said: Said, n: int) -> Answer:
        """The answer in a reply about n shown items; never raises."""
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
        environment = _environment()
        try:
            tree = environment.parse(body)
            if any(tree.find(kind) for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
                raise TemplateError(
                    f"{self.origin}: a template stands in one file; it cannot include or import another"
                )
            used = meta.find_undeclared_variables(tree)
            own = {*self.variables, *self.header.given, EXAMPLES}
            if clash := VARIABLES[self.question] & own:
                raise TemplateError(
                    f"{self.origin}: {min(clash)!r} is what every such template has; name yours otherwise"
                )
            self.verbatim = verbatim(tree) and used.isdisjoint({*self.header.given, EXAMPLES})
            unknown = used - VARIABLES[self.question] - own
            if unknown:
                known = ", ".join(sorted(VARIABLES[self.question] | own))
                raise TemplateError(
                    f"{self.origin}: {min(unknown)!r} is not defined in a `{self.question}` template; there are {known}"
                )
            compiled = environment.from_string(body)
            compiled.globals = dict(compiled.globals)  # a ChainMap that every render would walk through
            return compiled
        except jinja2.TemplateSyntaxError as error:
            line = error.lineno + self.text.count("\n", 0, len(self.text) - len(body))
            raise TemplateError(f"{self.origin}:{line}: {error.message}") from error

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


class _AnyMetadata(dict[str, str]):
    """Has whatever a template asks for."""

    def __missing__(self, key: str) -> str:
        return "value"


@lru_cache(maxsize=256)
def _numbers(n: int) -> tuple[str, ...]:
    return tuple(map(str, range(1, n + 1)))


PLAIN: dict[type, frozenset[str]] = {
    Shown: frozenset(Shown._fields),
    Query: frozenset(f.name for f in fields(Query)),
}


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with a short way to what templates may always see: it takes half the time of a long prompt."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if attribute in PLAIN.get(type(obj), ()):
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)


def _environment() -> _Environment:
    return _Environment(
        undefined=jinja2.StrictUndefined,
        extensions=[MessageExtension],
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # prompts are no HTML
    )


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
        raise TemplateError(f"{origin}: {place}: {first['msg'].removeprefix('Value error, ')}") from error
    return header, match[2]


def read_template(path: Path, variables: Mapping[str, str] | None = None, *, origin: str | None = None) -> Template:
    """The template in a file."""
    origin = origin or str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"{origin}: the template cannot be read ({error})") from error
    return Template(text, origin=origin, variables=variables)
