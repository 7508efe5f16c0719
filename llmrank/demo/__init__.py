"""A small collection that ships with the package: twelve queries, twenty graded passages each, a BM25 run."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
QUERIES, CORPUS, QRELS, RUN = (FOLDER / name for name in ("queries.tsv", "corpus.jsonl", "qrels.txt", "run.trec"))
