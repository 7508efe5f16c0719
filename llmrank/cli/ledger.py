"""`llmrank ledger`: what is in the file of all replies, and moving, joining, checking and thinning it."""

from __future__ import annotations

import datetime
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.errors import InputError

if TYPE_CHECKING:
    from llmrank.llm.ledger import Ledger, Row

app = typer.Typer(help="Look into the ledger, the file of all replies.", no_args_is_help=True)
File = Annotated[str | None, typer.Option("--ledger", help="The ledger; else the one in your cache folder.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
BATCH = 500


@app.command()
def stats(ledger: File = None, as_json: AsJson = False) -> None:
    """Count the replies of each model.

    Example: llmrank ledger stats
    """
    book = _open(ledger)
    sql = "SELECT kind, model, count(*), min(created), max(created), sum(length(reply) + length(request)) FROM replies GROUP BY kind, model ORDER BY kind, model"
    names = ("kind", "model", "replies", "first", "last", "bytes")
    rows = [dict(zip(names, row, strict=True)) for row in book.query(sql)]
    if as_json:
        print(json.dumps({"file": str(book.path), "models": rows}))
        return
    print(f"{book.path}: {sum(row['replies'] for row in rows)} replies")
    for row in rows:
        print(f"  {row['kind']}:{row['model']}: {row['replies']} replies, {_day(row['first'])} to {_day(row['last'])}, {row['bytes']} bytes")


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="A key, or its beginning.", metavar="KEY")], ledger: File = None, as_json: AsJson = False
) -> None:
    """Show one reply with the request that it answers.

    Example: llmrank ledger show 3f2a9c
    """
    book = _open(ledger)
    if not re.fullmatch(r"[0-9a-fA-F]{4,64}", key):
        raise InputError(f"{key}: a key is written in hexadecimal, at least its first 4 digits")
    found = list(book.rows("lower(substr(hex(key), 1, ?)) = ?", (len(key), key.lower())))
    if len(found) != 1:
        raise InputError(f"{key}: {len(found) or 'no'} replies in {book.path} have a key that begins so; give {'more digits' if found else 'another'}")
    record = _record(found[0])
    if as_json:
        print(json.dumps(record))
        return
    request = record["request"]
    print(f"key      {record['key']}\nmodel    {record['kind']}:{record['model']}\nfrom     {record['origin'] or '-'}\nat       {_day(record['created'])}")
    prompt = request[1]
    for role, content in prompt if isinstance(prompt, list) else [("prompt", prompt)]:
        print(f"--- {role}\n{content}")
    print(f"--- reply\n{record['reply'][0]}")


@app.command()
def export(
    output: Annotated[str, typer.Option(help="JSONL file; - for standard output.", metavar="OUT.jsonl")] = "-", ledger: File = None
) -> None:
    """Write all replies as JSON lines.

    Example: llmrank ledger export --output replies.jsonl
    """
    from llmrank.data.files import writing

    book = _open(ledger)
    with writing(output) as file:
        for row in book.rows():
            file.write(json.dumps(_record(row)) + "\n")


@app.command()
def merge(
    sources: Annotated[list[str], typer.Argument(help="Ledgers to take replies from.", metavar="LEDGER...")], ledger: File = None
) -> None:
    """Add the replies of other ledgers to one; what is there already stays.

    Example: llmrank ledger merge laptop.ledger server.ledger --ledger all.ledger
    """
    from llmrank.llm.ledger import Ledger, default_path

    books = [_open(source) for source in sources]
    into = Ledger(ledger or default_path())
    for book in books:
        added, seen, batch = 0, 0, []
        for row in book.rows():
            batch.append(row)
            if len(batch) == BATCH:
                added, seen, batch = added + into.add(batch), seen + len(batch), []
        added, seen = added + into.add(batch), seen + len(batch)
        print(f"{book.path}: {added} of {seen} replies were new to {into.path}")
    into.close()


@app.command()
def verify(ledger: File = None) -> int:
    """Read every reply, and check that each stands under its own key; exits with 2 where one does not.

    Example: llmrank ledger verify
    """
    import hashlib

    from llmrank.llm.types import Reply

    book, wrong, count = _open(ledger), 0, 0
    (state,) = book.query("PRAGMA integrity_check(1)")[0]
    if state != "ok":
        raise InputError(f"{book.path}: the file is damaged ({state}); what can be read of it: llmrank ledger export")
    for row in book.rows():
        count += 1
        try:
            Reply.loads(row.reply)
            sound = hashlib.sha256(row.request).digest() == row.key
        except (ValueError, TypeError):
            sound = False
        if not sound:
            wrong += 1
            print(f"{row.key.hex()}: damaged", file=sys.stderr)
    print(f"{book.path}: {count} replies, {wrong} damaged")
    return 2 if wrong else 0


@app.command()
def prune(
    model: Annotated[str | None, typer.Option(help="Only replies of this model.")] = None,
    older_than: Annotated[float | None, typer.Option(help="Only replies older than so many days.", metavar="DAYS")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it only the number is told.")] = False,
    ledger: File = None,
) -> None:
    """Remove replies for good.

    Example: llmrank ledger prune --older-than 365 --yes
    """
    import time

    if model is None and older_than is None:
        raise InputError("name what to remove: --model NAME, --older-than DAYS, or both")
    where, parameters = ["1"], list[Any]()
    if model is not None:
        where, parameters = [*where, "model = ?"], [*parameters, model]
    if older_than is not None:
        where, parameters = [*where, "created < ?"], [*parameters, time.time() - 86_400 * older_than]
    condition = " AND ".join(where)
    book = _open(ledger, read_only=not yes)
    (count,) = book.query(f"SELECT count(*) FROM replies WHERE {condition}", tuple(parameters))[0]
    if not yes:
        print(f"{book.path}: {count} replies would be removed; add --yes to do it")
        return
    removed = book.delete(condition, tuple(parameters))
    book.compact()
    book.close()
    print(f"{book.path}: {removed} replies removed")


def _open(path: str | None, *, read_only: bool = True) -> Ledger:
    from llmrank.llm.ledger import Ledger, default_path

    return Ledger(Path(path) if path else default_path(), read_only=read_only)


def _record(row: Row) -> dict[str, Any]:
    return {
        "key": row.key.hex(),
        "kind": row.kind,
        "model": row.model,
        "origin": row.origin,
        "created": row.created,
        "reply": json.loads(row.reply),
        "request": json.loads(row.request),
    }


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
