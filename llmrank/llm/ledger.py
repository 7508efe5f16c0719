"""The ledger: every reply ever received, in one SQLite file, so that nothing is lost and nothing is paid for twice.

Replies are committed in groups, a moment after they come in, on the event loop itself: a commit takes tens of
microseconds, a thread to hand it to would take more. Where another process holds the lock the group waits and tries
again, without blocking the loop. WAL mode keeps every commit through a kill -9.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmrank.errors import LlmrankError
from llmrank.llm.types import Reply

APPLICATION_ID = 0x4C4C4D52  # "LLMR", in the header of the file: tells a ledger from any other SQLite file
SCHEMA_VERSION = 1
PAGE_SIZE = 8192  # bytes; a prompt with a window of passages takes a third less to write than with SQLite's own 4096
GROUP_SECONDS = 0.002  # how long a reply waits for others to be committed with
LOCKED_SECONDS = 0.01  # how long to wait before trying again while another process writes
LOCKED_LONGEST = 60.0  # how long to go on with that
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY,      -- sha256 of `request`
    kind TEXT NOT NULL,        -- kind of backend
    model TEXT NOT NULL,
    origin TEXT NOT NULL,      -- address of the server, without credentials
    created REAL NOT NULL,     -- seconds since 1970
    reply BLOB NOT NULL,       -- JSON, see Reply.dumps
    request BLOB NOT NULL      -- JSON, see Request.canonical
);
"""


class LedgerError(LlmrankError):
    """The ledger file cannot be used: damaged, of another kind or version, or not writable."""


class Row(NamedTuple):
    """One stored reply."""

    key: bytes
    kind: str
    model: str
    origin: str
    created: float
    reply: bytes
    request: bytes


