"""`llmrank judge` as a user calls it: files, exit codes, and what is left when it does not end well."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llmrank.data.qrels import read_qrels
from llmrank.llm.ledger import Ledger
from tests.cli.conftest import FILES, JUDGE, RUN, Program
from tests.stub import Stub, prompt_of

POOL = (*FILES, "--pool-depth", "10")
JOB = (*POOL, *JUDGE, "--output", "out.qrels")
PAIRS = sum(min(n, 10) for n in RUN.values())


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_labels_what_the_judge_says_in_the_order_of_the_input(llmrank: Program) -> None:
    done = llmrank("judge", *JOB, "--judgments", "out.jsonl")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(f"{PAIRS} pairs: {PAIRS} ok, 0 repaired, 0 failed; {PAIRS} questions, {PAIRS} calls, ")
    truth, found = read_qrels("judged.qrels"), read_qrels("out.qrels")
    assert found == {query: {doc: truth[query][doc] for doc in of_query} for query, of_query in found.items()}
    assert list(found) == list(RUN)
    assert [list(of_query) for of_query in found.values()] == [
        [f"{query}-d{i}" for i in range(min(n, 10))] for query, n in RUN.items()
    ]
    judged = lines("out.jsonl")
    assert [(j["query_id"], j["doc_id"], j["grade"]) for j in judged] == [
        (query, doc, grade) for query, of_query in found.items() for doc, grade in of_query.items()
    ]
    assert not Path("out.qrels.partial").exists()


def test_the_same_job_again_asks_nothing_and_writes_the_same_bytes(llmrank: Program) -> None:
    noisy = ("--backend", "simulated:judged.qrels?malformed=0.3&noise=0.2", "--max-failure-rate", "1")
    job = (*POOL, *noisy, "--judgments", "out.jsonl", "--json", "--quiet", "--output", "out.qrels")
    first = json.loads(llmrank("judge", *job).out)
    written = [Path(name).read_bytes() for name in ("out.qrels", "out.jsonl")]
    again = json.loads(llmrank("judge", *job, "--concurrency", "3").out)
    assert [Path(name).read_bytes() for name in ("out.qrels", "out.jsonl")] == written
    assert first["labels"]["failed"] > 0
    assert first["reused"] == 0
    assert (again["calls"], again["reused"]) == (0, PAIRS)
    assert again["labels"] == first["labels"]
    forms = json.loads(llmrank("judge", *job, "--template", "relevance/basic").out)
    assert forms["calls"] >= PAIRS  # a changed template is another key


def test_a_failed_label_is_absent_and_told_with_its_reason(llmrank: Program) -> None:
    faulty = ("--backend", "simulated:judged.qrels?malformed=0.2&refused=0.1", "--output", "out.qrels")
    job = (*POOL, *faulty, "--judgments", "out.jsonl", "--quiet", "--report", "r.json")
    done = llmrank("judge", *job)
    assert done.code == 3
    judged, found = lines("out.jsonl"), read_qrels("out.qrels")
    failed = [j for j in judged if j["status"] == "failed"]
    assert len(judged) == PAIRS
    assert {(j["query_id"], j["doc_id"]) for j in judged if j["grade"] is not None} == {
        (query, doc) for query, of_query in found.items() for doc in of_query
    }
    assert all(j["grade"] is None and j["reason"] for j in failed)
    assert len(failed) > 3
    assert f"{len(failed)} of {PAIRS} questions failed, more than --max-failure-rate 0.05" in done.error
    assert f"{len(failed)} labels are missing in out.qrels" in done.error
    report = json.loads(Path("r.json").read_text())
    assert sum(row["failed"] for row in report["queries"].values()) == len(failed)
    assert report["totals"]["templates"]["relevance/umbrela"]["failed"] == len(failed)
    assert sum(report["totals"]["label_reasons"].values()) == len(failed)
    loud = llmrank("judge", *(flag for flag in job if flag != "--quiet"), "--max-failure-rate", "1")
    why = ", ".join(f"{reason} {n}" for reason, n in report["totals"]["label_reasons"].items())
    assert f"{len(failed)} failed ({why}); " in loud.err
    told = llmrank("judge", *job, "--max-failure-rate", "1", "--on-failure", "error")
    first = failed[0]
    assert told.code == 3
    assert f"the first that of query {first['query_id']}, document {first['doc_id']} ({first['reason']})" in told.error
    assert llmrank("judge", *job, "--max-failure-rate", "1", "--on-failure", "0").code == 0
    filled = read_qrels("out.qrels")
    assert sum(map(len, filled.values())) == PAIRS
    assert all(filled[j["query_id"]][j["doc_id"]] == 0 for j in failed)
    assert [j["grade"] for j in lines("out.jsonl") if j["status"] == "failed"] == [None] * len(failed)


UNREADABLE = {
    "I cannot judge this passage as it was published in 2019": "refused",
    "10": "out-of-range",
    "##final score: 2 ... no.\n##final score: 3": "ambiguous",
    "<think>The label is 2. ##final score: 2</think>": "empty",
    "3: answers it; 2: in part; 1: on topic; 0: nothing": "no-label",
}


def test_over_a_server_what_settles_on_no_label_is_counted_and_is_in_no_qrels(llmrank: Program, folder: Path) -> None:
    said = ["##final score: 2", *UNREADABLE]
    (folder / "c.tsv").write_text("".join(f"d{i}\tpassage <{i}>\n" for i in range(len(said))))
    (folder / "p").write_text("".join(f"q1 d{i}\n" for i in range(len(said))))
    with Stub(lambda body, _: said[int(prompt_of(body).split("passage <")[1][0])]) as stub:
        files = ("--queries", "queries.tsv", "--corpus", "c.tsv", "--pairs", "p", "--output", "out.qrels")
        told = ("--judgments", "out.jsonl", "--report", "r.json", "--json", "--quiet", "--max-failure-rate", "1")
        done = llmrank("judge", *files, "--backend", "openai:m", "--base-url", stub.url, *told)
        assert len(stub.bodies) == 1 + 2 * len(UNREADABLE)
    assert Path("out.qrels").read_text() == "q1 0 d0 2\n"
    judged = lines("out.jsonl")
    assert [(j["grade"], j["reason"]) for j in judged] == [(2, None), *((None, why) for why in UNREADABLE.values())]
    counts = {"questions": len(said), "ok": 1, "repaired": 0, "failed": len(UNREADABLE)}
    assert json.loads(Path("r.json").read_text())["totals"]["templates"] == {"relevance/umbrela": counts}
    assert json.loads(done.out)["label_reasons"] == dict.fromkeys(UNREADABLE.values(), 1)


def test_a_model_that_scores_pairs_judges_through_its_endpoint(llmrank: Program) -> None:
    def scores(body: dict[str, Any], _: int) -> web.Response:
        return web.json_response({"results": [{"index": 0, "relevance_score": len(body["documents"][0]) - 20.75}]})

    with Stub(scores) as stub:
        backend = ("--backend", "openai:m?api=rerank", "--base-url", stub.url, "--template", "pointwise/cross-encoder")
        assert llmrank("judge", *POOL, *backend, "--output", "out.qrels", "--judgments", "out.jsonl").code == 0
        assert set(stub.bodies[0]) == {"model", "query", "documents"}
    judged = lines("out.jsonl")
    assert all(j["expected"] == float(j["raw"]) and abs(j["grade"] - j["expected"]) == 0.25 for j in judged)
    assert min(j["grade"] for j in judged) < 0


def test_holes_are_filled_and_the_human_lines_stay_byte_for_byte(llmrank: Program) -> None:
    truth = [line for line in Path("judged.qrels").read_text().splitlines() if not line.endswith(" 3")]
    human = "\r\n".join(line.replace(" 0 ", "  Q0\t", 1) for line in truth[::2]) + "\nq9 0 elsewhere -2"
    Path("human").write_bytes(human.encode())
    job = (*JOB, "--qrels", "human", "--holes-only", "--judgments", "new.jsonl")
    done = llmrank("judge", *job, "--quiet")
    assert (done.code, done.err) == (0, "")
    written = Path("out.qrels").read_bytes()
    assert written.startswith(human.encode() + b"\n")
    judged = [tuple(line.split()[:3:2]) for line in human.splitlines()]
    pool = [(query, f"{query}-d{i}") for query, n in RUN.items() for i in range(min(n, 10))]
    holes = [pair for pair in pool if pair not in judged]
    assert [(j["query_id"], j["doc_id"]) for j in lines("new.jsonl")] == holes
    synthetic = written[len(human) + 1 :].decode().splitlines()
    assert [tuple(line.split()[:3:2]) for line in synthetic] == holes
    # A job on its own result finds nothing more to do, and may write in place.
    again = (*POOL, *JUDGE, "--output", "out.qrels", "--qrels", "out.qrels", "--holes-only", "--json", "--quiet")
    assert json.loads(llmrank("judge", *again).out)["pairs"] == 0
    assert Path("out.qrels").read_bytes() == written


def test_pairs_may_be_listed_and_what_is_listed_twice_is_judged_once(llmrank: Program) -> None:
    listed = [("q1", "q1-d3"), ("q3", "q3-d0"), ("q1", "q1-d3")]
    Path("pairs.jsonl").write_text("".join(json.dumps({"qid": q, "docid": d}) + "\n" for q, d in listed))
    files = (*FILES[:4], "--pairs", "pairs.jsonl")
    done = llmrank("judge", *files, *JUDGE, "--output", "-", "--quiet")
    truth = read_qrels("judged.qrels")
    assert done.out == f"q1 0 q1-d3 {truth['q1']['q1-d3']}\nq3 0 q3-d0 {truth['q3']['q3-d0']}\n"


@pytest.mark.parametrize("flag", ["--output", "--judgments", "--report"])
def test_no_input_is_written_over(llmrank: Program, flag: str) -> None:
    before = Path("first.trec").read_bytes()
    rest = () if flag == "--output" else ("--output", "out.qrels")
    done = llmrank("judge", *POOL, *JUDGE, *rest, flag, "first.trec")
    assert done.code == 2
    assert f"{flag} first.trec: this file is read as well, and would be lost; name another" in done.error
    assert Path("first.trec").read_bytes() == before


def test_a_panel_writes_every_member_and_the_label_that_counts(llmrank: Program) -> None:
    judges = [f"simulated:judged.qrels?label_noise=0.3&seed={seed}" for seed in (1, 2, 3)]
    flags = [part for name, spec in zip("abc", judges, strict=True) for part in ("--judge", f"{name}={spec}")]
    for rule in ("majority", "strict", "mean", "median", "dawid-skene", "glad", "peer-rank", "exam"):
        exam = ("--exam", "judged.qrels") if rule == "exam" else ()
        job = (*POOL, *flags, "--output", "out.qrels", "--judgments", "out.jsonl", "--panel", rule, *exam)
        done = llmrank("judge", *job, "--json", "--quiet")
        assert (done.code, done.err) == (0, "")
        told = json.loads(done.out)
        judged = lines("out.jsonl")
        assert [j["member"] for j in judged] == ["a", "b", "c", None] * PAIRS
        finals = [j for j in judged if j["member"] is None]
        found = read_qrels("out.qrels")
        assert {(q, d): g for q, of in found.items() for d, g in of.items()} == {
            (j["query_id"], j["doc_id"]): j["grade"] for j in finals if j["grade"] is not None
        }
        assert told["panel"]["rule"] == rule
        assert list(told["panel"]["members"]) == ["a", "b", "c"]
        assert told["labels"]["ok"] + told["labels"]["repaired"] + told["labels"]["failed"] == PAIRS
        written = Path("out.qrels").read_bytes()
        assert llmrank("judge", *job, "--quiet", "--concurrency", "2").code == 0
        assert Path("out.qrels").read_bytes() == written


def test_a_panel_tells_how_many_pairs_of_runs_it_can_tell_apart(llmrank: Program) -> None:
    truth = read_qrels("judged.qrels")
    worst = [line for q, of in truth.items() for line in (f"{q} Q0 {d} 1 {3 - g} x" for d, g in of.items())]
    best = [line for q, of in truth.items() for line in (f"{q} Q0 {d} 1 {g} x" for d, g in of.items())]
    Path("worst").write_text("\n".join(worst) + "\n")
    Path("best").write_text("\n".join(best) + "\n")
    runs = ("--run", "worst", "--run", "best", "--run", "best", "--pool-depth", "5")
    judges = ("--judge", f"good={JUDGE[1]}", "--judge", f"too={JUDGE[1]}@relevance/basic")
    done = llmrank("judge", *FILES[:4], *runs, *judges, "--output", "out.qrels", "--json", "--quiet")
    told = json.loads(done.out)["panel"]["separability"]
    assert told["panel"] == told["good"] == told["too"]
    assert told["panel"]["pairs"] == 3
    assert 0 <= told["panel"]["value"] <= 2 / 3 + 1e-6  # a run is not apart from itself


def test_a_plan_is_what_the_job_then_does(llmrank: Program) -> None:
    for more in ((), ("--template", "relevance/binary", "--samples", "3", "--temperature", "1")):
        planned = json.loads(llmrank("plan", "judge", *JOB, "--price", "1,2", *more, "--json").out)
        done = json.loads(llmrank("judge", *JOB, "--price", "1,2", *more, "--json", "--ledger", "none").out)
        for count in ("pairs", "calls", "prompt_tokens", "completion_tokens"):
            assert planned[count] == done[count]
        assert planned["cost"] == pytest.approx(done["cost"], abs=1e-6)
        assert planned["rounds"] == 1
    llmrank("judge", *JOB, "--max-calls", "4", "--ledger", "some.ledger")
    planned = json.loads(llmrank("plan", "judge", *JOB, "--ledger", "some.ledger", "--json").out)
    assert (planned["calls"], planned["reused"]) == (PAIRS - 4, 4)
    panel = ("--judge", "a=lexical", "--judge", "b=lexical@relevance/basic", "--output", "x")
    assert json.loads(llmrank("plan", "judge", *POOL, *panel, "--json").out)["calls"] == 2 * PAIRS
    ranged = json.loads(llmrank("plan", "judge", *POOL, *panel, "--escalate", "0.4", "--json").out)["calls"]
    done = json.loads(llmrank("judge", *POOL, *panel, "--escalate", "0.4", "--json", "--quiet").out)["calls"]
    assert ranged["min"] == PAIRS <= done <= ranged["max"] == 2 * PAIRS
    assert "judging 21 pairs of 3 queries with relevance/umbrela" in llmrank("plan", "judge", *JOB).out


def test_a_budget_ends_it_with_what_is_done(llmrank: Program) -> None:
    done = llmrank("judge", *JOB, "--max-calls", "8", "--judgments", "out.jsonl", "--quiet")
    assert done.code == 4
    assert f"the budget --max-calls 8 ended the job: {PAIRS - 8} of {PAIRS} pairs are not judged" in done.error
    assert len(lines("out.jsonl")) == 8 == sum(map(len, read_qrels("out.qrels").values()))
    assert llmrank("judge", *JOB, "--judgments", "out.jsonl", "--json", "--quiet").code == 0
    assert len(lines("out.jsonl")) == PAIRS


def test_the_manifest_repeats_the_job(llmrank: Program) -> None:
    job = (*JOB, "--template", "relevance/basic", "--sample", "9", "--strata", "rank", "--seed", "3")
    assert llmrank("judge", *job, "--manifest", "m.json", "--quiet").code == 0
    first = Path("out.qrels").read_bytes()
    manifest = json.loads(Path("m.json").read_text())
    assert manifest["judges"][""]["template"]["name"] == "relevance/basic"
    assert set(manifest["inputs"]) == {"queries.tsv", "corpus.jsonl", "first.trec"}
    Path("job.yaml").write_text(json.dumps(manifest["config"]))
    again = llmrank("judge", "--config", "job.yaml", "--output", "again.qrels", "--json", "--quiet")
    assert json.loads(again.out)["calls"] == 0
    assert Path("again.qrels").read_bytes() == first


def test_the_ledger_explains_a_label(llmrank: Program) -> None:
    llmrank("judge", *JOB, "--judgments", "out.jsonl")
    label = lines("out.jsonl")[4]
    shown = llmrank("ledger", "show", label["key"]).out
    assert f"text of {label['doc_id']}" in shown
    assert "what is thing q2" in shown
    assert shown.rstrip().endswith(f"--- reply\n{label['raw']}")


def test_two_halves_on_one_ledger_and_on_two_make_one(llmrank: Program, folder: Path) -> None:
    everything = [f"{q} {q}-d{i}" for q, n in RUN.items() for i in range(n)]
    (folder / "all").write_text("\n".join(everything) + "\n")
    halves = {"one": everything[::2], "two": everything[1::2]}
    base = (*FILES[:4], *JUDGE, "--quiet")
    for shared in (True, False):
        running = []
        for name, half in halves.items():
            (folder / name).write_text("\n".join(half) + "\n")
            ledger = "shared.ledger" if shared else f"{name}.ledger"
            flags = (*base, "--pairs", name, "--output", f"{name}.qrels", "--ledger", ledger)
            running.append(subprocess.Popen([sys.executable, "-m", "llmrank", "judge", *flags]))
        assert [process.wait() for process in running] == [0, 0]
        if not shared:
            assert llmrank("ledger", "merge", "one.ledger", "two.ledger", "--ledger", "merged.ledger").code == 0
        ledger = "shared.ledger" if shared else "merged.ledger"
        whole = llmrank("judge", *base, "--pairs", "all", "--output", "all.qrels", "--ledger", ledger, "--json")
        assert (json.loads(whole.out)["calls"], json.loads(whole.out)["reused"]) == (0, len(everything))
        truth = read_qrels("judged.qrels")
        assert read_qrels("all.qrels") == {query: truth[query] for query in RUN}


def label_of(body: dict[str, Any]) -> str:
    return f"##final score: {int(prompt_of(body).split('thingy ')[1].split()[0]) % 4}"


def collection(folder: Path, pairs: int) -> tuple[str, ...]:
    """Queries with 50 documents each, the documents numbered through."""
    queries = -(-pairs // 50)
    (folder / "many.tsv").write_text("".join(f"t{q}\tthing {q}\n" for q in range(queries)))
    (folder / "many.corpus").write_text("".join(f"n{i}\tthingy {i} .\n" for i in range(pairs)))
    (folder / "many.pairs").write_text("".join(f"t{i // 50} n{i}\n" for i in range(pairs)))
    return ("--queries", "many.tsv", "--corpus", "many.corpus", "--pairs", "many.pairs")


def test_a_job_killed_at_any_moment_is_finished_without_asking_twice(folder: Path) -> None:
    pairs, concurrency, draw = 2000, 16, random.Random(5)
    files = collection(folder, pairs)
    asked: list[str] = []
    kill_at, process = 0, None

    def counting(body: dict[str, Any], number: int) -> str:
        asked.append(prompt_of(body))
        if len(asked) == kill_at and process is not None:
            os.kill(process.pid, signal.SIGKILL)
        return label_of(body)

    def stored() -> int:
        with_ledger = Path("kill.ledger").exists()
        return len(list(Ledger("kill.ledger").rows())) if with_ledger else 0

    with Stub(counting) as stub:
        flags = (*files, "--backend", "openai:m", "--base-url", stub.url, "--ledger", "kill.ledger", "--output", "k")
        command = [sys.executable, "-m", "llmrank", "judge", *flags, "--judgments", "k.jsonl", "--quiet"]
        command += ["--concurrency", str(concurrency)]
        for _ in range(3):
            before, start = stored(), len(asked)
            kill_at = start + draw.randint(1, 400)
            process = subprocess.Popen(command)
            assert process.wait() == -signal.SIGKILL
            assert not Path("k").exists()
            partial = Path("k.partial").read_text() if Path("k.partial").exists() else ""
            assert partial == "" or partial.endswith("\n")
            assert stored() >= before
        process = None
        subprocess.run(command, check=True)
    assert len(asked) <= pairs + 3 * concurrency  # at most those in flight at a kill are asked again
    assert len(set(asked)) == pairs
    assert Path("k").read_text() == "".join(f"t{i // 50} 0 n{i} {i % 4}\n" for i in range(pairs))
    assert [j["doc_id"] for j in lines("k.jsonl")] == [f"n{i}" for i in range(pairs)]
    assert not Path("k.partial").exists()


def test_ctrl_c_leaves_whole_lines_and_says_how_to_go_on(folder: Path) -> None:
    files = collection(folder, 400)
    held: list[subprocess.Popen[str]] = []

    def interrupting(body: dict[str, Any], number: int) -> str:
        if number == 150:
            held[0].send_signal(signal.SIGINT)
        return label_of(body)

    with Stub(interrupting) as stub:
        flags = (*files, "--backend", "openai:m", "--base-url", stub.url, "--output", "out.qrels", "--concurrency", "8")
        command = [sys.executable, "-m", "llmrank", "judge", *flags]
        held.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        _, told = held[0].communicate()
    assert held[0].returncode == 130
    assert len(told.splitlines()) == 1
    assert told.startswith("llmrank: interrupted; run the same command to go on: ")
    assert "of 400 pairs are done, in out.qrels.partial, and the replies so far are kept in" in told
    assert not Path("out.qrels").exists()
    partial = Path("out.qrels.partial").read_text()
    assert partial.endswith("\n")
    done = [line.split() for line in partial.splitlines()]
    assert all(int(grade) == int(doc[1:]) % 4 for _, _, doc, grade in done)


def test_a_refused_key_costs_one_request_and_exits_with_5(llmrank: Program) -> None:
    error = {"error": {"message": "no such key"}}
    with Stub(lambda *_: web.json_response(error, status=401)) as stub:
        done = llmrank("judge", *POOL, "--backend", "openai:m", "--base-url", stub.url, "--output", "out.qrels")
        assert len(stub.bodies) == 1
    assert done.code == 5
    assert "the backend refused" in done.error
    assert not Path("out.qrels").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "--queries is missing"),
        (FILES[:4], "--backend is missing"),
        ((*FILES[:4], *JUDGE), "nothing to judge is named"),
        ((*FILES, *JUDGE), "--run needs --pool-depth"),
        ((*POOL, *JUDGE, "--judge", "a=lexical"), "leave out --backend"),
        ((*POOL, *JUDGE, "--panel", "majority"), "--panel is about a panel: name at least two judges"),
        ((*POOL, "--judge", "a=lexical", "--judge", "b=lexical", "--panel", "magic"), "--panel magic: there is no"),
        ((*POOL, *JUDGE, "--on-failure", "maybe"), "--on-failure maybe: write drop, error, or"),
        ((*POOL, *JUDGE, "--strata", "colour", "--sample", "3"), "--strata colour: there are rank, grade and"),
        ((*POOL, *JUDGE, "--template", "listwise/rank"), "a judge needs a template that asks `grade`"),
        ((*POOL, *JUDGE, "--template", "relevance/umbrella"), "did you mean relevance/umbrela"),
        ((*POOL, "--backend", "lexical", "--constrain"), "needs choice"),
        ((*POOL, *JUDGE, "--pass-mark", "2"), "--pass-mark 2"),
        ((*POOL, *JUDGE, "--option", "k=3"), "has no such option"),
        ((*POOL, *JUDGE, "--judgments", "out.qrels"), "--output and --judgments are both out.qrels"),
        ((*POOL, *JUDGE, "--judgments", "no/such/file"), "--judgments no/such/file: the folder"),
        ((*POOL, *JUDGE, "--qrels", "absent", "--holes-only"), "cannot read absent"),
    ],
)
def test_bad_usage_is_one_line_and_sends_nothing(llmrank: Program, flags: tuple[str, ...], told: str) -> None:
    done = llmrank("judge", *flags, "--output", "out.qrels")
    assert (done.code, done.out) == (2, "")
    assert told in done.error
    assert not Path("out.qrels").exists()
    assert not Path("replies.ledger").exists()


def test_json_and_quiet_leave_the_streams_to_their_use(llmrank: Program) -> None:
    done = llmrank("judge", *JOB, "--json", "--quiet")
    assert done.err == ""
    assert json.loads(done.out)["pairs"] == PAIRS
    assert done.out.count("\n") == 1
    assert "--json and --judgments -" in llmrank("judge", *JOB, "--json", "--judgments", "-").error
