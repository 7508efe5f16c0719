"""Answers of HTTP/1.1 are read alike however their bytes arrive, as Python's own client reads them."""

from __future__ import annotations

import gzip
import http.client
import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.llm.backends.http1 import LONGEST_HEAD, Malformed, Reading
from llmrank.llm.backends.wire import Answer

BODY = '{"choices": ["äöü", "\\n\\r"]}'.encode() * 20


def answer(body: bytes, *headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *headers, "", ""]).encode() + body


def sized(body: bytes, *headers: str) -> bytes:
    return answer(body, f"Content-Length: {len(body)}", *headers)


def chunked(body: bytes, *sizes: int, trailer: bytes = b"", extension: bytes = b"") -> bytes:
    parts, at = [], 0
    for size in [*sizes, len(body)]:
        if part := body[at : at + size]:
            parts.append(b"%x%b\r\n%b\r\n" % (len(part), extension, part))
        at += size
    return b"".join(parts) + b"0\r\n" + trailer + b"\r\n"


def read(raw: bytes, cuts: tuple[int, ...] = (), *, closed: bool = False) -> tuple[Answer | None, Reading]:
    """What is read of bytes that arrive in parts; nothing may be answered before the last part that matters."""
    reading, at, found = Reading(), 0, None
    for cut in sorted({*(c for c in cuts if 0 < c < len(raw)), len(raw)}):
        found = reading.feed(raw[at:cut])
        at = cut
        if found is not None:
            break
    if found is None and closed:
        found = reading.end()
    return found, reading


class Socket:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self.raw)


def as_python_reads(raw: bytes) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(Socket(raw), method="POST")  # type: ignore[arg-type]
    response.begin()
    return response.status, response.read()


FRAMED = st.one_of(
    st.builds(lambda body: sized(body), st.binary(max_size=300)),
    st.builds(
        lambda body, sizes, trailer, extension: answer(
            chunked(body, *sizes, trailer=trailer, extension=extension), "Transfer-Encoding: chunked"
        ),
        st.binary(min_size=1, max_size=300),
        st.lists(st.integers(1, 100), max_size=5),
        st.sampled_from([b"", b"Digest: x\r\n", b"A: 1\r\nB: 2\r\n"]),
        st.sampled_from([b"", b";name=value", b' ; q="0"']),
    ),
    st.builds(lambda body: b"HTTP/1.1 100 Continue\r\n\r\n" + sized(body), st.binary(max_size=50)),
    st.builds(lambda: answer(b"", status="HTTP/1.1 204 No Content")),
)


@given(FRAMED, st.lists(st.integers(0, 700), max_size=12))
def test_however_the_bytes_arrive_it_is_what_pythons_own_client_reads(raw: bytes, cuts: list[int]) -> None:
    found, reading = read(raw, tuple(cuts))
    assert found is not None
    assert (found.status, found.body) == as_python_reads(raw)
    assert reading.keeps
    for cut in (len(raw) - 1, len(raw) // 2):  # and less of it is no answer
        assert read(raw[:cut], closed=True)[0] is None


@given(st.lists(st.integers(0, 700), max_size=12))
def test_a_body_without_a_length_ends_with_the_connection(cuts: list[int]) -> None:
    raw = answer(BODY, "Content-Type: application/json")
    found, reading = read(raw, tuple(cuts))
    assert found is None
    found = reading.end()
    assert found is not None
    assert found.body == BODY
    assert not reading.keeps


def raw_deflate(body: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(body) + made.flush()


def in_two_parts(body: bytes) -> bytes:
    return gzip.compress(body[:5]) + gzip.compress(body[5:])


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("x-gzip", in_two_parts), ("deflate", zlib.compress), ("Deflate", raw_deflate)],
)
def test_what_was_compressed_is_opened(encoding: str, compress: object) -> None:
    body = compress(BODY)  # type: ignore[operator]
    for raw in (
        sized(body, f"Content-Encoding: {encoding}"),
        answer(chunked(body, 7, 20), "Transfer-Encoding: Chunked", f"Content-Encoding: {encoding}"),
    ):
        found, _ = read(raw)
        assert found is not None
        assert found.body == BODY


