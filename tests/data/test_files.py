"""Reading lines from files as people have them, and writing files that appear whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.data.files import file_sha256, open_lines, spooled, writing
from llmrank.errors import InputError


def stdin_of(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("name", ["lines.txt", "lines.txt.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_gzip_is_told_by_content_whatever_the_name(tmp_path: Path, name: str, packed: bool) -> None:
    content = "one\nzwei äöü\n\nfour".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    assert list(open_lines(tmp_path / name)) == [(1, "one"), (2, "zwei äöü"), (3, ""), (4, "four")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_bom_and_crlf_are_no_part_of_the_lines(tmp_path: Path, pack) -> None:
    (tmp_path / "f").write_bytes(pack(b"\xef\xbb\xbfone\r\ntwo\r\n"))
    assert list(open_lines(tmp_path / "f")) == [(1, "one"), (2, "two")]


def test_gzip_of_several_members_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "f.gz").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert [line for _, line in open_lines(tmp_path / "f.gz")] == ["one", "two"]


@given(st.lists(st.text().filter(lambda text: "\n" not in text and not text.endswith("\r"))))
def test_only_newlines_end_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("lines") / "f"
    path.write_bytes("".join(line + "\n" for line in ["first", *lines]).encode())
    assert [line for _, line in open_lines(path)] == ["first", *lines]


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"fine\n" * 10_000 + b"caf\xe9\n")
    with pytest.raises(InputError, match=r"f:10001: not UTF-8 \(byte 0xe9\)"):
        list(open_lines(tmp_path / "f"))


@pytest.mark.parametrize("kept", [2, 12, 5000])
def test_a_truncated_gzip_file_is_an_error(tmp_path: Path, kept: int) -> None:
    whole = gzip.compress(os.urandom(10_000).hex().encode())
    (tmp_path / "f.gz").write_bytes(whole[:kept])
    with pytest.raises(InputError, match=r"f\.gz:1: damaged gzip data"):
        list(open_lines(tmp_path / "f.gz"))


def test_a_damaged_gzip_file_is_an_error(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(b"line\n" * 10_000))
    whole[len(whole) // 2] ^= 0xFF
    (tmp_path / "f.gz").write_bytes(whole)
    with pytest.raises(InputError, match="damaged gzip data"):
        list(open_lines(tmp_path / "f.gz"))


def test_an_empty_gzip_file_is_an_error_and_an_empty_file_is_not(tmp_path: Path) -> None:
    for name in ("f", "f.gz"):
        (tmp_path / name).touch()
    assert list(open_lines(tmp_path / "f")) == []
    with pytest.raises(InputError, match=r"f\.gz: it is empty"):
        list(open_lines(tmp_path / "f.gz"))


def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^cannot read .*/none: no such file$"):
        list(open_lines(tmp_path / "none"))
    with pytest.raises(InputError, match=r"^cannot read .*: it is a folder, not a file$"):
        list(open_lines(tmp_path))


def test_standard_input_can_be_read_several_times_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin_of(monkeypatch, gzip.compress(b"one\ntwo\n"))
    with spooled("-") as source:
        assert str(source) == "<stdin>"
        assert list(open_lines(source)) == list(open_lines(source)) == [(1, "one"), (2, "two")]
    assert not os.path.exists(source)


def test_errors_in_standard_input_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin_of(monkeypatch, b"\xff\n")
    with pytest.raises(InputError, match=r"^<stdin>:1: not UTF-8"):
        list(open_lines("-"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_can_be_read_several_times(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"one\n",))
    writer.start()
    with spooled(pipe) as source:
        assert list(open_lines(source)) == list(open_lines(source)) == [(1, "one")]
        assert str(source) == str(pipe)
    writer.join()


def test_an_ordinary_file_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with spooled(tmp_path / "f") as source:
        assert source == tmp_path / "f"


def test_a_written_file_appears_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with writing(tmp_path / "out") as stream:
        stream.write("ä\n")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out").read_bytes() == "ä\n".encode()
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "plain"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "out").write_text("old")

    def broken() -> None:
        with writing(tmp_path / "out") as stream:
            stream.write("new")
            raise error

    with pytest.raises(error):
        broken()
    assert (tmp_path / "out").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with writing(tmp_path / "link") as stream:
        stream.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_long_name_and_a_device_can_be_written(tmp_path: Path) -> None:
    with writing(tmp_path / ("n" * 255)) as stream:
        stream.write("x")
    with writing(os.devnull) as stream:
        stream.write("x")
    assert (tmp_path / ("n" * 255)).read_text() == "x"
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_minus_writes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with writing("-") as stream:
        stream.write("line\n")
    assert capsys.readouterr().out == "line\n"


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"^cannot write .*/no/out: its folder does not exist$"),
        writing(tmp_path / "no" / "out"),
    ):
        pass
    with pytest.raises(InputError, match=r"it is a folder, not a file$"), writing(tmp_path):
        pass


@given(st.binary(max_size=1000))
def test_sha256_is_that_of_the_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("sha") / "f"
    path.write_bytes(content)
    assert file_sha256(path) == hashlib.sha256(content).hexdigest()
