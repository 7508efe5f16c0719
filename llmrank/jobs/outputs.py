"""The files that a job writes: checked before anything is asked, there under their names only at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from llmrank.data.files import unusable, writing
from llmrank.errors import InputError, LlmrankError
from llmrank.jobs.spool import Spool


class Outputs(NamedTuple):
    """The files that a job writes; `-` is standard output."""

    output: str
    report: str | None = None
    manifest: str | None = None
    teacher: str | None = None
    judgments: str | None = None
    qrels: str | None = None
    provenance: str | None = None
    triples: str | None = None

    @property
    def partial(self) -> str | None:
        """Where a running job's results so far stand; nowhere where they go to a pipe or a device."""
        special = self.output == "-" or (os.path.exists(self.output) and not os.path.isfile(self.output))
        return None if special else f"{self.output}.partial"

    @property
    def by_flag(self) -> dict[str, str]:
        """The files that are wanted, by the flags that name them."""
        return {f"--{name}": path for name, path in self._asdict().items() if path is not None}

    def check(self, read: Iterable[str | None] = (), *, as_json: bool = False) -> Outputs:
        """Itself, once all is told that can be before anything is asked.

        Raises InputError for a path that cannot be written, that takes the place of one of the files that are `read`,
        or that is standard output where `as_json` has its one object there.
        """
        for flag, path in self.by_flag.items():
            _check_writable(flag, path)
        self._check_apart()
        self._check_spares(read)
        if as_json and (taken := [flag for flag, path in self.by_flag.items() if path == "-"]):
            raise InputError(f"--json and {taken[0]} -: both would write to standard output; name a file for one")
        return self

    def _check_apart(self) -> None:
        given = self.by_flag
        places = {flag: path if path == "-" else os.path.realpath(path) for flag, path in given.items()}
        for flag, place in places.items():
            twin = next(other for other, at in places.items() if at == place)
            if twin != flag and (place == "-" or not _is_special(place)):
                raise InputError(f"{twin} and {flag} are both {given[flag]}; name two files")

    def _check_spares(self, read: Iterable[str | None]) -> None:
        inputs = {os.path.realpath(path) for path in read if path not in (None, "", "-")}
        written = [(flag, path, path) for flag, path in self.by_flag.items()]
        if self.partial is not None:
            written.append(("--output", self.output, self.partial))
        for flag, path, place in written:
            if not _is_special(place) and os.path.realpath(place) in inputs:
                which = "this file" if place == path else f"{place}, where the results so far stand,"
                raise InputError(f"{flag} {path}: {which} is read as well, and would be lost; name another")

    def finish(self, lines: Spool) -> None:
        """Gives the main output its name, its blocks in order."""
        with naming(self.output):
            if lines.path is not None and lines.in_order and not os.path.islink(self.output):
                lines.close()
                os.replace(lines.path, self.output)
            else:
                with writing(self.output) as file:
                    file.writelines(lines.ordered())
                lines.remove()

    def write_manifest(self, manifest: Mapping[str, Any] | None) -> None:
        if self.manifest is not None:
            write(self.manifest, [json.dumps(manifest, indent=2) + "\n"])


def write(path: str, texts: Iterable[str]) -> None:
    """Writes a whole file; errors count as what they are after the questions are paid for."""
    with naming(path), writing(path) as file:
        file.writelines(texts)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Errors in writing a file name it, and count as what they are after the questions are paid for."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read it has gone; the program tells nobody
    except OSError as error:
        failure: LlmrankError = unusable("write", "standard output" if path == "-" else path, error)
        failure.exit_code = 1
        raise failure from None
    except LlmrankError as failure:
        failure.exit_code = 1
        raise


def _check_writable(flag: str, path: str) -> None:
    if not path:
        raise InputError(f"{flag}: the name is empty; name a file")
    if path == "-":
        return
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise InputError(f"{flag} {path}: the folder {folder} does not exist; make it first")
    if os.path.isdir(path):
        raise InputError(f"{flag} {path}: this is a folder; name a file")
    if not os.access(path if _is_special(path) else folder, os.W_OK):
        raise InputError(f"{flag} {path}: no permission to write there; name a file in another folder")


def _is_special(path: str) -> bool:
    """Standard output, a device, a pipe: what is written into, not replaced."""
    return path == "-" or (os.path.exists(path) and not os.path.isfile(path))
