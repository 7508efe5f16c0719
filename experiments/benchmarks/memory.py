"""Peak memory of 100,000 queries of 10 candidates with the simulated judge, from one file of requests and from three.

Runs the command line in a process of its own, once with 10,000 and once with 100,000 queries, and prints the peaks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (10_000, 100_000)
CANDIDATES = 10


def write_files(folder: Path, queries: int) -> dict[str, list[str]]:
    """The flags of each form of input, for files that hold so many queries."""
    with (
        open(folder / "requests.jsonl", "w") as requests,
        open(folder / "queries.tsv", "w") as topics,
        open(folder / "corpus.tsv", "w") as corpus,
        open(folder / "run.trec", "w") as run,
    ):
        for q in range(queries):
            ids = [f"d{q}_{i}" for i in range(CANDIDATES)]
            texts = [f"passage {i} about the matter of query {q}, and a few more words to read" for i in ids]
            candidates = [
                {"docid": d, "score": 10 - i, "doc": {"contents": t}}
                for i, (d, t) in enumerate(zip(ids, texts, strict=True))
            ]
            requests.write(
                json.dumps({"query": {"qid": f"q{q}", "text": f"query {q}"}, "candidates": candidates}) + "\n"
            )
            topics.write(f"q{q}\tquery {q}\n")
            corpus.writelines(f"{d}\t{t}\n" for d, t in zip(ids, texts, strict=True))
            run.writelines(f"q{q} Q0 {d} {i + 1} {10 - i} bm25\n" for i, d in enumerate(ids))
    with open(folder / "qrels", "w") as qrels:
        qrels.writelines(f"q{q} 0 d{q}_3 1\n" for q in range(0, queries, 100))
    return {
        "--requests": ["--requests", str(folder / "requests.jsonl")],
        "--queries, --corpus, --run": [
            part
            for flag, name in (("--queries", "queries.tsv"), ("--corpus", "corpus.tsv"), ("--run", "run.trec"))
            for part in (flag, str(folder / name))
        ],
    }


def peak(flags: list[str], folder: Path) -> tuple[float, float]:
    """Peak resident memory in MB, and seconds."""
    command = [sys.executable, "-m", "llmrank", "rerank", *flags, "--output", str(folder / "out.trec")]
    command += ["--backend", f"simulated:{folder / 'qrels'}", "--ledger", str(folder / "replies.ledger"), "--quiet"]
    (folder / "replies.ledger").unlink(missing_ok=True)
    started = time.perf_counter()
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    kilobytes = int(done.stdout.split()[-1]) / (1024 if sys.platform == "darwin" else 1)
    return kilobytes / 1024, time.perf_counter() - started


def main() -> None:
    for queries in SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for form, flags in write_files(folder, queries).items():
                megabytes, seconds = peak(flags, folder)
                print(
                    f"{queries:7} queries, {form}: peak {megabytes:.0f} MB   (below 400, and flat), "
                    f"{seconds:.0f} s, {queries / seconds:.0f} queries/s"
                )


if __name__ == "__main__":
    main()
