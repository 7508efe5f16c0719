"""Qrels: every whole number is a grade, and a pair has one."""

from __future__ import annotations

from pathlib import Path

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.data.qrels import format_grade, iter_qrels, read_qrels, write_qrels
from llmrank.errors import InputError

tokens = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@given(st.dictionaries(tokens, st.dictionaries(tokens, st.integers(-5, 200), min_size=1, max_size=5), max_size=5))
def test_what_is_written_is_read_in_the_same_order(
    tmp_path_factory: pytest.TempPathFactory, qrels: dict[str, dict[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("qrels") / "out.qrels"
    write_qrels(path, qrels)
    again = read_qrels(path)
    assert again == qrels
    assert [list(grades) for grades in again.values()] == [list(grades) for grades in qrels.values()]


def test_a_line_has_the_four_columns_of_trec() -> None:
    assert format_grade("301", "FR-1", -2) == "301 0 FR-1 -2\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1 0 b 2.0", "the grade '2.0' is not a whole number"),
        ("1 0 b yes", "the grade 'yes' is not a whole number"),
        ("1 0 b 1_0", "not a whole number"),
        ("1 b 2", r"expected four columns \(query_id 0 doc_id grade\), found 3"),
        ("1 0 b 2 extra", "found 5"),
        ("1 0 a 2", "query 1, document a has grade 2 here and 1 further up"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "qrels").write_text(f"1 0 a 1\n\n{line}\n")
    with pytest.raises(InputError, match=f"qrels:3: .*{problem}"):
        read_qrels(tmp_path / "qrels")


def test_a_repeated_pair_of_the_same_grade_is_fine(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("1 0 a +1\n1\tQ0\ta\t1\n1 0 b -1\n")
    assert read_qrels(tmp_path / "qrels") == {"1": {"a": 1, "b": -1}}
    assert [line.line for line in iter_qrels(tmp_path / "qrels")] == [1, 2, 3]


@pytest.mark.parametrize("name", ["qrels/dl19.qrels", "trec_eval/qrels.test", "trec_eval/qrels.rel_level"])
def test_real_qrels_read_as_ir_measures_reads_them(shared_data: Path, name: str) -> None:
    expected: dict[str, dict[str, int]] = {}
    for qrel in ir_measures.read_trec_qrels(str(shared_data / name)):
        expected.setdefault(qrel.query_id, {})[qrel.doc_id] = qrel.relevance
    assert read_qrels(shared_data / name) == expected
