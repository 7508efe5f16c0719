"""Reads templates that others keep in YAML with `str.format` places: rank_llm's files, and files in their manner.

A file is translated into one of ours, which `llmrank prompts show FILE.yaml` prints. Its texts become text: nothing in
them, and nothing in a passage, is taken for template code or for a place.
"""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from llmrank.templates.template import Template, TemplateError, text_of

SUFFIXES = (".yaml", ".yml")
VALIDATION, EXTRACTION = "output_validation_regex", "output_extraction_regex"
THINKING_TOKENS = 10_000  # what rank_llm gives a model to think
WORDS = "300"  # what rank_llm shows of a passage


class Section(NamedTuple):
    """What a key's text may hold."""

    places: tuple[str, ...] = ()
    """The places in it that must be filled ..."""
    further: tuple[str, ...] = ()
    """... and those that may be."""
    required: bool = False


PLAIN = Section()
ABOUT = Section(further=("query", "num"))
REGEXES = {VALIDATION: PLAIN, EXTRACTION: PLAIN}
METHODS: dict[str, dict[str, Section]] = {
    "singleturn_listwise": {
        "system_message": PLAIN,
        "prefix": ABOUT,
        "body": Section(("rank", "candidate"), ("score",), required=True),
        "suffix": Section(further=("query", "num", "psg_ids")),
        VALIDATION: Section(required=True),
        EXTRACTION: Section(required=True),
    },
    "multiturn_listwise": {
        "system_message": PLAIN,
        "prefix_user": ABOUT,
        "prefix_assistant": ABOUT,
        "body_user": Section(("rank", "candidate"), required=True),
        "body_assistant": Section(further=("rank",)),
        "suffix_user": ABOUT,
        VALIDATION: Section(required=True),
        EXTRACTION: Section(required=True),
    },
    "pairwise": {"system_message": PLAIN, "body": Section(("query", "doc1", "doc2"), required=True)},
    "pointwise": {"system_message": PLAIN, "body": Section(("query", "doc_content"), required=True)},
}
OWN: dict[str, Section] = {
    "name": PLAIN,
    "description": PLAIN,
    "system_message": PLAIN,
    "prefix": ABOUT,
    "body": Section(("candidate",), ("query", "num", "rank", "score"), required=True),
    "suffix": Section(further=("query", "num", "psg_ids")),
    **REGEXES,
}
"""A file of one's own, which names no method: what is shown of every candidate, and what stands round it."""
ALSO_CALLED = {"system": "system_message", "system_prompt": "system_message"}
ALSO_CALLED |= dict.fromkeys(("output_regex", "output_pattern", "regex"), EXTRACTION)
CHAINS = {"[2] > [3] > [1]": r"\d+", "[B] > [C] > [A]": "[A-Z]"}
"""Whole replies, with the expression that finds each identifier in them."""
REFUSED = {
    "rankfid": "it encodes every passage apart and fuses them in the decoder, which no backend here does",
    "reranker": "its roles system, query and document are for a server's own rerank endpoint, not for a prompt",
}
FILLED = {
    "query": "{{ query.text }}",
    "num": "{{ n }}",
    "rank": "{{ document.identifier }}",
    "candidate": "{{ document.text }}",
    "score": '{{ "" if document.score is none else document.score }}',
    "psg_ids": 'PASSAGE{{ documents | map(attribute="identifier") | join(", PASSAGE") }}',
    "doc1": "{{ left.text }}",
    "doc2": "{{ right.text }}",
    "doc_content": "{{ document.text }}",
}
CUT = (
    '{% set text = "Title: " ~ document.title ~ " Content: " ~ document.body if document.title else document.text %}\n'
)
CUT_CANDIDATE = {"candidate": "{{ text | words(words | int) }}"}
QUOTED = re.compile(r"\{[{%#]|\{\Z|(?:\A|\n)[ \t]+\Z|\r")
"""What the template engine would not leave as it is."""


class Foreign(NamedTuple):
    """A YAML file, its keys checked, each with its text and its line."""

    origin: str
    method: str
    """Empty where the file names none."""
    texts: Mapping[str, str]
    lines: Mapping[str, int]

    def wrong(self, key: str, problem: str) -> TemplateError:
        return TemplateError(f"{self.origin}:{self.lines.get(key, 1)}: {key}: {problem}")


def read_foreign(path: Path, variables: Mapping[str, str] | None = None) -> Template:
    """The template in a YAML file of another reranker. Raises TemplateError, which names file, line and key."""
    origin = str(path)
    return Template(translated(text_of(path, origin), origin), origin=origin, variables=variables)


