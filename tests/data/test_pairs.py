"""Pairs to judge, as columns or as JSON lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmrank.data.pairs import iter_pairs
from llmrank.errors import InputError


@pytest.mark.parametrize(
    "content",
    [
        "q1 d1\n\nq2 7\nq1 d1\n",
        "q1\td1\n\nq2\t7\r\nq1\td1",
        '{"query_id": "q1", "doc_id": "d1"}\n\n{"qid": "q2", "docid": 7, "id": "x"}\n{"qid": "q1", "docid": "d1"}\n',
    ],
)
def test_pairs_come_in_their_order_and_as_often_as_listed(tmp_path: Path, content: str) -> None:
    (tmp_path / "p").write_text(content)
    assert list(iter_pairs(tmp_path / "p")) == [(1, "q1", "d1"), (3, "q2", "7"), (4, "q1", "d1")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("q d\nq\n", r"p:2: expected two columns \(query_id doc_id\), found 1"),
        ("q d\nq 0 d 1\n", "p:2: .* found 4"),
        ('{"qid": "q", "docid": "d"}\n{"qid": "q", "id": "d"}\n', "p:2: no id: expected one of doc_id, docid"),
        ('{"qid": "q", "docid": "d"}\nq d\n', "p:2: invalid JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "p").write_text(content)
    with pytest.raises(InputError, match=problem):
        list(iter_pairs(tmp_path / "p"))
