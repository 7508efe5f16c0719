"""What a job judges: listed pairs, pools of runs, the holes of qrels; checked to their end, in bounded memory."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal, Self

from llmrank.data.files import Source, opened, spooled
from llmrank.data.inputs import insert_query, room
from llmrank.data.pairs import iter_pairs
from llmrank.data.qrels import iter_qrels
from llmrank.data.queries import numbered_queries
from llmrank.data.run import iter_run
from llmrank.data.types import Query
from llmrank.data.wanted import WantedDocuments, temporary_database
from llmrank.errors import InputError
from llmrank.judge.judge import UNIT, unit
from llmrank.judge.judgment import Pairs

Strata = Literal["rank", "grade", "disagreement"]
BATCH = 10_000
BLOCK = 1 << 16

_SCHEMA = (
    "CREATE TABLE queries (id TEXT PRIMARY KEY, line INTEGER, text, description, narrative, instruction)",
    "CREATE TABLE pairs (place INTEGER PRIMARY KEY, query_id TEXT, doc_id TEXT, source INTEGER, line INTEGER, "
    "rank INTEGER, runs INTEGER, stratum TEXT, UNIQUE (query_id, doc_id))",
    "CREATE TABLE hits (run INTEGER, query_id TEXT, doc_id TEXT, score REAL, line INTEGER, "
    "UNIQUE (run, query_id, doc_id))",
    "CREATE TABLE shown (run INTEGER, query_id TEXT, doc_id TEXT, rank INTEGER, line INTEGER)",
    "CREATE TABLE judged (query_id TEXT, doc_id TEXT, grade INTEGER, line INTEGER, PRIMARY KEY (query_id, doc_id))"
    " WITHOUT ROWID",
)
# trec_eval's order: by score as a 32-bit float, ties by document id, both falling.
_SHOWN = """
INSERT INTO shown SELECT run, query_id, doc_id, rank, line FROM (
    SELECT *, row_number() OVER (PARTITION BY run, query_id ORDER BY score DESC, doc_id DESC) AS rank FROM hits
) WHERE rank <= ?
"""
_POOL = """
INSERT INTO pairs (query_id, doc_id, source, line, rank, runs)
SELECT query_id, doc_id, run, line, min(rank), count(*) FROM shown
JOIN (SELECT query_id AS topic, min(rowid) AS first FROM hits GROUP BY query_id) ON topic = query_id
GROUP BY query_id, doc_id ORDER BY first, min(rank), run, line
"""
_UNKNOWN = (
    "SELECT query_id, source, line FROM pairs WHERE query_id NOT IN (SELECT id FROM queries) ORDER BY place LIMIT 1"
)
_LACKING = """
SELECT query_id, doc_id, source, line FROM pairs
WHERE NOT EXISTS (SELECT * FROM documents WHERE documents.doc_id = pairs.doc_id) ORDER BY place LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pairs are to be judged."""

    pairs: Source | None = None
    """A file of pairs."""
    runs: Sequence[Source] = ()
    """Runs whose first `depth` documents are pooled."""
    depth: int | None = None
    qrels: Source | None = None
    """Human judgments: alone, its pairs; with `holes_only` what it lacks; else what `strata` by grade go by."""
    holes_only: bool = False
    sample: int | None = None
    """How many of the pairs are drawn."""
    strata: Strata | None = None
    """What the pairs are divided by, to draw from each part as evenly as its size lets; None for one part."""
    seed: int = 0

    def check(self) -> None:
        """Raises InputError where these do not go together."""
        if self.pairs is not None and self.runs:
            raise InputError("--pairs and --run each say what is judged; leave out one")
        if self.runs and self.depth is None:
            raise InputError("--run needs --pool-depth K: how many of a topic's first documents are judged")
        if self.depth is not None and self.depth < 1:
            raise InputError(f"--pool-depth {self.depth}: it must be at least 1")
        if self.depth is not None and not self.runs:
            raise InputError("--pool-depth is about runs; name them with --run, or leave it out")
        if self.pairs is None and not self.runs and self.qrels is None:
            raise InputError("nothing to judge is named: give --pairs FILE, --run RUN --pool-depth K, or --qrels FILE")
        if self.holes_only and (self.qrels is None or (self.pairs is None and not self.runs)):
            raise InputError(
                "--holes-only needs --qrels EXISTING, whose holes they are, and --run or --pairs, which show them"
            )
        beside = self.qrels is not None and (self.pairs is not None or bool(self.runs))
        if beside and not self.holes_only and self.strata != "grade":
            raise InputError("--qrels beside --run or --pairs goes with --holes-only, or with --strata grade")
        self._check_sample()
        files = [path for path in (self.pairs, *self.runs, self.qrels) if path is not None]
        if [os.fspath(path) for path in files].count("-") > 1:
            raise InputError("only one of the files can be - (standard input)")

    def _check_sample(self) -> None:
        if self.strata is not None and self.sample is None:
            raise InputError(f"--strata {self.strata} says how a sample is drawn; say how large with --sample N")
        if self.sample is not None and self.sample < 1:
            raise InputError(f"--sample {self.sample}: it must be at least 1")
        if self.strata == "rank" and not self.runs:
            raise InputError("--strata rank needs runs: name them with --run")
        if self.strata == "disagreement" and len(self.runs) < 2:
            raise InputError("--strata disagreement needs at least two runs that can disagree: repeat --run")
        if self.strata == "grade" and self.qrels is None:
            raise InputError("--strata grade needs the grades: name them with --qrels")
        if self.strata == "grade" and self.holes_only:
            raise InputError("--strata grade and --holes-only: holes have no grades; leave out one")


class JudgeInputs:
    """Pairs with their texts, in the order of the input; can be gone through again and again.

    Use it in a `with` statement, or close it: it may hold temporary files.
    """

    def __init__(self, database: sqlite3.Connection, documents: WantedDocuments, resources: ExitStack) -> None:
        self._database = database
        self._documents = documents
        self._resources = resources
        self.repeated = 0
        """Pairs that were listed more than once; each is judged once."""
        self.human: Source | None = None
        """The human judgments that come out as they are, before the new ones."""
        self.systems = 0
        """How many runs all of whose first documents are judged."""
        self.strata: dict[str, dict[str, int]] = {}
        """Pairs and drawn pairs of each stratum."""

    @classmethod
    def open(cls, queries: Source, corpus: Source, wanted: Wanted, exam: Source | None = None) -> Self:
        """Reads everything to its end. `exam`: qrels whose pairs are needed besides."""
        wanted.check()
        with ExitStack() as resources, room():
            database = resources.enter_context(closing(temporary_database()))
            for statement in _SCHEMA:
                database.execute(statement)
            documents = WantedDocuments(database)
            inputs = cls(database, documents, resources)
            query_file = resources.enter_context(spooled(queries))
            for line, query in numbered_queries(query_file):
                rest = (query.text, query.description, query.narrative, query.instruction)
                insert_query(database, query_file, query.id, line, *rest)
            files = inputs._load(wanted)
            inputs._check_queries(files, query_file)
            if not (wanted.holes_only or wanted.sample):
                inputs.systems = len(wanted.runs)
            if wanted.sample is not None:
                inputs._draw(wanted)
            documents.want(row[0] for row in database.execute("SELECT DISTINCT doc_id FROM pairs"))
            if exam is not None:
                documents.want(line.doc_id for line in iter_qrels(exam))
            documents.load(corpus)
            for query_id, doc_id, source, line in database.execute(_LACKING):
                told = f"document {doc_id} of query {query_id} is not in {corpus}; what is judged needs its text"
                raise InputError.at(files[source], line, told)
            inputs._resources = resources.pop_all()
            return inputs

    def __len__(self) -> int:
        """The number of pairs."""
        (number,) = self._database.execute("SELECT count(*) FROM pairs").fetchone()
        return int(number)

    @property
    def queries(self) -> int:
        """The number of queries that have pairs."""
        (number,) = self._database.execute("SELECT count(DISTINCT query_id) FROM pairs").fetchone()
        return int(number)

    def sizes(self) -> Iterator[int]:
        """How many pairs each query has."""
        for (size,) in self._database.execute("SELECT count(*) FROM pairs GROUP BY query_id"):
            yield size

    def units(self, *, together: bool = False) -> Iterator[Pairs]:
        """The pairs as units of work: neighbours of one query, or all of a query's at once."""
        order = "first, place" if together else "place"
        firsts = "(SELECT query_id AS of, min(place) AS first FROM pairs GROUP BY query_id) ON of = query_id"
        rows = self._database.execute(f"SELECT place, query_id, doc_id FROM pairs JOIN {firsts} ORDER BY {order}")
        for query_id, group in groupby(rows, lambda row: row[1]):
            query = self._query(query_id)
            numbered = ((place, self._documents.get(doc_id)) for place, _, doc_id in group)
            while listed := list(islice(numbered, None if together else UNIT)):
                yield unit(query, listed)

    def names(self) -> Iterator[tuple[int, str, str]]:
        """Place, query and document of each pair, in their order."""
        yield from self._database.execute("SELECT place, query_id, doc_id FROM pairs ORDER BY place")

    def shown(self) -> Iterator[tuple[int, int, str]]:
        """Place, number of the run and query of each pair that a run has among its first documents."""
        columns = "SELECT place, run, query_id FROM shown JOIN pairs USING (query_id, doc_id) ORDER BY place, run"
        yield from self._database.execute(columns)

    def exam(self, qrels: Source) -> Iterator[tuple[Pairs, tuple[int, ...]]]:
        """The pairs of an exam as units of work, with their human grades."""
        lines = [line for line in iter_qrels(qrels) if line.grade >= 0]
        for query_id, group in groupby(lines, lambda line: line.query_id):
            of_query = list(group)
            query = self._query(query_id, qrels, of_query[0].line)
            for line in of_query:
                if line.doc_id not in self._documents:
                    told = f"document {line.doc_id} is not in the corpus; an exam needs its text"
                    raise InputError.at(qrels, line.line, told)
            pairs = unit(query, [(line.line, self._documents.get(line.doc_id)) for line in of_query])
            yield pairs, tuple(line.grade for line in of_query)

    def human_lines(self) -> Iterator[str]:
        """The human judgments, byte for byte, in blocks; with a line end where the last line lacks its own."""
        if self.human is None:
            return
        last = b"\n"
        with opened(self.human) as stream:
            while block := b"".join(stream.readlines(BLOCK)):
                last = block
                yield block.decode()
        if not last.endswith(b"\n"):
            yield "\n"

    def close(self) -> None:
        """Removes the temporary files."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _query(self, query_id: str, path: Source = "", line: int = 0) -> Query:
        columns = "SELECT id, text, description, narrative, instruction FROM queries WHERE id = ?"
        row = self._database.execute(columns, (query_id,)).fetchone()
        if row is None:
            raise InputError.at(path, line, f"topic {query_id} is not among the queries; add it, or drop it here")
        return Query(*row)

    def _load(self, wanted: Wanted) -> list[Source]:
        """Fills the table of pairs; returns the files that they come from, by the numbers in it."""
        qrels = None
        if wanted.qrels is not None:
            qrels = self._resources_of(wanted.qrels)
            self._load_judged(qrels)
        if wanted.runs:
            files = [self._resources_of(run) for run in wanted.runs]
            for number, run in enumerate(files):
                self._load_run(number, run)
            self._database.execute(_SHOWN, (wanted.depth,))
            self._database.execute(_POOL)
            self._database.execute("DROP TABLE hits")
        elif wanted.pairs is not None:
            files = [self._resources_of(wanted.pairs)]
            self._insert(((query_id, doc_id, line) for line, query_id, doc_id in iter_pairs(files[0])))
        else:
            assert qrels is not None
            files = [qrels]
            self._insert((row.query_id, row.doc_id, row.line) for row in iter_qrels(qrels))
        if wanted.holes_only:
            self.human = qrels
            held = "judged.query_id = pairs.query_id AND judged.doc_id = pairs.doc_id"
            self._database.execute(f"DELETE FROM pairs WHERE EXISTS (SELECT * FROM judged WHERE {held})")
        return files

    def _resources_of(self, path: Source) -> Source:
        return self._resources.enter_context(spooled(path))

    def _insert(self, rows: Iterator[tuple[str, str, int]]) -> None:
        total = 0

        def counted() -> Iterator[tuple[str, str, int]]:
            nonlocal total
            for row in rows:
                total += 1
                yield row

        statement = "INSERT OR IGNORE INTO pairs (query_id, doc_id, source, line) VALUES (?, ?, 0, ?)"
        self._database.executemany(statement, counted())
        self.repeated = total - len(self)

    def _load_run(self, number: int, run: Source) -> None:
        lines = iter_run(run)
        while batch := list(islice(lines, BATCH)):
            singles = array("f", [line.score for line in batch])
            rows = ((number, q, d, s, line) for (line, q, d, _), s in zip(batch, singles, strict=True))
            try:
                self._database.executemany("INSERT INTO hits VALUES (?, ?, ?, ?, ?)", rows)
            except sqlite3.IntegrityError:
                raise _twice(run) from None

    def _load_judged(self, qrels: Source) -> None:
        for line, query_id, doc_id, grade in iter_qrels(qrels):
            row = (query_id, doc_id, grade, line)
            if not self._database.execute("INSERT OR IGNORE INTO judged VALUES (?, ?, ?, ?)", row).rowcount:
                find = "SELECT grade FROM judged WHERE query_id = ? AND doc_id = ?"
                (before,) = self._database.execute(find, (query_id, doc_id)).fetchone()
                if before != grade:
                    told = f"query {query_id}, document {doc_id} has grade {grade} here and {before} further up"
                    raise InputError.at(qrels, line, f"{told}; keep one")

    def _check_queries(self, files: Sequence[Source], queries: Source) -> None:
        for query_id, source, line in self._database.execute(_UNKNOWN):
            raise InputError.at(files[source], line, f"topic {query_id} is not in {queries}; add it, or drop it here")

    def _draw(self, wanted: Wanted) -> None:
        """Keeps a seeded sample of the pairs: a pair's chance hangs on its own ids, not on where it stands."""
        database = self._database
        database.create_function("draw", 2, lambda q, d: _draw(wanted.seed, q, d), deterministic=True)
        database.create_function("doubling", 1, _doubling, deterministic=True)
        grade = "(SELECT grade FROM judged WHERE judged.query_id = pairs.query_id AND judged.doc_id = pairs.doc_id)"
        stratum = {
            None: "'all'",
            "rank": "doubling(rank)",
            "grade": f"coalesce({grade}, 'unjudged')",
            # Half of the runs having it is as much as they can disagree.
            "disagreement": f"min(runs, {len(wanted.runs)} - runs)",
        }[wanted.strata]
        database.execute(f"UPDATE pairs SET stratum = {stratum}")
        sizes = dict(database.execute("SELECT stratum, count(*) FROM pairs GROUP BY stratum ORDER BY min(place)"))
        shares = _even(sizes, wanted.sample or 0)
        drawn = "row_number() OVER (PARTITION BY stratum ORDER BY draw(query_id, doc_id)) AS i"
        numbered = f"SELECT place, stratum, {drawn} FROM pairs"
        database.execute("CREATE TEMP TABLE share (stratum TEXT PRIMARY KEY, most INTEGER)")
        database.executemany("INSERT INTO share VALUES (?, ?)", shares.items())
        kept = f"SELECT place FROM ({numbered}) JOIN share USING (stratum) WHERE i <= most"
        database.execute(f"DELETE FROM pairs WHERE place NOT IN ({kept})")
        self.strata = {str(name): {"pairs": size, "drawn": shares[name]} for name, size in sizes.items()}