def translated(text: str, origin: str) -> str:
    """The text of a YAML file as that of a template of ours."""
    foreign = _checked(*_keys(text, origin), origin)
    header, body = MAKERS[foreign.method](foreign)
    name = foreign.texts.get("name") or Path(origin).stem
    kind = f"a rank_llm template file, method {foreign.method}" if foreign.method else "a template file of one's own"
    told = {
        "name": name,
        "description": foreign.texts.get("description") or f"Read from {Path(origin).name}.",
        **header,
        "source": f"{Path(origin).name}, {kind}",
        "exact": True,
    }
    return f"---\n{yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=10**9)}---\n{body}"


def _keys(text: str, origin: str) -> tuple[dict[str, str], dict[str, int]]:
    """Every key with its text, and with its line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise TemplateError(f"{origin}:{line}: this is no YAML ({error.problem})") from error
    except yaml.YAMLError as error:
        raise TemplateError(f"{origin}: this is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise TemplateError(f"{origin}:1: a template in YAML has keys with texts, such as body: and suffix:")
    texts: dict[str, str] = {}
    lines: dict[str, int] = {}
    for key, value in root.value:
        line, name = key.start_mark.line + 1, ALSO_CALLED.get(key.value, key.value)
        if not isinstance(value, yaml.ScalarNode):
            raise TemplateError(f"{origin}:{line}: {key.value}: it must be a text")
        if name in texts:
            raise TemplateError(f"{origin}:{line}: {key.value}: the key stands there twice")
        texts[name], lines[name] = value.value, line
    return texts, lines


def _checked(texts: dict[str, str], lines: dict[str, int], origin: str) -> Foreign:
    """The file as one of its method's schema."""
    method = texts.pop("method", "")
    foreign = Foreign(origin, method, texts, lines)
    refused = "reranker" if texts.get("message_roles") == "reranker" else method
    if refused in REFUSED:
        raise foreign.wrong("message_roles" if refused == "reranker" else "method", f"{refused}: {REFUSED[refused]}")
    if method and method not in METHODS:
        raise foreign.wrong("method", f"there is no method {method!r}; there are {', '.join(METHODS)}")
    if not method and (like := _method_of(texts.get("body", ""))):
        foreign = foreign._replace(method=(method := like))
    sections = METHODS.get(method, OWN)
    for key in texts:
        if key not in sections:
            raise foreign.wrong(key, f"unknown key; a {method or 'template'} file has {', '.join(sections)}")
        _check_places(foreign, key, sections[key])
    if missing := [key for key, section in sections.items() if section.required and key not in texts]:
        raise foreign.wrong(missing[0], f"a {method or 'template'} file must have this key")
    around = [texts[key] for key in ("prefix", "suffix") if key in texts]
    if around and not any("query" in _places(foreign, "", text) for text in [*around, texts.get("body", "")]):
        raise foreign.wrong("prefix" if "prefix" in texts else "suffix", "{query} stands nowhere; name it here")
    if method == "multiturn_listwise" and not {"prefix_assistant", "body_assistant"} & set(texts):
        raise foreign.wrong("method", "turns need prefix_assistant or body_assistant; else write singleturn_listwise")
    return foreign


def _method_of(body: str) -> str:
    """The method that only its body's places tell; empty for a list of candidates."""
    return "pairwise" if "{doc1}" in body else "pointwise" if "{doc_content}" in body else ""


def _places(foreign: Foreign, key: str, text: str) -> list[str]:
    """The names of the places in a text."""
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise foreign.wrong(key, f"{error}; write a brace that is no place twice") from None
    for _, field, spec, conversion in fields:
        if field is not None and (spec or conversion):
            raise foreign.wrong(key, f"{{{field}}} must stand without a format of its own")
    return [field for _, field, _, _ in fields if field is not None]


def _check_places(foreign: Foreign, key: str, section: Section) -> None:
    if section is PLAIN or key in REGEXES:
        return  # these are not formatted: a brace in them is a brace
    there, known = _places(foreign, key, foreign.texts[key]), (*section.places, *section.further)
    for place in there:
        if place not in known:
            told = ", ".join(f"{{{name}}}" for name in known) or "none"
            raise foreign.wrong(key, f"{{{place}}} is unknown here; there are {told}")
    if missing := [place for place in section.places if place not in there]:
        raise foreign.wrong(key, f"{{{missing[0]}}} is missing")


def _written(text: str, cut: bool = False) -> str:
    """A `str.format` text as Jinja that gives the same."""
    filled = FILLED | (CUT_CANDIDATE if cut else {})
    parts = []
    for literal, field, _, _ in string.Formatter().parse(text):
        parts.append(_quoted(literal))
        if field is not None:
            parts.append(filled[field])
    return "".join(parts)


def _quoted(literal: str) -> str:
    return f"{{{{ {json.dumps(literal, ensure_ascii=False)} }}}}" if QUOTED.search(literal) else literal


def _message(role: str, content: str) -> str:
    return f'{{% message "{role}" %}}\n{content}{{% endmessage %}}\n'


def _each(body: str, cut: bool) -> str:
    """The body for every document. A line break behind a block's tag is taken for a part of the tag."""
    return f"{{% for document in documents %}}\n{CUT if cut else ''}{body}{{% endfor %}}\n"


