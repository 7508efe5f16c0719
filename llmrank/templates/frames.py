"""Frames: a prompt with places for its texts, rendered once for all prompts about so many documents.

Most templates insert the query and the texts as they are. For these the template engine need not run for every prompt:
one rendering with marks in place of the texts shows where they belong. A template that looks into a text, with a filter
or a condition, is told by its syntax tree and rendered anew each time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

from jinja2 import nodes

from llmrank.data.types import Query

QUERY_FIELDS = tuple(f.name for f in fields(Query) if f.name != "id")
# A text that is shown holds no null character (see prepare.py), so nothing but a mark can look like one.
MARK = re.compile("\0(\\d+)\0")
SUBJECTS = ("query", "document", "left", "right")


class Frame(NamedTuple):
    """The messages of a prompt, each as pieces of text with the numbers of what belongs between them."""

    messages: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...]
    """(role, pieces, numbers): one number fewer than pieces."""

    def filled(self, inserts: Sequence[str], *, exact: bool = False) -> tuple[tuple[str, str], ...]:
        """The messages with the inserts in their places, trimmed as message blocks are, unless raw or `exact`."""
        return tuple(
            [
                (role, pieces[0] if len(pieces) == 1 else _joined(pieces, numbers, inserts, role != "" and not exact))
                for role, pieces, numbers in self.messages
            ]
        )


def marks(documents: int) -> tuple[Query, list[str]]:
    """A query and texts that consist of marks: the query's fields come first, then the documents."""
    of_query = {name: f"\0{i}\0" for i, name in enumerate(QUERY_FIELDS)}
    return Query("", **of_query), [f"\0{len(QUERY_FIELDS) + i}\0" for i in range(documents)]


def inserts(query: Query, texts: Sequence[str]) -> list[str]:
    """What belongs at the marks, in the order of their numbers."""
    return [query.text, query.description, query.narrative, query.instruction, *texts]


def frame(messages: Sequence[tuple[str, str]]) -> Frame:
    """The frame behind messages that were rendered with marks."""
    return Frame(tuple((role, *_split(content)) for role, content in messages))


def verbatim(tree: nodes.Template) -> bool:
    """Whether the template inserts the query and the texts as they are, and asks nothing else about them."""
    listed = {loop.target.name for loop in tree.find_all(nodes.For) if _over_documents(loop)}  # type: ignore[attr-defined]
    return _verbatim(tree, listed | set(SUBJECTS), listed)


def _verbatim(node: nodes.Node, subjects: set[str], listed: set[str]) -> bool:
    if isinstance(node, nodes.FilterBlock | nodes.AssignBlock | nodes.Macro):
        return False  # these take what was rendered within them and may change it
    if isinstance(node, nodes.CallBlock) and not isinstance(node.call.node, nodes.ExtensionAttribute):
        return False
    if isinstance(node, nodes.For) and _over_documents(node):
        parts = [*node.body, *node.else_, *filter(None, [node.test])]
        return all(_verbatim(part, subjects, listed) for part in parts)
    if isinstance(node, nodes.Output):
        return all(_inserted(part, subjects, listed) or _verbatim(part, subjects, listed) for part in node.nodes)
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name in subjects:
        return node.attr == "identifier"  # the same for all documents shown in one place
    if isinstance(node, nodes.Name):
        return node.name not in subjects and node.name != "documents"
    return all(_verbatim(child, subjects, listed) for child in node.iter_child_nodes())


def _inserted(node: nodes.Node, subjects: set[str], listed: set[str]) -> bool:
    if not (isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name in subjects):
        return False
    return node.attr in QUERY_FIELDS if node.node.name == "query" and "query" not in listed else node.attr == "text"


def _over_documents(node: nodes.For) -> bool:
    return isinstance(node.iter, nodes.Name) and node.iter.name == "documents" and isinstance(node.target, nodes.Name)


def _split(content: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    parts = MARK.split(content)
    return tuple(parts[::2]), tuple(map(int, parts[1::2]))


def _joined(pieces: Sequence[str], numbers: Sequence[int], texts: Sequence[str], trimmed: bool) -> str:
    parts = [""] * (2 * len(pieces) - 1)
    parts[::2] = pieces
    parts[1::2] = [texts[i] for i in numbers]
    text = "".join(parts)
    return text.strip("\n") if trimmed else text