@pytest.mark.parametrize("name", ["identity", "utf-8", "none", ""])
def test_what_names_no_compression_is_left_as_it_is(name: str) -> None:
    found, _ = read(sized(BODY, f"Content-Encoding: {name}"))
    assert found is not None
    assert found.body == BODY


def test_a_chunks_size_may_begin_with_zeros() -> None:
    found, _ = read(answer(b"0" * 30 + b"2\r\nhi\r\n000\r\n\r\n", "Transfer-Encoding: chunked"))
    assert found is not None
    assert found.body == b"hi"


@pytest.mark.parametrize(
    ("raw", "keeps"),
    [
        (sized(BODY), True),
        (sized(BODY, "Connection: close"), False),
        (sized(BODY, "connection: Close, x"), False),
        (sized(BODY).replace(b"1.1", b"1.0"), False),
        (sized(BODY, "Connection: Keep-Alive").replace(b"1.1", b"1.0"), True),
        (sized(BODY) + b"more than was said", False),
        (answer(chunked(BODY), "Transfer-Encoding: chunked") + b"HTTP/1.1", False),
    ],
)
def test_whether_the_connection_can_be_used_again(raw: bytes, keeps: bool) -> None:
    found, reading = read(raw)
    assert found is not None
    assert found.body == BODY
    assert reading.keeps is keeps


def test_headers_are_found_in_lower_case_and_repeated_ones_together() -> None:
    found, _ = read(sized(b"", "Retry-After:  7 ", "X-A: 1", "x-a: 2"))
    assert found is not None
    assert found.headers["retry-after"] == "7"
    assert found.headers["x-a"] == "1, 2"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "it begins with 'SSH"),
        (b"HTTP/2 200\r\n\r\n", "it begins with"),
        (answer(b"", "no header"), "is no header"),
        (answer(b"", "Content-Length : 3"), "is no header"),
        (answer(b"", " folded: yes"), "is no header"),
        (answer(b"xyz", "Content-Length: 3", "Content-Length: 4"), "its length is"),
        (answer(b"xyz", "Content-Length: -3"), "its length is"),
        (answer(b"xyz", "Content-Length: ٣"), "its length is"),
        (answer(b"xyz", f"Content-Length: {'9' * 5000}"), "its length is"),
        (b"\0\0\x06\x04", "it begins with"),  # of HTTP/2, whose server waits for more
        (answer(b"", "Transfer-Encoding: gzip, chunked"), "transfer encoding is gzip, chunked"),
        (answer(b"zz\r\n", "Transfer-Encoding: chunked"), "is no size of a chunk"),
        (answer(b"2\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "longer than it says"),
        (answer(b"0" * LONGEST_HEAD + b"0", "Transfer-Encoding: chunked"), "line of a chunk does not end"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * LONGEST_HEAD, "headers do not end"),
        (sized(b"no gzip", "Content-Encoding: gzip"), "its gzip is damaged"),
        (sized(gzip.compress(BODY)[:-9], "Content-Encoding: gzip"), "its gzip is damaged"),
        (sized(b"?", "Content-Encoding: br"), "which was not asked for"),
    ],
)
def test_what_is_no_such_answer_is_refused_with_the_reason(raw: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read(raw)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_nothing_else_is_raised_whatever_comes(raw: bytes, cuts: list[int]) -> None:
    for sent in (raw, b"HTTP/1.1 200 OK\r\n" + raw, answer(raw, "Transfer-Encoding: chunked")):
        try:
            found, _ = read(sent, tuple(cuts), closed=True)
        except Malformed:
            continue
        assert found is None or found.status >= 100
