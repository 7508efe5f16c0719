"""The backends that the contract is held against, and what is behind them, each started once a session.

The engines live in an environment of their own: `make test-engines`. LLMRANK_ENGINES_DIR (default: `shared/engines`
beside the checkout) names the folder whose scripts install vLLM for a machine without a GPU and make the tiny model.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmrank.llm.backends import nano, open_backend
from llmrank.llm.types import Backend

ROOT = Path(__file__).parent.parent.parent
ENGINES = Path(os.environ.get("LLMRANK_ENGINES_DIR") or ROOT.parent / "shared" / "engines")
REQUIRED = os.environ.get("LLMRANK_ENGINES") == "required"
"""Set by `make test-engines`: what is missing then fails."""

CONTEXT = 1024
OPTIONS = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": 32,
    "max_model_len": CONTEXT,
    "max_num_seqs": 64,
}
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "DO_NOT_TRACK": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
}
LONGEST_START = 300  # seconds; reached only by a server that never answers
NAMES = ("simulated", "lexical", "replay", "nano", "transformers", "vllm", "vllm-http", "transformers-http")


def missing(what: str) -> None:
    """Skips, or fails where the engines are required."""
    if REQUIRED:
        pytest.fail(f"{what}, and the engines are required here")
    pytest.skip(f"{what}: make test-engines installs the engines and runs this")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, which thinks where it is told to."""
    for library in ("torch", "transformers", "vllm"):
        if importlib.util.find_spec(library) is None:
            missing(f"{library} is not installed")
    if not (ENGINES / "make_tiny_model.py").is_file():
        missing(f"there is no make_tiny_model.py in {ENGINES} (LLMRANK_ENGINES_DIR)")
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    folder = tmp_path_factory.mktemp("models")
    thinker = Path(__file__).parent / "tiny_thinker.py"
    tiny, out = folder / "tiny", folder / "thinker"
    for command in ([ENGINES / "make_tiny_model.py", tiny], [thinker, tiny, out]):
        subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True)
    return out


@pytest.fixture(scope="session")
def vllm_backend(model: Path) -> Iterator[Backend]:
    backend = open_backend(f"vllm:{model}", engine_options=OPTIONS)
    yield backend
    backend.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def transformers_backend(model: Path) -> Iterator[Backend]:
    backend = open_backend(f"transformers:{model}", engine_options={"device": "cpu"})
    yield backend
    backend.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def vllm_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running `vllm serve`."""
    options = ["--dtype", "float32", "--enforce-eager", "--block-size", "32", "--max-model-len", str(CONTEXT)]
    options += ["--max-num-seqs", "64", "--served-model-name", "thinker"]
    command = ["-m", "vllm.entrypoints.cli.main", "serve", str(model), *options]
    log = tmp_path_factory.mktemp("servers") / "vllm.log"
    yield from _served(command, log, {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"})


@pytest.fixture(scope="session")
def transformers_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running `transformers serve`."""
    log = tmp_path_factory.mktemp("servers") / "transformers.log"
    yield from _served(["-m", "transformers.cli.transformers", "serve", "--device", "cpu"], log, {})


def _served(command: list[str], log: Path, more: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as said:
        server = subprocess.Popen(
            [sys.executable, *command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, **ENVIRONMENT, **more},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + LONGEST_START
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if server.poll() is not None or time.monotonic() > deadline:
                missing(f"the server did not start: {log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def backend_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backend]:
    """A backend by its name in NAMES; what it needs is started when it is first asked for."""

    def made(name: str) -> Backend:
        if name in ("vllm", "transformers"):
            backend: Backend = request.getfixturevalue(f"{name}_backend")
            return backend
        if name == "vllm-http":
            return open_backend("openai:thinker", base_url=request.getfixturevalue("vllm_server"))
        if name == "transformers-http":
            address = request.getfixturevalue("transformers_server")
            return open_backend(f"openai:{request.getfixturevalue('model')}", base_url=address)
        if name == "simulated":
            qrels = tmp_path_factory.mktemp("qrels") / "qrels"
            qrels.write_text("q 0 d1 2\nq 0 d2 0\nq 0 d3 1\n")
            return open_backend(f"simulated:{qrels}?noise=0.5&label_noise=0.4")
        if name == "replay":
            from tests.engines.contract import recorded

            return open_backend(f"replay:{recorded(tmp_path_factory.mktemp('ledger') / 'ledger.db')}")
        if name == "nano" and not (nano.folder() / "model.safetensors").is_file():
            pytest.skip(f"the weights of nano are not in {nano.folder()}")
        return open_backend(name)

    known: dict[str, Backend] = {}
    return lambda name: known[name] if name in known else known.setdefault(name, made(name))