def _system(foreign: Foreign) -> str:
    return _message("system", _quoted(foreign.texts["system_message"])) if foreign.texts.get("system_message") else ""


def _single_turn(foreign: Foreign) -> tuple[dict[str, object], str]:
    texts, cut = foreign.texts, bool(foreign.method)
    candidates = _each(_written(texts["body"], cut), cut)
    asked = _written(texts.get("prefix", "")) + candidates + _written(texts.get("suffix", ""))
    return _listwise_header(foreign), _system(foreign) + _message("user", asked)


def _multi_turn(foreign: Foreign) -> tuple[dict[str, object], str]:
    texts = foreign.texts
    parts = {key: _written(text, cut=True) for key, text in texts.items() if key not in REGEXES | {"system_message": 0}}
    body = [_system(foreign)]
    body += [_message(role, parts[f"prefix_{role}"]) for role in ("user", "assistant") if f"prefix_{role}" in parts]
    closing = parts.get("suffix_user", "")
    if "body_assistant" in parts:
        turns = _message("user", parts["body_user"]) + _message("assistant", parts["body_assistant"])
        body.append(_each(turns, cut=True))
        body += [_message("user", closing)] if closing else []
    else:  # one turn of the user holds all candidates and what is asked of them
        body.append(_message("user", _each(parts["body_user"], cut=True) + closing))
    return _listwise_header(foreign), "".join(body)


def _listwise_header(foreign: Foreign) -> dict[str, object]:
    extraction, validation = _regex(foreign, EXTRACTION), _regex(foreign, VALIDATION)
    if not validation:  # one expression may be for the whole reply
        finds = next((finds for chain, finds in CHAINS.items() if extraction and re.fullmatch(extraction, chain)), "")
        validation, extraction = (extraction, finds) if finds else ("", extraction)
    # Whether the places {rank} are filled with numbers or with letters is told by the expression that finds them.
    letters = (
        bool(extraction) and not re.search(extraction, "[2] PASSAGE2 2") and re.search(extraction, "[B] PASSAGEB B")
    )
    thinks = any("<think>" in text for text in foreign.texts.values())
    header: dict[str, object] = {"question": "order", "parser": "pattern" if extraction else "brackets"}
    header |= {"validation": validation} if validation else {}
    header |= {"extraction": extraction} if extraction else {}
    header |= {"identifiers": "letters" if letters else "numbers"}
    header |= {"completion_tokens": 24, "completion_tokens_per_item": 6}
    header |= {"thinking_tokens": THINKING_TOKENS, "close": "Your thinking ends here. Answer now."} if thinks else {}
    example = "[B] > [A]" if letters else "[2] > [1]"
    header["restate"] = (
        f"Write nothing but the identifiers of all passages, most relevant first, in the form {example}."
    )
    return header | ({"variables": {"words": WORDS}} if foreign.method else {})


def _regex(foreign: Foreign, key: str) -> str:
    """An expression, out of the Python literal as which rank_llm's files hold it."""
    text = foreign.texts.get(key, "").strip()
    pattern = text
    if re.match(r"[rRuU]?[\"']", text):
        try:
            pattern = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise foreign.wrong(key, f"{text} is no Python string") from None
    try:
        re.compile(pattern)
    except re.error as error:
        raise foreign.wrong(key, f"it is no regular expression ({error})") from None
    return pattern


ONE_TOKEN: dict[str, object] = {"logprobs": 20, "completion_tokens": 1}


def _pairwise(foreign: Foreign) -> tuple[dict[str, object], str]:
    header = {"question": "compare", "parser": "ab"} | ONE_TOKEN
    return _scored(foreign, header, {"false": 0, "true": 1})


def _pointwise(foreign: Foreign) -> tuple[dict[str, object], str]:
    header = {"question": "grade", "parser": "label", "scoring": "probability"} | ONE_TOKEN
    return _scored(
        foreign, header, {"no": 0, "yes": 1} if "system_message" in foreign.texts else {"false": 0, "true": 1}
    )


def _scored(foreign: Foreign, header: dict[str, object], labels: Mapping[str, int]) -> tuple[dict[str, object], str]:
    """Without a system message it is the raw input of an encoder-decoder such as monoT5 or duoT5."""
    header = header | {"labels": dict(labels)}
    body = _written(foreign.texts["body"])
    if "system_message" not in foreign.texts:
        return header | {"needs": ["text", "raw", "logprobs"], "raw": True}, body
    restate = "Write nothing but the one word " + " or ".join(labels) + "."
    return header | {"needs": ["text", "logprobs"], "restate": restate}, _system(foreign) + _message("user", body)


MAKERS = {
    "": _single_turn,
    "singleturn_listwise": _single_turn,
    "multiturn_listwise": _multi_turn,
    "pairwise": _pairwise,
    "pointwise": _pointwise,
}
