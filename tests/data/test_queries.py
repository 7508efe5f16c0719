"""Queries in every format that people have them in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.data.queries import iter_queries, read_queries
from llmrank.data.types import Query
from llmrank.errors import InputError

CLASSIC = """
<top>

<num> Number: 301
<title> International Organized Crime

<desc> Description:
Identify organizations that participate in international
criminal <b>activity,</b> AT&amp;T included.

<narr> Narrative:
A relevant document must name
the organization.

</top>

<top>
<head> Tipster Topic Description
<num> Number: 302
<dom> Domain: Medicine
<title> Topic: Poliomyelitis
<smry> Summary: eradication
<con> Concept(s): 1. vaccine
</top>
"""
CLASSIC_QUERIES = [
    Query(
        "301",
        "International Organized Crime",
        "Identify organizations that participate in international criminal activity, AT&T included.",
        "A relevant document must name the organization.",
    ),
    Query("302", "Poliomyelitis"),
]


def queries_in(path: Path, content: str) -> list[Query]:
    path.write_text(content, encoding="utf-8")
    return list(iter_queries(path))


def test_tsv(tmp_path: Path) -> None:
    assert queries_in(tmp_path / "q", "q1\twhat is “bm25”?\r\n\n7\t<b> x\n") == [
        Query("q1", "what is “bm25”?"),
        Query("7", "<b> x"),
    ]


@pytest.mark.parametrize("id_name", ["query_id", "qid", "_id", "id"])
@pytest.mark.parametrize("text_name", ["text", "query", "title"])
def test_json_lines_under_any_of_the_usual_names(tmp_path: Path, id_name: str, text_name: str) -> None:
    full = {id_name: 7, text_name: "t", "description": "d", "narrative": "n", "instruction": "i", "other": [1]}
    lines = [json.dumps(full), "", json.dumps({id_name: "a", text_name: "ü", "narrative": None})]
    assert queries_in(tmp_path / "named.tsv", "\n".join(lines)) == [Query("7", "t", "d", "n", "i"), Query("a", "ü")]


def test_the_first_of_the_names_counts(tmp_path: Path) -> None:
    line = {"id": 1, "qid": 2, "_id": 3, "query_id": None, "title": "a", "query": "b"}
    assert queries_in(tmp_path / "q", json.dumps(line)) == [Query("2", "b")]


def test_classic_topics_close_no_tags(tmp_path: Path) -> None:
    assert queries_in(tmp_path / "topics", CLASSIC) == CLASSIC_QUERIES
    assert queries_in(tmp_path / "topics", CLASSIC.replace("</top>", "")) == CLASSIC_QUERIES
    assert queries_in(tmp_path / "topics", " ".join(CLASSIC.split())) == CLASSIC_QUERIES


def test_closed_topics(tmp_path: Path) -> None:
    content = """<top>
    <num> Number: 321 </num> <title>
    Women in Parliaments </title>
    <desc> Description: How many?
    <p>And where?</p> </desc>
    <narr> Narrative: Any. </narr>
    </top>"""
    assert queries_in(tmp_path / "t", content) == [Query("321", "Women in Parliaments", "How many? And where?", "Any.")]


def test_xml_topics(tmp_path: Path) -> None:
    content = """<?xml version="1.0" encoding="UTF-8"?>
    <topics task="COVIDSearch">
      <topic number="1">
        <query>coronavirus origin</query>
        <question>what is the origin of COVID-19 &lt;virus&gt;</question>
        <narrative>seeking range of information</narrative>
      </topic>
      <!-- one with subtopics -->
      <topic type="faceted" number='2'>
        <query>obama family tree</query> <description>Find information.</description>
        <subtopic number="9" type="nav">Where did they live?</subtopic>
      </topic>
      <topic number="3"> 45-year-old man with a tumor of &gt;5 mm </topic>
      <topic number="4"><description>a description only</description></topic>
      <topic><title>a title</title><query>a query</query><number>5</number></topic>
    </topics>"""
    assert queries_in(tmp_path / "t.xml", content) == [
        Query("1", "coronavirus origin", "what is the origin of COVID-19 <virus>", "seeking range of information"),
        Query("2", "obama family tree", "Find information."),
        Query("3", "45-year-old man with a tumor of >5 mm"),
        Query("4", "a description only", "a description only"),
        Query("5", "a query"),
    ]


def test_gzip_and_dictionary(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(b'{"qid": "b", "text": "x"}\n{"qid": "a", "text": "y"}\n'))
    queries = read_queries(tmp_path / "q.jsonl.gz")
    assert list(queries) == ["b", "a"]
    assert queries["a"].text == "y"


@given(st.lists(st.text(min_size=1).filter(str.strip), max_size=5))
def test_any_text_survives_json_lines(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("queries") / "q.jsonl"
    lines = (
        json.dumps({"qid": number, "text": text}, ensure_ascii=number % 2 == 0) for number, text in enumerate(texts)
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    assert [query.text for query in iter_queries(path)] == texts


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a\tx\n\nno tab here\n", ":3: expected query_id<TAB>text, found no tab"),
        ("a\tx\n\nb\ty\tz\n", ":3: expected query_id<TAB>text, found 3 columns"),
        ("a\tx\n\n\ty\n", ":3: query_id is empty"),
        ("a\tx\n\nb c\ty\n", ":3: query_id 'b c' has white space"),
        ("a\tx\n\nb\t \n", ":3: query b has no text"),
        ("a\tx\nb\ty\na\tz\n", ":3: query a is there already, in line 1"),
        ('{"id": 1, "text": "x"}\n{"id": "1", "text": "x"}\n', ":2: query 1 is there already, in line 1"),
        ('{"id": "a", "text": "x"}\n\n{"id": "b", "text": \n', ":3: invalid JSON"),
        ('{"id": "a", "text": "\\ud800"}\n', ":1: invalid JSON"),
        ('{"id": "a", "text": "x"}\n["b"]\n', ":2: a line must be a JSON object, not a list"),
        ('{"id": "a b", "text": "x"}\n', ":1: id 'a b' has white space, which no TREC file can hold"),
        ('{"id": "", "text": "x"}\n', ":1: id is empty"),
        ('{"id": 1.5, "text": "x"}\n', ":1: id must be a string or a whole number, not 1.5"),
        ('{"id": true, "text": "x"}\n', ":1: id must be a string or a whole number, not true or false"),
        ('{"id": 99999999999999999999999, "text": "x"}\n', ":1: id must be a string or a whole number"),
        ('{"text": "x"}\n', ":1: no id: expected one of query_id, qid, _id, id"),
        ('{"id": "a"}\n', ":1: no text: expected one of text, query, title"),
        ('{"id": "a", "text": ["x"]}\n', ":1: text must be a string, not a list"),
        ("<top>\n<num> Number: 1\n<title> x\n</top>\n<top>\n<title> y\n</top>", ":5: the number of the topic is empty"),
        ("<top>\n<num> Number: 1\n<title>\n</top>\n", ":1: query 1 has no text"),
        ("<top><num>1<title>x</top>\n\n<top><num>1<title>x</top>\n", ":3: query 1 is there already, in line 1"),
        ("<html>\n", "has no <top> or <topic>"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "q").write_text(content)
    with pytest.raises(InputError) as error:
        read_queries(tmp_path / "q")
    assert problem in str(error.value)


def test_a_name_tells_json_that_does_not_look_like_it(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("a\tx\n")
    with pytest.raises(InputError, match=r"q\.jsonl:1: invalid JSON"):
        read_queries(tmp_path / "q.jsonl")


def test_an_empty_file_has_no_queries(tmp_path: Path) -> None:
    assert queries_in(tmp_path / "q", "\n \n") == []


def test_real_topics(shared_data: Path) -> None:
    queries = read_queries(shared_data / "qrels" / "dl19.topics.tsv")
    assert len(queries) == 43
    assert queries["156493"] == Query("156493", "do goldfish grow")
    assert len(read_queries(shared_data / "judge_labels" / "llmjudge.queries.tsv")) > 12
