"""What a server can do is found out by asking, once, and remembered; one that answers and ignores is found out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llmrank.errors import InputError
from llmrank.llm.backends import open_backend
from llmrank.llm.backends.openai import OpenAIBackend
from llmrank.llm.budget import Budget
from llmrank.llm.client import BackendRefused, Client
from llmrank.llm.history import token_history
from llmrank.llm.ledger import Ledger
from llmrank.llm.probe import PROBED, SCHEMA_REPLY, WORDS, Verdict, examine, needed, probe, require
from llmrank.llm.types import CAPABILITIES, Constraint, Request, capabilities_of
from tests.llm.test_wire import at, error
from tests.stub import Stub, completion, prompt_of

WIRED = (
    *("logprobs", "later-logprobs", "prompt-logprobs", "choice", "regex", "json-schema", "permutation", "raw"),
    *("prefill", "samples", "reasoning"),
)


def chat(text: str, **choice: Any) -> web.Response:
    return web.json_response(completion(text, **choice))


def refusing(said: str, status: int = 400) -> web.Response:
    return web.json_response(error(said), status=status)


def with_logprobs(text: str) -> web.Response:
    places = [at(word, -0.1, (word, -0.1), ("other", -3.0)) for word in re.findall(r"\s*\S+", text)]
    return chat(text, logprobs={"content": places})


def obedient(body: dict[str, Any], number: int) -> web.Response:
    """Does everything, in vLLM's words."""
    if body.get("echo"):
        words = re.findall(r"\s*\S+", body["prompt"])
        told = {"tokens": words, "token_logprobs": [None] + [-1.0] * (len(words) - 1)}
        return web.json_response({"choices": [{"text": body["prompt"], "logprobs": told}]})
    if "prompt_logprobs" in body:
        words = re.findall(r"\s*\S+", prompt_of(body))
        told = [None, *({"1": {"logprob": -1.0, "decoded_token": word}} for word in words)]
        return web.json_response(completion("x") | {"prompt_logprobs": told})
    if "prompt" in body:
        return web.json_response({"choices": [{"text": " jumps over"}]})
    if body.get("continue_final_message"):
        return chat("is.")
    if "response_format" in body:
        return chat('{\n  "zone": "vexing"}')
    held = body.get("structured_outputs", {})
    if held:
        return chat(held["choice"][1] if "choice" in held else "q407z")
    if body.get("temperature"):
        return chat(f"word{number}")
    if body.get("logprobs"):
        return with_logprobs("one, two, three")
    return web.json_response(completion("48", message={"content": "48", "reasoning_content": "28 in May ..."}))


def ignorant(body: dict[str, Any], _: int) -> web.Response:
    """Answers 200 to everything, in its own words."""
    if "prompt" in body:
        return web.json_response({"error": {"message": "Not Found"}}, status=404)
    return chat("Hello there!")


def llama_cpp(body: dict[str, Any], number: int) -> web.Response:
    """Takes grammars, and a schema as an addition to `json_object`."""
    form = body.get("response_format", {}).get("type")
    if form == "json_schema":
        return refusing("response_format type must be one of text, json_object")
    if form == "json_object":
        return chat(SCHEMA_REPLY)
    if "grammar" in body:
        return chat("quorum" if "|" in body["grammar"] else "q123z")
    if "messages" in body and body["messages"][-1]["role"] == "assistant":
        return refusing("unknown field") if "continue_final_message" in body else chat("is, of course.")
    return ignorant(body, number)


def refuser(body: dict[str, Any], number: int) -> web.Response:
    """Knows chat messages and nothing else, and says so."""
    known = {"model", "messages", "temperature", "max_tokens", "seed"}
    if unknown := set(body) - known:
        return refusing(f"Unrecognized request argument supplied: {min(unknown)}")
    return chat("Hello there!")


