"""The lexical round trip: where a corpus's documents stand for new queries by BM25, in memory that no corpus outgrows.

Two passes over the corpus and no index: the first counts documents and words, the second scores. For a few thousand
queries that costs less than an index, and only the best of each query are held.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from llmrank.ask.examples import K1, B
from llmrank.data.types import Document
from llmrank.llm.backends.lexical import WORD, words

Corpus = Callable[[], Iterable[Document]]
"""Begins a pass over the documents."""


class Found(NamedTuple):
    """A document for a query."""

    doc_id: str
    score: float


def analysed(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def full_text(document: Document) -> str:
    """Title and text."""
    return f"{document.title}\n{document.text}" if document.title else document.text


def nearest(queries: Mapping[str, str], corpus: Corpus, depth: int) -> dict[str, list[Found]]:
    """The `depth` best documents of each query, best first; equal ones as they stand in the corpus.

    Okapi BM25 with k1 0.9 and b 0.4 over the words of title and text; stop words of a query count only where it has no
    others. Documents that share no word with a query are not among its best.
    """
    terms = {query_id: words(text) for query_id, text in queries.items()}
    ids = list(queries)
    asking: dict[str, list[int]] = defaultdict(list)
    for number, query_id in enumerate(ids):
        for term in terms[query_id]:
            asking[term].append(number)
    frequency: Counter[str] = Counter()
    documents = length = 0
    for document in corpus():
        said = analysed(full_text(document))
        documents, length = documents + 1, length + len(said)
        frequency.update(asking.keys() & set(said))
    mean = length / documents if length else 1.0
    weights = {t: math.log(1 + (documents - n + 0.5) / (n + 0.5)) for t, n in frequency.items()}
    best: list[list[tuple[float, int, str]]] = [[] for _ in ids]
    for place, document in enumerate(corpus()):
        said = analysed(full_text(document))
        scores: dict[int, float] = defaultdict(float)
        normal = K1 * (1 - B + B * len(said) / mean)
        for term, count in sorted(Counter(word for word in said if word in weights).items()):
            worth = weights[term] * count * (K1 + 1) / (count + normal)
            for number in asking[term]:
                scores[number] += worth
        for number, score in scores.items():
            _keep(best[number], (score, -place, document.id), depth)
    return {
        query_id: [Found(doc_id, score) for score, _, doc_id in sorted(held, reverse=True)]
        for query_id, held in zip(ids, best, strict=True)
    }


def _keep(held: list[tuple[float, int, str]], hit: tuple[float, int, str], depth: int) -> None:
    if len(held) < depth:
        heapq.heappush(held, hit)
    elif hit > held[0]:
        heapq.heapreplace(held, hit)
