"""Answers of HTTP/1.1 (RFC 9112), read as their bytes come: framing, chunks and compression, and nothing else."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from llmrank.llm.backends.wire import Answer

LONGEST_HEAD = 1 << 16  # bytes of a status line with its headers, or of a chunk's own line
ENCODINGS = "gzip, deflate"
"""Compressions that can be read: what a request may say that it accepts."""

_STATUS = re.compile(r"HTTP/1\.([01]) ([1-9]\d\d)(?: |$)")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
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
        """Bytes of the body, or of its present chunk, that are still to come; None: until the connection is closed."""
        self._chunked = False

    def feed(self, data: bytes) -> Answer | None:
        """The answer, once it is whole. Raises Malformed."""
        self._raw = self._raw + data if self._raw else data
        while not self._status:
            if (end := self._raw.find(b"\r\n\r\n")) < 0:
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
        return self._whole() if self._status and self._left is None and not self._chunked else None

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
            self._chunked = True
        elif (length := headers.get("content-length")) is not None:
            sizes = {size.strip() for size in length.split(",")}
            size = sizes.pop()
            if sizes or not (size.isascii() and size.isdigit()):
                raise Malformed(f"its length is {length[:40]!r}")
            self._left = int(size)

    def _take_chunks(self) -> Answer | None:
        raw, at = self._raw, 0
        while (end := raw.find(b"\r\n", at)) >= 0:
            line = raw[at:end]
            if self._left == 0:  # what may follow the last chunk, up to an empty line
                at = end + 2
                if line:
                    continue
                self.keeps &= at == len(raw)
                return self._whole()
            size = line.partition(b";")[0].strip(b" \t")
            if not _SIZE.fullmatch(size):
                raise Malformed(f"{size[:40]!r} is no size of a chunk")
            length = int(size, 16)
            if length == 0:
                self._left, at = 0, end + 2
                continue
            begin = end + 2
            if len(raw) < begin + length + 2:
                break
            self._body += raw[begin : begin + length]
            at = begin + length + 2
            if raw[at - 2 : at] != b"\r\n":
                raise Malformed("a chunk is longer than it says")
        else:
            if len(raw) - at > LONGEST_HEAD:
                raise Malformed("the line of a chunk does not end")
        self._raw = raw[at:]
        return None

    def _whole(self) -> Answer:
        encoding = self._headers.get("content-encoding", "").lower()
        body = bytes(self._body)
        return Answer(self._status, self._headers, opened(body, encoding) if encoding and body else body)


def opened(body: bytes, encoding: str) -> bytes:
    """A compressed body as it was. Raises Malformed."""
    try:
        match encoding:
            case "gzip" | "x-gzip":
                return zlib.decompress(body, 16 + zlib.MAX_WBITS)
            case "deflate":  # some servers leave the frame out
                framed = body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
                return zlib.decompress(body, zlib.MAX_WBITS if framed else -zlib.MAX_WBITS)
            case "identity":
                return body
    except zlib.error as error:
        raise Malformed(f"its {encoding} is damaged ({error})") from None
    raise Malformed(f"it is compressed as {encoding[:40]!r}, which was not asked for")
