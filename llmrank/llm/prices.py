"""What a model costs and how long its context is: from a file of one's own, else from a kept table of prices."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from llmrank.errors import InputError
from llmrank.llm.backends.servers import is_loopback
from llmrank.llm.budget import Price

FILE_VARIABLE = "LLMRANK_PRICES"
"""Names the file of one's own: YAML, `MODEL: {prompt: 0.15, completion: 0.6, context: 128000}`, per million tokens."""
NUMBERS = ("prompt", "completion", "context")


class Facts(NamedTuple):
    """What is known of a model."""

    price: Price | None = None
    context: int | None = None
    source: str = ""
    """The file, or the table with the provider's name."""


def price_of(model: str, *, base_url: str | None = None, file: str | Path | None = None) -> Price | None:
    """USD per million tokens of the model at the provider that the address belongs to; None where it is not known.

    Of prices that rise with the length of the prompt it is the first. A server of one's own has no price but that which
    the file gives.
    """
    return facts_of(model, base_url=base_url, file=file).price


def context_of(model: str, *, base_url: str | None = None, file: str | Path | None = None) -> int | None:
    """Tokens that the model takes, prompt and reply; None where it is not known."""
    return facts_of(model, base_url=base_url, file=file).context


def facts_of(model: str, *, base_url: str | None = None, file: str | Path | None = None) -> Facts:
    """What the file says of the model, and what the table says where the file does not."""
    name = model.partition("?")[0]
    address = (base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").split(",")[0].strip()
    path = file or os.environ.get(FILE_VARIABLE)
    own = _own(Path(path)).get(name, Facts()) if path else Facts()
    if own.price is not None and own.context is not None:
        return own
    listed = _listed(name, address)
    return Facts(own.price or listed.price, own.context or listed.context, own.source or listed.source)


@lru_cache(maxsize=8)
def _own(path: Path) -> dict[str, Facts]:
    import yaml

    try:
        told: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: the file of prices cannot be read ({error}); correct or unset {FILE_VARIABLE}"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: this is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(told, dict):
        raise InputError(f"{path}: it must hold models with prices, {_FORM}")
    return {str(model): _facts(path, str(model), values) for model, values in told.items()}


_FORM = "like `gpt-4o-mini: {prompt: 0.15, completion: 0.6, context: 128000}`"


def _facts(path: Path, model: str, values: Any) -> Facts:
    fits = (
        isinstance(values, dict) and set(values) <= set(NUMBERS) and (("prompt" in values) == ("completion" in values))
    )
    if not fits or not all(type(v) in (int, float) and 0 <= v < float("inf") for v in values.values()):
        raise InputError(f"{path}: {model}: write it {_FORM}, in USD per million tokens")
    price = Price(float(values["prompt"]), float(values["completion"])) if "prompt" in values else None
    return Facts(price, int(values["context"]) if values.get("context") else None, str(path))


@lru_cache(maxsize=256)
def _listed(model: str, address: str) -> Facts:
    if is_loopback(urlsplit(address).hostname or ""):  # no provider's: the table need not be loaded
        return Facts()
    from genai_prices.data_snapshot import get_snapshot

    try:
        provider, found = get_snapshot().find_provider_model(model, None, None, address)
        prices = found.get_prices(datetime.now(UTC))
    except LookupError:
        return Facts()
    prompt, completion = _number(prices.input_mtok), _number(prices.output_mtok)
    price = Price(prompt, completion) if prompt is not None and completion is not None else None
    return Facts(price, found.context_window, f"genai-prices, {provider.name}")


def _number(price: Any) -> float | None:
    """A price, or the first of several that rise with the prompt's length."""
    first = getattr(price, "base", price)
    return None if first is None else float(first)
