"""`llmrank ledger`: looking into the file of all replies, and moving, joining, checking and thinning it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import FILES, JOB, Outcome, Program


@pytest.fixture
def filled(llmrank: Program) -> Path:
    """The default ledger, with three replies of the simulated judge and 38 of the lexical one."""
    llmrank("rerank", *JOB)
    llmrank("rerank", *FILES, "--backend", "lexical", "--output", "out.trec", "--method", "pointwise")
    return Path("replies.ledger")


def exported(llmrank: Program, *more: str) -> list[dict[str, Any]]:
    done = llmrank("ledger", "export", *more)
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.out.splitlines()]


def change(path: Path, statement: str, *values: Any) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement, values)
    database.close()


@pytest.mark.usefixtures("filled")
class TestStats:
    def test_count_the_replies_of_each_model(self, llmrank: Program) -> None:
        told = json.loads(llmrank("ledger", "stats", "--json").out)
        assert {model["kind"]: model["replies"] for model in told["models"]} == {"lexical": 38, "simulated": 3}
        assert told["replies"] == 41
        assert told["file"].endswith("replies.ledger")
        text = llmrank("ledger", "stats").out
        assert "41 replies" in text
        assert "lexical:overlap-1" in text

    def test_of_another_ledger(self, llmrank: Program) -> None:
        llmrank("rerank", *JOB, "--ledger", "other.ledger")
        assert json.loads(llmrank("ledger", "stats", "--json", "--ledger", "other.ledger").out)["replies"] == 3


class TestShow:
    def test_finds_a_reply_by_the_beginning_of_its_key(self, llmrank: Program, filled: Path) -> None:
        record = next(r for r in exported(llmrank) if r["kind"] == "simulated")
        done = llmrank("ledger", "show", record["key"][:12].upper(), "--json")
        assert json.loads(done.out) == record
        shown = llmrank("ledger", "show", record["key"]).out
        assert record["key"] in shown
        assert record["reply"][0] in shown
        assert "--- user\n" in shown
        assert "what is thing" in shown

    @pytest.mark.parametrize(
        ("key", "told"),
        [("xyz", "hexadecimal"), ("ab", "at least its first 4 digits"), ("0" * 64, "no reply has a key that begins")],
    )
    def test_that_finds_none_says_so(self, llmrank: Program, filled: Path, key: str, told: str) -> None:
        done = llmrank("ledger", "show", key)
        assert (done.code, done.out) == (2, "")
        assert told in done.error

    def test_that_finds_several_says_so(self, llmrank: Program, filled: Path) -> None:
        change(filled, "UPDATE replies SET key = CAST(x'aaaa' || substr(key, 3) AS BLOB)")
        assert "41 replies have keys that begin with aaaa; give more digits" in llmrank("ledger", "show", "aaaa").error


class TestExport:
    def test_holds_every_reply_with_its_request(self, llmrank: Program, filled: Path) -> None:
        records = exported(llmrank)
        assert len({record["key"] for record in records}) == 41
        assert {"key", "kind", "model", "origin", "created", "reply", "request"} <= records[0].keys()
        assert any("what is thing q2" in json.dumps(record["request"]) for record in records)

    def test_to_a_file(self, llmrank: Program, filled: Path) -> None:
        assert llmrank("ledger", "export", "--output", "all.jsonl") == (0, "", "")
        assert Path("all.jsonl").read_text() == llmrank("ledger", "export").out
        told = json.loads(llmrank("ledger", "export", "--output", "all.jsonl", "--json").out)
        assert (told["replies"], told["output"]) == (41, "all.jsonl")
        assert "name a file" in llmrank("ledger", "export", "--json").error
        assert "does not exist; make it first" in llmrank("ledger", "export", "--output", "no/such/file").error


class TestMerge:
    def test_adds_what_is_new_and_keeps_what_is_there(self, llmrank: Program, filled: Path) -> None:
        llmrank("rerank", *JOB, "--ledger", "other.ledger", "--method", "pointwise")
        change(Path("other.ledger"), "UPDATE replies SET created = 1")
        before = exported(llmrank)
        done = llmrank("ledger", "merge", "other.ledger", "replies.ledger", "--ledger", "all.ledger", "--json")
        assert [merged["new"] for merged in json.loads(done.out)["merged"]] == [38, 41]
        assert len(exported(llmrank, "--ledger", "all.ledger")) == 79
        done = llmrank("ledger", "merge", "all.ledger")
        assert done.out == f"all.ledger: 38 of 79 replies were new to {filled.absolute()}\n"
        assert exported(llmrank)[:41] == before
        assert llmrank("ledger", "verify").code == 0
        done = llmrank("rerank", *JOB, "--method", "pointwise", "--json")  # what was merged is used
        assert json.loads(done.out)["calls"] == 0

    def test_of_a_ledger_that_is_not_there_writes_nothing(self, llmrank: Program) -> None:
        done = llmrank("ledger", "merge", "absent", "--ledger", "all.ledger")
        assert (done.code, done.out) == (2, "")
        assert done.error.startswith("absent: there is no ledger here")
        assert not Path("all.ledger").exists()

    def test_into_itself_is_refused(self, llmrank: Program, filled: Path) -> None:
        before = exported(llmrank)
        assert "replies.ledger is the same file" in llmrank("ledger", "merge", "./replies.ledger").error
        assert exported(llmrank) == before


class TestVerify:
    def test_says_that_all_is_well(self, llmrank: Program, filled: Path) -> None:
        assert llmrank("ledger", "verify").out.endswith("replies.ledger: 41 replies, 0 damaged\n")
        assert json.loads(llmrank("ledger", "verify", "--json").out)["damaged"] == []

    @pytest.mark.parametrize("column", ["reply", "request"])
    def test_finds_what_was_changed(self, llmrank: Program, filled: Path, column: str) -> None:
        key = exported(llmrank)[5]["key"]
        change(filled, f"UPDATE replies SET {column} = x'7b' WHERE hex(key) = ?", key.upper())
        done = llmrank("ledger", "verify", "--json")
        assert (done.code, json.loads(done.out)["damaged"]) == (2, [key])
        assert key in done.error
        assert "41 replies, 1 damaged" in llmrank("ledger", "verify").out
        assert key in llmrank("ledger", "export").error
        assert key in llmrank("ledger", "show", key).error

    def test_and_all_others_tell_of_a_damaged_file_and_leave_it_as_it_is(self, llmrank: Program, filled: Path) -> None:
        whole = filled.read_bytes()
        torn = whole[:4096] + bytes(8192) + whole[12288:]
        Path("torn").write_bytes(torn)
        commands = (["stats"], ["export"], ["verify"], ["show", "abcd"], ["prune", "--older-than", "0", "--yes"])
        for command in commands:
            done = llmrank("ledger", *command, "--ledger", "torn")
            assert done.code == 2
            assert "torn" in done.error
        assert Path("torn").read_bytes() == torn


class TestPrune:
    def test_tells_the_number_first(self, llmrank: Program, filled: Path) -> None:
        assert "38 replies would be removed; add --yes" in llmrank("ledger", "prune", "--model", "overlap-1").out
        assert len(exported(llmrank)) == 41

    def test_removes_for_good(self, llmrank: Program, filled: Path) -> None:
        done = llmrank("ledger", "prune", "--model", "overlap-1", "--yes", "--json")
        assert json.loads(done.out)["replies"] == 38
        assert {record["kind"] for record in exported(llmrank)} == {"simulated"}
        assert llmrank("ledger", "verify").code == 0

    def test_by_age(self, llmrank: Program, filled: Path) -> None:
        change(filled, "UPDATE replies SET created = created - 86400 * 10 WHERE kind = 'simulated'")
        told = json.loads(llmrank("ledger", "prune", "--older-than", "9.5", "--json").out)
        assert (told["replies"], told["removed"]) == (3, False)
        assert json.loads(llmrank("ledger", "prune", "--older-than", "10.5", "--json").out)["replies"] == 0

    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            ([], "name what to remove"),
            (["--older-than", "-1"], "must not be below 0"),
            (["--older-than", "nan"], "must not be below 0"),
            (["--older-than", "x"], "--older-than"),
        ],
    )
    def test_refuses_what_it_cannot_mean(self, llmrank: Program, filled: Path, flags: list[str], told: str) -> None:
        done = llmrank("ledger", "prune", "--yes", *flags)
        assert done.code == 2
        assert told in done.error
        assert len(exported(llmrank)) == 41


COMMANDS = (["stats"], ["show", "abcd"], ["export"], ["verify"], ["prune", "--older-than", "1", "--yes"])


@pytest.mark.parametrize("command", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_no_ledger_is_an_error_and_makes_none(llmrank: Program, folder: Path, command: list[str]) -> None:
    def refused(done: Outcome, told: str) -> None:
        assert (done.code, done.out) == (2, "")
        assert told in done.error

    refused(llmrank("ledger", *command), "replies.ledger: there is no ledger here")
    refused(llmrank("ledger", *command, "--ledger", "absent"), "absent: there is no ledger here")
    refused(llmrank("ledger", *command, "--ledger", "first.trec"), "first.trec: the ledger cannot be used")
    assert not (folder / "replies.ledger").exists()
    assert not (folder / "absent").exists()