EVERYTHING = dict.fromkeys(WIRED, True)
NOTHING = dict.fromkeys(WIRED, False)
SERVERS: dict[str, tuple[Callable[..., Any], dict[str, bool], dict[str, str]]] = {
    "obedient": (
        obedient,
        EVERYTHING,
        {
            "choice": "structured_outputs",
            "regex": "structured_outputs",
            "json_schema": "response_format",
            "permutation": "regex",
            "prefill": "continue",
        },
    ),
    "ignorant": (ignorant, NOTHING, {}),
    "llama.cpp": (
        llama_cpp,
        NOTHING | dict.fromkeys(("choice", "regex", "json-schema", "permutation", "prefill"), True),
        {
            "choice": "grammar",
            "regex": "grammar",
            "json_schema": "json_object",
            "permutation": "regex",
            "prefill": "plain",
        },
    ),
    "refuser": (refuser, NOTHING | {"raw": False}, {}),
}


def examined(handler: Any, names: Any = WIRED, ledger: Path | None = None, **more: Any) -> tuple[Any, Client, Stub]:
    async def work(url: str) -> tuple[dict[str, Verdict], Client]:
        backend = OpenAIBackend("m", base_url=url)
        client = Client(backend, ledger=Ledger(ledger) if ledger else None, retries=more.pop("retries", 1), **more)
        verdicts = {name: await examine(client, name) for name in names}
        await client.aclose()
        return verdicts, client

    with Stub(handler) as stub:
        verdicts, client = asyncio.run(work(stub.url))
    return verdicts, client, stub


@pytest.mark.parametrize("name", SERVERS)
def test_what_a_server_has_is_found_out_with_the_form_that_it_takes(name: str) -> None:
    handler, has, forms = SERVERS[name]
    verdicts, client, stub = examined(handler)
    assert {name: verdict.has for name, verdict in verdicts.items()} == has
    assert client.totals.calls == len(stub.bodies)
    backend = client.backend
    assert isinstance(backend, OpenAIBackend)
    assert backend.forms == forms
    assert capabilities_of(backend) & set(WIRED) == {name for name, here in has.items() if here}
    assert all(verdict.note for verdict in verdicts.values() if not verdict.has)


def test_each_capability_that_hangs_on_the_server_has_a_probe() -> None:
    assert set(PROBED) == OpenAIBackend("m", base_url="http://h/v1").probed
    assert set(PROBED) <= set(CAPABILITIES)


def test_the_form_that_was_found_is_the_one_that_is_used() -> None:
    _, client, _ = examined(llama_cpp)
    backend = client.backend
    assert isinstance(backend, OpenAIBackend)
    assert backend.body(Request((("user", "hi"),), constraint=Constraint("choice", ["a", "b"])))["grammar"]
    assert "continue_final_message" not in backend.body(Request((("user", "hi"), ("assistant", "Well"))))


def test_a_later_job_knows_the_form_of_a_permutation_too(tmp_path: Path) -> None:
    async def work(url: str) -> tuple[int, dict[str, Any]]:
        backend = OpenAIBackend("m", base_url=url)
        client = Client(backend, ledger=Ledger(tmp_path / "ledger"))
        await require(client, ["permutation"], "--template own/held")
        await client.aclose()
        held = Constraint("permutation", ["1", "2"])
        return client.totals.calls, backend.body(Request((("user", "hi"),), constraint=held))

    with Stub(llama_cpp) as stub:
        first, again = asyncio.run(work(stub.url)), asyncio.run(work(stub.url))
    assert first[1] == again[1]
    assert "grammar" in first[1]
    assert first[0] > again[0] == 0


def test_what_is_had_with_raw_prompts_only_is_had() -> None:
    async def work(url: str) -> None:
        client = Client(OpenAIBackend("m", base_url=url))
        with pytest.raises(InputError, match="needs prompt-logprobs"):
            await require(client, ["prompt-logprobs"], "--template own/chat")
        await require(client, ["prompt-logprobs"], "--template own/raw", raw=True)
        assert "prompt-logprobs" in capabilities_of(client.backend)
        await client.aclose()

    with Stub(lambda body, n: ignorant(body, n) if "messages" in body else obedient(body, n)) as stub:
        asyncio.run(work(stub.url))


