"""The lexical judge prefers the query's words; a replay answers from a ledger, or not at all."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import Candidates, Document, Query, Reranker
from llmrank.cli.main import run
from llmrank.data.qrels import write_qrels
from llmrank.errors import LlmrankError
from llmrank.llm.backends import open_backend
from llmrank.llm.backends.lexical import overlap
from llmrank.llm.ledger import Ledger
from llmrank.rerank.methods import all_methods
from tests.llm.test_simulated import GUARANTEED
from tests.stub import Stub, prompt_of

# --- lexical


@pytest.mark.parametrize("method", sorted(set(all_methods()) & set(GUARANTEED)))
def test_a_document_with_the_querys_words_beats_one_without(method: str) -> None:
    texts = [
        "Nothing of the kind.",
        "",
        "The moon is full.",
        "How goldfish grow: slowly.",
        "Goldfish, and what they eat",
    ]
    with Reranker(method, backend="lexical", ledger="none") as reranker:
        ranking = reranker.rank("How do goldfish grow?", texts)
    assert ranking.ids[:2] == ["3", "4"]
    assert sorted(ranking.ids) == ["0", "1", "2", "3", "4"]
    assert (ranking.row.status, ranking.row.failed, ranking.row.repaired) == ("reranked", 0, 0)


@pytest.mark.parametrize(
    ("query", "with_words", "without"),
    [
        ("GOLDFISH", "a goldfish", "a carp"),
        ("straße", "STRASSE", "Gasse"),
        ("What is it?", "it is what it is", "nothing"),  # stop words alone are words too
        ("Γάτα", "η ΓΆΤΑ", "ο σκύλος"),
        ("金魚の成長", "金魚はゆっくり成長する", "月は満ちている"),
        ("", "any", "other"),
    ],
)
def test_words_are_words_in_any_case_and_script(query: str, with_words: str, without: str) -> None:
    with Reranker("yes-no", backend="lexical", ledger="none") as reranker:
        ids = reranker.rank(query, [without, with_words]).ids
    assert ids == (["1", "0"] if query else ["0", "1"])


def test_a_title_counts() -> None:
    documents = [Document("plain", "it grows"), Document("titled", "it grows", title="Goldfish")]
    with Reranker("yes-no", backend="lexical", ledger="none") as reranker:
        assert reranker.rank_many([Candidates(Query("q", "goldfish"), tuple(documents))])[0].ids == ["titled", "plain"]


WORDS = st.lists(st.sampled_from(["goldfish", "grow", "how", "moon", "tax"]), max_size=12)


@given(WORDS, WORDS)
def test_overlap_lies_on_its_scale_and_rises_with_every_word_of_the_query(query: list[str], text: list[str]) -> None:
    wanted = frozenset(query)
    before = overlap(wanted, " ".join(text))
    assert 0 <= before <= 1
    for word in wanted - set(text):
        assert overlap(wanted, " ".join([*text, word])) > before
    if not wanted & set(text):
        assert before == 0


# --- replay

SHOWN = re.compile(r"^\[(\d+)\].*?worth:(\d+)", re.M | re.S)


def by_worth(body: dict[str, Any], number: int = 0) -> str:
    shown = SHOWN.findall(prompt_of(body))
    return " > ".join(f"[{i}]" for i, _ in sorted(shown, key=lambda pair: -int(pair[1])))


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(line(q, [(7 * i + 3 * q) % 12 for i in range(12)]) for q in range(3)))
    return path


def line(query: int, worths: list[int]) -> str:
    candidates = [{"docid": f"d{w}", "score": 1.0, "doc": {"text": f"worth:{w}"}} for w in worths]
    return json.dumps({"query": {"qid": f"q{query}", "text": f"query {query}"}, "candidates": candidates}) + "\n"


class Job:
    """Runs `llmrank rerank` over the requests, and keeps what came of it."""

    def __init__(self, folder: Path, requests: Path) -> None:
        self.folder, self.requests = folder, requests
        self.ledger = folder / "ledger"

    def __call__(self, backend: str, *flags: str, requests: Path | None = None) -> tuple[int, str, dict[str, Any]]:
        """The exit code, the run and the totals of the report."""
        out, report = self.folder / "out.trec", self.folder / "report.json"
        for path in (out, report):
            path.unlink(missing_ok=True)
        code = run(
            ["rerank", "--requests", str(requests or self.requests), "--output", str(out), "--report", str(report)]
            + ["--backend", backend, "--option", "window=6", "--option", "stride=3", *flags]
        )
        if not report.exists():
            return code, "", {}
        return code, out.read_text(), json.loads(report.read_text())["totals"]

    def record(self, backend: str, *flags: str) -> str:
        code, written, totals = self(backend, "--ledger", str(self.ledger), *flags)
        assert code == 0
        assert totals["calls"] == 9
        return written


@pytest.fixture
def job(tmp_path: Path, requests: Path) -> Job:
    return Job(tmp_path, requests)


@pytest.fixture
def qrels(tmp_path: Path) -> Path:
    path = tmp_path / "some.qrels"
    write_qrels(path, {f"q{q}": {f"d{w}": w for w in range(12)} for q in range(3)})
    return path


def test_what_a_server_answered_is_replayed_without_it(job: Job) -> None:
    with Stub(by_worth) as stub:
        recorded = job.record("openai:m", "--base-url", stub.url)
        before = job.ledger.read_bytes()
        code, replayed, totals = job(f"replay:{job.ledger}")
        assert len(stub.bodies) == 9
    assert (code, replayed) == (0, recorded)
    assert (totals["questions"], totals["ok"], totals["reused"], totals["calls"]) == (9, 9, 9, 0)
    assert totals["failure_rate"] == 0
    assert job.ledger.read_bytes() == before
    code, replayed, _ = job(f"replay:{job.ledger}", "--ledger", "none")  # it is the ledger, whatever else is named
    assert (code, replayed) == (0, recorded)
    assert recorded.split()[2] == "d11"  # and it was worth recording


def test_what_a_simulated_judge_answered_is_replayed_without_its_qrels(job: Job, qrels: Path) -> None:
    recorded = job.record(f"simulated:{qrels}?noise=0.2&seed=3")
    qrels.unlink()
    code, replayed, totals = job(f"replay:{job.ledger}")
    assert (code, replayed) == (0, recorded)
    assert (totals["reused"], totals["calls"]) == (9, 0)


def test_a_lexical_judge_and_a_model_under_another_name_are_replayed(job: Job) -> None:
    recorded = job.record("lexical")
    assert job(f"replay:{job.ledger}")[:2] == (0, recorded)
    with Stub(by_worth) as stub:
        named = job.record("openai:m", "--base-url", stub.url, "--model-id", "m of May")
    assert job(f"replay:{job.ledger}?model=m of May")[:2] == (0, named)
    assert named != recorded


def test_a_ledger_is_replayed_in_python_from_any_thread_and_event_loop(job: Job, qrels: Path) -> None:
    job.record(f"simulated:{qrels}?noise=0.2", "--temperature", "0")
    documents = tuple(Document(f"d{7 * i % 12}", f"worth:{7 * i % 12}") for i in range(12))
    asked = Candidates(Query("q0", "query 0"), documents)
    options = {"options": {"window": 6, "stride": 3}}

    def rows(reranker: Reranker) -> list[tuple[int, int]]:
        (one,), (two,) = reranker.rank_many([asked]), reranker.rank_many([asked])
        return [(ranking.row.ok, ranking.row.calls) for ranking in (one, two)]

    reranker = Reranker("sliding-window", backend=f"replay:{job.ledger}", **options)
    with reranker:
        assert rows(reranker) == [(3, 0)] * 2

    async def one() -> tuple[int, int]:
        try:
            (ranking,) = [ranking async for ranking in reranker.astream([asked])]
            return ranking.row.ok, ranking.row.calls
        finally:
            await reranker.aclose()

    assert [asyncio.run(one()) for _ in range(2)] == [(3, 0)] * 2


def test_anything_new_fails_and_nothing_is_sent(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = tmp_path / "more.jsonl"
    with Stub(by_worth) as stub:
        recorded = job.record("openai:m", "--base-url", stub.url)
        more.write_text(job.requests.read_text() + line(9, [1, 5, 3]))
        capsys.readouterr()
        code, replayed, totals = job(f"replay:{job.ledger}", "--base-url", stub.url, requests=more)
        assert code == 3
        assert len(stub.bodies) == 9
    assert replayed.startswith(recorded)
    assert [row.split()[2] for row in replayed.splitlines()[-3:]] == ["d1", "d5", "d3"]  # left as it was
    assert (totals["questions"], totals["ok"], totals["failed"]) == (10, 9, 1)
    assert totals["reasons"] == {"not-in-ledger": 1}
    assert "1 of 10 questions failed, more than --max-failure-rate 0.05 (not-in-ledger 1)" in capsys.readouterr().err
    assert job(f"replay:{job.ledger}", "--max-failure-rate", "0.5", requests=more)[0] == 0
    for flags in (["--temperature", "0.5"], ["--template", "listwise/json"], ["--max-completion-tokens", "99"]):
        code, _, totals = job(f"replay:{job.ledger}", *flags)  # each asks something else
        assert code == 3
        assert totals["ok"] == 0


def test_of_several_models_one_is_named(job: Job, qrels: Path) -> None:
    with Stub(by_worth) as stub:
        ours = job.record("openai:org/ours:7b", "--base-url", stub.url)
        stub.handler = lambda body, n: " > ".join(by_worth(body).split(" > ")[::-1])
        theirs = job.record("openai:theirs?", "--base-url", stub.url)
    noisy = job.record(f"simulated:{qrels}?noise=0.5")
    ledger = Ledger(job.ledger)
    (simulated,) = {row.model for row in ledger.rows() if row.kind == "simulated"}
    ledger.close()
    assert "&" in simulated
    assert len({ours, theirs, noisy}) == 3
    for model, recorded in (("org/ours:7b", ours), ("theirs?", theirs), (simulated, noisy)):
        assert job(f"replay:{job.ledger}?model={model}")[:2] == (0, recorded)
    with pytest.raises(
        LlmrankError, match=r"several models; name one with \?model=NAME: org/ours:7b, qrels=.*, theirs\?$"
    ):
        open_backend(f"replay:{job.ledger}")
    with pytest.raises(LlmrankError, match="holds no replies of the model ours; it has org/ours:7b, "):
        open_backend(f"replay:{job.ledger}?model=ours")


def test_a_spec_that_cannot_be_replayed_is_one_sentence(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, text, database = tmp_path / "empty", tmp_path / "text", tmp_path / "other.db"
    Ledger(empty).close()
    text.write_text("a file of another kind " * 99)
    import sqlite3

    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    for spec, said in (
        ("replay:", "write replay:LEDGER"),
        (f"replay:{tmp_path}/missing", "missing: there is no ledger here"),
        (f"replay:{empty}", "the ledger is empty"),
        (f"replay:{empty}?model=m", "the ledger is empty"),
        (f"replay:{text}", "the ledger cannot be used"),
        (f"replay:{database}", "is no llmrank ledger"),
        (f"replay:{empty}?modle=m", "modle is no parameter of replay; there is model"),
        ("lexical:bm25", "takes nothing"),
        ("lexical?k1=2", "there is no backend 'lexical?k1=2'"),
    ):
        assert job(spec)[0] == 2
        told = capsys.readouterr().err
        assert said in told
        assert told.startswith("llmrank: ")
        assert told.count("\n") == 1
    assert not (tmp_path / "missing").exists()
    assert text.read_text() == "a file of another kind " * 99
