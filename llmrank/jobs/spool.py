"""Results on disk as they are done, in whatever order that is, and put in order at the end."""

from __future__ import annotations

import io
import os
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import suppress

from llmrank.data.files import unusable


class Spool:
    """A growing file of blocks, each with its place: at a path, or nameless. A block is written whole or not at all."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._name = path or f"a temporary file in {tempfile.gettempdir()}"
        try:
            self._file = io.FileIO(path, "w+") if path else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        except OSError as error:
            raise unusable("write", self._name, error) from None
        self._places, self._offsets, self._lengths = array("q"), array("q"), array("q")
        self._end = 0

    def write(self, place: int, block: str) -> None:
        data = block.encode()
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise unusable("write", self._name, error) from None
        self._places.append(place)
        self._offsets.append(self._end)
        self._lengths.append(len(data))
        self._end += len(data)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def in_order(self) -> bool:
        """Whether the file holds the blocks in the order of their places already."""
        return all(a < b for a, b in zip(self._places, self._places[1:], strict=False))

    def ordered(self) -> Iterator[str]:
        """The blocks in the order of their places."""
        for i in sorted(range(len(self._places)), key=self._places.__getitem__):
            self._file.seek(self._offsets[i])
            yield self._file.read(self._lengths[i]).decode()

    def close(self) -> None:
        """Leaves what is written where it is."""
        self._file.close()

    def remove(self) -> None:
        """Closes and removes the file."""
        self.close()
        if self.path:
            os.unlink(self.path)
