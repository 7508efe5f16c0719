"""The header of a template file: what it asks, how its reply is read, what it needs of a backend."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llmrank.questions import Kind
from llmrank.templates.parsers import PARSERS


class Header(BaseModel):
    """The YAML between the two `---` lines at the top of a template file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Name by which it is loaded: folder/name.")
    description: str = Field(description="One sentence for the list of templates.")
    question: Kind = Field(description="The question it asks: grade, compare, choose, order or write.")
    parser: str = Field(description="The parser of its replies.")
    source: str = Field(description="Where the recipe comes from; the words are ours.")
    version: int = Field(1, ge=1, description="Counted up when the text changes.")
    labels: dict[str, float] = Field({}, description="Labels with their values, from least to most relevant.")
    scoring: Literal["probability", "expected", "label", "mean", "sum"] = Field(
        "label",
        description="What a grade is: P(most relevant label), the expected label, or the label named; for the parser "
        "`likelihood` the mean or the sum of the text's token log-probabilities.",
    )
    range: tuple[float, float] | None = Field(None, description="Lowest and highest score, for the parser `score`.")
    needs: tuple[str, ...] = Field(("text",), description="Capabilities that a backend must have.")
    identifiers: Literal["numbers", "letters"] = Field("numbers", description="How the shown items are named.")
    worst: bool = Field(False, description="A `choose` template that asks for the worst item.")
    raw: bool = Field(False, description="A raw prompt for a completion, without chat messages.")
    completion_tokens: int = Field(16, ge=1, description="Largest reply, in tokens ...")
    completion_tokens_per_item: int = Field(0, ge=0, description="... plus this many for every item shown.")
    logprobs: int = Field(0, ge=0, le=20, description="How many of the likeliest tokens are wanted at each place.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature, unless the job sets one.")
    stop: tuple[str, ...] = Field((), description="Texts at which the reply ends.")
    restate: str = Field("", description="The format in one sentence, for the one retry after an unreadable reply.")
    close: str = Field(
        "", description="What ends an unfinished chain of thought, so that the model is asked for its verdict alone."
    )
    given: tuple[str, ...] = Field(
        (), description="Texts that a method brings besides query and documents: a criterion, an expected answer."
    )
    variables: dict[str, str] = Field({}, description="The template's own variables with their defaults.")

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_words(cls, labels: Any) -> Any:
        if isinstance(labels, dict):
            for label in labels:
                if isinstance(label, bool):
                    raise ValueError("YAML reads yes and no as true and false: put labels in quotes")
            return {str(label): value for label, value in labels.items()}
        return labels

    @model_validator(mode="after")
    def _fits_together(self) -> Header:
        if self.parser not in PARSERS:
            raise ValueError(f"there is no parser {self.parser!r}; there are {', '.join(sorted(PARSERS))}")
        kind = PARSERS[self.parser].kind
        if kind != self.question:
            raise ValueError(f"the parser {self.parser} reads answers to `{kind}`, the question is `{self.question}`")
        if self.parser == "label" and len(self.labels) < 2:
            raise ValueError("the parser label needs at least two labels, from least to most relevant")
        values = list(self.labels.values())
        if any(a >= b for a, b in pairwise(values)):
            raise ValueError("labels must stand from least to most relevant, with rising values")
        if (self.parser == "likelihood") != (self.scoring in ("mean", "sum")):
            raise ValueError("scoring: mean and sum are what the parser likelihood takes, and no other")
        if self.scoring == "probability" and len(self.labels) != 2:
            raise ValueError("scoring: probability is for two labels")
        if self.parser == "score" and self.range is None:
            raise ValueError("the parser score needs a range, like [0, 100]")
        return self
