"""What is installed: the wheel holds the prompts and the demo, and works from where it was unpacked."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

CHECK = """
import llmrank.templates as t, llmrank
from pathlib import Path
assert Path(llmrank.__file__).is_relative_to({folder!r}), llmrank.__file__
assert t.folder() == Path(llmrank.__file__).parent / "prompts"
assert "listwise/rank" in t.names()
for name in t.names(): t.load(name)
from llmrank.cli.main import run
raise SystemExit(run(["demo"]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_works_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
        names = file.namelist()
    assert "llmrank/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "experiments/"))]
    folder = str(tmp_path / "site")
    code = f"import sys; sys.path.insert(0, {folder!r})\n" + CHECK.format(folder=folder)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sliding-window" in done.stdout