def _draw(seed: int, query_id: str, doc_id: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{query_id}\0{doc_id}".encode(), digest_size=8).digest()


def _doubling(rank: int) -> str:
    """The stratum of a rank: 1, 2-3, 4-7, 8-15, ..."""
    low = 1 << (rank.bit_length() - 1)
    return str(low) if low == 1 else f"{low}-{2 * low - 1}"


def _even(sizes: dict[str, int], total: int) -> dict[str, int]:
    """How many to draw from each stratum: as many from each, and what small ones lack from the others."""
    shares, left = dict.fromkeys(sizes, 0), min(total, sum(sizes.values()))
    while left:
        open_ones = [name for name, size in sizes.items() if shares[name] < size]
        each = max(1, left // len(open_ones))
        for name in open_ones:
            more = min(each, sizes[name] - shares[name], left)
            shares[name] += more
            left -= more
    return shares


def _twice(run: Source) -> InputError:
    """The error of a document that a run has twice for one query."""
    first: dict[tuple[str, str], int] = {}
    for line, query_id, doc_id, _ in iter_run(run):
        if (before := first.setdefault((query_id, doc_id), line)) != line:
            told = f"document {doc_id} is in query {query_id} already, in line {before}"
            return InputError.at(run, line, told)
    return InputError(f"{run}: a document is there twice")
