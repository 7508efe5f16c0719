"""The reader of comparisons files: CSV or JSONL of which item won against which, one row an answer."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import orjson

from llmrank.data.files import open_lines
from llmrank.errors import InputError

WINNERS: dict[str, float] = {"left": 1.0, "right": 0.0, "tie": 0.5}
"""Left's share of the win for each word that a `winner` may be."""

REQUIRED = ("left", "right", "winner")


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonTable:
    """The answered rows of a comparisons file, in columns of equal length and in the file's order."""

    path: str
    left: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    """Left's share of the win in [0, 1]; 0.5 is a tie."""
    weight: list[float] = field(default_factory=list)
    """1.0 where the file gives none."""
    judge: list[str] = field(default_factory=list)
    """Empty where the file gives none."""
    query_id: list[str | None] = field(default_factory=list)
    """None where the file gives none."""
    left_length: list[float | None] = field(default_factory=list)
    right_length: list[float | None] = field(default_factory=list)
    line: list[int] = field(default_factory=list)
    """The line of the file that each row stands on (its first line, counted from 1)."""
    skipped: list[int] = field(default_factory=list)
    """The lines of rows with an empty winner, which are in no column."""

    def __len__(self) -> int:
        return len(self.left)


def read_comparisons(path: str) -> ComparisonTable:
    """Read a comparisons file: CSV with a header, or JSONL; `.gz` and `-` (standard input) too.

    Columns beyond those of `ComparisonTable` are ignored. A row with an empty winner (a failed question) is skipped
    and its line kept. Ids are text: 3 in JSON and `3` in CSV are one item.
    """
    table = ComparisonTable(str(path))
    for line, row in _rows(str(path)):
        _append(table, line, row)
    return table


def _rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each row as (line, columns), whatever the format; blank lines are passed over."""
    numbered = ((number, text) for number, text in open_lines(path) if text.strip())
    first = next(numbered, None)
    if first is None:
        raise InputError(f"{path}: the file is empty: a CSV needs a header with {', '.join(REQUIRED)}")
    lines = itertools.chain([first], numbered)
    return _json_rows(path, lines) if _is_json(path, first[1]) else _csv_rows(path, lines)


def _is_json(path: str, first: str) -> bool:
    suffixes = [suffix for suffix in PurePath(path).suffixes if suffix != ".gz"]
    known = {".jsonl": True, ".json": True, ".csv": False}
    return known.get(suffixes[-1] if suffixes else "", first.lstrip().startswith("{"))


def _json_rows(path: str, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, text in lines:
        try:
            row = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise InputError.at(path, number, f"not valid JSON ({error}): write one object a line") from None
        if not isinstance(row, dict):
            raise InputError.at(path, number, "not a JSON object: write one object a line")
        yield number, row


def _csv_rows(path: str, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    place = 0

    def texts() -> Iterator[str]:
        nonlocal place
        for number, text in lines:
            place = number
            yield text.rstrip("\r\n") + "\n"

    reader = csv.reader(texts(), strict=True)
    header: list[str] = []
    start = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError.at(path, place, f"not valid CSV ({error}): check the quotes") from None
        if cells is None:
            return
        if not header:
            header = _header(path, place, cells)
        elif len(cells) != len(header):
            raise InputError.at(path, place, f"{len(cells)} columns where the header has {len(header)}")
        else:
            yield max(start, place - sum(cell.count("\n") for cell in cells)), dict(zip(header, cells, strict=True))
        start = place + 1


def _header(path: str, line: int, cells: list[str]) -> list[str]:
    header = [cell.strip().removeprefix("\ufeff") for cell in cells]
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise InputError.at(path, line, f"the header lacks {' and '.join(missing)}: it needs {', '.join(REQUIRED)}")
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        raise InputError.at(path, line, f"the header names {' and '.join(doubled)} twice: rename one of them")
    return header


def _append(table: ComparisonTable, line: int, row: Mapping[str, Any]) -> None:
    """Check one row and put it at the end of each column."""
    left, right = _id(table.path, line, row, "left"), _id(table.path, line, row, "right")
    share = _share(table.path, line, row)
    weight = _number(table.path, line, row, "weight")
    if weight is not None and weight < 0:
        raise InputError.at(table.path, line, f"weight {row['weight']!r} is below 0: leave the row out instead")
    lengths = [_number(table.path, line, row, f"{side}_length") for side in ("left", "right")]
    if share is None:
        table.skipped.append(line)
        return
    query = row.get("query_id")
    table.left.append(left)
    table.right.append(right)
    table.share.append(share)
    table.weight.append(1.0 if weight is None else weight)
    table.judge.append(str(row.get("judge") or ""))
    table.query_id.append(None if query is None or query == "" else str(query))
    table.left_length.append(lengths[0])
    table.right_length.append(lengths[1])
    table.line.append(line)


def _id(path: str, line: int, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError.at(path, line, f"`{name}` is {value!r}: it must be the id of an item")
    return str(value)


def _share(path: str, line: int, row: Mapping[str, Any]) -> float | None:
    """Left's share of the win, or None where the winner is empty."""
    if "winner" not in row:
        raise InputError.at(path, line, "there is no `winner`: leave it empty where the question failed")
    winner = row["winner"]
    if winner is None:
        return None
    if isinstance(winner, str):
        word = winner.strip()
        if not word:
            return None
        if word in WINNERS:
            return WINNERS[word]
    share = _float(winner)
    if share is None or not 0.0 <= share <= 1.0:
        raise InputError.at(
            path, line, f"winner {winner!r} is neither left, right, tie, nor left's share of the win in [0, 1]"
        )
    return share


def _number(path: str, line: int, row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    number = _float(value)
    if number is None:
        raise InputError.at(path, line, f"`{name}` is {value!r}: it must be a number, or empty")
    return number


def _float(value: object) -> float | None:
    """A finite number from a number or its text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
