"""Replies that cannot be malformed: which tokens may stand next where the output is held to words or a permutation.

The engines ask `Vocabulary.options` at each place. Where the form leaves one token only, none is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, Protocol

from llmrank.llm.types import Constraint

BETWEEN = " > "

State = Any


class Form(Protocol):
    """A set of texts, as a machine that reads them byte by byte."""

    start: State
    alphabet: frozenset[int]

    def nexts(self, state: State) -> Mapping[int, State]:
        """The bytes that may come next, each with the state that it leads to."""
        ...

    def done(self, state: State) -> bool:
        """Whether the text may end here."""
        ...


class Words:
    """One of several words; `spaced`: with a space before it or without."""

    def __init__(self, words: Sequence[str], *, spaced: bool = False) -> None:
        self._words = frozenset(f"{before}{word}".encode() for word in words for before in ("", " ")[: 1 + spaced])
        self.start: bytes = b""
        self.alphabet = frozenset(b"".join(self._words))
        self.nexts = lru_cache(maxsize=1 << 12)(self._nexts)

    def _nexts(self, state: bytes) -> dict[int, bytes]:
        n = len(state)
        return {w[n]: w[: n + 1] for w in self._words if len(w) > n and w.startswith(state)}

    def done(self, state: bytes) -> bool:
        return state in self._words


class Place(NamedTuple):
    """Where a permutation stands: the identifiers that were not named yet, and what is written of the next one."""

    left: int
    """A bit for each."""
    begun: bytes


class Permutation:
    """Every identifier exactly once: `before`, the identifiers with `between` among them, `after`."""

    def __init__(self, names: Sequence[str], *, before: str = "", between: str = BETWEEN, after: str = "") -> None:
        self._names = [name.encode() for name in names]
        self._before, self._between, self._after = before.encode(), between.encode(), after.encode()
        self._all = (1 << len(names)) - 1
        self.start = Place(self._all, b"")
        self.alphabet = frozenset(b"".join([*self._names, self._before, self._between, self._after]))
        self._ways = cache(self._ways_of)

    def nexts(self, state: Place) -> dict[int, Place]:
        left, begun = state
        last = left & (left - 1) == 0
        return {
            byte: Place(left & ~ended, b"") if left & ended else Place(left, spelled)
            for byte, spelled, names, ended in self._ways(begun, left == self._all, last)
            if left & names
        }

    def _ways_of(self, begun: bytes, first: bool, last: bool) -> list[tuple[int, bytes, int, int]]:
        """The bytes that may come next, what is then begun, and the names that go on so and those that end there."""
        found: dict[bytes, tuple[int, int]] = {}
        for i, name in enumerate(self._names):
            whole = (self._before if first else b"") + name + (self._after if last else self._between)
            if whole.startswith(begun) and whole != begun:
                spelled = whole[: len(begun) + 1]
                names, ended = found.get(spelled, (0, 0))
                found[spelled] = names | 1 << i, ended | (whole == spelled) << i
        return [(spelled[-1], spelled, *masks) for spelled, masks in found.items()]

    def done(self, state: Place) -> bool:
        return not state.left


def form_of(constraint: Constraint, *, spaced: bool = False) -> Form | None:
    """The form that a constraint asks for; None for a grammar, which an engine's own machinery reads.

    A permutation's value is the identifiers, which are written in brackets, or a mapping that gives `identifiers` as
    they are to be written, with what stands `before`, `between` and `after`.
    """
    if constraint.kind == "choice":
        return Words(constraint.value, spaced=spaced)
    if constraint.kind == "permutation":
        value = constraint.value
        if isinstance(value, Mapping):
            around = {name: value[name] for name in ("before", "between", "after") if name in value}
            return Permutation(value["identifiers"], **around)
        return Permutation([f"[{name.strip('[]')}]" for name in value])
    return None


def begun(form: Form, tail: str) -> State:
    """Where a reply begins whose prompt ends in `tail`: a bracket that is there already is not written again."""
    for length in range(min(len(tail), 8), 0, -1):
        given = tail[-length:]
        if any(c.isalnum() or c.isspace() for c in given):
            continue
        state = form.start
        for byte in given.encode():
            state = form.nexts(state).get(byte)
            if state is None:
                break
        else:
            return state
    return form.start


class _Node:
    __slots__ = ("children", "token")

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.token: int | None = None


class Vocabulary:
    """A model's tokens by their bytes."""

    def __init__(self, pieces: Sequence[bytes], without: Collection[int] = ()) -> None:
        self._pieces = [(i, piece) for i, piece in enumerate(pieces) if piece and i not in without]
        self._tries: dict[frozenset[int], _Node] = {}

    def options(self, form: Form, state: State) -> dict[int, State]:
        """The tokens that may stand next, each with the state that it leads to.

        A token is left out where longer ones say all that may follow it: so a word has the tokens that the model itself
        would write.
        """
        found: dict[int, State] = {}
        root = self._trie(form.alphabet)
        for byte, after in form.nexts(state).items():
            if (child := root.children.get(byte)) is not None:
                self._collect(form, child, after, found)
        return found

    def _collect(self, form: Form, node: _Node, state: State, found: dict[int, State]) -> bool:
        """Adds the tokens from here on; whether they say all that may follow."""
        follow = []
        for byte, after in form.nexts(state).items():
            child = node.children.get(byte)
            follow.append(child is not None and self._collect(form, child, after, found))
        covered = bool(follow) and all(follow) and not form.done(state)
        if node.token is not None and not covered:
            found[node.token] = state
        return covered or node.token is not None

    def _trie(self, alphabet: frozenset[int]) -> _Node:
        if (known := self._tries.get(alphabet)) is not None:
            return known
        root = _Node()
        for token, piece in self._pieces:
            if alphabet.issuperset(piece):
                node = root
                for byte in piece:
                    node = node.children.setdefault(byte, _Node())
                if node.token is None:
                    node.token = token
        if len(self._tries) > 64:
            self._tries.clear()
        self._tries[alphabet] = root
        return root
