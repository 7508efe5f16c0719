"""The settings of every job that asks questions: one model, whose fields are the shared flags of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from llmrank.errors import InputError
from llmrank.llm.budget import Budget, Price
from llmrank.llm.client import Client, Totals
from llmrank.llm.ledger import Ledger, default_path
from llmrank.llm.types import Backend, is_named


class Settings(BaseModel):
    """How questions are asked and what they may cost."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    base_url: Annotated[
        str | None, Field(description="Address of the server, ending in /v1; else OPENAI_BASE_URL.")
    ] = None
    ledger: Annotated[str | None, Field(description="File of all replies, asked before any server; none: off.")] = None
    concurrency: Annotated[int, Field(ge=1, description="Requests in flight at once.")] = 32
    rpm: Annotated[float | None, Field(gt=0, description="Requests a minute, at most.")] = None
    tpm: Annotated[float | None, Field(gt=0, description="Tokens a minute, prompt and completion, at most.")] = None
    timeout: Annotated[float, Field(gt=0, description="Seconds to wait for a reply.")] = 60.0
    retries: Annotated[int, Field(ge=0, description="How often a request is sent again after a fault.")] = 8
    max_calls: Annotated[int | None, Field(ge=0, description="Requests to send at most, retries included.")] = None
    max_tokens: Annotated[int | None, Field(ge=0, description="Tokens of the whole job at most.")] = None
    max_cost: Annotated[float | None, Field(ge=0, description="USD to spend at most; needs --price.")] = None
    price: Annotated[str | None, Field(description="IN,OUT: USD per million prompt and completion tokens.")] = None
    seed: Annotated[int, Field(description="Seed of everything that is drawn.")] = 0
    context: Annotated[
        int | None, Field(ge=64, description="Tokens that the model takes, prompt and reply; else 32768.")
    ] = None
    passage_tokens: Annotated[int | None, Field(ge=1, description="Tokens shown of one document at most.")] = None
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

    @field_validator("price")
    @classmethod
    def _price_is_two_numbers(cls, price: str | None) -> str | None:
        if price is not None:
            _price(price)
        return price

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """Settings from keywords; what is wrong with one is told in one sentence that names it."""
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            flag = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "settings"
            if first["type"] == "extra_forbidden":
                raise InputError(f"{first['loc'][0]} is no setting; there are {', '.join(cls.model_fields)}") from None
            problem = first["msg"].removeprefix("Value error, ")
            raise InputError(f"{flag} {first['input']}: {problem[:1].lower()}{problem[1:]}") from None

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
            price=self.unit_price,
            concurrency=self.concurrency,
            rpm=self.rpm,
            tpm=self.tpm,
            timeout=self.timeout,
            retries=self.retries,
            model_id=self.model_id,
            totals=totals or Totals(),
        )


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
