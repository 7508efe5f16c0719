"""Files as people have them: plain or gzip, standard input, CRLF or a byte-order mark; outputs that appear whole."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import itertools
import os
import secrets
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, Literal, TextIO

from llmrank.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
BUFFER = 1 << 18


@dataclass(frozen=True, slots=True)
class Spooled(os.PathLike[str]):
    """A temporary copy of what can be read only once; prints as the name that the user knows."""

    copy: str
    name: str

    def __fspath__(self) -> str:
        return self.copy

    def __str__(self) -> str:
        return self.name


Source = str | os.PathLike[str]
"""Where something is read from: a path, `-` for standard input, or a `Spooled` copy."""


def open_lines(path: Source) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their 1-based numbers, without line ends. gzip is told by its first bytes."""
    with spooled(path, pipes=False) as source, opened(source) as stream:
        number = 0
        try:
            for number, raw in enumerate(stream, 1):
                yield number, raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            problem = f"not UTF-8 (byte 0x{error.object[error.start]:02x}); convert the file to UTF-8"
            raise InputError.at(source, number, problem) from None
        except (EOFError, zlib.error, OSError) as error:
            raise _failure(source, number + 1, error) from None


def first_line(path: Source) -> tuple[str, Iterator[tuple[int, str]]]:
    """The first line that is not blank (empty if there is none), to tell the format by, and all lines from it on."""
    lines = open_lines(path)
    for number, line in lines:
        if line.strip():
            return line.lstrip(), itertools.chain([(number, line)], lines)
    return "", lines


def begins_with(path: Source, mark: bytes) -> bool:
    """Whether these are the first bytes of a file that are no white space; reads no whole line, however long."""
    with opened(path) as stream, suppress(EOFError, zlib.error, OSError):  # reported to whoever reads all of it
        return stream.read(BUFFER).lstrip().startswith(mark)
    return False


@contextmanager
def opened(path: Source) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed and without byte-order mark."""
    with _open(path) as file:
        start = file.peek(2)[:2]
        if not start and os.fspath(path).endswith(".gz"):
            raise InputError(f"cannot read {path}: it is empty, which no gzip file is; copy the file again")
        stream = file
        if start == GZIP_MAGIC:
            stream = io.BufferedReader(gzip.GzipFile(fileobj=file), BUFFER)
        try:
            if stream.peek(3).startswith(codecs.BOM_UTF8):
                stream.read(len(codecs.BOM_UTF8))
        except (EOFError, zlib.error, OSError) as error:
            raise _failure(path, 1, error) from None
        yield stream


@contextmanager
def spooled(path: Source, *, pipes: bool = True) -> Iterator[Source]:
    """The path itself where it can be read several times, else (`-` and, with `pipes`, pipes) a temporary copy."""
    if os.fspath(path) == "-":
        with _copy(sys.stdin.buffer, "<stdin>") as copy:
            yield copy
    elif pipes and _is_pipe(path):
        with open(path, "rb") as pipe, _copy(pipe, str(path)) as copy:
            yield copy
    else:
        yield path


@contextmanager
def writing(path: Source) -> Iterator[TextIO]:
    """A text file that gets its name only when all is written, and leaves nothing behind on an error; `-` is stdout."""
    if os.fspath(path) == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    target = os.path.realpath(path)  # a link stays a link
    if os.path.exists(target) and not os.path.isfile(target):
        with _create(path, target, "w") as stream:  # /dev/null or a pipe, which a rename would replace
            yield stream
        return
    # Not derived from the name of the target, which may be as long as the file system allows.
    temporary = os.path.join(os.path.dirname(target), f".llmrank-{secrets.token_hex(8)}.tmp")
    try:
        with _create(path, temporary, "x") as stream:
            yield stream
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def file_sha256(path: Source) -> str:
    """The SHA-256 of a file's bytes as they are on disk, in hexadecimal."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unusable("read", path, error) from None


def unusable(verb: str, path: Source, error: OSError) -> InputError:
    """The error of a file that cannot be read or written."""
    problems = {
        FileNotFoundError: "no such file" if verb == "read" else "its folder does not exist",
        IsADirectoryError: "it is a folder, not a file",
        NotADirectoryError: "part of its path is a file, not a folder",
        PermissionError: "permission denied",
    }
    return InputError(f"cannot {verb} {path}: {problems.get(type(error)) or error.strerror or error}")


def _failure(path: Source, line: int, error: Exception) -> InputError:
    if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
        return unusable("read", path, error)
    return InputError.at(path, line, f"damaged gzip data ({error}); copy the file again")


def _open(path: Source) -> io.BufferedReader:
    try:
        return io.BufferedReader(io.FileIO(path), BUFFER)
    except OSError as error:
        raise unusable("read", path, error) from None


def _create(path: Source, place: str, mode: Literal["w", "x"]) -> TextIO:
    try:
        return open(place, mode, encoding="utf-8", newline="\n")
    except OSError as error:
        raise unusable("write", path, error) from None


@contextmanager
def _copy(stream: BinaryIO, name: str) -> Iterator[Spooled]:
    handle, place = tempfile.mkstemp(prefix="llmrank-")
    try:
        try:
            with open(handle, "wb") as file:
                shutil.copyfileobj(stream, file, BUFFER)
        except OSError as error:
            problem = f"cannot copy {name} to {os.path.dirname(place)}: {error.strerror}; TMPDIR names another folder"
            raise InputError(problem) from None
        yield Spooled(place, name)
    finally:
        os.unlink(place)


def _is_pipe(path: Source) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # reported when it is opened
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)
