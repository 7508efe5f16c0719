"""`llmrank rerank`: what it writes, what it prints, how it ends."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from aiohttp import web

from llmrank.cli.flags import SECTION
from llmrank.cli.jobs import RerankFlags
from llmrank.cli.progress import Progress
from llmrank.llm.client import Totals
from llmrank.llm.ledger import Ledger, LedgerError
from llmrank.rerank.job import JobResult
from llmrank.settings import Settings
from tests.cli.conftest import FILES, JOB, JUDGE, RUN, Program
from tests.stub import Stub, prompt_of

Lines = dict[str, list[tuple[str, float]]]


def read(path: str | Path) -> Lines:
    """Documents and scores of each query, in the order of the file; every line is as TREC wants it."""
    found: Lines = {}
    for line in Path(path).read_text().splitlines():
        query, q0, document, rank, score, tag = line.split(" ")
        found.setdefault(query, []).append((document, float(score)))
        assert q0 == "Q0"
        assert int(rank) == len(found[query])
        assert tag.startswith("llmrank-")
    for of_query in found.values():
        singles = [struct.unpack("f", struct.pack("f", score))[0] for _, score in of_query]
        assert all(a > b for a, b in pairwise(singles))
    return found


def ids(path: str | Path) -> dict[str, list[str]]:
    return {query: [document for document, _ in of_query] for query, of_query in read(path).items()}


def grades() -> dict[str, int]:
    lines = (line.split() for line in Path("judged.qrels").read_text().splitlines())
    return {document: int(grade) for _, _, document, grade in lines}


def by_id(body: dict[str, Any], number: int = 0) -> str:
    """A model that reverses what it is shown."""
    shown = re.findall(r"^\[(\d+)\] ", prompt_of(body), re.M)
    return " > ".join(f"[{i}]" for i in reversed(shown))


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(by_id) as server:
        yield server


def at(server: Stub, *more: str) -> tuple[str, ...]:
    """The flags of a job at this server."""
    patience = ("--timeout", "20", "--retries", "2")  # a test that goes wrong need not take long
    return (*FILES, "--output", "out.trec", "--backend", "openai:m", "--base-url", server.url, *patience, *more)


class TestTheRun:
    def test_has_every_document_of_every_query_in_the_order_of_the_run(self, llmrank: Program) -> None:
        done = llmrank("rerank", *JOB)
        assert (done.code, done.out) == (0, "")
        assert ids("out.trec").keys() == RUN.keys()  # not q9, of which the run has nothing
        assert list(ids("out.trec")) == list(RUN)
        for query, documents in ids("out.trec").items():
            assert sorted(documents) == sorted(ids("first.trec".replace("first", "out"))[query])
            ordered = [grades()[document] for document in documents[:10]]
            assert ordered == sorted(grades()[d] for d in documents)[::-1][:10]

    def test_keeps_that_order_whatever_is_done_first(self, llmrank: Program, stub: Stub) -> None:
        others = asyncio.Event()

        async def first_query_last(body: dict[str, Any], number: int) -> str:
            if "thing q2" not in prompt_of(body):
                others.set()
            elif number > 0:  # the first request goes alone
                await others.wait()
            return by_id(body)

        stub.handler = first_query_last
        assert llmrank("rerank", *at(stub)).code == 0
        assert list(ids("out.trec")) == list(RUN)

    @pytest.mark.parametrize(
        ("method", "kind"), [("pointwise", "probability"), ("graded", "expected-grade"), ("all-pairs", "wins")]
    )
    def test_has_the_methods_own_scores(self, llmrank: Program, method: str, kind: str) -> None:
        assert llmrank("rerank", *JOB, "--method", method, "--depth", "8", "--report", "r.json").code == 0
        report = json.loads(Path("r.json").read_text())
        scores = [score for _, score in read("out.trec")["q2"]]
        assert report["queries"]["q2"]["score_kind"] == kind
        assert len({round(score) for score in scores[:8]}) < 8 or kind == "wins"  # not n - rank + 1
        assert max(scores) <= {"probability": 1, "expected-grade": 3, "wins": 7}[kind]

    def test_has_ranks_for_scores_where_the_method_has_none(self, llmrank: Program) -> None:
        llmrank("rerank", *JOB)
        assert [score for _, score in read("out.trec")["q1"]] == [float(12 - i) for i in range(12)]

    def test_reranks_down_to_the_depth_and_needs_no_text_below(self, llmrank: Program, folder: Path) -> None:
        corpus = (folder / "corpus.jsonl").read_text().splitlines(keepends=True)
        below = {f'"q2-d{i}"' for i in range(5, 25)} | {f'"q1-d{i}"' for i in range(5, 12)}
        (folder / "corpus.jsonl").write_text("".join(line for line in corpus if not any(i in line for i in below)))
        assert llmrank("rerank", *JOB, "--depth", "5").code == 0
        q2 = ids("out.trec")["q2"]
        assert q2[5:] == [f"q2-d{i}" for i in range(5, 25)]
        assert sorted(q2[:5]) == [f"q2-d{i}" for i in range(5)]
        assert q2[:5] != [f"q2-d{i}" for i in range(5)]
        refused = llmrank("rerank", *JOB, "--depth", "6")
        assert refused.code == 2
        assert refused.error.startswith("first.trec:6: document q2-d5 of topic q2 is not in corpus.jsonl")

    def test_of_depth_0_is_the_first_stage(self, llmrank: Program) -> None:
        assert llmrank("rerank", *JOB, "--depth", "0", "--json").code == 0
        assert ids("out.trec")["q2"] == [f"q2-d{i}" for i in range(25)]

    def test_may_be_made_from_requests(self, llmrank: Program, folder: Path) -> None:
        request = {"query": {"qid": "a", "text": "x"}, "candidates": [{"docid": "1", "doc": {"text": "t"}}]}
        empty = {"query": {"qid": "b", "text": "y"}, "candidates": []}
        (folder / "r.jsonl").write_text(f"{json.dumps(empty)}\n{json.dumps(request)}\n")
        done = llmrank("rerank", "--requests", "r.jsonl", *JUDGE, "--output", "out.trec", "--report", "r.json")
        assert done.code == 0
        assert (folder / "out.trec").read_text() == "a Q0 1 1 1 llmrank-sliding-window\n"
        rows = json.loads((folder / "r.json").read_text())["queries"]
        assert [rows[query]["status"] for query in ("b", "a")] == ["unchanged", "unchanged"]

    def test_comes_out_the_same_again_without_a_call(self, llmrank: Program, folder: Path) -> None:
        first = json.loads(llmrank("rerank", *JOB, "--json").out)
        bytes_first = (folder / "out.trec").read_bytes()
        again = json.loads(llmrank("rerank", *JOB, "--json").out)
        assert (folder / "out.trec").read_bytes() == bytes_first
        assert (first["calls"], first["reused"]) == (first["questions"], 0)
        assert (again["calls"], again["reused"]) == (0, first["questions"])
        assert os.listdir(folder).count("out.trec.partial") == 0

    def test_may_be_read_and_written_by_pipes(self, llmrank: Program, folder: Path) -> None:
        llmrank("rerank", *JOB)
        expected = (folder / "out.trec").read_text()
        for flag, name in zip(FILES[::2], FILES[1::2], strict=True):
            flags = [part for part in FILES if part not in (flag, name)]
            for data in ((folder / name).read_bytes(), gzip.compress((folder / name).read_bytes())):
                done = llmrank("rerank", *flags, flag, "-", *JUDGE, "--output", "-", "--quiet", stdin=data)
                assert (done.code, done.out, done.err) == (0, expected, "")

    def test_is_not_replaced_by_its_link(self, llmrank: Program, folder: Path) -> None:
        (folder / "elsewhere").mkdir()
        (folder / "out.trec").symlink_to("elsewhere/real.trec")
        assert llmrank("rerank", *JOB).code == 0
        assert (folder / "out.trec").is_symlink()
        assert list(ids("elsewhere/real.trec")) == list(RUN)
        assert not (folder / "out.trec.partial").exists()

    def test_may_go_to_a_device(self, llmrank: Program) -> None:
        assert llmrank("rerank", *FILES, *JUDGE, "--output", "/dev/null").code == 0
        assert not Path("/dev/null").is_file()
        full = llmrank("rerank", *FILES, *JUDGE, "--output", "/dev/full", "--quiet")
        assert full.code == 1
        assert "/dev/full: No space left" in full.error
        assert "the same command" in full.error


class TestTheReport:
    COUNTS = ("questions", "ok", "repaired", "failed", "reused", "calls", "prompt_tokens", "completion_tokens", "cut")

    @pytest.mark.parametrize("method", ["pointwise", "heapsort", "setwise-heapsort", "sliding-window", "full-list"])
    def test_adds_up(self, llmrank: Program, method: str) -> None:
        noisy = ("--backend", "simulated:judged.qrels?malformed=0.3&noise=0.2", "--price", "1,2")
        flags = (*FILES, *noisy, "--output", "out.trec", "--method", method, "--report", "r.json", "--quiet", "--json")
        for _ in range(2):  # the second time from the ledger
            printed = json.loads(llmrank("rerank", *flags).out)
            report = json.loads(Path("r.json").read_text())
            rows, totals = report["queries"], report["totals"]
            assert list(rows) == list(RUN)
            for row in rows.values():
                assert row["ok"] + row["repaired"] + row["failed"] == row["questions"]
                assert row["reused"] + row["calls"] == row["questions"]  # no retries with this backend
                used = "reranked" if row["ok"] + row["repaired"] else "failed"
                assert row["status"] == (used if row["questions"] else "unchanged")
                assert (row["rounds"] > 0) == (row["questions"] > 0)
            for count in self.COUNTS:
                assert totals[count] == sum(row[count] for row in rows.values())
            costs = [row["cost"] for row in rows.values() if row["cost"] is not None]
            assert totals["cost"] is None if not costs else totals["cost"] == pytest.approx(sum(costs))
            assert totals["queries"] == len(RUN) == sum(totals["statuses"].values())
            assert totals["failure_rate"] == pytest.approx(totals["failed"] / totals["questions"])
            assert {name: printed[name] for name in totals} == totals
        assert totals["calls"] == 0

    def test_has_the_fields_that_are_promised(self, llmrank: Program) -> None:
        llmrank("rerank", *JOB, "--report", "r.json")
        report = json.loads(Path("r.json").read_text())
        promised = "status questions ok repaired failed reused calls rounds cut prompt_tokens completion_tokens cost"
        assert set(report) == {"queries", "totals", "manifest"}
        assert {*promised.split(), "seconds", "score_kind"} <= report["queries"]["q2"].keys()
        assert report["queries"]["q2"]["score_kind"] is None

    def test_counts_what_was_cut(self, llmrank: Program) -> None:
        done = llmrank("rerank", *JOB, "--passage-tokens", "5", "--json", "--report", "r.json")
        assert 0 < json.loads(done.out)["cut"] <= sum(RUN.values())

    def test_counts_retries_as_calls(self, llmrank: Program, stub: Stub) -> None:
        stub.handler = lambda body, n: web.Response(status=500) if n == 1 else by_id(body)
        done = json.loads(llmrank("rerank", *at(stub, "--json")).out)
        assert (done["questions"], done["calls"]) == (3, 4)  # q3 has one candidate: nothing to ask


class TestTheManifest:
    def test_repeats_the_job(self, llmrank: Program, folder: Path) -> None:
        chosen = ("--method", "setwise-heapsort", "--option", "k=4", "--option", "children=3", "--seed", "7")
        llmrank("rerank", *JOB, *chosen, "--passage-tokens", "9", "--manifest", "m.json")
        manifest = json.loads((folder / "m.json").read_text())
        assert manifest["options"] == {"k": 4, "children": 3}
        (folder / "again.yaml").write_text(yaml.safe_dump(manifest["config"]))
        done = llmrank("rerank", "--config", "again.yaml", "--output", "again.trec", "--json", "--manifest", "n.json")
        assert json.loads(done.out)["calls"] == 0
        assert (folder / "again.trec").read_bytes() == (folder / "out.trec").read_bytes()
        assert json.loads((folder / "n.json").read_text()) == manifest

    def test_tells_inputs_and_templates_apart(self, llmrank: Program, folder: Path) -> None:
        llmrank("rerank", *JOB, "--manifest", "m.json")
        before = json.loads((folder / "m.json").read_text())
        assert set(before["inputs"]) == {"queries.tsv", "corpus.jsonl", "first.trec"}
        template = folder / "mine.j2"
        template.write_text(before["template"]["text"].replace("best first", "most useful first"))
        with (folder / "queries.tsv").open("a") as file:
            file.write("q10\tone more\n")
        llmrank("rerank", *JOB, "--manifest", "m.json", "--template", "mine.j2")
        after = json.loads((folder / "m.json").read_text())
        changed = {path for path, digest in before["inputs"].items() if after["inputs"][path] != digest}
        assert changed == {"queries.tsv"}
        assert after["template"]["hash"] != before["template"]["hash"]
        assert after["template"]["text"] == template.read_text()

    def test_holds_no_key(self, llmrank: Program, stub: Stub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-a-secret-key")
        assert llmrank("rerank", *at(stub, "--manifest", "m.json", "--report", "r.json")).code == 0
        assert stub.headers[0]["Authorization"] == "Bearer sk-a-secret-key"
        assert json.loads((folder / "m.json").read_text())["config"]["base_url"] == stub.url
        for path in folder.iterdir():
            assert b"secret" not in path.read_bytes()

    def test_holds_no_credentials_of_an_address(self, llmrank: Program, stub: Stub, folder: Path) -> None:
        address = stub.url.replace("http://", "http://me:secret@")
        done = llmrank("rerank", *at(stub), "--base-url", address, "--manifest", "m.json", "--report", "r.json")
        assert done.code == 0
        assert "secret" not in done.err
        for path in folder.iterdir():
            assert b"secret" not in path.read_bytes()


class TestWhatIsPrinted:
    def test_is_one_json_object_where_that_is_wanted(self, llmrank: Program) -> None:
        done = llmrank("rerank", *JOB, "--json")
        assert done.out.count("\n") == 1
        assert json.loads(done.out)["queries"] == 3
        assert done.err.startswith("3 queries, 3 questions: 3 ok, 0 repaired, 0 failed; 3 calls, 0 answers reused, ")

    def test_is_nothing_where_quiet_is_wanted(self, llmrank: Program) -> None:
        done = llmrank("rerank", *JOB, "--quiet")
        assert done == (0, "", "")

    def test_is_json_also_where_questions_fail_or_a_budget_ends_the_job(self, llmrank: Program) -> None:
        failing = ("--backend", "simulated:judged.qrels?malformed=1")
        done = llmrank("rerank", *JOB, *failing, "--json", "--quiet")
        assert (done.code, json.loads(done.out)["failure_rate"]) == (3, 1.0)
        done = llmrank("rerank", *JOB, "--json", "--quiet", "--max-calls", "1", "--ledger", "none")
        assert (done.code, json.loads(done.out)["ended_by"]) == (4, "--max-calls 1")

    def test_names_replies_from_another_address_which_are_used(self, llmrank: Program, stub: Stub) -> None:
        assert "note" not in llmrank("rerank", *at(stub)).err
        with Stub(by_id) as other:
            done = llmrank("rerank", *at(other))
            assert other.bodies == []
            assert done.code == 0
            (note,) = [line for line in done.err.splitlines() if line.startswith("note: ")]
            assert stub.url in note
            assert "--model-id" in note
            assert llmrank("rerank", *at(other, "--model-id", "another")).code == 0
            assert len(other.bodies) == 3


class TestExitCodes:
    def test_3_more_questions_failed_than_allowed(self, llmrank: Program) -> None:
        judge = ("--backend", "simulated:judged.qrels?malformed=0.3&seed=1", "--method", "pointwise")
        done = llmrank("rerank", *JOB, *judge, "--quiet")
        assert done.code == 3
        told = re.match(r"(\d+) of 38 questions failed, more than --max-failure-rate 0.05 \(", done.error)
        assert told is not None
        assert list(ids("out.trec")) == list(RUN)  # written all the same
        assert not Path("out.trec.partial").exists()
        rate = int(told[1]) / 38
        assert llmrank("rerank", *JOB, *judge, "--quiet", "--max-failure-rate", str(rate)) == (0, "", "")
        assert llmrank("rerank", *JOB, *judge, "--quiet", "--max-failure-rate", str(rate - 1e-9)).code == 3

    @pytest.mark.parametrize("budget", [["--max-calls", "1"], ["--max-tokens", "1000"]])
    def test_4_a_budget_ended_the_job(self, llmrank: Program, stub: Stub, budget: list[str]) -> None:
        done = llmrank("rerank", *at(stub, *budget, "--quiet", "--report", "r.json", "--ledger", "none"))
        assert done.code == 4
        assert done.error.startswith(f"the budget {' '.join(budget)} ended the job: ")
        assert {query: len(documents) for query, documents in ids("out.trec").items()} == RUN
        rows = json.loads(Path("r.json").read_text())["queries"]
        assert {row["status"] for row in rows.values()} == {"partial", "unchanged"} | (
            {"reranked"} if any(row["status"] == "reranked" for row in rows.values()) else set()
        )
        for query, row in rows.items():
            if row["questions"] == 0:
                assert ids("out.trec")[query] == [f"{query}-d{i}" for i in range(RUN[query])]

    def test_4_before_3(self, llmrank: Program) -> None:
        judge = ("--backend", "simulated:judged.qrels?malformed=1", "--method", "pointwise", "--max-calls", "9")
        done = llmrank("rerank", *JOB, *judge, "--quiet")
        assert done.code == 4
        assert "--max-calls 9 ended the job" in done.error
        assert "9 of 9 questions failed" in done.error

    @pytest.mark.parametrize(
        ("status", "message", "told"),
        [(401, "no such key", "refused the key"), (404, "The model m does not exist", "does not know the model")],
    )
    def test_5_a_refusal_after_one_request(
        self, llmrank: Program, stub: Stub, status: int, message: str, told: str
    ) -> None:
        stub.handler = lambda *_: web.json_response({"error": {"message": message}}, status=status)
        done = llmrank("rerank", *at(stub, "--method", "pointwise", "--template", "pointwise/graded", "--json"))
        assert (done.code, done.out, len(stub.bodies)) == (5, "", 1)
        assert told in done.error
        assert message in done.error
        assert "0 of 3 queries are done, in out.trec.partial" in done.error
        assert not Path("out.trec").exists()
        assert Path("out.trec.partial").read_text() == ""

    def test_5_nothing_at_the_address(self, llmrank: Program) -> None:
        with Stub(by_id) as gone:
            pass
        done = llmrank("rerank", *at(gone, "--retries", "1", "--quiet"))
        assert done.code == 5
        assert gone.url in done.error
        assert "nothing answers at the address" in done.error

    def test_5_keeps_what_is_done(self, llmrank: Program, stub: Stub) -> None:
        def revoked(body: dict[str, Any], number: int) -> web.StreamResponse | str:
            if "thing q2" in prompt_of(body) and "[20]" not in prompt_of(body):
                return web.json_response({"error": {"message": "revoked"}}, status=401)
            return by_id(body)

        stub.handler = revoked
        done = llmrank("rerank", *at(stub, "--option", "window=10", "--option", "stride=5", "--concurrency", "1"))
        assert done.code == 5
        told = re.search(r"(\d) of 3 queries are done", done.error)
        assert told is not None
        assert len(ids("out.trec.partial")) == int(told[1])
        assert all(len(documents) == RUN[query] for query, documents in ids("out.trec.partial").items())
        stub.handler = by_id
        assert llmrank("rerank", *at(stub, "--option", "window=10", "--option", "stride=5")).code == 0
        assert not Path("out.trec.partial").exists()
        assert list(ids("out.trec")) == list(RUN)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("quiet", [True, False])
    def test_130_interrupted(self, llmrank: Program, stub: Stub, number: signal.Signals, quiet: bool) -> None:
        process: subprocess.Popen[str] | None = None

        async def answer(body: dict[str, Any], count: int) -> str:
            if ids("out.trec.partial"):  # q3, of which nothing need be asked
                assert process is not None
                process.send_signal(number)
                await asyncio.Event().wait()
            return by_id(body)

        stub.handler = answer
        command = [sys.executable, "-m", "llmrank", "rerank", *at(stub), *["--quiet"] * quiet, "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        assert err.count("\n") == 1
        told = re.match(
            r"llmrank: interrupted; run the same command to go on: (\d) of 3 queries are done, in out.trec.partial, "
            r"and the replies so far are kept in \S+\n",
            err,
        )
        assert told is not None, err
        partial = ids("out.trec.partial")
        assert len(partial) == int(told[1]) > 0
        assert all(len(documents) == RUN[query] for query, documents in partial.items())
        assert not Path("out.trec").exists()

    def test_130_also_while_the_inputs_are_read(self, folder: Path) -> None:
        os.mkfifo("slow.trec")
        command = [sys.executable, "-m", "llmrank", "rerank", *JOB, "--run", "slow.trec"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with open("slow.trec", "w"):  # opens when the program does
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "llmrank: interrupted\n")
        assert not any(name.startswith("out.trec") for name in os.listdir(folder))


class TestErrors:
    """Each is one line that names what is wrong; nothing is sent, and no output is left behind."""

    @pytest.fixture(autouse=True)
    def _nothing_is_done(self, folder: Path) -> Iterator[None]:
        yield
        assert not any(name.startswith(("out.trec", ".")) for name in os.listdir(folder))

    @pytest.mark.parametrize(
        ("file", "line", "told"),
        [
            ("first.trec", "q99 Q0 q1-d1 1 1.0 first", "first.trec:39: topic q99 is not in queries.tsv"),
            ("first.trec", "q1 Q0 unknown 1 1.0 first", "first.trec:39: document unknown of topic q1 is not in corpus"),
            ("first.trec", "q1 Q0 q1-d1 1 1.0 first", "first.trec:39: document q1-d1 is in query q1 already, in line"),
            ("first.trec", "q1 Q0 q1-d1 1", "first.trec:39: expected six columns"),
            ("first.trec", "q1 Q0 x 1 high first", "first.trec:39: the score 'high' is not a number"),
            ("queries.tsv", "no tab", "queries.tsv:5: "),
            ("queries.tsv", "q1\tagain", "queries.tsv:5: query q1 is there already, in line 1"),
            ("corpus.jsonl", '{"docid": "x"', "corpus.jsonl:39: "),
            ("corpus.jsonl", '{"docid": "q1-d1", "contents": "again"}', "corpus.jsonl:39: document q1-d1 is there"),
            ("judged.qrels", "q1 0 q1-d1", "judged.qrels:39: "),
        ],
    )
    def test_in_files_name_file_and_line(
        self, llmrank: Program, stub: Stub, folder: Path, file: str, line: str, told: str
    ) -> None:
        with (folder / file).open("a") as appended:
            appended.write(line + "\n")
        judge = JUDGE if file == "judged.qrels" else ("--backend", "openai:m", "--base-url", stub.url)
        done = llmrank("rerank", *FILES, "--output", "out.trec", *judge)
        assert (done.code, done.out) == (2, "")
        assert done.error.startswith(told)
        assert stub.bodies == []

    @pytest.mark.parametrize("flag", ["--queries", "--corpus", "--run"])
    def test_in_standard_input_and_gzip_files(self, llmrank: Program, folder: Path, flag: str) -> None:
        done = llmrank("rerank", *JOB, flag, "-", stdin=b"{\n")
        assert (done.code, done.error.split(":")[1]) == (2, "1")
        (folder / "cut.gz").write_bytes(gzip.compress(b"x" * 999)[:-9])
        done = llmrank("rerank", *JOB, flag, "cut.gz")
        assert (done.code, done.error[:7]) == (2, "cut.gz:")
        done = llmrank("rerank", *JOB, flag, "absent")
        assert (done.code, done.error) == (2, "cannot read absent: no such file")

    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            (["--nonsense"], "No such option: --nonsense"),
            (["--depth", "x"], "'--depth'"),
            (["--depth", "-1"], "--depth -1: "),
            (["--concurrency", "0"], "--concurrency 0: "),
            (["--rpm", "nan"], "--rpm nan: "),
            (["--max-failure-rate", "2"], "--max-failure-rate 2"),
            (["--method", "sliding-windo"], "did you mean sliding-window?"),
            (["--option", "k=3"], "--option k=3: the method sliding-window has no such option"),
            (["--option", "window"], "--option window: write it as KEY=VALUE"),
            (["--option", "=3"], "--option =3: write it as KEY=VALUE"),
            (["--option", "window=x"], "--option window=x: it must be a whole number"),
            (["--option", "stride=30"], "must not be larger than the window"),
            (["--template", "pointwise/yes-no"], "needs a template that asks `order`"),
            (["--template", "listwise/rnk"], "did you mean listwise/rank?"),
            (["--backend", "magic"], "there is no backend 'magic'"),
            (["--backend", "openai:"], "write openai:MODEL"),
            (["--backend", "openai:m", "--base-url", "here"], "write it like http://"),
            (["--backend", "simulated:judged.qrels?nois=1"], "nois is no parameter"),
            (["--max-cost", "1"], "give --price IN,OUT"),
            (["--price", "1"], "--price 1: "),
            (["--requests", "r.jsonl"], "leave out --queries"),
            (["--queries", "-", "--run", "-"], "only one of the inputs can be - (standard input)"),
            (["--ledger", "first.trec"], "first.trec: the ledger cannot be used"),
            (["--ledger", "."], "cannot be opened"),
            (["--output", "no/such/out"], "does not exist; make it first"),
            (["--output", "."], "this is a folder"),
            (["--output", ""], "--output: the name is empty"),
            (["--output", "x" * 255], "File name too long"),
            (["--report", "no/such/r.json"], "--report no/such/r.json: the folder"),
            (["--manifest", "."], "--manifest .: this is a folder"),
            (["--report", "out.trec"], "--output and --report are both out.trec"),
            (["--output", "-", "--json"], "--json and --output -"),
            (["--report", "-", "--json"], "--json and --report -"),
            (["--output", "-", "--manifest", "-"], "--output and --manifest are both -"),
            (["and", "more"], "unexpected extra argument"),
        ],
    )
    def test_in_flags_name_the_flag(self, llmrank: Program, flags: list[str], told: str) -> None:
        done = llmrank("rerank", *JOB, *flags)
        assert (done.code, done.out) == (2, "")
        assert told in done.error

    @pytest.mark.parametrize("flag", ["--queries", "--corpus", "--run", "--backend", "--output"])
    def test_in_flags_that_are_missing(self, llmrank: Program, flag: str) -> None:
        flags = list(JOB)
        at = flags.index(flag)
        del flags[at : at + 2]
        done = llmrank("rerank", *flags)
        assert done.code == 2
        assert flag in done.error

    def test_in_folders_that_cannot_be_written(self, llmrank: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as a user who may do everything
        assert "no permission to write there" in llmrank("rerank", *JOB).error

    def test_in_a_ledger_leave_an_earlier_partial_result_alone(self, llmrank: Program, folder: Path) -> None:
        (folder / "done.partial").write_text("kept\n")
        (folder / "torn").write_bytes(b"SQLite format 3\0" + b"torn" * 1000)
        done = llmrank("rerank", *JOB, "--output", "done", "--ledger", "torn")
        assert (done.code, (folder / "done.partial").read_text()) == (2, "kept\n")
        assert "torn: the ledger cannot be used" in done.error

    def test_that_are_mistakes_of_ours_are_one_line_too(
        self, llmrank: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError("of\nall things")

        monkeypatch.setattr("llmrank.cli.rerank.rerank_flags", broken)
        done = llmrank("rerank", *JOB)
        assert done.code == 1
        assert re.match(r"a mistake in llmrank: ZeroDivisionError: of all things \(.*\.py:\d+\)", done.error)


class TestFaultsOnTheWay:
    """What goes wrong after something was sent: exit code 1, one line, and what is done is kept."""

    def test_a_full_disk(self, llmrank: Program, folder: Path) -> None:
        code = (
            "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (800, 800)); from llmrank.cli.main import main;"
            "sys.argv[0] = 'llmrank'; main()"
        )
        command = [sys.executable, "-B", "-c", code, "rerank", *JOB, "--ledger", "none", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith(
            "llmrank: cannot write out.trec.partial: File too large; put that right, then run"
        )
        assert done.stderr.count("\n") == 1
        assert not (folder / "out.trec").exists()
        assert all(len(documents) == RUN[query] for query, documents in ids("out.trec.partial").items())

    def test_a_ledger_that_breaks(self, llmrank: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        async def broken(*_: object, **__: object) -> None:
            raise LedgerError("replies.ledger: the ledger cannot be used")

        monkeypatch.setattr(Ledger, "put", broken)
        done = llmrank("rerank", *JOB)
        assert done.code == 1
        assert done.error.startswith("replies.ledger: the ledger cannot be used; put that right, then run the same")
        assert Path("out.trec.partial").exists()
        assert not Path("out.trec").exists()

    def test_a_report_that_cannot_be_written(self, llmrank: Program) -> None:
        done = llmrank("rerank", *JOB, "--report", "/dev/full", "--quiet")
        assert done.code == 1
        assert "cannot write /dev/full: No space left on device" in done.error
        assert ".partial" not in done.error
        assert list(ids("out.trec")) == list(RUN)

    def test_leaves_an_earlier_output_alone(self, llmrank: Program, stub: Stub) -> None:
        Path("out.trec").write_text("earlier\n")
        stub.handler = lambda *_: web.json_response({"error": {"message": "no"}}, status=401)
        assert llmrank("rerank", *at(stub)).code == 5
        assert Path("out.trec").read_text() == "earlier\n"
        assert llmrank("rerank", *JOB).code == 0
        assert list(ids("out.trec")) == list(RUN)


class TestProgress:
    def test_is_a_line_now_and_then(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        now = 0.0
        monkeypatch.setattr("llmrank.cli.progress.time", SimpleNamespace(monotonic=lambda: now))
        result, spent = JobResult(), Totals()
        with Progress(4, 40, quiet=False) as progress:
            for second in range(1, 31):
                now, spent.calls, spent.cost = float(second), second, second / 1000
                result.totals.queries = second // 10
                progress.update(result, spent)
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.splitlines() == [
            "1/4 queries, 10 calls, 1.0/s, 0.0100 USD, about 30 s left",
            "2/4 queries, 20 calls, 1.0/s, 0.0200 USD, about 20 s left",
            "3/4 queries, 30 calls, 1.0/s, 0.0300 USD, about 10 s left",
        ]

    def test_is_a_bar_on_a_terminal(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        for quiet, shown in (([], True), (["--quiet"], False)):
            ours, theirs = os.openpty()
            command = [sys.executable, "-m", "llmrank", "rerank", *JOB, "--json", *quiet]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
            os.close(theirs)
            assert json.loads(done.stdout)["queries"] == 3
            told = b""
            with suppress(OSError):  # the terminal is gone
                while part := os.read(ours, 65536):
                    told += part
            os.close(ours)
            assert (b"3/3 queries, " in told) == shown
            assert (b"-> out.trec" in told) == shown


class TestConfig:
    def test_gives_flags_which_flags_overrule(self, llmrank: Program, folder: Path) -> None:
        values = {"queries": "queries.tsv", "corpus": "corpus.jsonl", "run": "first.trec", "output": "out.trec"}
        values |= {"backend": "simulated:judged.qrels", "method": "heapsort", "depth": 5, "max-calls": 100}
        values |= {"option": {"k": 3, "swap": False}, "quiet": True, "model_id": None}
        (folder / "job.yaml").write_text(yaml.safe_dump(values))
        assert llmrank("rerank", "--config", "job.yaml", "--manifest", "m.json") == (0, "", "")
        manifest = json.loads((folder / "m.json").read_text())
        assert (manifest["method"], manifest["options"]) == ("heapsort", {"k": 3, "swap": False, "lazy": False})
        assert (manifest["config"]["depth"], manifest["config"]["max_calls"]) == (5, 100)
        llmrank("rerank", "--config", "job.yaml", "--manifest", "m.json", "--depth", "6", "--option", "k=2")
        manifest = json.loads((folder / "m.json").read_text())
        assert manifest["options"] == {"k": 2, "swap": False, "lazy": False}
        assert manifest["config"]["depth"] == 6

    @pytest.mark.parametrize("text", ["option: [stride=5, window=17]", "option: {window: 17}", "option: window=17"])
    def test_takes_options_as_lists_mappings_and_words(self, llmrank: Program, folder: Path, text: str) -> None:
        (folder / "job.yaml").write_text(text)
        llmrank("rerank", *JOB, "--config", "job.yaml", "--manifest", "m.json")
        assert json.loads((folder / "m.json").read_text())["options"]["window"] == 17

    def test_may_be_standard_input(self, llmrank: Program) -> None:
        done = llmrank("rerank", *JOB, "--config", "-", stdin=b"json: true\ndepth: 3\n")
        assert (done.code, json.loads(done.out)["queries"]) == (0, 3)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            (b"method: a\n b: [", "job.yaml:2: this is no YAML ("),
            (b"- a\n", "must hold keys with values"),
            (b"\xff", "job.yaml:1: not UTF-8"),
            (b"colour: red", "colour is no flag of this command"),
            (b"config: job.yaml", "config is no flag of this command"),
            (b"depth: many", "--depth"),
            (b"depth: 4.5", "--depth"),
            (b"depth: [1]", "depth: [1] does not fit"),
            (b"depth: true", "depth: True does not fit"),
            (b"ledger: off", "put words such as no and off in quotes"),
            (b"quiet: 1", "it takes true or false"),
            (b"option: window", "write it as KEY=VALUE"),
        ],
    )
    def test_errors_name_the_file_or_the_flag(self, llmrank: Program, folder: Path, text: bytes, told: str) -> None:
        (folder / "job.yaml").write_bytes(text)
        done = llmrank("rerank", *JOB, "--config", "job.yaml")
        assert done.code == 2
        assert told in done.error
        assert "no such file" in llmrank("rerank", *JOB, "--config", "absent.yaml").error


def test_every_flag_has_its_place_in_the_help() -> None:
    assert set(SECTION) >= {*RerankFlags.model_fields, *Settings.model_fields}


def test_options_may_be_spelled_with_dashes(llmrank: Program) -> None:
    error = llmrank("rerank", *JOB, "--option", "block-size=3").error
    assert error.startswith("--option block_size=3")
