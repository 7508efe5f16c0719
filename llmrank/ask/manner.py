"""How questions of a job are put: the template, the client, and what both of them allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmrank.ask.examples import Picked
from llmrank.data.types import Document, Query
from llmrank.flops import Architecture
from llmrank.llm.client import Client
from llmrank.llm.types import Sampling, capabilities_of
from llmrank.templates import Template
from llmrank.tokens import EstimatedTokens, TokenCounter


@dataclass(frozen=True, slots=True)
class Manner:
    """How questions of a job are put: the same for all its queries."""

    template: Template
    client: Client
    context: int = 32_768
    counter: TokenCounter = EstimatedTokens()
    passage_tokens: int | None = None
    temperature: float | None = None
    max_completion_tokens: int | None = None
    seed: int = 0
    whole: bool = False
    """Texts are never cut: what does not fit as it is does not fit."""
    architecture: Architecture | None = None
    """Of the model, where it is known: for the FLOPs that replies take."""
    constrain: bool = False
    """Replies are held to what the template asks for, so that nothing can fail to parse."""
    watched: bool = False
    """The first replies tell whether the server gives the log-probabilities that the template cannot do without."""
    retry_format: bool = False
    retry_failed: bool = False
    examples: Callable[[Query, Sequence[Document]], Picked] | None = None
    """Worked examples for a query with these candidates."""

    def sampling(self, n: int) -> Sampling:
        header = self.template.header
        temperature = header.temperature if self.temperature is None else self.temperature
        has_logprobs = "logprobs" in capabilities_of(self.client.backend)
        return Sampling(
            max_tokens=self.max_completion_tokens or self.template.completion_tokens(n),
            temperature=temperature,
            stop=header.stop,
            logprobs=header.logprobs if has_logprobs else 0,
            seed=self.seed if temperature else None,
        )
