"""Peak memory of judging 20,000 and 200,000 pairs with the simulated judge, undisturbed and killed at random.

Runs the command line in processes of its own: once undisturbed; then with kill -9 at random moments, run again each
time until it ends, on a ledger of its own. Prints the peaks, checks that the last run asked only what the ledger
lacked, and that both ways write the same bytes. A third job is a panel of three judges that decides at the end.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (20_000, 200_000)
PER_QUERY = 100
KILLS = 4
FAULTS = "?noise=0.1&malformed=0.01"
MEASURE = (
    "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(done.returncode)"
)


def write_files(folder: Path, pairs: int) -> None:
    with (
        open(folder / "queries.tsv", "w") as queries,
        open(folder / "corpus.tsv", "w") as corpus,
        open(folder / "pairs.tsv", "w") as wanted,
        open(folder / "qrels", "w") as qrels,
    ):
        for q in range(pairs // PER_QUERY):
            queries.write(f"q{q}\tquery number {q}\n")
            for i in range(PER_QUERY):
                corpus.write(f"d{q}_{i}\tpassage {i} about the matter of query {q}, and a few more words to read\n")
                wanted.write(f"q{q}\td{q}_{i}\n")
            qrels.writelines(f"q{q} 0 d{q}_{i} {1 + i % 3}\n" for i in range(0, PER_QUERY, 10))


def command(folder: Path, name: str, *judges: str) -> list[str]:
    files = [part for flag in ("queries", "corpus", "pairs") for part in (f"--{flag}", str(folder / f"{flag}.tsv"))]
    outputs = ["--output", str(folder / f"{name}.qrels"), "--judgments", str(folder / f"{name}.jsonl")]
    ledger = ["--ledger", str(folder / f"{name}.ledger"), "--json", "--quiet"]
    return [sys.executable, "-m", "llmrank", "judge", *files, *judges, *outputs, *ledger]


def measured(job: list[str]) -> tuple[float, float, dict[str, int]]:
    """Peak resident memory in MB, seconds, and the totals that the job prints."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEASURE, *job], check=True, capture_output=True, text=True)
    kilobytes = int(done.stderr.split()[-1]) / (1024 if sys.platform == "darwin" else 1)
    return kilobytes / 1024, time.perf_counter() - started, json.loads(done.stdout)


def rows(folder: Path, name: str) -> int:
    path = folder / f"{name}.ledger"
    return int(sqlite3.connect(path).execute("SELECT count(*) FROM replies").fetchone()[0]) if path.exists() else 0


def killed(job: list[str], folder: Path, seconds: float, draw: random.Random) -> int:
    """Kills the job at random moments; returns how many kills came in time."""
    kills = 0
    for _ in range(KILLS):
        process = subprocess.Popen(job, stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=draw.uniform(0.1, 0.3) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            print(f"  killed with {rows(folder, 'killed')} replies in the ledger")
    return kills


def main() -> None:
    draw = random.Random(0)
    for pairs in SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_files(folder, pairs)
            judge = ("--backend", f"simulated:{folder / 'qrels'}{FAULTS}")
            megabytes, seconds, totals = measured(command(folder, "whole", *judge))
            print(
                f"{pairs} pairs: peak {megabytes:.0f} MB   (below 400, and flat), {seconds:.0f} s, "
                f"{pairs / seconds:.0f} pairs/s, {totals['labels']}"
            )
            job = command(folder, "killed", *judge)
            kills = killed(job, folder, seconds, draw)
            before = rows(folder, "killed")
            megabytes, seconds, again = measured(job)
            assert again["calls"] == rows(folder, "killed") - before, "something was asked twice"
            assert rows(folder, "killed") == rows(folder, "whole")
            for kind in ("qrels", "jsonl"):
                assert (folder / f"killed.{kind}").read_bytes() == (folder / f"whole.{kind}").read_bytes()
            print(f"  {kills} kills, then peak {megabytes:.0f} MB, {seconds:.0f} s; same bytes, nothing asked twice")
            three = [f"--judge={n}=simulated:{folder / 'qrels'}{FAULTS}&seed={n}" for n in range(3)]
            megabytes, seconds, _ = measured(command(folder, "panel", *three, "--panel", "dawid-skene"))
            print(f"  three judges, dawid-skene: peak {megabytes:.0f} MB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
