"""Stages of a cascade: what one is, and reading them from a file, from a job's own YAML, or from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

import yaml

from llmrank.data.files import open_lines
from llmrank.errors import InputError
from llmrank.llm.types import Backend, identity_of
from llmrank.questions import Kind
from llmrank.rerank.methods import Method, find
from llmrank.templates import Template, load
from llmrank.templates.template import EXAMPLES, VARIABLES

RANKING = ("method", "options", "template", "backend", "depth")
WRITING = ("write", "as", "backend", "depth")
TAKEN = frozenset({EXAMPLES, "n"}).union(*VARIABLES.values())


@dataclass(frozen=True, slots=True)
class Stage:
    """A method over the first `depth` documents of the order so far; or, with `write`, a text for later stages.

    `Stage("all-pairs", depth=10)`, `Stage(write="query/facets")`. In YAML `named` is written `as`.
    """

    method: str = ""
    """A name that `llmrank methods` lists."""
    options: Mapping[str, Any] = field(default_factory=dict)
    template: str | Template | None = None
    """A name, a path or a template; None for the method's own."""
    backend: str | Backend | None = None
    """A SPEC or a backend; None for that of the job."""
    depth: int | None = None
    """How many of the first documents it looks at: all by default, none where it writes."""
    write: str | Template = ""
    """A `write` template, asked once a query before the stages below it."""
    named: str = ""
    """What later templates call the written text; else the last part of the template's name."""


@dataclass(frozen=True, slots=True)
class Step:
    """A stage that was checked: with its method, the method's options and its template at hand."""

    number: int
    stage: Stage
    template: Template
    method: Method | None = None
    """None where it writes."""
    values: Mapping[str, Any] = field(default_factory=dict)
    named: str = ""

    @property
    def name(self) -> str:
        """By what its questions are told from those of other stages."""
        return str(self.number)

    @property
    def who(self) -> str:
        """For people."""
        return f"stage {self.number} ({self.method.name if self.method else f'write {self.template.name}'})"

    @property
    def question(self) -> Kind:
        return self.method.question if self.method else "write"

    def size(self, n: int) -> int:
        """How many of n documents it looks at."""
        depth = self.stage.depth
        return min(n, depth or 0) if self.method is None else n if depth is None else min(n, depth)


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of a cascade, in their order."""

    steps: tuple[Step, ...]

    @classmethod
    def of(cls, value: Any) -> Stages:
        """The stages in a YAML file, in YAML, or in a list of `Stage`s or dictionaries. None: mono, then duo."""
        if value is None:
            return _default()
        if isinstance(value, Stages):
            return value
        records = _records(value)
        steps: list[Step] = []
        for record in records:
            steps.append(_step(record, {step.named for step in steps}))
        _check_texts(steps, records)
        return cls(tuple(steps))

    def told(self) -> list[dict[str, Any]]:
        """The stages as a manifest holds them: what a YAML file of stages takes."""
        return [_told(step) for step in self.steps]


DEFAULT = (Stage("yes-no"), Stage("all-pairs", depth=10))
"""Mono, then duo: every candidate on its own, then the ten best in pairs (Expando-Mono-Duo 2101.05667)."""


@lru_cache(maxsize=1)
def _default() -> Stages:
    return Stages.of(DEFAULT)


@dataclass(frozen=True, slots=True)
class _Record:
    """A stage as it was given, with the lines of its file, where it is from one."""

    number: int
    given: Mapping[str, Any]
    path: str = ""
    line: int = 0
    lines: Mapping[str, int] = field(default_factory=dict)

    def fail(self, problem: str, key: str = "") -> NoReturn:
        """Raises InputError, which says where: file and line, or the stage's number."""
        problem = f"stage {self.number}: {problem}"
        raise InputError.at(self.path, self.lines.get(key, self.line), problem) if self.path else InputError(problem)


def _records(value: Any) -> list[_Record]:
    if isinstance(value, str):
        inline = value.lstrip().startswith("[")
        return _from_yaml(value) if inline else _from_yaml("\n".join(line for _, line in open_lines(value)), value)
    if not isinstance(value, Iterable):
        raise InputError(f"--option stages={value}: give a YAML file, or a list of stages")
    records = []
    for number, given in enumerate(value, 1):
        if isinstance(given, Stage):
            fields = {name: getattr(given, name) for name in (*RANKING, "write")} | {"as": given.named}
            given = {name: part for name, part in fields.items() if part not in (None, "") and part != {}}
        if not isinstance(given, Mapping):
            raise InputError(f"stage {number}: give a Stage or a dictionary, not {given!r}")
        records.append(_Record(number, given))
    if not records:
        raise InputError("--option stages: there is no stage; give at least one")
    return records


