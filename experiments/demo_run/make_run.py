"""BM25 over the bundled collection: writes the first-stage run of `llmrank demo`."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "llmrank" / "demo"
K1, B = 0.9, 0.4
STOPPED = (
    "a an and are as at be but by did do does for from had has have how if in into is it its no not of on or so such "
    "that the their then there these they this to was were what when where which who why will with you your"
)
STOP_WORDS = frozenset(STOPPED.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DEMO / "run.trec", help="where to write the run")
    output: Path = parser.parse_args().output
    output.write_bytes(run_text().encode())


def run_text() -> str:
    """Every query's candidates are the documents judged for it; the statistics are those of the whole corpus."""
    score = bm25(read_corpus())
    candidates = read_candidates()
    lines: list[str] = []
    for qid, text in read_queries().items():
        scored = [(f"{score(tokens(text), doc_id):.6f}", doc_id) for doc_id in candidates[qid]]
        # Ties fall by document id, as trec_eval breaks them: the ranks written are the ranks evaluated.
        scored.sort(key=lambda pair: (float(pair[0]), pair[1]), reverse=True)
        lines += [f"{qid} Q0 {doc_id} {rank} {value} bm25\n" for rank, (value, doc_id) in enumerate(scored, start=1)]
    return "".join(lines)


def bm25(corpus: dict[str, list[str]]) -> Callable[[list[str], str], float]:
    counts = {doc_id: Counter(words) for doc_id, words in corpus.items()}
    frequency = Counter(word for words in counts.values() for word in words)
    average = sum(map(len, corpus.values())) / len(corpus)

    def score(query: list[str], doc_id: str) -> float:
        length = K1 * (1 - B + B * len(corpus[doc_id]) / average)
        return math.fsum(
            idf(frequency[word], len(corpus)) * counts[doc_id][word] / (counts[doc_id][word] + length) for word in query
        )

    return score


def idf(frequency: int, size: int) -> float:
    return math.log(1 + (size - frequency + 0.5) / (frequency + 0.5))


def tokens(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.lower()) if word not in STOP_WORDS]


def read_queries() -> dict[str, str]:
    rows = (line.partition("\t") for line in read_lines("queries.tsv"))
    return {qid: text for qid, _, text in rows}


def read_corpus() -> dict[str, list[str]]:
    rows = map(json.loads, read_lines("corpus.jsonl"))
    return {row["doc_id"]: tokens(f"{row['title']} {row['text']}") for row in rows}


def read_candidates() -> dict[str, list[str]]:
    candidates: dict[str, list[str]] = defaultdict(list)
    for line in read_lines("qrels.txt"):
        qid, _, doc_id, _ = line.split()
        candidates[qid].append(doc_id)
    return candidates


def read_lines(name: str) -> list[str]:
    # Not str.splitlines, which also breaks at characters that may stand inside a text.
    return (DEMO / name).read_text(encoding="utf-8").rstrip("\n").split("\n")


if __name__ == "__main__":
    main()
