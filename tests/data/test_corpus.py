"""Documents, one at a time, whatever their keys are called."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.data.corpus import iter_corpus
from llmrank.data.types import Document
from llmrank.errors import InputError

metadata = st.dictionaries(
    st.sampled_from(["url", "date", "length", "tags"]),
    st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(), lambda inner: st.lists(inner, max_size=3)),
)


def parts(document: Document) -> tuple[str, str, str, object]:
    return document.id, document.text, document.title, dict(document.metadata)


def test_in_tsv_all_after_the_first_tab_is_text(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text("d1\tone\n\nd2\t\nd3\ta table:\t1\t2\n")
    found = [(line, parts(document)) for line, document in iter_corpus(tmp_path / "c.tsv")]
    assert found == [(1, ("d1", "one", "", {})), (3, ("d2", "", "", {})), (4, ("d3", "a table:\t1\t2", "", {}))]


@pytest.mark.parametrize("id_name", ["doc_id", "docid", "_id", "id"])
@pytest.mark.parametrize("text_name", ["text", "contents", "content", "segment"])
@given(rest=metadata, title=st.none() | st.text(), text=st.text())
def test_json_lines_keep_everything(
    tmp_path_factory: pytest.TempPathFactory,
    id_name: str,
    text_name: str,
    rest: dict[str, object],
    title: str,
    text: str,
) -> None:
    path = tmp_path_factory.mktemp("corpus") / "c"
    path.write_text(json.dumps({**rest, id_name: 12, text_name: text, "title": title}))
    ((line, document),) = iter_corpus(path)
    assert (line, parts(document)) == (1, ("12", text, title or "", rest))


def test_only_the_wanted_documents_are_made(tmp_path: Path) -> None:
    (tmp_path / "c").write_text('{"id": "a", "text": 3}\n{"id": "b", "text": "x"}\n')
    assert [document.id for _, document in iter_corpus(tmp_path / "c", {"b"}.__contains__)] == ["b"]
    with pytest.raises(InputError, match=r"c:1: text must be a string, not 3"):
        list(iter_corpus(tmp_path / "c"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "b", "text": "x"', "invalid JSON"),
        ('{"id": "b", "title": "x"}', "no text: expected one of text, contents, content, segment"),
        ('{"text": "x"}', "no id: expected one of doc_id, docid, _id, id"),
        ('{"id": "b\\u00a0c", "text": "x"}', "has white space"),
        ('{"id": "b", "text": "x", "title": 5}', "title must be a string, not 5"),
        ("b\tx", "invalid JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "c").write_text(f'{{"id": "a", "text": "x"}}\n\n{line}\n')
    with pytest.raises(InputError) as error:
        list(iter_corpus(tmp_path / "c"))
    assert "c:3: " in str(error.value)
    assert problem in str(error.value)


@pytest.mark.parametrize("line", ["b", "b c\ttext", "\ttext"])
def test_a_bad_tsv_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "c").write_text(f"a\tx\n{line}\n")
    with pytest.raises(InputError, match=r"c:2: .*doc_id"):
        list(iter_corpus(tmp_path / "c", lambda doc_id: False))


def test_a_real_corpus(shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "corpora" / "noveleval.tar.gz") as archive:
        archive.extract("noveleval/corpus.tsv", tmp_path, filter="data")
    documents = [document for _, document in iter_corpus(tmp_path / "noveleval" / "corpus.tsv")]
    assert len({document.id for document in documents}) == len(documents) == 420
    assert documents[0].text.startswith("Spider-Man: Across the Spider-Verse is a 2023 American")
