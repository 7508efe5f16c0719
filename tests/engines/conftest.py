"""The backends that the contract is held against, and what is behind them, each started once a session.

The engines live in an environment of their own, which `make test-engines` makes: see `install.py`.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from llmrank.llm.backends import nano, open_backend
from llmrank.llm.types import Backend
from tests.conftest import ROOT

REQUIRED = os.environ.get("LLMRANK_ENGINES") == "required"
"""Set by `make test-engines`: what is missing then fails."""

ENGINES_DIR = Path(os.environ.get("LLMRANK_ENGINES_DIR") or ROOT.parent / "shared" / "engines")
MAKE_PLAIN = ENGINES_DIR / "make_tiny_model.py"
"""Makes a second tiny model, which does not think; where there is none, all is held to the first alone."""
MODELS = ("thinker", "plain") if MAKE_PLAIN.is_file() else ("thinker",)

CONTEXT = 1024
OPTIONS: dict[str, object] = {
    "dtype": "float32",
    "enforce_eager": True,
    "block_size": 32,
    "max_model_len": CONTEXT,
    "max_num_seqs": 128,
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
LONGEST_START = 600  # seconds; reached only by a server that never answers
IN_PROCESS: dict[str, dict[str, object]] = {"transformers": {"device": "cpu"}, "vllm": OPTIONS}
NAMES = ("simulated", "lexical", "replay", "nano", "transformers", "vllm", "vllm-http", "transformers-http")


def missing(what: str) -> None:
    """Skips, or fails where the engines are required."""
    if REQUIRED:
        pytest.fail(f"{what}, and the engines are required here")
    pytest.skip(f"{what}: make test-engines installs what is needed, and runs this")


class Server:
    """An engine's server in a process of its own, which may be killed and started again at the same address."""

    def __init__(self, command: list[str], log: Path, **variables: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}/v1"
        self._command = [sys.executable, *command, "--host", "127.0.0.1", "--port", port]
        self._variables = {**os.environ, **ENVIRONMENT, **variables}
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as said:
            self._process = subprocess.Popen(self._command, env=self._variables, stdout=said, stderr=subprocess.STDOUT)

    def wait(self) -> str:
        """Its address, once it answers."""
        deadline = time.monotonic() + LONGEST_START
        while not _answers(self.url.removesuffix("v1") + "health"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                missing(f"the server did not start: {self._log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.2)
        return self.url

    def kill(self) -> None:
        """Ends it at once, and whatever it started."""
        import psutil

        family = [self._process, *psutil.Process(self._process.pid).children(recursive=True)]
        for process in family:
            process.kill()
        for process in family:
            process.wait(20)

    def end(self) -> None:
        if self._process.poll() is None:
            self.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, which thinks where it is told to."""
    for library in ("torch", "transformers", "vllm"):
        if importlib.util.find_spec(library) is None:
            missing(f"{library} is not installed")
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    folder = tmp_path_factory.mktemp("models") / "thinker"
    runpy.run_path(str(Path(__file__).parent / "tiny_model.py"))["main"](str(folder))
    return folder


@pytest.fixture(scope="session")
def models(model: Path) -> Mapping[str, Path]:
    """The tiny models by their names in MODELS."""
    made = {name: model.with_name(name) for name in MODELS}
    if "plain" in made:
        runpy.run_path(str(MAKE_PLAIN))["main"](str(made["plain"]))
    return made


@pytest.fixture(scope="session")
def servers(models: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Server]]:
    """The servers of both engines, vLLM's by model, which take long to start and do so while other tests run."""
    logs = tmp_path_factory.mktemp("servers")
    options = ["--dtype", "float32", "--enforce-eager", "--block-size", "32", "--max-model-len", str(CONTEXT)]
    options += ["--max-num-seqs", "128"]
    options += ["--no-enable-chunked-prefill"]  # a request with a seed whose prompt comes in two parts ends it on a CPU
    # As the backend in process does it: a weak model would fill its reply with the spaces that JSON leaves room for.
    options += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    started = {}
    for name, folder in models.items():
        serve = ["-m", "vllm.entrypoints.cli.main", "serve", str(folder), *options, "--served-model-name", name]
        started["vllm" if name == "thinker" else f"vllm/{name}"] = Server(serve, logs / f"vllm-{name}.log")
    serve = ["-m", "transformers.cli.transformers", "serve", "--device", "cpu"]
    started["transformers"] = Server(serve, logs / "transformers.log")
    yield started
    for server in started.values():
        server.end()


@pytest.fixture(scope="session")
def backend_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Backend]]:
    """A backend by its name in NAMES, one with vLLM or transformers also for another model: `vllm-http/plain`.

    What it needs is started when it is first asked for.
    """

    def made(name: str) -> Backend:
        engine, _, which = name.partition("/")
        if engine in IN_PROCESS:
            request.getfixturevalue("servers")  # they are needed later, and start meanwhile
            folder = request.getfixturevalue("models")[which or "thinker"]
            return open_backend(f"{engine}:{folder}", engine_options=IN_PROCESS[engine])
        if engine.endswith("-http"):
            server = request.getfixturevalue("servers")[name.replace("-http", "")]
            served = (
                which or {"vllm-http": "thinker", "transformers-http": str(request.getfixturevalue("model"))}[engine]
            )
            return open_backend(f"openai:{served}", base_url=server.wait())
        if name == "simulated":
            qrels = tmp_path_factory.mktemp("qrels") / "qrels"
            qrels.write_text("q 0 d1 2\nq 0 d2 0\nq 0 d3 1\n")
            return open_backend(f"simulated:{qrels}?noise=0.5&label_noise=0.4")
        if name == "replay":
            from tests.engines.contract import recorded

            return open_backend(f"replay:{recorded(tmp_path_factory.mktemp('ledger') / 'ledger.db')}")
        if name == "nano" and not (nano.folder() / "model.safetensors").is_file():
            missing(f"the weights of nano are not in {nano.folder()}")
        return open_backend(name)

    known: dict[str, Backend] = {}
    yield lambda name: known[name] if name in known else known.setdefault(name, made(name))
    for name, opened in known.items():
        if name.partition("/")[0] in IN_PROCESS:
            opened.close()  # type: ignore[attr-defined]
