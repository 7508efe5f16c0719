"""The environment of the engines: its heavy part is made once, whole or not at all, and why it could not be is told."""

from __future__ import annotations

import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tests.engines import install


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """A folder with a script of its own and something beside it that it installs."""
    folder = tmp_path / "engines"
    (folder / "plugin").mkdir(parents=True)
    (folder / "plugin" / "ops.py").write_text("one = 1\n")
    (folder / install.SCRIPT).write_text("echo made\n")
    return folder


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The heavy parts that were made, by what stands in for making one."""
    told: list[Path] = []

    def make(heavy: Path, engines: Path) -> None:
        heavy.mkdir()  # refuses to build on what another left or is building
        (heavy / "torch").touch()
        told.append(heavy)

    monkeypatch.setattr(install, "make", make)
    return told


def test_what_is_made_is_kept_until_what_decides_it_changes(engines: Path, made: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = install.kept(engines, cache)
    assert install.kept(engines, cache) == first
    (engines / "README.md").write_text("Words decide nothing.")
    (engines / "plugin" / "__pycache__").mkdir()
    (engines / "plugin" / "__pycache__" / "ops.pyc").write_bytes(b"nor does this")
    assert install.kept(engines, cache) == first
    assert made == [first]
    (engines / "plugin" / "ops.py").write_text("one = 2\n")
    second = install.kept(engines, cache)
    (engines / install.SCRIPT).write_text("echo made otherwise\n")
    third = install.kept(engines, cache)
    (engines / install.SCRIPT).unlink()
    assert made == [first, second, third]
    assert len({*made, install.kept(engines, cache)}) == 4


def test_half_a_part_is_made_again(engines: Path, made: list[Path], tmp_path: Path) -> None:
    half = tmp_path / install.name_of(engines)
    half.mkdir()
    (half / "left").touch()
    assert install.kept(engines, tmp_path) == half
    assert made == [half]
    assert not (half / "left").exists()


def test_two_at_once_make_it_once(engines: Path, made: list[Path], tmp_path: Path) -> None:
    ready = Barrier(4)

    def wanted() -> Path:
        ready.wait(60)
        return install.kept(engines, tmp_path)

    with ThreadPoolExecutor(4) as pool:
        told = [future.result(60) for future in [pool.submit(wanted) for _ in range(4)]]
    assert made == [told[0]]
    assert set(told) == {told[0]}


def test_a_script_that_fails_is_a_failure_with_what_it_said(
    engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (engines / install.SCRIPT).write_text("echo no such package >&2; exit 3\n")
    real = subprocess.run

    def run(command: list[str], **more: Any) -> Any:  # an empty environment would take seconds
        return real(["true"] if "venv" in command else command, **more)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("LLMRANK_ENGINES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["install.py", str(tmp_path / "venv"), str(engines)])
    with pytest.raises(SystemExit, match=r"^engines: `bash .*` ended with code 3"):
        runpy.run_path(install.__file__, run_name="__main__")
    assert "no such package" in capfd.readouterr().err.splitlines()
    assert not list((tmp_path / "cache").glob(f"*/{install.COMPLETE}"))
    assert not (tmp_path / "venv").exists()


def test_without_a_script_and_without_a_gpu_it_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "has_gpu", lambda: False)
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(install, "run", lambda *command: ran.append(command))
    monkeypatch.setenv("LLMRANK_ENGINES_CACHE", str(tmp_path / "cache"))
    with pytest.raises(install.Failed, match=r"needs an NVIDIA GPU.*LLMRANK_ENGINES_DIR") as failed:
        install.main(str(tmp_path / "venv"), str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in str(failed.value)
    assert "\n" not in str(failed.value)
    assert not ran


def test_without_a_script_vllm_comes_from_the_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "has_gpu", lambda: True)
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(install, "run", lambda *command: ran.append(command))
    install.make(tmp_path / "heavy", tmp_path / "nowhere")
    assert [command[-1] for command in ran] == [str(tmp_path / "heavy"), "vllm", "import torch, transformers, vllm"]