class Ledger:
    """Replies by key. One object belongs to one event loop; any number of processes may share the file."""

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._pending: list[tuple[Row, bool, asyncio.Future[None]]] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._locked_since: float | None = None
        self._db = _open(self.path, read_only)
        # Readers may wait for a moment (a crashed writer's log is being recovered); a writer must not block the loop.
        self._writer = self._db if read_only else sqlite3.connect(self.path, isolation_level=None, timeout=0)
        self._writer.execute("PRAGMA synchronous = NORMAL")  # in WAL mode a killed process loses no commit
        self._reading = False
        self._find = "SELECT reply, origin FROM replies WHERE key = ?"

    def get(self, key: bytes) -> tuple[Reply, str] | None:
        """The stored reply and the address that it came from."""
        try:
            if not self._reading:
                self._read_on()
            found = self._db.execute(self._find, (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise damaged(self.path, error) from error
        return None if found is None else (Reply.loads(found[0]), found[1])

    def _read_on(self) -> None:
        """Keeps one read transaction for the rest of this turn of the loop: locks for each reply would cost more."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._db.execute("BEGIN")
        self._reading = True
        loop.call_soon(self._read_off)

    def _read_off(self) -> None:
        if self._reading:
            self._reading = False
            self._db.execute("COMMIT")

    def several(self, keys: Sequence[bytes]) -> dict[bytes, tuple[Reply, str]]:
        """Those of the stored replies that are there, each as `get` gives it, read at once."""
        places = ", ".join("?" * len(keys))
        found = self.query(f"SELECT key, reply, origin FROM replies WHERE key IN ({places})", tuple(keys))
        return {key: (Reply.loads(reply), origin) for key, reply, origin in found}

    async def put(self, row: Row, *, replace: bool = False) -> None:
        """Returns when the reply is committed. A reply that is there already stays, unless `replace`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._pending.append((row, replace, done))
        if self._flushing is None:
            self._flushing = loop.call_later(GROUP_SECONDS, self._flush, loop)
        await done

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._flushing = None
        group, self._pending = self._pending, []
        try:
            self._commit([(row, replace) for row, replace, _ in group])
        except sqlite3.OperationalError as error:
            if not _locked(error):
                _fail(group, error, self.path)
                return
            now = loop.time()
            self._locked_since = self._locked_since or now
            if now - self._locked_since > LOCKED_LONGEST:
                _fail(group, error, self.path)
                return
            self._pending = group + self._pending
            self._flushing = loop.call_later(LOCKED_SECONDS, self._flush, loop)
            return
        except sqlite3.DatabaseError as error:
            _fail(group, error, self.path)
            return
        self._locked_since = None
        for _, _, done in group:
            if not done.done():
                done.set_result(None)

    def _commit(self, rows: list[tuple[Row, bool]]) -> None:
        self._read_off()
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            for verb in ("IGNORE", "REPLACE"):
                wanted = [row for row, replace in rows if replace == (verb == "REPLACE")]
                if wanted:
                    self._writer.executemany(f"INSERT OR {verb} INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", wanted)
            self._writer.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise

    def rows(self, where: str = "1", parameters: tuple[Any, ...] = ()) -> Iterator[Row]:
        """The stored rows that an SQL condition selects, oldest first."""
        columns = ", ".join(Row._fields)
        try:
            for row in self._db.execute(f"SELECT {columns} FROM replies WHERE {where} ORDER BY rowid", parameters):
                yield Row(*row)
        except sqlite3.DatabaseError as error:
            raise damaged(self.path, error) from error

    def query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows of any reading SQL statement."""
        try:
            return self._db.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise damaged(self.path, error) from error

    def add(self, rows: list[Row]) -> int:
        """Commits rows at once, from outside an event loop; returns how many were new."""
        before = self._writer.total_changes
        self._patiently(lambda: self._commit([(row, False) for row in rows]))
        return self._writer.total_changes - before

    def delete(self, where: str, parameters: tuple[Any, ...] = ()) -> int:
        """Removes the rows that an SQL condition selects; returns how many."""
        removed: int = self._patiently(
            lambda: self._writer.execute(f"DELETE FROM replies WHERE {where}", parameters).rowcount
        )
        return removed

    def compact(self) -> None:
        self._patiently(lambda: self._writer.execute("VACUUM"))

    def _patiently(self, action: Any) -> Any:
        self._read_off()
        deadline = time.monotonic() + LOCKED_LONGEST
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if not _locked(error) or time.monotonic() > deadline:
                    raise damaged(self.path, error) from error
                time.sleep(LOCKED_SECONDS)
            except sqlite3.DatabaseError as error:
                raise damaged(self.path, error) from error

    def close(self) -> None:
        """Commits what is pending, as far as the file lets it, and closes."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._pending:
            group, self._pending = self._pending, []
            self._patiently(lambda: self._commit([(row, replace) for row, replace, _ in group]))
            for _, _, done in group:
                if not done.done() and not done.get_loop().is_closed():
                    done.set_result(None)
        self._read_off()
        self._writer.close()
        self._db.close()


def default_path() -> Path:
    """The ledger in the user's cache folder; `LLMRANK_LEDGER` names another."""
    if named := os.environ.get("LLMRANK_LEDGER"):
        return Path(named)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "llmrank" / "replies.ledger"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "llmrank" / "replies.ledger"
    folder = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path.home() / folder / "llmrank" / "replies.ledger"


def damaged(path: Path, error: Exception) -> LedgerError:
    foreign = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB
    cure = "" if foreign else "run `llmrank ledger verify`, or "
    return LedgerError(
        f"{path}: the ledger cannot be used ({error}); nothing was overwritten: {cure}name another with --ledger"
    )


def _open(path: Path, read_only: bool) -> sqlite3.Connection:
    deadline = time.monotonic() + LOCKED_LONGEST
    while True:
        try:
            return _connected(path, read_only)
        except LedgerError as error:
            # SQLite does not wait for a file that another process is just making.
            busy = isinstance(error.__cause__, sqlite3.OperationalError) and _locked(error.__cause__)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(LOCKED_SECONDS)


def _connected(path: Path, read_only: bool) -> sqlite3.Connection:
    exists = path.exists() and path.stat().st_size > 0 if path.parent.is_dir() else False
    if read_only and not exists:
        raise LedgerError(f"{path}: there is no ledger here; name one that exists")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A ledger that is only read may lie where nothing can be written.
        writable = os.access(path.parent, os.W_OK) or Path(f"{path}-wal").exists()
        access = "?immutable=1" if read_only and not writable else ""
        db = sqlite3.connect(f"{path.absolute().as_uri()}{access}", isolation_level=None, timeout=30, uri=True)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"{path}: the ledger cannot be opened ({error}); name another with --ledger") from error
    try:
        _check(db, path) if exists else _create(db)
        if read_only:
            db.execute("PRAGMA query_only = 1")
    except sqlite3.DatabaseError as error:
        db.close()
        raise damaged(path, error) from error
    except LedgerError:
        db.close()
        raise
    return db


def _create(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    db.execute(SCHEMA)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def _check(db: sqlite3.Connection, path: Path) -> None:
    db.execute("BEGIN")  # all of one moment: another process may be making the file just now
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.execute("COMMIT")
    if application != APPLICATION_ID:
        if tables:
            raise LedgerError(f"{path}: this SQLite file is no llmrank ledger; name another with --ledger")
        _create(db)  # another process made the file a moment ago and has not filled it yet
        return
    if version != SCHEMA_VERSION:
        raise LedgerError(
            f"{path}: the ledger has schema version {version}, this llmrank reads {SCHEMA_VERSION}; "
            "use the llmrank that made it, or name another ledger with --ledger"
        )
    db.execute("SELECT key FROM replies LIMIT 1").fetchone()


def _locked(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _fail(group: list[tuple[Row, bool, asyncio.Future[None]]], error: Exception, path: Path) -> None:
    for _, _, done in group:
        if not done.done():
            done.set_exception(damaged(path, error))
