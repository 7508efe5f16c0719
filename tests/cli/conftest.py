"""The program, called as a user would, on a small collection, in a folder of its own."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from llmrank.cli.main import run

RUN = {"q2": 25, "q1": 12, "q3": 1}
"""Candidates of each query, in the order of the run; q9 is a query that the run lacks."""
FILES = ("--queries", "queries.tsv", "--corpus", "corpus.jsonl", "--run", "first.trec")
JUDGE = ("--backend", "simulated:judged.qrels")
JOB = (*FILES, *JUDGE, "--output", "out.trec")


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error: the one line on stderr."""
        assert self.err.startswith("llmrank: "), self.err
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.removeprefix("llmrank: ").rstrip("\n")


Program = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the collection in it and a ledger of its own."""
    draw = random.Random(1)
    queries = "".join(f"{q}\twhat is thing {q}\n" for q in (*sorted(RUN), "q9"))
    ids = {q: [f"{q}-d{i}" for i in range(n)] for q, n in RUN.items()}
    documents = [{"docid": d, "contents": f"text of {d}" + " word" * draw.randint(0, 30)} for q in RUN for d in ids[q]]
    run_lines = [f"{q} Q0 {d} {i} {100 - i} first" for q in RUN for i, d in enumerate(ids[q], 1)]
    judged = [f"{q} 0 {d} {draw.randint(0, 3)}" for q in RUN for d in ids[q]]
    (tmp_path / "queries.tsv").write_text(queries)
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    (tmp_path / "first.trec").write_text("\n".join(run_lines) + "\n")
    (tmp_path / "judged.qrels").write_text("\n".join(judged) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMRANK_LEDGER", str(tmp_path / "replies.ledger"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def llmrank(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """Calls the program in the folder."""

    def call(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = run(list(arguments))
        return Outcome(code, *capsys.readouterr())

    return call
