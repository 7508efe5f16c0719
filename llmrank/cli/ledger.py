"""`llmrank ledger`: what is in the file of all replies, and moving, joining, checking and thinning it."""

from __future__ import annotations

import datetime
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.cli.commands import say
from llmrank.errors import InputError

if TYPE_CHECKING:
    from llmrank.llm.ledger import Ledger, Row

File = Annotated[
    str | None, typer.Option("--ledger", help="The ledger; else the one in your cache folder.", metavar="FILE")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
BATCH = 500
STATS = """
SELECT kind, model, count(*) AS replies, min(created), max(created), sum(length(reply) + length(request))
FROM replies GROUP BY kind, model ORDER BY kind, model
"""


def stats(ledger: File = None, as_json: AsJson = False) -> None:
    """Count the replies of each model.

    Example: llmrank ledger stats
    """
    book = _open(ledger)
    names = ("kind", "model", "replies", "first", "last", "bytes")
    rows = [dict(zip(names, row, strict=True)) for row in book.query(STATS)]
    if as_json:
        print(json.dumps({"file": str(book.path), "replies": sum(row["replies"] for row in rows), "models": rows}))
        return
    print(f"{book.path}: {_replies(sum(row['replies'] for row in rows))}")
    for row in rows:
        print(f"  {row['kind']}:{row['model']}")
        when = f"{_day(row['first'])} to {_day(row['last'])}"
        print(f"      {_replies(row['replies'])}, {when}, {row['bytes'] / 1e6:.1f} MB")


def show(
    key: Annotated[str, typer.Argument(help="A key, or its beginning.", metavar="KEY")],
    ledger: File = None,
    as_json: AsJson = False,
) -> None:
    """Show one reply with the request that it answers.

    Example: llmrank ledger show 3f2a9c
    """
    book = _open(ledger)
    if not re.fullmatch(r"[0-9a-fA-F]{4,64}", key):
        raise InputError(f"{key}: a key is written in hexadecimal, at least its first 4 digits")
    found = list(book.rows("lower(substr(hex(key), 1, ?)) = ?", (len(key), key.lower())))
    if len(found) != 1:
        fits = f"{len(found)} replies have keys that begin" if found else "no reply has a key that begins"
        cure = "give more digits" if found else "`llmrank ledger export` lists the keys"
        raise InputError(f"{book.path}: {fits} with {key}; {cure}")
    record = _record(book, found[0])
    if as_json:
        print(json.dumps(record))
        return
    for name in ("key", "model", "origin"):
        print(f"{name:8} {record[name] or '-'}")
    print(f"{'created':8} {_day(record['created'])}")
    prompt = record["request"][1]
    for role, content in prompt if isinstance(prompt, list) else [("prompt", prompt)]:
        print(f"--- {role}\n{content}")
    text, _, reasoning, *_ = record["reply"]
    if reasoning:
        print(f"--- reasoning\n{reasoning}")
    print(f"--- reply\n{text}")


def export(
    output: Annotated[str, typer.Option(help="JSONL file; - for standard output.", metavar="OUT.jsonl")] = "-",
    ledger: File = None,
    as_json: AsJson = False,
) -> None:
    """Write all replies as JSON lines.

    Example: llmrank ledger export --output replies.jsonl
    """
    from llmrank.data.files import writing
    from llmrank.jobs.outputs import Outputs

    book, count = _open(ledger), 0
    Outputs(output).check([str(book.path)], as_json=as_json)
    with writing(output) as file:
        for row in book.rows():
            file.write(json.dumps(_record(book, row)) + "\n")
            count += 1
    if as_json:
        print(json.dumps({"file": str(book.path), "replies": count, "output": output}))


def merge(
    sources: Annotated[list[str], typer.Argument(help="Ledgers to take replies from.", metavar="LEDGER")],
    ledger: File = None,
    as_json: AsJson = False,
) -> None:
    """Add the replies of other ledgers to one; what is there already stays.

    Example: llmrank ledger merge laptop.ledger server.ledger --ledger all.ledger
    """
    from llmrank.llm.ledger import Ledger, default_path

    books = [_open(source) for source in sources]  # all of them, before anything is written
    place = Path(ledger) if ledger is not None else default_path()
    if twin := next((source for source in sources if os.path.realpath(source) == os.path.realpath(place)), None):
        raise InputError(f"--ledger {place}: {twin} is the same file; name only other ledgers to take replies from")
    into = Ledger(place)
    counts = []
    for book in books:
        added, seen, batch = 0, 0, list[Any]()
        for row in book.rows():
            batch.append(row)
            if len(batch) == BATCH:
                added, seen, batch = added + into.add(batch), seen + len(batch), []
        added, seen = added + into.add(batch), seen + len(batch)
        counts.append({"file": str(book.path), "replies": seen, "new": added})
        if not as_json:
            print(f"{book.path}: {added} of {_replies(seen)} were new to {into.path}")
    if as_json:
        print(json.dumps({"file": str(into.path), "merged": counts}))
    into.close()


def verify(ledger: File = None, as_json: AsJson = False) -> int:
    """Read every reply, and check that each stands under its own key.

    Exits with 2 where one does not.

    Example: llmrank ledger verify
    """
    import hashlib

    from llmrank.llm.types import Reply

    book, count, damaged = _open(ledger), 0, list[str]()
    (state,) = book.query("PRAGMA integrity_check(1)")[0]
    if state != "ok":
        problem = " ".join(str(state).split())
        raise InputError(f"{book.path}: the file is damaged ({problem}); what can be read of it: llmrank ledger export")
    for row in book.rows():
        count += 1
        try:
            Reply.loads(row.reply)
            sound = hashlib.sha256(row.request).digest() == row.key
        except (ValueError, TypeError):
            sound = False
        if not sound:
            damaged.append(row.key.hex())
    if as_json:
        print(json.dumps({"file": str(book.path), "replies": count, "damaged": damaged}))
    else:
        print(f"{book.path}: {_replies(count)}, {len(damaged)} damaged")
    if damaged:
        keys = ", ".join(damaged[:3]) + (", ..." if len(damaged) > 3 else "")
        say(f"llmrank: {book.path}: {len(damaged)} damaged ({keys}); --json lists all")
    return 2 if damaged else 0


def prune(
    model: Annotated[str | None, typer.Option(help="Only replies of this model.", metavar="NAME")] = None,
    older_than: Annotated[
        float | None, typer.Option(help="Only replies older than so many days.", metavar="DAYS")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it only the number is told.")] = False,
    ledger: File = None,
    as_json: AsJson = False,
) -> None:
    """Remove replies for good.

    Example: llmrank ledger prune --older-than 365 --yes
    """
    import time

    if model is None and older_than is None:
        raise InputError("name what to remove: --model NAME, --older-than DAYS, or both")
    if older_than is not None and not older_than >= 0:
        raise InputError(f"--older-than {older_than:g}: it must not be below 0")
    where, parameters = ["1"], list[Any]()
    if model is not None:
        where, parameters = [*where, "model = ?"], [*parameters, model]
    if older_than is not None:
        where, parameters = [*where, "created < ?"], [*parameters, time.time() - 86_400 * older_than]
    condition = " AND ".join(where)
    book = _open(ledger, read_only=not yes)
    (count,) = book.query(f"SELECT count(*) FROM replies WHERE {condition}", tuple(parameters))[0]
    if yes:
        count = book.delete(condition, tuple(parameters))
        book.compact()
        book.close()
    if as_json:
        print(json.dumps({"file": str(book.path), "replies": count, "removed": yes}))
    else:
        print(f"{book.path}: {_replies(count)} {'removed' if yes else 'would be removed; add --yes to do it'}")


def _open(path: str | None, *, read_only: bool = True) -> Ledger:
    from llmrank.llm.ledger import Ledger, default_path

    place = Path(path) if path is not None else default_path()
    if not place.exists():  # also where it would be made: there is nothing to look into, or to remove
        raise InputError(f"{place}: there is no ledger here; `llmrank rerank` makes one, --ledger names another")
    return Ledger(place, read_only=read_only)


def _record(book: Ledger, row: Row) -> dict[str, Any]:
    try:
        reply, request = json.loads(row.reply), json.loads(row.request)
    except ValueError:
        raise InputError(f"{book.path}: the reply {row.key.hex()} is damaged; run `llmrank ledger verify`") from None
    return {
        "key": row.key.hex(),
        "kind": row.kind,
        "model": row.model,
        "origin": row.origin,
        "created": row.created,
        "reply": reply,
        "request": request,
    }


def _replies(count: int) -> str:
    return f"{count} {'reply' if count == 1 else 'replies'}"


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
