"""What nano can do and what it cannot: `python experiments/nano_judge/evaluate.py DATA` writes results.csv.

DATA: a folder with Cranfield and NovelEval as `corpora/cranfield.tar.gz` and `corpora/noveleval.tar.gz`.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import ir_measures
from data import BM25, WORD, Doc, docstrings, split
from ir_measures import nDCG

from llmrank import Document, Query, Reranker
from llmrank.llm.backends.lexical import LexicalBackend
from llmrank.llm.backends.nano import NanoBackend

OUTPUT = Path(__file__).with_name("results.csv")
DEPTH = 20  # documents of a Cranfield query, by BM25
ORDERS = 20  # random ones, over which chance is averaged
CANDIDATES = 20


class Row(NamedTuple):
    """One figure of the table."""

    data: str
    n: int
    """Queries."""
    figure: str
    judge: str
    value: float


class Collection(NamedTuple):
    """Queries with their candidates in the order of BM25, and the grades."""

    name: str
    candidates: list[tuple[Query, list[Document]]]
    grades: list[ir_measures.Qrel]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, help="folder of the model; else the one that ships")
    parser.add_argument("--limit", type=int, help="queries of each kind, for a quick look")
    arguments = parser.parse_args()
    nano = NanoBackend(arguments.model)
    rows = []
    for row in figures(nano, arguments.data, arguments.limit):
        print(f"{row.data:28} {row.n:4} {row.figure:18} {row.judge:24} {row.value:.3f}", flush=True)
        rows.append(row._replace(value=round(row.value, 3)))
    if arguments.limit is None and arguments.model is None:
        with OUTPUT.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([Row._fields, *rows])


def figures(nano: NanoBackend, data: Path, limit: int | None) -> Iterator[Row]:
    yield from on_docstrings(nano, split(docstrings())[1], limit)
    for collection in (novel_eval(data), cranfield(data)):
        yield from on_collection(nano, collection._replace(candidates=collection.candidates[:limit]))


def on_docstrings(nano: NanoBackend, docs: list[Doc], limit: int | None) -> Iterator[Row]:
    """The first sentence of a docstring as the query, its rest among 19 others' rests."""
    bm25, rng = BM25([doc.words for doc in docs]), random.Random(0)
    asked = rng.sample(range(len(docs)), limit or 200)
    for name in ("random", "near"):
        scored: dict[str, list[list[float]]] = {"BM25": [], "nano": []}
        judged = []
        for i in asked:
            query = WORD.findall(docs[i].first.lower())
            scores = bm25.scores(query)
            near = [j for j in sorted(scores, key=lambda j: -scores[j]) if j != i]
            pool = near if name == "near" else [j for j in range(len(docs)) if j != i]
            others = pool[: CANDIDATES - 1] if name == "near" else rng.sample(pool, CANDIDATES - 1)
            scored["BM25"].append([scores.get(j, 0.0) for j in [i, *others]])
            judged.append((Query(str(i), docs[i].first), [Document(str(j), docs[j].rest) for j in [i, *others]]))
        scored["nano"] = list(scores_of(nano, judged))
        for judge, lists in [("chance", None), *scored.items()]:
            among = f"docstrings, {name} others"
            auc = 0.5 if lists is None else sum(map(_auc, lists)) / len(lists)
            first = 1 / CANDIDATES if lists is None else sum(map(_first, lists)) / len(lists)
            yield Row(among, len(asked), "AUC", judge, auc)
            yield Row(among, len(asked), "right one first", judge, first)
        # Against one other, through the prompt that shows both, in both orders.
        yield Row(among, len(asked), "right of two", "chance", 0.5)
        yield Row(among, len(asked), "right of two", "BM25", sum(_auc(s[:2]) for s in scored["BM25"]) / len(asked))
        two = [(query, documents[:2]) for query, documents in judged]
        preferred = [_auc(scores) for scores in scores_of(nano, two, "all-pairs")]
        yield Row(among, len(asked), "right of two", "nano, pairwise", sum(preferred) / len(asked))


def scores_of(
    nano: NanoBackend, judged: Sequence[tuple[Query, list[Document]]], method: str = "pointwise"
) -> Iterator[list[float]]:
    """The scores of the documents of each query, in their order: P(yes), or shares of wins."""
    reranker = Reranker(method, backend=nano, ledger="none")
    for ranking, (_, documents) in zip(reranker.rank_many(judged), judged, strict=True):
        found = {hit.document.id: hit.score or 0.0 for hit in ranking}
        yield [found[document.id] for document in documents]


def _auc(scores: list[float]) -> float:
    """How often the first is above another; a tie counts half."""
    right, *others = scores
    return sum(0.5 * (right > other) + 0.5 * (right >= other) for other in others) / len(others)


