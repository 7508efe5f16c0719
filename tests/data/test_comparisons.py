"""The reader of comparisons files: what it takes, what it passes over, and the one line it says otherwise."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from llmrank.aggregate import Comparisons
from llmrank.data.comparisons import read_comparisons
from llmrank.errors import InputError


def written(folder: Path, text: str, name: str = "votes.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def test_a_csv_with_all_columns(tmp_path):
    path = written(
        tmp_path,
        "query_id,left,right,winner,weight,judge,left_length,right_length,extra\r\n"
        'q1,"a, b",c,left,2,m,10,20,x\r\n'
        "q1,c,d,,,m,,,\r\n"
        "q2,3,d,0.25,,,,,\r\n"
        "\r\n"
        "q2,3,d, tie ,,,,,\r\n",
    )
    table = read_comparisons(path)
    assert (table.left, table.right) == (["a, b", "3", "3"], ["c", "d", "d"])
    assert table.share == [1.0, 0.25, 0.5]
    assert table.weight == [2.0, 1.0, 1.0]
    assert table.judge == ["m", "", ""]
    assert table.query_id == ["q1", "q2", "q2"]
    assert table.left_length == [10.0, None, None]
    assert table.right_length == [20.0, None, None]
    assert (table.line, table.skipped) == ([2, 4, 6], [3])
    assert len(table) == 3


def test_jsonl_gives_what_csv_gives(tmp_path):
    rows = [
        {"left": 3, "right": "b", "winner": "right", "p_left": 0.1, "status": "ok"},
        {"left": "b", "right": "c", "winner": None, "status": "failed"},
        {"left": "b", "right": "c", "winner": 1, "weight": 0.5, "query_id": 7, "left_length": 5, "right_length": 6},
    ]
    table = read_comparisons(written(tmp_path, "\n".join(map(json.dumps, rows)), "votes.jsonl"))
    assert (table.left, table.share, table.skipped) == (["3", "b"], [0.0, 1.0], [2])
    assert table.query_id == [None, "7"]
    assert table.left_length == [None, 5.0]


def test_gzip_standard_input_and_a_name_without_extension(tmp_path, monkeypatch):
    text = '{"left": "a", "right": "b", "winner": "left"}\n'
    packed = tmp_path / "votes.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_comparisons(str(packed)).left == ["a"]
    assert read_comparisons(written(tmp_path, text, "votes")).left == ["a"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"left,right,winner\na,b,tie\n")))
    assert read_comparisons("-").share == [0.5]


def test_a_quoted_field_may_hold_a_line_break(tmp_path):
    table = read_comparisons(written(tmp_path, 'left,right,winner,note\na,b,left,"two\nlines"\nc,d,tie,\n'))
    assert (table.left, table.line) == (["a", "c"], [2, 4])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "votes.csv: the file is empty"),
        ("left,right\na,b\n", "votes.csv:1: the header lacks winner"),
        ("left,right,winner,left\n", "votes.csv:1: the header names left twice"),
        ("left,right,winner\na,b,left\na,b,Left\n", "votes.csv:3: winner 'Left' is neither left, right, tie"),
        ("left,right,winner\na,b,1.5\n", "votes.csv:2: winner '1.5'"),
        ("left,right,winner\na,b,nan\n", "votes.csv:2: winner 'nan'"),
        ("left,right,winner\n,b,left\n", "votes.csv:2: `left` is ''"),
        ("left,right,winner\na,b\n", "votes.csv:2: 2 columns where the header has 3"),
        ("left,right,winner,weight\na,b,tie,heavy\n", "votes.csv:2: `weight` is 'heavy'"),
        ("left,right,winner,weight\na,b,tie,-1\n", "votes.csv:2: weight '-1' is below 0"),
        ('left,right,winner\n"a,b,tie\n', "votes.csv:2: not valid CSV"),
    ],
)
def test_a_bad_csv_is_one_line_with_its_place(tmp_path, text, said):
    with pytest.raises(InputError) as error:
        read_comparisons(written(tmp_path, text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "votes.jsonl:2: not valid JSON"),
        ("[1]", "votes.jsonl:2: not a JSON object"),
        ('{"left": "a", "right": "b"}', "votes.jsonl:2: there is no `winner`"),
        ('{"left": "a", "winner": "left"}', "votes.jsonl:2: `right` is None"),
        ('{"left": "a", "right": true, "winner": "left"}', "votes.jsonl:2: `right` is True"),
        ('{"left": "a", "right": "b", "winner": true}', "votes.jsonl:2: winner True"),
    ],
)
def test_a_bad_json_line_is_one_line_with_its_place(tmp_path, line, said):
    path = written(tmp_path, '{"left": "a", "right": "b", "winner": "left"}\n' + line + "\n", "votes.jsonl")
    with pytest.raises(InputError) as error:
        read_comparisons(path)
    assert said in str(error.value)


def test_comparisons_read_a_file_with_its_queries_as_clusters(tmp_path):
    comparisons = Comparisons.read(written(tmp_path, "query_id,left,right,winner\nq1,a,b,left\nq2,b,a,\nq2,b,a,left\n"))
    assert comparisons.items == ("a", "b")
    assert comparisons.n == 2
    assert list(comparisons.cluster) == ["q1", "q2"]


def test_the_crowd_votes_are_read_whole(shared_data):
    table = read_comparisons(str(shared_data / "preferences" / "crowd-comparisons.csv"))
    assert len(table) == 8931
    assert [table.share.count(s) for s in (1.0, 0.0, 0.5)] == [2911, 2549, 3471]
