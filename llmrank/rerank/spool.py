"""Results on disk as they are done, in whatever order that is, and put in order at the end."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path


class Spool:
    """A growing file of blocks, each with its place. Every block is written whole as soon as it is known."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._file = open(path, "w+b", buffering=0) if path else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._places, self._offsets, self._lengths = array("q"), array("q"), array("q")
        self._end = 0

    def write(self, place: int, block: str) -> None:
        data = block.encode()
        self._file.write(data)
        self._places.append(place)
        self._offsets.append(self._end)
        self._lengths.append(len(data))
        self._end += len(data)

    def __len__(self) -> int:
        return len(self._places)

    def ordered(self) -> Iterator[bytes]:
        """The blocks in the order of their places."""
        for i in sorted(range(len(self._places)), key=self._places.__getitem__):
            self._file.seek(self._offsets[i])
            yield self._file.read(self._lengths[i])

    def finish(self, path: Path) -> None:
        """Puts the blocks in order under the final name, which does not exist before, and removes the spool."""
        if self.path is None:
            for block in self.ordered():
                sys.stdout.buffer.write(block)
            sys.stdout.flush()
            self._file.close()
            return
        if all(a < b for a, b in zip(self._places, self._places[1:], strict=False)):
            self._file.close()
            os.replace(self.path, path)  # they were done in order
            return
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(self.ordered())
            shutil.copymode(self.path, temporary)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        self._file.close()
        self.path.unlink()

    def close(self) -> None:
        """Leaves what is written where it is."""
        self._file.close()
