"""The ledger keeps every committed reply, through kills, other processes and damage."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmrank.llm.ledger import Ledger, LedgerError, Row, default_path
from llmrank.llm.types import Reply
from llmrank.questions import Token


def row(name: str, text: str = "said") -> Row:
    request = name.encode()
    return Row(hashlib.sha256(request).digest(), "openai", "m", "http://h/v1", 1.0, Reply(text).dumps(), request)


def put_all(path: Path, rows: list[Row], replace: bool = False) -> None:
    async def work() -> None:
        ledger = Ledger(path)
        await asyncio.gather(*(ledger.put(r, replace=replace) for r in rows))
        ledger.close()

    asyncio.run(work())


def test_a_reply_comes_back_as_it_was(tmp_path: Path) -> None:
    reply = Reply(
        "[2] > [1] \ud7ff \x00 ünï",
        finish="stop",
        tokens=(Token("[", -0.1, (("[", -0.1), ("2", -3.0))),),
        reasoning="thus",
        prompt_tokens=7,
        completion_tokens=3,
        cached_tokens=None,
    )
    put_all(tmp_path / "l", [row("a")._replace(reply=reply.dumps())])
    found = Ledger(tmp_path / "l").get(row("a").key)
    assert found is not None
    assert found[0] == Reply(**{**{f: getattr(reply, f) for f in Reply.__slots__}, "tokens": list(reply.tokens or ())})
    assert found[1] == "http://h/v1"
    assert Ledger(tmp_path / "l").get(b"other") is None


def test_the_first_reply_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    put_all(tmp_path / "l", [row("a", "first")])
    put_all(tmp_path / "l", [row("a", "second")])
    assert Ledger(tmp_path / "l").get(row("a").key)[0].text == "first"  # type: ignore[index]
    put_all(tmp_path / "l", [row("a", "third")], replace=True)
    assert Ledger(tmp_path / "l").get(row("a").key)[0].text == "third"  # type: ignore[index]


def test_a_damaged_file_is_named_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_bytes(b"this is no database at all, however long it may be" * 50)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"l: the ledger cannot be used .* nothing was overwritten"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_file_cut_in_the_middle_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "l"
    put_all(path, [row(str(i), "x" * 5000) for i in range(200)])
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(LedgerError, match="cannot be used"):
        [Ledger(path).get(row(str(i)).key) for i in range(200)]


def test_another_database_is_no_ledger(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l") as db:
        db.execute("CREATE TABLE mine (a)")
    with pytest.raises(LedgerError, match="no llmrank ledger"):
        Ledger(tmp_path / "l")


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    put_all(tmp_path / "l", [row("a")])
    with sqlite3.connect(tmp_path / "l") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="schema version 99, this llmrank reads 1"):
        Ledger(tmp_path / "l")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "l")


def test_reading_only_needs_a_ledger_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger here"):
        Ledger(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()


def test_while_another_process_writes_the_loop_goes_on(tmp_path: Path) -> None:
    """A lock that is held does not block the event loop, and the reply is committed when it is given back."""
    path = tmp_path / "l"
    put_all(path, [])

    async def work() -> tuple[int, bool]:
        ledger = Ledger(path)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        putting = asyncio.create_task(ledger.put(row("a")))
        turns = 0
        while turns < 20:  # the loop runs on; the put waits
            await asyncio.sleep(0.002)
            turns += 1
        waited = not putting.done()
        other.execute("COMMIT")
        await putting
        other.close()
        ledger.close()
        return turns, waited

    assert asyncio.run(work()) == (20, True)
    assert Ledger(path).get(row("a").key) is not None


def _write_some(path: Path, name: str) -> None:
    put_all(path, [row(f"{name} {i}") for i in range(300)])


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_some, args=(tmp_path / "l", f"writer {w}")) for w in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert Ledger(tmp_path / "l").query("SELECT count(*) FROM replies") == [(900,)]


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from llmrank.llm.ledger import Ledger
from tests.llm.test_ledger import row

async def work():
    ledger = Ledger(Path(sys.argv[1]))
    for i in range(100_000):
        await ledger.put(row(str(i)))
        print(i, flush=True)

asyncio.run(work())
"""


def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent.parent)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "l"), root], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert writer.stdout is not None
    last = -1
    for line in writer.stdout:
        last = int(line)
        if last == 150:
            os.kill(writer.pid, signal.SIGKILL)
            break
    rest = writer.stdout.read().split()
    writer.wait()
    told = max([last, *map(int, rest)])
    ledger = Ledger(tmp_path / "l")
    assert all(ledger.get(row(str(i)).key) is not None for i in range(told + 1))
    put_all(tmp_path / "l", [row("after")])  # and it can be written again


def test_the_default_place_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMRANK_LEDGER", str(tmp_path / "mine"))
    assert default_path() == tmp_path / "mine"
    monkeypatch.delenv("LLMRANK_LEDGER")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "llmrank" / "replies.ledger"


def test_rows_can_be_removed_and_added(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    assert ledger.add([row("a"), row("b")]) == 2
    assert ledger.add([row("b"), row("c")]) == 1
    assert ledger.delete("created < ?", (time.time(),)) == 3
    ledger.compact()
    assert list(ledger.rows()) == []


def _open_new(path: Path) -> None:
    Ledger(path).close()


def test_many_processes_may_make_the_file_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(5):
        openers = [context.Process(target=_open_new, args=(tmp_path / f"l{turn}",)) for _ in range(6)]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join()
        assert [opener.exitcode for opener in openers] == [0] * 6


def test_a_lock_that_is_never_given_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "l"
    put_all(path, [])
    monkeypatch.setattr("llmrank.llm.ledger.LOCKED_LONGEST", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match=r"cannot be used .*locked"):
        put_all(path, [row("a")])
    other.close()


def test_a_backend_that_does_not_say_what_it_is_has_no_ledger(tmp_path: Path) -> None:
    from llmrank.settings import Settings

    class Unnamed:
        async def complete(self, request: object) -> Reply:
            return Reply("")

    class Named(Unnamed):
        model = "m"

    settings = Settings.of(ledger=str(tmp_path / "l"))
    assert settings.open_ledger(Unnamed()) is None  # type: ignore[arg-type]
    assert settings.open_ledger(Named()) is not None  # type: ignore[arg-type]
    named = Settings.of(ledger=str(tmp_path / "l"), model_id="mine")
    assert named.open_ledger(Unnamed()) is not None  # type: ignore[arg-type]
