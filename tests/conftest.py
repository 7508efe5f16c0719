"""Fixtures shared by all tests."""

from __future__ import annotations

import os

# Two workers on two cores: threads of their own for small matrices make them wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("LLMRANK_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}: set LLMRANK_TEST_DATA to the folder that holds it")
    return folder