def test_a_permutation_goes_as_a_schema_where_there_are_no_expressions() -> None:
    def handler(body: dict[str, Any], number: int) -> Any:
        return chat(SCHEMA_REPLY) if "response_format" in body else ignorant(body, number)

    verdicts, client, _ = examined(handler, ["permutation"])
    assert verdicts["permutation"].has
    assert client.backend.forms["permutation"] == "json_schema"  # type: ignore[attr-defined]


def test_a_model_that_makes_no_sense_is_known_to_go_on_by_the_length_of_its_prompt() -> None:
    """It writes anything at all; but a message left open takes fewer tokens than one that was closed."""

    def handler(body: dict[str, Any], _: int) -> Any:
        said = completion("qwx")
        said["usage"]["prompt_tokens"] = 19 if body.get("continue_final_message") else 27
        return web.json_response(said)

    verdicts, client, _stub = examined(handler, ["prefill"])
    assert verdicts["prefill"].has
    assert client.backend.forms == {"prefill": "continue"}  # type: ignore[attr-defined]
    ignoring, *_ = examined(lambda *_: "qwx", ["prefill"])
    assert ignoring["prefill"].has is False


def test_whether_a_thinking_model_obeys_is_left_open_where_it_was_cut_off() -> None:
    for text in ("", "<think>Well, the user"):
        verdicts, client, _ = examined(lambda *_, text=text: chat(text, finish_reason="length"), ["choice", "regex"])
        assert [verdict.has for verdict in verdicts.values()] == [None, None]
        assert "choice" in capabilities_of(client.backend)
    verdicts, *_ = examined(lambda *_: f"<think>Well.</think>\n{WORDS[0]}", ["choice"])
    assert verdicts["choice"].has


def test_a_schema_that_was_obeyed_up_to_the_cut_was_obeyed() -> None:
    verdicts, *_ = examined(lambda *_: chat("{   \n   ", finish_reason="length"), ["json-schema"])
    assert verdicts["json-schema"].has
    verdicts, *_ = examined(lambda *_: chat('{"hello": ', finish_reason="length"), ["json-schema"])
    assert verdicts["json-schema"].has is False


def test_two_capabilities_that_one_reply_tells_of_take_one_call() -> None:
    verdicts, _, stub = examined(obedient, ["logprobs", "later-logprobs"])
    assert len(stub.bodies) == 1
    assert all(verdict.has for verdict in verdicts.values())


def test_what_was_found_out_is_remembered_for_the_server_and_the_model(tmp_path: Path) -> None:
    for handler in (obedient, ignorant):
        path = tmp_path / handler.__name__

        async def ask(url: str, model: str, path: Path = path, **more: Any) -> tuple[list[bool | None], int, list[Any]]:
            client = Client(OpenAIBackend(model, base_url=url), ledger=Ledger(path))
            verdicts = [await examine(client, name, **more) for name in ("choice", "logprobs", "raw")]
            await client.aclose()
            return [v.has for v in verdicts], client.totals.calls, [v.remembered for v in verdicts]

        with Stub(handler) as stub, Stub(handler) as other:
            first, calls, when = asyncio.run(ask(stub.url, "m"))
            assert (calls >= 3, when) == (True, [None] * 3)
            again, none, when = asyncio.run(ask(stub.url, "m"))
            assert (again, none) == (first, 0)
            assert all(when)
            assert asyncio.run(ask(stub.url, "other"))[1] == calls  # another model
            assert asyncio.run(ask(other.url, "m"))[1] == calls  # another server of that name
            assert asyncio.run(ask(stub.url, "m", again=True))[1] == calls
            assert asyncio.run(ask(stub.url, "m", raw=True))[1] >= 2  # as raw prompts is another question


