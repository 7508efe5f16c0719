"""Answers of HTTP/1.1 (RFC 9112), read as their bytes come: framing, chunks and compression, and nothing else."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping

from llmrank.llm.backends.wire import Answer

LONGEST_HEAD = 1 << 16  # bytes of a status line with its headers, or of a chunk's own line
ENCODINGS = "gzip, deflate"
"""Compressions that can be read: what a request may say that it accepts."""

_BEGINNING = b"HTTP/1."
_STATUS = re.compile(r"HTTP/1\.([01]) ([1-9]\d\d)(?: |$)")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(r"0*[0-9]{1,18}", re.ASCII)
_SIZE = re.compile(rb"0*[0-9A-Fa-f]{1,15}")
_COMPRESSED = re.compile(r"\b(?:gzip|deflate|compress|br|zstd)\b")
_BARE = (204, 304)  # statuses whose answers have no body


class Malformed(Exception):
    """This is no answer of HTTP/1.1; the text says why."""


class Reading:
    """One answer while it comes. `feed` what came, and `end` where the connection was closed."""

    def __init__(self) -> None:
        self.keeps = False
        """Whether the connection may be used again, once the answer is whole."""
        self._raw = b""
        self._body = bytearray()
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._left: int | None = None
        """Bytes of the body, None: until the connection is closed; or those of the present chunk that are to come."""
        self._chunked = self._trailing = False

    def feed(self, data: bytes) -> Answer | None:
        """The answer, once it is whole. Raises Malformed."""
        self._raw = self._raw + data if self._raw else data
        while not self._status:
            if (end := self._raw.find(b"\r\n\r\n")) < 0:
                if not self._raw.startswith(_BEGINNING[: len(self._raw)]):  # of such, some wait for more to be said
                    raise Malformed(f"it begins with {self._raw[:40]!r}")
                if len(self._raw) > LONGEST_HEAD:
                    raise Malformed("its headers do not end")
                return None
            self._take_head(self._raw[:end])
            self._raw = self._raw[end + 4 :]
        if self._chunked:
            return self._take_chunks()
        self._body += self._raw
        self._raw = b""
        if self._left is None or len(self._body) < self._left:
            return None
        if len(self._body) > self._left:  # nothing was asked that this could answer
            self.keeps = False
            del self._body[self._left :]
        return self._whole()

    def end(self) -> Answer | None:
        """The answer that is whole because the connection was closed; None where it is not whole."""
        self.keeps = False
        return self._whole() if self._status and self._left is None else None

    @property
    def begun(self) -> bool:
        """Whether any of it has come."""
        return bool(self._raw or self._status)

    def _take_head(self, raw: bytes) -> None:
        first, *lines = raw.decode("latin-1").split("\r\n")
        if (status := _STATUS.match(first)) is None:
            raise Malformed(f"it begins with {first[:40]!r}")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not _NAME.fullmatch(name):
                raise Malformed(f"{line[:40]!r} is no header")
            name, value = name.lower(), value.strip(" \t")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        code = int(status[2])
        if code < 200 and code != 101:  # told on the way; the answer itself is still to come
            return
        self._status, self._headers = code, headers
        connection = headers.get("connection", "").lower()
        self.keeps = "keep-alive" in connection if status[1] == "0" else "close" not in connection
        coding = headers.get("transfer-encoding", "").lower()
        if code in _BARE:
            self._left = 0
        elif coding:
            if coding != "chunked":
                raise Malformed(f"its transfer encoding is {coding}")
            self._chunked, self._left = True, 0
        elif (length := headers.get("content-length")) is not None:
            sizes = {size.strip() for size in length.split(",")}
            size = sizes.pop()
            if sizes or not _LENGTH.fullmatch(size):
                raise Malformed(f"its length is {length[:40]!r}")
            self._left = int(size)

    def _take_chunks(self) -> Answer | None:
        raw, at = self._raw, 0
        while True:
            if self._left:  # of a chunk, with the line's end behind it
                part = raw[at : at + self._left]
                self._body += part
                self._left -= len(part)
                at += len(part)
                if self._left:
                    break
                if self._body[-2:] != b"\r\n":
                    raise Malformed("a chunk is longer than it says")
                del self._body[-2:]
            if (end := raw.find(b"\r\n", at)) < 0:
                if len(raw) - at > LONGEST_HEAD:
                    raise Malformed("the line of a chunk does not end")
                break
            line, at = raw[at:end], end + 2
            if not self._trailing:
                length = _length(line)
                self._left = length + 2 if length else 0
                self._trailing = not length
            elif not line:  # what may follow the last chunk ends with an empty line
                self.keeps &= at == len(raw)
                return self._whole()
        self._raw = raw[at:]
        return None

    def _whole(self) -> Answer:
        encoding = self._headers.get("content-encoding", "").lower()
        body = bytes(self._body)
        return Answer(self._status, self._headers, opened(body, encoding) if encoding and body else body)


def _length(line: bytes) -> int:
    """How long a chunk is, by the line before it."""
    size = line.partition(b";")[0].strip(b" \t")
    if not _SIZE.fullmatch(size):
        raise Malformed(f"{size[:40]!r} is no size of a chunk")
    return int(size, 16)


def opened(body: bytes, encoding: str) -> bytes:
    """A compressed body as it was. Raises Malformed."""
    try:
        match encoding:
            case "gzip" | "x-gzip":
                return gzip.decompress(body)
            case "deflate":  # some servers leave the frame out
                framed = body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
                return zlib.decompress(body, zlib.MAX_WBITS if framed else -zlib.MAX_WBITS)
    except (OSError, EOFError, zlib.error) as error:
        raise Malformed(f"its {encoding} is damaged ({error})") from None
    if _COMPRESSED.search(encoding):
        raise Malformed(f"it is compressed as {encoding[:40]!r}, which was not asked for")
    return body  # `identity`, or no compression at all: some write `utf-8` there
