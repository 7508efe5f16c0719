"""Makes the environment in which the engine tests run: python3 install.py VENV ENGINES_DIR.

The heavy part (torch, transformers, vLLM: 2 GB) is made once and kept in a cache folder, under a name that tells all
that decides what is in it. VENV is light, belongs to one checkout, and sees the heavy part. Needs nothing but Python.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = "install_vllm_cpu.sh"
"""In ENGINES_DIR; called with a folder, it makes an environment there with vLLM for a machine without a GPU."""
TESTING = ("accelerate", "hypothesis", "pytest")
COMPLETE = "complete"
"""Written last: an environment without it is half one, and made again."""
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
NO_GPU = (
    f"there is no {SCRIPT} in {{engines}}, and vLLM from the package index needs an NVIDIA GPU, which is not here: set "
    f"LLMRANK_ENGINES_DIR to a folder whose {SCRIPT} VENV installs a vLLM for a CPU into VENV, or run this where a GPU "
    "is; `make test` needs neither"
)


class Failed(Exception):
    """The engines cannot be installed; its text says why in a sentence."""


def main(venv: str, engines: str) -> None:
    heavy = kept(Path(engines).resolve(), cache())
    light(Path(venv).resolve(), heavy)


def cache() -> Path:
    """Where heavy parts are kept, those of earlier versions too; any of them may be deleted."""
    if named := os.environ.get("LLMRANK_ENGINES_CACHE"):
        return Path(named).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmrank" / "engines"


def kept(engines: Path, folder: Path) -> Path:
    """The heavy part from the cache, made if it is not there; another process that makes it is waited for."""
    heavy = folder / name_of(engines)
    with locked(heavy.with_name(heavy.name + ".lock")):
        if not (heavy / COMPLETE).is_file():
            shutil.rmtree(heavy, ignore_errors=True)
            make(heavy, engines)
            (heavy / COMPLETE).touch()
    return heavy


def name_of(engines: Path) -> str:
    """What decides what is installed, as a name: this file, the script, the folders beside it, and Python."""
    told = hashlib.sha256()
    files = [Path(__file__)]
    if (engines / SCRIPT).is_file():
        files += [engines / SCRIPT, *sorted(path for path in engines.glob("*/**/*") if path.is_file())]
    for file in (file for file in files if "__pycache__" not in file.parts):
        told.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    told.update(repr((sys.version, sys.base_prefix, platform.machine())).encode())
    return told.hexdigest()[:16]


def make(heavy: Path, engines: Path) -> None:
    """An environment with torch, transformers and vLLM: by ENGINES_DIR's script, or from the package index."""
    script = engines / SCRIPT
    if not script.is_file() and not has_gpu():
        raise Failed(NO_GPU.format(engines=engines))
    said(f"making {heavy} (2 GB, kept for the next time)")
    run(sys.executable, "-m", "venv", str(heavy))
    if script.is_file():
        run("bash", str(script), str(heavy))
    else:
        run(str(heavy / "bin" / "python"), *PIP, "vllm")
    run(str(heavy / "bin" / "python"), "-c", "import torch, transformers, vllm")


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def light(venv: Path, heavy: Path) -> None:
    """The checkout's own environment: llmrank as it is there, what tests need, and the heavy part's packages seen."""
    mark = venv / COMPLETE
    wanted = f"{heavy}\n{hashlib.sha256((ROOT / 'pyproject.toml').read_bytes()).hexdigest()}\n"
    if mark.is_file() and mark.read_text() == wanted:
        return
    shutil.rmtree(venv, ignore_errors=True)
    run(sys.executable, "-m", "venv", "--without-pip", str(venv))  # pip, too, is the heavy part's
    packages = {part: Path(sysconfig.get_path("purelib", "venv", vars=both(part))) for part in (venv, heavy)}
    # Not its path alone: the files there that name further paths count, too.
    (packages[venv] / "engines.pth").write_text(f"import site; site.addsitedir({str(packages[heavy])!r})\n")
    python = str(venv / "bin" / "python")
    constraints = venv / "constraints.txt"  # what vLLM brought is not replaced: its versions go together
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in versions(heavy).items()))
    run(python, *PIP, "-c", str(constraints), "-e", str(ROOT), *TESTING)
    if replaced := versions(venv).keys() & versions(heavy).keys():
        raise Failed(f"{', '.join(sorted(replaced))} of {heavy} would be hidden by another version in {venv}")
    mark.write_text(wanted)
    told = versions(heavy)
    said(f"{venv} has " + ", ".join(f"{name} {told[name]}" for name in ("torch", "transformers", "vllm")))


def both(prefix: Path) -> dict[str, str]:
    return {"base": str(prefix), "platbase": str(prefix)}


def versions(prefix: Path) -> dict[str, str]:
    """The packages of an environment itself, with their versions."""
    from importlib.metadata import distributions

    folder = sysconfig.get_path("purelib", "venv", vars=both(prefix))
    return {re.sub("[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in distributions(path=[folder])}


def run(*command: str) -> None:
    """Runs a command whose output, and so whose error, is seen."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"`{' '.join(command)}` ended with code {done.returncode}; what it said stands above")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds a lock that ends with this process, however that ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said("another process is installing the engines; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def said(text: str) -> None:
    print(f"engines: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Failed as failed:
        sys.exit(f"engines: {failed}")
    except OSError as error:
        sys.exit(f"engines: {error}; LLMRANK_ENGINES_CACHE names another folder for what is kept")