def test_the_ledger_stays_sound_and_replays_as_before(tmp_path: Path) -> None:
    """Probes are no replies of the model: they change neither what is replayed nor the history of tokens."""
    from llmrank.cli.main import run

    path = tmp_path / "ledger"
    examined(obedient, ledger=path)
    assert run(["ledger", "verify", "--ledger", str(path), "--json"]) == 0
    assert run(["ledger", "export", "--ledger", str(path), "--output", str(tmp_path / "out")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert len(rows) == len(WIRED) - 1  # a permutation goes as a regular expression
    assert all(row["request"][1].startswith("(a probe of http://127.0.0.1:") for row in rows)
    assert "logprobs" not in capabilities_of(open_backend(f"replay:{path}"))
    with contextlib.closing(Ledger(path, read_only=True)) as ledger:
        assert token_history(ledger, OpenAIBackend("m", base_url="http://h/v1").identity) is None


def test_a_job_is_told_in_one_sentence_before_it_begins() -> None:
    async def work(url: str) -> int:
        client = Client(OpenAIBackend("m", base_url=url))
        await require(client, ["text", "choice", "json-schema"], "--template own/labels")
        calls = client.totals.calls
        with pytest.raises(InputError) as raised:
            await require(client, ["text", "logprobs"], "--template pointwise/yes-no")
        said = str(raised.value)
        assert said.startswith("--template pointwise/yes-no needs logprobs (")
        assert f"which m at {url} did not give: it answered, and passed over what was asked; take another" in said
        assert "\n" not in said
        assert raised.value.exit_code == 2
        assert client.totals.calls == calls + 1
        assert not await probe(client, "logprobs")  # known by now
        assert client.totals.calls == calls + 1
        await client.aclose()
        return calls

    with Stub(lambda body, n: obedient({k: v for k, v in body.items() if k != "logprobs"}, n)) as stub:
        assert asyncio.run(work(stub.url)) == 2


def test_nothing_is_asked_that_need_not_be() -> None:
    remote = OpenAIBackend("m", base_url="http://h/v1")
    assert needed(remote, ["text"]) == []
    assert needed(remote, ["text", "raw", "logprobs", "logprobs"]) == ["logprobs", "raw"]
    assert needed(open_backend("lexical"), ["logprobs"]) == []

    async def local() -> list[bool]:
        client = Client(open_backend("lexical"))
        return [await probe(client, "logprobs"), await probe(client, "prefill")]

    assert asyncio.run(local()) == [True, False]


def test_probes_stay_within_the_budget_and_what_it_leaves_open_counts_as_had() -> None:
    verdicts, client, stub = examined(ignorant, ["logprobs", "choice"], budget=Budget.of(max_calls=1))
    assert len(stub.bodies) == 1
    assert [verdict.has for verdict in verdicts.values()] == [False, None]
    assert "choice" in capabilities_of(client.backend)
    assert client.totals.calls == 1


def test_a_fault_of_the_server_decides_nothing(tmp_path: Path) -> None:
    down = lambda *_: refusing("oh", 500)  # noqa: E731
    verdicts, _, _ = examined(down, ["choice", "prefill"], tmp_path / "l", retries=0)
    assert [verdict.has for verdict in verdicts.values()] == [None, None]
    with contextlib.closing(Ledger(tmp_path / "l")) as ledger:
        assert list(ledger.rows()) == []


@pytest.mark.parametrize("name", ["logprobs", "raw"])
@pytest.mark.parametrize("response", [(401, "bad key"), (404, "The model `m` does not exist")])
def test_a_backend_that_refuses_altogether_ends_the_job(name: str, response: tuple[int, str]) -> None:
    status, said = response
    with pytest.raises(BackendRefused):
        examined(lambda *_: refusing(said, status), [name])


def test_a_model_that_refuses_log_probabilities_lacks_them() -> None:
    def handler(body: dict[str, Any], _: int) -> Any:
        return refusing("You are not allowed to request logprobs from this model") if "logprobs" in body else "one"

    verdicts, *_ = examined(handler, ["logprobs"], retries=2)
    assert verdicts["logprobs"] == Verdict(False, note="the model refuses them")
