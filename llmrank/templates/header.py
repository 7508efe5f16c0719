"""The header of a template file: what it asks, how its reply is read, what it needs of a backend."""

from __future__ import annotations

import re
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
    labels: dict[str, float] = Field(
        {},
        description="Labels with their values, from least to most relevant; for the parser `ab` what says that right "
        "wins, then what says that left does.",
    )
    scoring: Literal["probability", "log-odds", "expected", "label", "mean", "sum"] = Field(
        "label",
        description="What a grade is: P(more relevant label) of two, or the difference of their logits, the expected "
        "label, or the label named; for the parser `likelihood` the mean or the sum of the text's token "
        "log-probabilities.",
    )
    range: tuple[float, float] | None = Field(None, description="Lowest and highest score, for the parser `score`.")
    validation: str = Field(
        "", description="For the parser `pattern`: the expression that a line with a ranking matches."
    )
    extraction: str = Field(
        "", description="For the parser `pattern`: the expression that finds each identifier in it."
    )
    needs: tuple[str, ...] = Field(("text",), description="Capabilities that a backend must have.")
    identifiers: Literal["numbers", "letters"] = Field("numbers", description="How the shown items are named.")
    worst: bool = Field(False, description="A `choose` template that asks for the worst item.")
    raw: bool = Field(False, description="A raw prompt for a completion, without chat messages.")
    exact: bool = Field(False, description="Messages are sent with the line breaks at their ends, not without them.")
    marks: tuple[str, ...] = Field(
        (),
        description="Words by which the prompt tells its parts apart; a space breaks them where a passage holds one.",
    )
    completion_tokens: int = Field(16, ge=1, description="Largest reply, in tokens ...")
    completion_tokens_per_item: int = Field(0, ge=0, description="... plus this many for every item shown ...")
    thinking_tokens: int = Field(
        0, ge=0, description="... plus these for thinking before the answer, which is closed when they are used up."
    )
    passage_tokens: int | None = Field(
        None, ge=1, description="Tokens shown of one document at most, unless the job sets another number."
    )
    logprobs: int = Field(0, ge=0, le=20, description="How many of the likeliest tokens are wanted at each place.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature, unless the job sets one.")
    stop: tuple[str, ...] = Field((), description="Texts at which the reply ends.")
    reasoning: Literal["none", "before", "after"] = Field(
        "none", description="Whether the reply reasons, and whether before or after what it settles on."
    )
    restate: str = Field("", description="The format in one sentence, for the one retry after an unreadable reply.")
    close: str = Field(
        "", description="What ends an unfinished chain of thought, so that the model is asked for its verdict alone."
    )
    given: tuple[str, ...] = Field(
        (), description="Texts that a method brings besides query and documents: a criterion, an expected answer."
    )
    variables: dict[str, str] = Field({}, description="The template's own variables with their defaults.")
    deliberate: dict[str, str] = Field(
        {}, description="Findings of `llmrank prompts lint` that are meant to be, each with the reason."
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_words(cls, labels: Any) -> Any:
        if isinstance(labels, dict):
            for label in labels:
                if isinstance(label, bool):
                    raise ValueError("YAML reads yes and no as true and false: put labels in quotes")
            return {str(label): value for label, value in labels.items()}
        return labels

    @field_validator("validation", "extraction")
    @classmethod
    def _is_an_expression(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"it is no regular expression ({error})") from None
        return pattern

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
        if self.scoring in ("probability", "log-odds") and len(self.labels) != 2:
            raise ValueError(f"scoring: {self.scoring} is for two labels")
        if self.parser == "ab" and len(self.labels) not in (0, 2):
            raise ValueError("the parser ab takes two labels, what says that right wins and what says that left does")
        if self.parser == "pattern" and not self.extraction:
            raise ValueError("the parser pattern needs an extraction, the expression that finds each identifier")
        if self.parser == "score" and self.range is None:
            raise ValueError("the parser score needs a range, like [0, 100]")
        return self
