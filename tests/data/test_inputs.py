"""The inputs of a rerank job: what comes out, what is refused, and that memory and folders stay clean."""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmrank
from llmrank.data.inputs import RerankInputs
from llmrank.data.queries import read_queries
from llmrank.data.requests import iter_requests
from llmrank.data.run import read_run
from llmrank.data.types import Candidates
from llmrank.errors import InputError

ROOT = Path(llmrank.__file__).parents[1]


def plain(candidates: Candidates) -> object:
    return candidates.query, [
        (document.id, document.text, document.title, document.score, dict(document.metadata))
        for document in candidates.documents
    ]


class Job:
    """The three files of a job, and what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.queries, self.corpus, self.run = folder / "q.tsv", folder / "c.jsonl", folder / "r.trec"
        self.queries.write_text("2\ttwo\n1\tone\n3\tthree\n")
        self.corpus.write_text(
            "".join(
                json.dumps({"id": name, "text": f"text {name}", "title": "T", "url": "u"}) + "\n" for name in "abcd"
            )
        )
        self.run.write_text("1 Q0 a 1 0.5 t\n1 Q0 b 2 0.9 t\n2 Q0 a 1 1 t\n1 Q0 c 3 0.5 t\n")

    def inputs(self, depth: int = 100) -> RerankInputs:
        return RerankInputs.from_files(self.queries, self.corpus, self.run, depth)

    def problem(self, depth: int = 100) -> str:
        with pytest.raises(InputError) as error:
            self.inputs(depth)
        return str(error.value)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_queries_and_documents_stand_in_the_order_of_the_run(job: Job) -> None:
    with job.inputs(depth=2) as inputs:
        first, second = map(plain, inputs)
        assert [plain(candidates) for candidates in inputs] == [first, second]
        assert (len(inputs), inputs.sizes, inputs.max_documents) == (2, Counter({2: 1, 1: 1}), 3)
    full = ("T", {"url": "u"})
    assert first == (
        read_queries(job.queries)["1"],
        [
            ("b", "text b", full[0], 0.9, full[1]),
            ("c", "text c", full[0], 0.5, full[1]),
            ("a", "", "", 0.5, {}),
        ],
    )
    assert second == (read_queries(job.queries)["2"], [("a", "text a", full[0], 1.0, full[1])])


names = st.integers(0, 12).map(lambda number: f"d{number}")
run_lines = st.lists(
    st.tuples(st.sampled_from("123"), names, st.sampled_from([0.0, 1.0, 1.0000000001, -2.5, 1e30, float("inf")])),
    unique_by=lambda line: line[:2],
    max_size=30,
)


@given(lines=run_lines, depth=st.integers(0, 6))
def test_any_run_comes_out_as_read_in_memory(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str, float]], depth: int
) -> None:
    folder = tmp_path_factory.mktemp("job")
    job = Job(folder)
    job.run.write_text("".join(f"{query_id} Q0 {doc_id} 0 {score!r} t\n" for query_id, doc_id, score in lines))
    run = read_run(job.run)
    needed = {scored.doc_id for ranking in run.values() for scored in ranking[:depth]}
    texts = {doc_id: json.dumps({"id": doc_id, "text": f"text {doc_id}"}) for doc_id in {*needed, "other"}}
    job.corpus.write_text("\n".join(texts.values()))
    with job.inputs(depth) as inputs:
        found = list(inputs)
        assert inputs.max_documents == max(map(len, run.values()), default=0)
        assert inputs.sizes == Counter(min(depth, len(ranking)) for ranking in run.values())
    assert [candidates.query.id for candidates in found] == list(run)
    for candidates, ranking in zip(found, run.values(), strict=True):
        assert [(document.id, document.score) for document in candidates.documents] == ranking
        assert [document.text for document in candidates.documents] == [
            f"text {scored.doc_id}" if place < depth else "" for place, scored in enumerate(ranking)
        ]


def test_an_empty_run_gives_nothing(job: Job) -> None:
    job.run.write_text("\n")
    with job.inputs() as inputs:
        assert (list(inputs), len(inputs), inputs.max_documents) == ([], 0, 0)


def test_two_iterations_at_once_do_not_disturb_each_other(job: Job) -> None:
    with job.inputs() as inputs:
        assert [(a.query.id, b.query.id) for a, b in zip(inputs, inputs, strict=True)] == [("1", "1"), ("2", "2")]


def test_a_topic_that_the_queries_lack_is_named(job: Job) -> None:
    job.run.write_text("1 Q0 a 1 0.5 t\n9 Q0 a 1 1 t\n8 Q0 a 1 1 t\n")
    assert job.problem() == f"{job.run}:2: topic 9 is not in {job.queries}; add it, or drop it from the run"


def test_the_first_missing_document_is_named_and_the_others_counted(job: Job) -> None:
    job.corpus.write_text('{"id": "b", "text": "x"}\n')
    assert job.problem(depth=1).startswith(f"{job.run}:3: document a of topic 2 is not in {job.corpus}; the first 1 ")
    assert job.problem(depth=2).startswith(
        f"{job.run}:4: document c of topic 1 is not in {job.corpus}, nor is another;"
    )
    job.corpus.write_text("")
    assert ", nor are 2 others;" in job.problem(depth=3)


def test_a_document_below_the_depth_needs_no_text(job: Job) -> None:
    job.corpus.write_text('{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n')
    with job.inputs(depth=1) as inputs:
        assert [document.text for document in next(iter(inputs)).documents] == ["y", "", ""]


@pytest.mark.parametrize("lines", ["1 Q0 a 5 0.1 t\n", "2 Q0 a 1 7 t\n"])
def test_a_document_listed_twice_is_named(job: Job, lines: str) -> None:
    with job.run.open("a") as stream:
        stream.write(lines)
    query_id, first = ("1", 1) if lines[0] == "1" else ("2", 3)
    assert job.problem() == f"{job.run}:5: document a is in query {query_id} already, in line {first}"


def test_a_wanted_document_that_the_corpus_has_twice_is_named(job: Job) -> None:
    with job.corpus.open("a") as stream:
        stream.write('{"id": "d", "text": "not wanted"}\n{"id": "a", "text": "text a"}\n')
    assert job.problem() == f"{job.corpus}:6: document a is there already, in line 1; ids must differ"
    job.run.write_text("1 Q0 b 1 0.5 t\n")
    with job.inputs() as inputs:
        assert len(list(inputs)) == 1


def test_a_query_that_is_there_twice_is_named(job: Job) -> None:
    job.queries.write_text("1\tone\n2\ttwo\n1\tone\n")
    assert job.problem() == f"{job.queries}:3: query 1 is there already, in line 1; ids must differ"


def test_files_are_checked_to_their_end(job: Job) -> None:
    with job.corpus.open("a") as stream:
        stream.write('{"id": "unwanted", "text": \n')
    assert job.problem().startswith(f"{job.corpus}:5: invalid JSON")
    with job.run.open("a") as stream:
        stream.write("1 Q0 d 9 nan t\n")
    assert job.problem().startswith(f"{job.run}:5: the score 'nan'")
    with job.queries.open("a") as stream:
        stream.write("4\n")
    assert job.problem().startswith(f"{job.queries}:4: expected query_id<TAB>text")


@pytest.mark.parametrize("name", ["queries", "corpus", "run"])
def test_one_file_can_be_standard_input(job: Job, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with job.inputs() as inputs:
        expected = [plain(candidates) for candidates in inputs]
    content = getattr(job, name).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(content))))
    setattr(job, name, "-")
    with job.inputs() as inputs:
        assert [plain(candidates) for candidates in inputs] == expected


def test_two_files_cannot_be_standard_input(job: Job) -> None:
    job.queries = job.run = Path("-")
    assert job.problem() == "only one of queries, corpus and run can be - (standard input)"


def requests_file(path: Path, sizes: list[int], array: bool = False) -> Path:
    requests = [
        {
            "query": {"qid": f"q{number}", "text": "x"},
            "candidates": [{"docid": f"d{place}", "doc": {"text": "t", "k": [1]}} for place in range(size)],
        }
        for number, size in enumerate(sizes)
    ]
    path.write_text(json.dumps(requests, indent=1) if array else "\n".join(map(json.dumps, requests)))
    return path


@pytest.mark.parametrize("array", [False, True])
def test_requests_come_in_their_order_again_and_again(tmp_path: Path, array: bool) -> None:
    path = requests_file(tmp_path / "r", [3, 0, 2, 3], array)
    expected = [plain(candidates) for _, candidates in iter_requests(path)]
    with RerankInputs.from_requests(path) as inputs:
        assert [plain(candidates) for candidates in inputs] == [plain(candidates) for candidates in inputs] == expected
        assert (len(inputs), inputs.sizes, inputs.max_documents) == (4, Counter({3: 2, 2: 1, 0: 1}), 3)
    with RerankInputs.from_requests(path, depth=2) as inputs:
        assert (inputs.sizes, inputs.max_documents) == (Counter({2: 3, 0: 1}), 3)
        assert [plain(candidates) for candidates in inputs] == expected


def test_a_repeated_query_of_requests_is_named(tmp_path: Path) -> None:
    path = requests_file(tmp_path / "r", [1, 1, 1])
    path.write_text(path.read_text().replace("q2", "q0"))
    with pytest.raises(InputError, match="r:3: query q0 is there already, in line 1"):
        RerankInputs.from_requests(path)


def test_requests_are_checked_to_their_end(tmp_path: Path) -> None:
    path = requests_file(tmp_path / "r", [1] * 50)
    path.write_text(path.read_text()[:-1])
    with pytest.raises(InputError, match="r:50: invalid JSON"):
        RerankInputs.from_requests(path)


def test_requests_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = requests_file(tmp_path / "r", [2, 1]).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    with RerankInputs.from_requests("-") as inputs:
        assert [len(candidates.documents) for candidates in [*inputs, *inputs]] == [2, 1, 2, 1]


def test_nothing_is_left_behind(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    lines = requests_file(tmp_path / "r", [1, 2]).read_bytes()
    for content in (lines, lines[:-5]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        if content == lines:
            with RerankInputs.from_requests("-") as inputs:
                assert list(temporary.iterdir())
                assert len(list(inputs)) == 2
        else:
            with pytest.raises(InputError):
                RerankInputs.from_requests("-")
        assert not list(temporary.iterdir())


def test_a_real_run(shared_data: Path, tmp_path: Path) -> None:
    run = shared_data / "runs" / "dl19.BM25.trec.gz"
    expected = read_run(run)
    doc_ids = sorted({scored.doc_id for ranking in expected.values() for scored in ranking})
    random.Random(1).shuffle(doc_ids)
    (tmp_path / "c.tsv").write_text("".join(f"{doc_id}\tpassage {doc_id}\n" for doc_id in doc_ids))
    with RerankInputs.from_files(shared_data / "qrels" / "dl19.topics.tsv", tmp_path / "c.tsv", run, 100) as inputs:
        assert (len(inputs), inputs.sizes) == (43, Counter({100: 43}))
        found = {candidates.query.id: candidates.documents for candidates in inputs}
    assert list(found) == list(expected)
    for query_id, documents in found.items():
        assert [(document.id, document.score) for document in documents] == expected[query_id]
        assert all(document.text == f"passage {document.id}" for document in documents)


MEASURE = """
import sys
from pathlib import Path
from llmrank.data import RerankInputs
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
before = peak()
with RerankInputs.from_files(*sys.argv[1:4], 10) as inputs:
    assert sum(len(candidates.documents) for candidates in inputs) == 20_000
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured through /proc")
def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    numbers = random.Random(1).sample(range(20_000), 20_000)
    (tmp_path / "q").write_text("".join(f"{n}\tquery\n" for n in range(2_000)))
    (tmp_path / "r").write_text("".join(f"{n // 10} Q0 {doc_id} 1 1 t\n" for n, doc_id in enumerate(numbers)))
    with (tmp_path / "c").open("w") as stream:
        stream.writelines(f"{doc_id}\t{'word ' * 1_000}\n" for doc_id in range(20_000))  # 100 MB
    files = [tmp_path / name for name in "qcr"]
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, *files], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert float(result.stdout) < 60  # MiB: 16 for the sieve, 16 for the cache, and what the interpreter takes


def test_the_room_is_light_to_import() -> None:
    code = "import sys, llmrank.data; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"numpy", "pandas", "pydantic", "asyncio"} & set(result.stdout.split())
