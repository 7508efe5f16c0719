"""What nano learns from: the standard library's docstrings, queries made from them, and groups of passages for each."""

from __future__ import annotations

import ast
import math
import random
import re
import sys
import sysconfig
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(])|\n\s*\n|:\n")
LEAST_WORDS = 12  # of a passage
HELD_OUT = 8  # one module in so many is kept from training
FRAMES = (
    "{}", "{}", "{}", "{}", "what is {}", "what is the {}", "how does {} work", "how to {}", "why does {}", "which {}",
    "where is {}", "how many {}", "when did {}", "who is the {}", "how do you {}", "{} in python", "what are the {} of",
)  # fmt: skip


@dataclass(frozen=True)
class Doc:
    """A docstring: its first sentence and what follows it."""

    module: str
    first: str
    rest: str

    @cached_property
    def words(self) -> list[str]:
        return WORD.findall(self.rest.lower())


def docstrings() -> list[Doc]:
    """Every docstring of the running Python's standard library that has a first sentence and a rest, once each."""
    found: dict[str, Doc] = {}
    for module, text in [*_from_sources(), *_from_builtins()]:
        first, rest = _parted(text)
        if 3 <= len(WORD.findall(first)) <= 40 and len(WORD.findall(rest)) >= LEAST_WORDS:
            found.setdefault(rest, Doc(module, first, rest))
    return list(found.values())


def split(docs: list[Doc]) -> tuple[list[Doc], list[Doc]]:
    """The docstrings to train on, and those held out: whole modules, so that no near copy crosses over."""
    modules = sorted({doc.module for doc in docs})
    random.Random(0).shuffle(modules)
    held = set(modules[::HELD_OUT])
    return [d for d in docs if d.module not in held], [d for d in docs if d.module in held]


def _from_sources() -> list[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    texts = []
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if "site-packages" in place.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):  # test data of the parser itself
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = (node for node in ast.walk(tree) if isinstance(node, documented))
        texts += [(".".join(place.with_suffix("").parts[:2]), text) for n in nodes if (text := ast.get_docstring(n))]
    return texts


def _from_builtins() -> list[tuple[str, str]]:
    texts = []
    for name in sorted(sys.builtin_module_names):
        for _, thing in sorted(vars(import_module(name)).items()):
            members = [m for _, m in sorted(vars(thing).items())] if isinstance(thing, type) else []
            for documented in (thing, *members):
                text = getattr(documented, "__doc__", None)
                if isinstance(text, str):
                    texts.append((name, text))
    return texts


def _parted(text: str) -> tuple[str, str]:
    parts = SENTENCE_END.split(text.strip(), maxsplit=1)
    first, rest = (" ".join(part.split()) for part in (*parts, "")[:2])
    return first, rest


class BM25:
    """BM25 over some texts; `near` gives the places of those nearest to a query."""

    def __init__(self, texts: list[list[str]], k1: float = 0.9, b: float = 0.4) -> None:
        self.n = len(texts)
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        average = sum(map(len, texts)) / len(texts)
        for i, words in enumerate(texts):
            length = k1 * (1 - b + b * len(words) / average)
            for word, count in Counter(words).items():
                self._postings[word].append((i, count / (count + length)))

    def idf(self, word: str) -> float:
        seen = len(self._postings.get(word, ()))
        return math.log(1 + (self.n - seen + 0.5) / (seen + 0.5))

    def scores(self, query: list[str]) -> dict[int, float]:
        found: dict[int, float] = defaultdict(float)
        for word in set(query):
            idf = self.idf(word)
            for i, weight in self._postings.get(word, ()):
                found[i] += idf * weight
        return found

    def near(self, query: list[str], depth: int) -> list[int]:
        found = self.scores(query)
        return sorted(found, key=lambda i: (-found[i], i))[:depth]


class Group:
    """A query with one passage that answers it, followed by passages that do not: half near ones, half random."""

    def __init__(self, query: str, passages: list[str]) -> None:
        self.query = query
        self.passages = passages


