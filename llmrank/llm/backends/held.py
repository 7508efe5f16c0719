"""Replies that cannot be malformed: which tokens may stand next where the output is held to words or a permutation.

The engines ask `Vocabulary.options` at each place. Where the form leaves one token only, none is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
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

    left: frozenset[int]
    begun: bytes


class Permutation:
    """Every identifier exactly once: `before`, the identifiers with `between` among them, `after`."""

    def __init__(self, names: Sequence[str], *, before: str = "", between: str = BETWEEN, after: str = "") -> None:
        self._names = [name.encode() for name in names]
        self._before, self._between, self._after = before.encode(), between.encode(), after.encode()
        self.start = Place(frozenset(range(len(names))), b"")
        self.alphabet = frozenset(b"".join([*self._names, self._before, self._between, self._after]))
        self.nexts = lru_cache(maxsize=1 << 12)(self._nexts)

    def _nexts(self, state: Place) -> dict[int, Place]:
        left, begun = state
        before = self._before if len(left) == len(self._names) else b""
        behind = self._between if len(left) > 1 else self._after
        after: dict[int, Place] = {}
        n = len(begun)
        for i in left:
            whole = before + self._names[i] + behind
            if whole.startswith(begun):
                ended = len(whole) == n + 1
                after[whole[n]] = Place(left - {i}, b"") if ended else Place(left, whole[: n + 1])
        return after

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