def _first(scores: list[float]) -> float:
    """Whether the first is above all others; ties share the place."""
    right, *others = scores
    return 0.0 if max(others) > right else 1 / (1 + others.count(right))


def on_collection(nano: NanoBackend, collection: Collection) -> Iterator[Row]:
    """nDCG@10 of the same candidates in several orders. A method is told them in the order of their ids, so that
    what it leaves tied gains nothing from BM25."""
    candidates = [(query, sorted(documents, key=lambda d: d.id)) for query, documents in collection.candidates]
    queries = {query.id for query, _ in candidates}
    grades = [g for g in collection.grades if g.query_id in queries]

    def row(judge: str, orders: Sequence[Sequence[Document]]) -> Row:
        run = [
            ir_measures.ScoredDoc(query.id, document.id, -place)
            for (query, _), order in zip(candidates, orders, strict=True)
            for place, document in enumerate(order)
        ]
        value = ir_measures.calc_aggregate([nDCG @ 10], grades, run)[nDCG @ 10]
        return Row(collection.name, len(queries), "nDCG@10", judge, value)

    rng = random.Random(0)
    chance = [row("chance", [rng.sample(ds, len(ds)) for _, ds in candidates]).value for _ in range(ORDERS)]
    yield row("chance", [ds for _, ds in candidates])._replace(value=sum(chance) / ORDERS)
    judges = {
        "lexical": Reranker("pointwise", backend=LexicalBackend(), ledger="none"),
        "nano, yes-no": Reranker("pointwise", backend=nano, ledger="none"),
        "nano, graded": Reranker("graded", backend=nano, ledger="none"),
    }
    for judge, reranker in judges.items():
        yield row(judge, [[hit.document for hit in ranking] for ranking in reranker.rank_many(candidates)])
    yield row("BM25", [documents for _, documents in collection.candidates])


def novel_eval(data: Path) -> Collection:
    with tarfile.open(data / "corpora" / "noveleval.tar.gz") as files:
        queries, corpus, judged = (_text(files, name) for name in ("queries.tsv", "corpus.tsv", "qrels.txt"))
    texts = dict(line.split("\t", 1) for line in corpus.splitlines() if line)
    grades = [ir_measures.Qrel(q, d, int(g)) for q, _, d, g in map(str.split, judged.splitlines())]
    bm25, ids = BM25([WORD.findall(text.lower()) for text in texts.values()]), list(texts)
    candidates = []
    for qid, text in (line.split("\t", 1) for line in queries.splitlines() if line):
        scores = bm25.scores(WORD.findall(text.lower()))
        own = sorted((g.doc_id for g in grades if g.query_id == qid), key=lambda d: -scores.get(ids.index(d), 0.0))
        candidates.append((Query(qid, text), [Document(d, texts[d]) for d in own]))
    return Collection("NovelEval", candidates, grades)


def cranfield(data: Path) -> Collection:
    with tarfile.open(data / "corpora" / "cranfield.tar.gz") as files:
        queries, corpus, judged = (_text(files, name) for name in ("cran.qry", "cran.all.1400", "cranqrel"))
    documents = [Document(number, parts[".W"]) for number, parts in _records(corpus)]
    bm25 = BM25([WORD.findall(document.text.lower()) for document in documents])
    candidates = []
    for i, (_, parts) in enumerate(_records(queries), start=1):  # the judgments number the queries from 1
        near = bm25.near(WORD.findall(parts[".W"].lower()), DEPTH)
        candidates.append((Query(str(i), parts[".W"].rstrip(" .")), [documents[j] for j in near]))
    # Its grades run from 1, the most relevant, to 4; 5 is not relevant, and so is the -1 of some copies.
    lines = (line.split() for line in judged.splitlines() if line.strip())
    worth = {"1": 4, "2": 3, "3": 2, "4": 1}
    grades = {(q, d): worth.get(g, 0) for q, d, g in lines}
    return Collection("Cranfield", candidates, [ir_measures.Qrel(q, d, g) for (q, d), g in grades.items()])


def _records(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for record in re.split(r"(?m)^\.I ", text)[1:]:
        number, *parts = re.split(r"(?m)^(\.[TABW])$", record)
        yield number.strip(), {name: " ".join(part.split()) for name, part in zip(parts[::2], parts[1::2], strict=True)}


def _text(files: tarfile.TarFile, name: str) -> str:
    (member,) = (m for m in files.getmembers() if m.name.endswith(f"/{name}"))
    file = files.extractfile(member)
    assert file is not None
    return io.TextIOWrapper(file, encoding="utf-8").read()


if __name__ == "__main__":
    main()
