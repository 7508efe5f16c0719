"""`llmrank backends`: the list, and the table of what a server can answer with what is missing costs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from llmrank.cli.main import run
from llmrank.llm.backends import BACKENDS
from llmrank.llm.backends.lexical import LexicalBackend
from llmrank.llm.types import CAPABILITIES
from llmrank.rerank.methods import all_methods
from tests.cli.conftest import Program
from tests.llm.test_probe import ignorant, obedient, refusing
from tests.stub import Stub

KEY = "sk-verysecret0123456789"


def checked(capsys: pytest.CaptureFixture[str], handler: Any, tmp_path: Path, *flags: str) -> tuple[str, Stub]:
    with Stub(handler) as stub:
        url = ["--base-url", stub.url, "--ledger", str(tmp_path / "ledger")]
        assert run(["backends", "check", "openai:m", *url, *flags]) == 0
    return capsys.readouterr().out, stub


def test_every_backend_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backends", "list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in BACKENDS)
    assert max(map(len, text.splitlines())) <= 80
    assert run(["backends", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["backends"]] == list(BACKENDS)


@pytest.mark.parametrize("handler", [obedient, ignorant])
def test_the_table_fits_80_columns_and_names_every_capability(
    handler: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text, stub = checked(capsys, handler, tmp_path)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    states = {line.split()[0]: line.split()[1] for line in lines if line.split()[0] in CAPABILITIES and line[0] != " "}
    assert set(states) == set(CAPABILITIES)
    lacking = {name for name, state in states.items() if state == "lacks"}
    assert states["text"] == "has"
    assert ("logprobs" in lacking) == (handler is ignorant)
    assert f"({len(stub.bodies)} calls)" in " ".join(lines)


def test_what_is_missing_costs_the_methods_that_need_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text, _ = checked(capsys, ignorant, tmp_path, "--json")
    told = json.loads(text)
    rows = {row["capability"]: row for row in told["capabilities"]}
    assert rows["logprobs"]["has"] is False
    lost = set(rows["logprobs"]["methods"])
    assert {"first-token", "setwise-likelihood"} <= lost
    assert {name for name, method in all_methods().items() if "logprobs" in method.needs} <= lost
    assert "sliding-window" not in lost
    assert "sliding-window" in rows["text"]["methods"]


def test_what_is_known_is_not_asked_again_unless_it_is_wanted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with Stub(obedient) as stub:
        command = ["backends", "check", "openai:m", "--base-url", stub.url, "--ledger", str(tmp_path / "l"), "--json"]
        calls = []
        for flags in ([], [], ["--again"]):
            assert run([*command, *flags]) == 0
            calls.append(json.loads(capsys.readouterr().out)["calls"])
    assert calls[0] == calls[2] > calls[1] == 0


def test_a_budget_leaves_the_rest_unknown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text, stub = checked(capsys, obedient, tmp_path, "--max-calls", "2", "--json")
    assert len(stub.bodies) == 2
    states = [row["has"] for row in json.loads(text)["capabilities"]]
    assert states.count(None) >= 3


def test_a_local_backend_is_asked_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["backends", "check", "lexical", "--ledger", str(tmp_path / "l")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("lexical (0 calls)")
    assert "no methods: " in text


def test_an_engine_is_given_its_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def opened(spec: str, **more: Any) -> Any:
        given.update(more["engine_options"], spec=spec)
        return LexicalBackend()

    monkeypatch.setattr("llmrank.llm.backends.open_backend", opened)
    options = ["--engine-option", "dtype=float32", "--engine-option", "max-model-len=512"]
    assert run(["backends", "check", "vllm:PATH", *options, "--ledger", str(tmp_path / "l")]) == 0
    assert given == {"spec": "vllm:PATH", "dtype": "float32", "max_model_len": 512}
    assert capsys.readouterr().out.startswith("vllm:PATH (0 calls)")


@pytest.mark.parametrize(
    ("option", "problem"),
    [("dtype=float32", "--engine-option dtype: the backend lexical has no engine"), ("dtype", "KEY=VALUE")],
)
def test_an_engine_option_that_cannot_be_is_told_in_one_line(
    option: str, problem: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["backends", "check", "lexical", "--engine-option", option, "--ledger", str(tmp_path / "l")]
    assert run(command) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert problem in said.err


@pytest.mark.parametrize(("status", "code"), [(401, 5), (404, 5)])
def test_a_server_that_refuses_is_told_in_one_line(
    status: int, code: int, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Stub(lambda *_: refusing(f"no, {KEY}, the model is unknown", status)) as stub:
        command = ["backends", "check", "openai:m", "--base-url", stub.url, "--ledger", str(tmp_path / "l")]
        assert run(command) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert KEY not in said.err
    assert len(stub.bodies) == 1


@pytest.mark.parametrize("client", ["", "?client=official"])
def test_neither_key_nor_credentials_are_told_or_kept(
    client: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in the table, the ledger or a log, be it ever so talkative."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with Stub(obedient) as stub:
        for url in (stub.url, stub.url.replace("http://", "http://user:hidden-word@")):
            command = ["backends", "check", f"openai:m{client}", "--base-url", url, "--ledger", str(tmp_path / "l")]
            assert run([*command, "--again", "--json"]) == 0
        assert any(KEY in headers.get("Authorization", "") for headers in stub.headers)
    said = capsys.readouterr()
    for text in (
        said.out,
        said.err,
        caplog.text,
        *(path.read_bytes().decode("latin-1") for path in tmp_path.iterdir()),
    ):
        assert KEY not in text
        assert "hidden-word" not in text


def test_a_list_of_flags_is_told_as_it_was_given(llmrank: Program) -> None:
    refused = llmrank("backends", "check", "nano", "--engine-option", "thinking")
    assert (refused.code, refused.error) == (2, "--engine-option thinking: write it as KEY=VALUE")


def test_what_a_model_here_takes_is_told_by_its_files(llmrank: Program) -> None:
    assert "context           1024 tokens (the model's files say so)" in llmrank("backends", "check", "nano").out
