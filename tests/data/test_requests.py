"""Requests as other rerankers export them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.data.requests import iter_requests
from llmrank.data.types import Candidates, Query
from llmrank.errors import InputError

PLAIN = {
    "query": {"qid": 264014, "text": "how long is life cycle of flea", "narrative": "n"},
    "candidates": [
        {"docid": "b", "score": 15.5, "doc": {"contents": "two weeks", "title": "Fleas", "url": "u"}},
        {"docid": 5, "score": 15, "doc": "two weeks"},
        {"docid": "a", "doc": {"segment": "two weeks"}},
    ],
}


def plain(candidates: Candidates) -> object:
    return candidates.query, [
        (document.id, document.text, document.title, document.score, dict(document.metadata))
        for document in candidates.documents
    ]


def requests_in(path: Path, content: str) -> list[tuple[int, object]]:
    path.write_text(content, encoding="utf-8")
    return [(line, plain(candidates)) for line, candidates in iter_requests(path)]


def request(query_id: object, *doc_ids: object) -> dict[str, object]:
    candidates = [{"docid": doc_id, "doc": {"text": f"text of {doc_id}"}} for doc_id in doc_ids]
    return {"query": {"qid": query_id, "text": f"query {query_id}"}, "candidates": candidates}


def test_candidates_keep_their_order_and_may_share_a_text(tmp_path: Path) -> None:
    expected = (
        Query("264014", "how long is life cycle of flea", narrative="n"),
        [
            ("b", "two weeks", "Fleas", 15.5, {"url": "u"}),
            ("5", "two weeks", "", 15.0, {}),
            ("a", "two weeks", "", None, {}),
        ],
    )
    assert requests_in(tmp_path / "r", f"\n{json.dumps(PLAIN)}\n") == [(2, expected)]
    assert requests_in(tmp_path / "r", json.dumps([PLAIN], indent=4)) == [(2, expected)]


@pytest.mark.parametrize(
    "line",
    [
        {"qid": 1, "query": "q", "candidates": [{"docid": "a", "score": 2, "text": "t", "title": "T", "url": "u"}]},
        {"query": "q", "hits": [{"docid": "a", "qid": 1, "score": 2, "content": "t", "title": "T", "url": "u"}]},
        {
            "query": {"id": "1", "query": "q"},
            "candidates": [{"score": 2, "doc": {"_id": "a", "text": "t", "title": "T"}}],
        },
    ],
)
def test_other_shapes_that_can_mean_one_thing_only(tmp_path: Path, line: object) -> None:
    (tmp_path / "r").write_text(json.dumps(line))
    ((_, candidates),) = iter_requests(tmp_path / "r")
    (document,) = candidates.documents
    assert candidates.query == Query("1", "q")
    assert (document.id, document.text, document.title, document.score) == ("a", "t", "T", 2.0)


def test_a_request_without_candidates_is_no_error(tmp_path: Path) -> None:
    assert requests_in(tmp_path / "r", json.dumps(request(1))) == [(1, (Query("1", "query 1"), []))]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
records = st.lists(
    st.fixed_dictionaries(
        {"query": st.fixed_dictionaries({"text": texts.filter(str.strip)}), "candidates": st.just([])}
    ),
    max_size=8,
)


@pytest.mark.parametrize("indent", [None, 0, 3])
@given(requests=records, ascii_only=st.booleans())
def test_an_array_reads_as_its_lines_do_whatever_the_size_of_a_read(
    tmp_path_factory: pytest.TempPathFactory,
    indent: int | None,
    requests: list[dict[str, dict[str, str]]],
    ascii_only: bool,
) -> None:
    folder = tmp_path_factory.mktemp("requests")
    for number, record in enumerate(requests):
        record["query"]["qid"] = f"q{number}"
    expected = requests_in(folder / "lines", "\n".join(json.dumps(record) for record in requests))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmrank.data.requests.BUFFER", 5)
        array = json.dumps(requests, indent=indent, ensure_ascii=ascii_only)
        got = requests_in(folder / "array", f" {array} \n")
    assert [candidates for _, candidates in got] == [candidates for _, candidates in expected]
    if indent:
        assert [line for line, _ in got] == [
            n for n, line in enumerate(array.split("\n"), 1) if line == " " * indent + "{"
        ]


def test_an_array_is_not_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrank.data.requests.BUFFER", 4096)
    (tmp_path / "r").write_text(json.dumps([request(n, *range(20)) for n in range(1000)]))
    read: list[int] = []
    original = io.TextIOWrapper.read

    class Counting(io.TextIOWrapper):
        def read(self, size: int | None = -1, /) -> str:
            read.append(size or -1)
            return original(self, size)

    monkeypatch.setattr("llmrank.data.requests.io.TextIOWrapper", Counting)
    found = iter_requests(tmp_path / "r")
    next(found)
    assert sum(read) <= 8192
    assert len(list(found)) == 999
    assert set(read) == {4096}


def test_the_first_element_comes_before_the_last_is_read(tmp_path: Path) -> None:
    (tmp_path / "r").write_text(json.dumps([request(n) for n in range(10_000)])[:-9])
    found = iter_requests(tmp_path / "r")
    assert next(found)[1].query.id == "0"
    with pytest.raises(InputError, match="r:1: invalid JSON array"):
        list(found)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"query": ', "r:2: invalid JSON"),
        ("17", "r:2: a line must be a JSON object, not 17"),
        ('{"query": {"qid": 2, "text": "q"}}', "r:2: no list of candidates"),
        ('{"query": {"qid": 2, "text": "q"}, "candidates": {}}', "r:2: no list of candidates"),
        ('{"candidates": []}', "r:2: query must be a JSON object, not null"),
        ('{"query": "q", "candidates": []}', "r:2: the query has no id"),
        ('{"query": "q", "hits": [{"qid": 1}, {"qid": 2}]}', "r:2: the query has no id"),
        ('{"query": {"qid": "a b", "text": "q"}, "candidates": []}', "r:2: qid 'a b' has white space"),
        ('{"query": {"qid": 2}, "candidates": []}', "r:2: no text"),
        (json.dumps(request(2, "a", "b", "a")), "r:2: candidate 3 of query 2: document a is listed already"),
        (json.dumps(request(2, 7, "7")), "r:2: candidate 2 of query 2: document 7 is listed already"),
        (json.dumps(request(2, "a", "b c")), "r:2: candidate 2 of query 2: docid 'b c' has white space"),
        (json.dumps(request(2, "a", None)), "r:2: candidate 2 of query 2: no id"),
        ('{"query": {"qid": 2, "text": "q"}, "candidates": ["a"]}', "candidate 1 of query 2: it must be a JSON object"),
        ('{"query": {"qid": 2, "text": "q"}, "candidates": [{"docid": 1}]}', "candidate 1 of query 2: no text"),
        (
            '{"query": {"qid": 2, "text": "q"}, "candidates": [{"docid": 1, "score": "9", "doc": "t"}]}',
            "candidate 1 of query 2: the score '9' is not a number",
        ),
        ('{"query": {"qid": 2, "text": "q"}, "candidates": [{"docid": 1, "doc": null}]}', "doc must be a JSON object"),
        ('{"query": {"qid": 2, "text": "q"}, "candidates": [{"docid": 1, "score": NaN}]}', "r:2: invalid JSON"),
    ],
)
@pytest.mark.parametrize("array", [False, True])
def test_what_cannot_be_used_is_named(tmp_path: Path, content: str, problem: str, array: bool) -> None:
    first = json.dumps(request(1, "a"))
    (tmp_path / "r").write_text(f"[{first},\n{content}]" if array else f"{first}\n{content}\n")
    with pytest.raises(InputError) as error:
        list(iter_requests(tmp_path / "r"))
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("[\n\n", 3),
        ("[{}", 1),
        ('[{"a": 1}\n{"b": 2}]', 2),
        ("[\n1,\n]", 3),
        ("[] []", 1),
        ("[\n]\n{}", 2),
        ("[,{}]", 1),
    ],
)
def test_a_broken_array_is_an_error(tmp_path: Path, content: str, line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrank.data.requests.load", lambda text: json.loads(text))
    monkeypatch.setattr("llmrank.data.requests._candidates", lambda record: record)
    (tmp_path / "r").write_text(content)
    with pytest.raises(InputError, match=f"r:{line}: "):
        list(iter_requests(tmp_path / "r"))


@pytest.mark.parametrize("damage", [lambda packed: packed[:-10], lambda packed: packed[:12]])
def test_a_truncated_array_is_an_error(tmp_path: Path, damage) -> None:
    (tmp_path / "r").write_bytes(damage(gzip.compress(json.dumps([request(n, "a") for n in range(99)]).encode())))
    with pytest.raises(InputError, match="damaged gzip data"):
        list(iter_requests(tmp_path / "r"))


def test_bytes_that_are_not_utf8_are_named_in_an_array_too(tmp_path: Path) -> None:
    content = json.dumps([request(n, "a") for n in range(9)], indent=1).encode()
    (tmp_path / "r").write_bytes(content.replace(b"query 3", b"query \xe9"))
    with pytest.raises(InputError, match=r"r:\d\d: not UTF-8"):
        list(iter_requests(tmp_path / "r"))


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps([request(1, "a")]).encode())))
    assert [candidates.query.id for _, candidates in iter_requests("-")] == ["1"]


def test_a_real_export(shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "corpora" / "noveleval.tar.gz") as archive:
        archive.extract("noveleval/data.json", tmp_path, filter="data")
    candidates = [candidates for _, candidates in iter_requests(tmp_path / "noveleval" / "data.json")]
    assert [len(one.documents) for one in candidates] == [20] * 21
    assert candidates[0].query.text == "How many different Spider-Men are there in Across the Spider-Verse?"
    assert candidates[20].query.id == "20"
    assert candidates[20].documents[0].score == 1.0
