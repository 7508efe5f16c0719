"""Prices and contexts come from a file of one's own, else from the kept table; the ledger tells of tokens."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from genai_prices import Usage, calc_price

from llmrank.errors import InputError
from llmrank.llm.budget import Price
from llmrank.llm.client import Client
from llmrank.llm.history import token_history
from llmrank.llm.ledger import Ledger
from llmrank.llm.prices import context_of, facts_of, price_of
from llmrank.llm.types import Identity, Reply, Request, Sampling


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "LLMRANK_PRICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("model", "provider", "url"),
    [
        ("gpt-4o-mini", "openai", None),
        ("gpt-4o", "openai", "https://api.openai.com/v1"),
        ("claude-sonnet-4-5", "anthropic", "https://api.anthropic.com/v1"),
        ("deepseek-chat", "deepseek", "https://api.deepseek.com"),
    ],
)
def test_the_tables_price_is_what_its_own_sums_come_to(model: str, provider: str, url: str | None) -> None:
    price = price_of(model, base_url=url)
    assert price is not None
    for prompt, completion in ((1000, 0), (0, 1000), (12_345, 678)):
        bill = calc_price(
            Usage(input_tokens=prompt, output_tokens=completion), model_ref=model, provider_id=provider
        ).total_price
        assert price.of(prompt, completion) == pytest.approx(float(bill))
    assert (context_of(model, base_url=url) or 10**6) > 1000


def test_parameters_of_a_spec_are_no_part_of_the_name() -> None:
    assert price_of("gpt-5?effort=low&thinking=off") == price_of("gpt-5") is not None


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "http://10.0.0.7/v1,http://10.0.0.8/v1"])
def test_a_server_of_ones_own_has_no_price(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert price_of("gpt-4o-mini", base_url=url) is None
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert price_of("gpt-4o-mini") is None
    assert context_of("gpt-4o-mini") is None


def test_an_unknown_model_has_neither() -> None:
    assert facts_of("no-such-model-at-all") == (None, None, "")


def test_a_file_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "gpt-4o-mini: {prompt: 1, completion: 2.5}\nmine: {context: 4096}\norg/both: {prompt: 0, completion: 0}\n"
    )
    monkeypatch.setenv("LLMRANK_PRICES", str(file))
    assert price_of("gpt-4o-mini") == Price(1.0, 2.5)
    assert context_of("gpt-4o-mini") == 128_000  # which the table adds
    assert (price_of("mine"), context_of("mine")) == (None, 4096)
    assert price_of("org/both", base_url="http://localhost/v1") == Price(0.0, 0.0)
    other = tmp_path / "other.yaml"
    other.write_text("gpt-4o-mini: {prompt: 7, completion: 8}\n")
    assert price_of("gpt-4o-mini", file=other) == Price(7.0, 8.0)


@pytest.mark.parametrize(
    "text",
    ["- a\n", "m: 3\n", "m: {prompt: 1}\n", "m: {prompt: -1, completion: 1}\n", "m: {prompt: a, completion: 1}\n", "{"]
    + ["m: {prompt: 1, completion: 1, color: 2}\n", "m: {prompt: true, completion: 1}\n"],
)
def test_a_file_that_cannot_be_used_is_told_in_a_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as raised:
        price_of("m", file=file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        price_of("m", file=tmp_path / "none.yaml")


class Counting:
    """Counts a token for every four bytes of the prompt, and answers with ten bytes in two tokens."""

    identity = Identity("openai", "m")

    async def complete(self, request: Request) -> Reply:
        text = request.prompt if request.prompt is not None else "".join(text for _, text in request.messages)
        return Reply("ab " * 3 + "a", prompt_tokens=len(text.encode()) // 4, completion_tokens=2)


def test_the_ledger_tells_how_many_tokens_texts_take(tmp_path: Path) -> None:
    async def work() -> None:
        client = Client(Counting(), ledger=Ledger(tmp_path / "l"))
        for i in range(8):
            text = f"{i}é日 " * 4  # 28 bytes
            chat, raw = Request((("system", text), ("user", text))), Request(prompt=text)
            for request in (chat, raw):
                request.sampling = Sampling(max_tokens=20)
                await client.ask(request)
        await client.aclose()

    asyncio.run(work())
    with contextlib.closing(Ledger(tmp_path / "l", read_only=True)) as ledger:
        history = token_history(ledger, Counting.identity)
        assert history == (16, 0.25, 0.2, 0.1)
        assert token_history(ledger, Counting.identity, latest=3)[0] == 3  # type: ignore[index]
        assert token_history(ledger, Identity("openai", "other")) is None
