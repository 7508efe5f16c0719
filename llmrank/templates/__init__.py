"""Templates: `load` takes a name such as `listwise/rank`, or the path of one's own or another reranker's file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from llmrank.templates.foreign import SUFFIXES, read_foreign
from llmrank.templates.shown import Example, Rendered, Shown
from llmrank.templates.template import Template, TemplateError, read_template

__all__ = ["Example", "Rendered", "Shown", "Template", "TemplateError", "folder", "load", "names"]

SUFFIX = ".j2"


def load(name: str | Path, variables: Mapping[str, str] | None = None) -> Template:
    """The template of that name, or in that file, with its own variables as given.

    A file in YAML is read as rank_llm and others write theirs. Raises TemplateError, which names the file and what is
    wrong in it.
    """
    path = folder() / f"{name}{SUFFIX}"
    if isinstance(name, str) and path.is_file():
        return read_template(path, variables, origin=name)
    if (file := Path(name)).is_file():
        return (read_foreign if file.suffix in SUFFIXES else read_template)(file, variables)
    near = difflib.get_close_matches(str(name), names(), n=1)
    hint = f"; did you mean {near[0]}?" if near else "; `llmrank prompts list` shows the names"
    raise TemplateError(f"{name}: there is no template of this name and no such file{hint}")


def names() -> list[str]:
    """The names of all templates that ship with the package."""
    root = folder()
    return sorted(str(path.relative_to(root).with_suffix("")).replace("\\", "/") for path in root.rglob(f"*{SUFFIX}"))


def folder() -> Path:
    """Where the shipped templates lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "prompts"
    return installed if installed.is_dir() else package.parent / "prompts"