class Groups:
    """Draws groups without end. With `rename` words are swapped for others of like frequency, the same in all texts
    of a group: so the model has to find any word in a passage again, not only those that docstrings are full of."""

    def __init__(self, docs: list[Doc], seed: int, *, rename: float = 0.5, size: int = 4) -> None:
        self._docs = docs
        self._random = random.Random(seed)
        self._bm25 = BM25([doc.words for doc in docs])
        self._rename = rename
        self._size = size
        frequency = Counter(word for doc in docs for word in doc.words)
        self._stop = {word for word, _ in frequency.most_common(120)}
        self._bins: dict[int, list[str]] = defaultdict(list)
        for word, count in sorted(frequency.items()):
            self._bins[count.bit_length()].append(word)
        self._bin = {word: self._bins[count.bit_length()] for word, count in frequency.items()}

    def draw(self, longest: int) -> Group:
        rng = self._random
        while True:
            i = rng.randrange(len(self._docs))
            doc = self._docs[i]
            passage = self._window(doc.rest, longest)
            query = doc.first if rng.random() < 0.4 else self._keywords(passage)
            if query:
                break
        about = [word for word in WORD.findall(query.lower()) if word not in self._stop]
        near = [j for j in self._bm25.near(about, 12) if j != i]
        chosen = rng.sample(near, min(len(near), self._size // 2))
        while len(chosen) < self._size - 1:
            j = rng.randrange(len(self._docs))
            if j != i and j not in chosen:
                chosen.append(j)
        others = [self._window(self._docs[j].rest, longest, about) for j in chosen]
        group = Group(query, [passage, *others])
        return self._renamed(group) if rng.random() < self._rename else group

    def _window(self, text: str, longest: int, about: list[str] | None = None) -> str:
        """So many words of the text; of several windows the one with most words `about` something."""
        words = text.split()
        length = self._random.randint(min(LEAST_WORDS, longest), longest)
        if len(words) <= length:
            return text
        starts = [self._random.randint(0, len(words) - length) for _ in range(3 if about else 1)]
        if about:
            wanted = set(about)
            starts.sort(key=lambda s: -len(wanted.intersection(WORD.findall(" ".join(words[s : s + length]).lower()))))
        return " ".join(words[starts[0] : starts[0] + length])

    def _keywords(self, passage: str) -> str:
        """A query in the manner of people who search: some telling words of one part of the passage."""
        rng = self._random
        words = [w for w in WORD.findall(passage) if len(w) < 20]
        start = rng.randint(0, max(0, len(words) - 12))
        part = words[start : start + 24]
        if rng.random() < 0.3:  # as they stand
            length = rng.randint(3, 8)
            begin = rng.randint(0, max(0, len(part) - length))
            chosen = part[begin : begin + length]
        else:
            telling = sorted({w for w in part if w.lower() not in self._stop}, key=part.index)
            weights = [self._bm25.idf(w.lower()) for w in telling]
            wanted = rng.randint(1, 5)
            chosen = []
            while telling and len(chosen) < wanted:
                (k,) = rng.choices(range(len(telling)), weights)
                chosen.append(telling.pop(k))
                weights.pop(k)
            if rng.random() < 0.6:
                chosen.sort(key=part.index)
        if not any(w.lower() not in self._stop for w in chosen):
            return ""
        if rng.random() < 0.4:  # a query seldom has only words that the passage has
            (other,) = rng.choices(list(self._bin), k=1)
            chosen.insert(rng.randint(0, len(chosen)), other)
        return rng.choice(FRAMES).format(" ".join(chosen))

    def _renamed(self, group: Group) -> Group:
        rng, names = self._random, dict[str, str]()

        def name(match: re.Match[str]) -> str:
            word = match[0].lower()
            if word in self._stop:
                return word
            if word not in names:
                like = self._bin.get(word)
                names[word] = rng.choice(like) if like and rng.random() < 0.8 else _invented(rng)
            return names[word]

        return Group(WORD.sub(name, group.query), [WORD.sub(name, passage) for passage in group.passages])


def _invented(rng: random.Random) -> str:
    """A word that no text has: a name, a number."""
    if rng.random() < 0.2:
        return str(rng.randint(0, 3000))
    syllables = (rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") + rng.choice(" nrsl ") for _ in range(3))
    return "".join(syllables).replace(" ", "")[: rng.randint(4, 9)]
