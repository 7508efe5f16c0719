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

    @property
    def partial(self) -> str | None:
        """Where a running job's results so far stand; nowhere where they go to a pipe or a device."""
        special = self.output == "-" or (os.path.exists(self.output) and not os.path.isfile(self.output))
        return None if special else f"{self.output}.partial"

    @property
    def by_flag(self) -> dict[str, str]:
        """The files that are wanted, by the flags that name them."""
        return {f"--{name}": path for name, path in self._asdict().items() if path is not None}

    def check(self) -> None:
        """What can be told before anything is asked: raises InputError for a path that cannot be written."""
        given = self.by_flag
        for flag, path in given.items():
            folder = os.path.dirname(os.path.realpath(path))
            if not path:
                raise InputError(f"{flag}: the name is empty; name a file")
            if path == "-":
                continue
            if not os.path.isdir(folder):
                raise InputError(f"{flag} {path}: the folder {folder} does not exist; make it first")
            if os.path.isdir(path):
                raise InputError(f"{flag} {path}: this is a folder; name a file")
            if not os.access(path if _is_special(path) else folder, os.W_OK):
                raise InputError(f"{flag} {path}: no permission to write there; name a file in another folder")
        places = {flag: path if path == "-" else os.path.realpath(path) for flag, path in given.items()}
        for flag, place in places.items():
            twin = next(other for other, at in places.items() if at == place)
            if twin != flag and (place == "-" or not _is_special(place)):
                raise InputError(f"{twin} and {flag} are both {given[flag]}; name two files")

    def spare(self, inputs: Iterable[str | None]) -> None:
        """Raises InputError where an output would take the place of one of the inputs."""
        read = {os.path.realpath(path) for path in inputs if path is not None and path != "-"}
        for flag, path in self.by_flag.items():
            if not _is_special(path) and os.path.realpath(path) in read:
                raise InputError(f"{flag} {path}: this file is read as well, and would be lost; name another")

    def leave_stdout(self) -> None:
        """Raises InputError where a file goes to standard output, on which --json prints its one object."""
        if taken := [flag for flag, path in self.by_flag.items() if path == "-"]:
            raise InputError(f"--json and {taken[0]} -: both would write to standard output; name a file for one")

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


def _is_special(path: str) -> bool:
    """Standard output, a device, a pipe: what is written into, not replaced."""
    return path == "-" or (os.path.exists(path) and not os.path.isfile(path))