def _from_yaml(text: str, path: str = "") -> list[_Record]:
    loader = yaml.SafeLoader(text)
    where = path or "--option stages"
    wrong = "write a list of stages, like `- method: yes-no`"
    try:
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode) and [key.value for key, _ in node.value] == ["stages"]:
            ((_, node),) = node.value
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise InputError(f"{where}: there are no stages; {wrong}")
        records = []
        for number, item in enumerate(node.value, 1):
            line = item.start_mark.line + 1
            if not isinstance(item, yaml.MappingNode):
                _Record(number, {}, path, line).fail(f"this is no stage; {wrong}")
            given = {str(key): part for key, part in loader.construct_mapping(item, deep=True).items()}
            lines = {key.value: key.start_mark.line + 1 for key, _ in item.value}
            if len(lines) < len(item.value):
                _Record(number, {}, path, line).fail("a key is there twice; keep one")
            records.append(_Record(number, given, path, line, lines))
        return records
    except yaml.MarkedYAMLError as error:
        problem = f"this is no YAML ({error.problem or error.context}); {wrong}"
        mark = error.problem_mark or error.context_mark
        raise InputError.at(where, mark.line + 1 if mark else 1, problem) from None
    finally:
        loader.dispose()


def _step(record: _Record, known: set[str]) -> Step:
    """The stage, checked as far as it can be on its own. `known`: what the stages above have written."""
    given = record.given
    if ("method" in given) == ("write" in given):
        record.fail("it must have either `method`, which ranks, or `write`, which writes a text for later stages")
    keys = RANKING if "method" in given else WRITING
    for key, value in given.items():
        if key not in keys:
            record.fail(f"{key} is no key of such a stage; there are {', '.join(keys)}", key)
        if problem := _unfit(key, value):
            record.fail(f"{key}: {problem}, not {value!r}", key)
    depth = given.get("depth")
    if "write" in given:
        return _writing(record, depth, known)
    try:
        method = find(given["method"])
        if method.apart:
            raise InputError(f"a cascade cannot hold a {method.name}; list its stages here")
        method = method.given(given.get("options", {}))
        values = method.checked(given.get("options", {}))
        template = _loaded(given.get("template") or method.template)
    except InputError as error:
        key = next((key for key in ("template", "option") if key in str(error)), "method")
        record.fail(str(error).removeprefix("--"), "options" if key == "option" else key)
    if lacking := set(template.header.given) - known - set(method.brings):
        record.fail(
            f"the template {template.name} shows {min(lacking)!r}, which no stage above writes; put one there, like "
            f"`write: query/facets` with `as: {min(lacking)}`",
            "template",
        )
    stage = Stage(given["method"], given.get("options", {}), given.get("template"), given.get("backend"), depth)
    return Step(record.number, stage, template, method, values)


def _writing(record: _Record, depth: int | None, known: set[str]) -> Step:
    given = record.given
    try:
        template = _loaded(given["write"])
    except InputError as error:
        record.fail(str(error), "write")
    named = given.get("as") or template.name.rpartition("/")[2].replace("-", "_")
    if not named.isidentifier() or named in TAKEN:
        record.fail(f"as: {named} cannot name a text in a template; take another word", "as")
    if named in known:
        record.fail(f"as: a stage above writes {named} already; name this one otherwise", "as")
    if lacking := set(template.header.given) - known:
        record.fail(f"the template {template.name} shows {min(lacking)!r}, which no stage above writes", "write")
    stage = Stage(backend=given.get("backend"), depth=depth, write=given["write"], named=named)
    return Step(record.number, stage, template, named=named)


def _check_texts(steps: Sequence[Step], records: Sequence[_Record]) -> None:
    """Nothing is written that no stage shows, which would be paid for in vain."""
    for i, step in enumerate(steps):
        if step.named and not any(step.named in later.template.header.given for later in steps[i + 1 :]):
            records[i].fail(
                f"no later stage shows what it writes; take a template with `given: [{step.named}]`, such as "
                "listwise/facets for `as: facets`",
                "write",
            )


def _unfit(key: str, value: Any) -> str | None:
    """What the value must be, where it is not."""
    if key == "depth":
        return None if type(value) is int and value >= 1 else "it must be a whole number from 1"
    if key == "options":
        return None if isinstance(value, Mapping) else "it must hold options with values, like `k: 10`"
    if key == "backend":
        return None if isinstance(value, str | Backend) else "it must be a SPEC, like openai:MODEL"
    if key in ("template", "write") and isinstance(value, Template):
        return None
    return None if isinstance(value, str) and value else "it must be a name"


def _loaded(template: str | Template) -> Template:
    return template if isinstance(template, Template) else load(template)


def _told(step: Step) -> dict[str, Any]:
    stage = step.stage
    backend = stage.backend
    if not isinstance(backend, str | None):
        backend = ":".join(identity_of(backend))
    told = {
        "write": step.template.name if step.method is None else None,
        "as": step.named or None,
        "method": step.method.name if step.method else None,
        "options": {name: getattr(value, "told", lambda v=value: v)() for name, value in step.values.items()} or None,
        "template": None if step.method is None else step.template.name,
        "backend": backend,
        "depth": stage.depth,
    }
    return {name: value for name, value in told.items() if value is not None}
