"""The settings of every job that asks questions: one model, whose fields are the shared flags of the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from llmrank.errors import InputError
from llmrank.flops import Architecture
from llmrank.llm.budget import Budget, Price
from llmrank.llm.client import Client, Totals
from llmrank.llm.ledger import Ledger, default_path
from llmrank.llm.types import Backend, identity_of, is_named


class Settings(BaseModel):
    """How questions are asked and what they may cost."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    base_url: Annotated[
        str | None,
        Field(description="Address of the server, ending in /v1, or several, parted by commas; else OPENAI_BASE_URL."),
    ] = None
    ledger: Annotated[str | None, Field(description="File of all replies, asked before any server; none: off.")] = None
    concurrency: Annotated[int, Field(ge=1, description="Requests in flight at once.")] = 32
    adaptive: Annotated[
        bool, Field(description="Find out how many requests to keep in flight, up to --concurrency.")
    ] = False
    hedge: Annotated[
        float | None,
        Field(gt=0, lt=1, description="Send a request once more that takes longer than this share of the last ones."),
    ] = None
    rpm: Annotated[float | None, Field(gt=0, description="Requests a minute, at most.")] = None
    tpm: Annotated[float | None, Field(gt=0, description="Tokens a minute, prompt and completion, at most.")] = None
    timeout: Annotated[float, Field(gt=0, description="Seconds to wait for a reply.")] = 60.0
    retries: Annotated[int, Field(ge=0, description="How often a request is sent again after a fault.")] = 8
    max_calls: Annotated[int | None, Field(ge=0, description="Requests to send at most, retries included.")] = None
    max_tokens: Annotated[int | None, Field(ge=0, description="Tokens of the whole job at most.")] = None
    max_cost: Annotated[float | None, Field(ge=0, description="USD to spend at most; needs a price.")] = None
    price: Annotated[
        str | None,
        Field(description="IN,OUT: USD per million prompt and completion tokens; else what is known of the model."),
    ] = None
    seed: Annotated[int, Field(description="Seed of all that is drawn.")] = 0
    context: Annotated[
        int | None, Field(ge=64, description="Tokens that the model takes; else what is known of it, else 32768.")
    ] = None
    passage_tokens: Annotated[int | None, Field(ge=1, description="Tokens shown of one document at most.")] = None
    passages: Annotated[
        str | None,
        Field(
            description="first, max, mean, sum: grade a long document by its passages, the first alone or those that "
            "are best for the query, whose grades are put together. Other questions show the best ones as one text.",
            json_schema_extra={"metavar": "HOW"},
        ),
    ] = None
    passage_words: Annotated[
        int | None, Field(ge=1, description="Words of a passage at most, half of them also in the next; else 150.")
    ] = None
    passage_count: Annotated[
        int | None, Field(ge=1, description="Passages of a document to ask about, found by BM25; else 4.")
    ] = None
    examples: Annotated[
        str | None,
        Field(
            description="Worked examples, JSONL, for few-shot templates; never the query itself or its documents.",
            json_schema_extra={"metavar": "FILE.jsonl"},
        ),
    ] = None
    shots: Annotated[int, Field(ge=1, description="Examples in a prompt; a pair is shown in both orders.")] = 2
    select: Annotated[
        str,
        Field(
            description="Which examples: those most like the query (bm25), the hardest (difficulty), or any (random).",
            json_schema_extra={"metavar": "HOW"},
        ),
    ] = "bm25"
    temperature: Annotated[
        float | None, Field(ge=0, description="Sampling temperature; else the template's, mostly 0.")
    ] = None
    max_completion_tokens: Annotated[
        int | None, Field(ge=1, description="Tokens of one reply; else the template's.")
    ] = None
    samples: Annotated[int, Field(ge=1, description="Replies to each question, put together; needs a temperature.")] = 1
    max_failure_rate: Annotated[
        float, Field(ge=0, le=1, description="Share of failed questions above which the job exits with 3.")
    ] = 0.05
    architecture: Annotated[
        str | None,
        Field(
            description="config.json of the model: plan and report tell FLOPs.", json_schema_extra={"metavar": "FILE"}
        ),
    ] = None
    engine_option: Annotated[
        list[str],
        Field(
            description="What the engine of a backend in this process is given, such as dtype=float32.",
            json_schema_extra={"metavar": "KEY=VALUE"},
        ),
    ] = []
    model_id: Annotated[str | None, Field(description="Tells apart models that servers give one name.")] = None
    deadline: Annotated[
        float | None, Field(gt=0, description="Seconds for one query; then the best order so far is taken.")
    ] = None
    retry_format: Annotated[
        bool, Field(description="Ask once more, with the format restated, after an unreadable reply.")
    ] = False
    retry_failed: Annotated[bool, Field(description="Ask again what the ledger holds only an unreadable reply to.")] = (
        False
    )

    @field_validator("engine_option", mode="before")
    @classmethod
    def _engine_options_are_pairs(cls, options: Any) -> Any:
        if isinstance(options, Mapping):  # as a program gives them
            return [f"{key}={json.dumps(value)}" for key, value in options.items()]
        for option in options:
            if "=" not in str(option):
                raise ValueError("write it as KEY=VALUE")
        return options

    @field_validator("price")
    @classmethod
    def _price_is_two_numbers(cls, price: str | None) -> str | None:
        if price is not None:
            _price(price)
        return price

    @field_validator("passages")
    @classmethod
    def _passages_are_known(cls, passages: str | None) -> str | None:
        if passages not in (None, "first", "max", "mean", "sum"):
            raise ValueError("there are first, max, mean and sum")
        return passages

    @field_validator("passage_words", "passage_count")
    @classmethod
    def _passages_are_wanted(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("passages", "") is None:
            raise ValueError("documents are not split; add --passages max, or leave it out")
        if value is not None and info.field_name == "passage_count" and info.data.get("passages") == "first":
            raise ValueError("with --passages first only the first passage counts; leave it out")
        return value

    @field_validator("select")
    @classmethod
    def _selection_is_known(cls, select: str) -> str:
        if select not in ("bm25", "difficulty", "random"):
            raise ValueError("there are bm25, difficulty and random")
        return select

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """Settings from keywords; what is wrong with one is told in one sentence that names it."""
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "extra_forbidden":
                raise InputError(f"{first['loc'][0]} is no setting; there are {', '.join(cls.model_fields)}") from None
            raise complaint(error) from None

    @cached_property
    def model_architecture(self) -> Architecture | None:
        """The model's architecture, where a file with it was named."""
        return None if self.architecture is None else Architecture.from_config(self.architecture)

    @property
    def engine_options(self) -> dict[str, Any]:
        """What the engine of a backend in this process is given, its values read as YAML scalars."""
        if not self.engine_option:
            return {}
        import yaml

        pairs = (option.partition("=") for option in self.engine_option)
        return {key.strip().replace("-", "_"): yaml.safe_load(value) for key, _, value in pairs}

    @property
    def ledger_path(self) -> Path | None:
        """Where replies are kept; None where the ledger is off."""
        if self.ledger is None:
            return default_path()
        return None if self.ledger == "none" else Path(self.ledger)

    @property
    def unit_price(self) -> Price | None:
        return None if self.price is None else _price(self.price)

    def budget(self) -> Budget | None:
        """What a job with these settings may spend; None where nothing is limited."""
        return Budget.of(self.max_calls, self.max_tokens, self.max_cost)

    def concurrency_of(self, backend: Backend) -> int:
        """Requests in flight at once: as set, else what the backend works best with."""
        best: int | None = getattr(backend, "concurrency", None)
        return self.concurrency if best is None or "concurrency" in self.model_fields_set else best

    def open_ledger(self, backend: Backend) -> Ledger | None:
        """The ledger that goes with the backend: a replayed one, the settings' own, or none.

        A backend that does not say what it is, by an `identity` or a `model`, has none unless the settings give it a
        `model_id`: its replies could be taken for another's.
        """
        if (replayed := getattr(backend, "ledger_path", None)) is not None:
            return Ledger(replayed, read_only=True)
        path = self.ledger_path
        if path is None or not (is_named(backend) or self.model_id):
            return None
        return Ledger(path)

    def client(self, backend: Backend, budget: Budget | None = None, totals: Totals | None = None) -> Client:
        """A client for the running event loop. `budget` and `totals` are shared by all clients of a job."""
        return Client(
            backend,
            ledger=self.open_ledger(backend),
            budget=budget,
            price=self.unit_price or known_price(backend),
            adaptive=self.adaptive,
            hedge=self.hedge,
            concurrency=self.concurrency_of(backend),
            rpm=self.rpm,
            tpm=self.tpm,
            timeout=self.timeout,
            retries=self.retries,
            model_id=self.model_id,
            totals=totals or Totals(),
        )


def known_price(backend: Backend) -> Price | None:
    """What a hosted model costs, as far as the kept table or the user's own tells."""
    if not getattr(backend, "remote", False):
        return None
    from llmrank.llm.prices import price_of  # which takes a fifth of a second to load

    return price_of(identity_of(backend).model, base_url=getattr(backend, "origin", None))


def _price(text: str) -> Price:
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            "it must be two numbers, USD per million prompt and completion tokens, like 0.15,0.6"
        ) from None
    if not (0 <= prompt < float("inf") and 0 <= completion < float("inf")):
        raise ValueError("prices must not be below 0")
    return Price(prompt, completion)


def complaint(error: ValidationError) -> InputError:
    """What is wrong with the first of the flags that were refused."""
    first = error.errors()[0]
    flag = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "settings"
    given = " ".join(map(str, first["input"])) if isinstance(first["input"], list) else first["input"]
    problem = first["msg"].removeprefix("Value error, ")
    return InputError(f"{flag} {given}: {problem[:1].lower()}{problem[1:]}")
