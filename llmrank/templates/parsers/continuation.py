"""Reads how likely a given text is after the prompt, from the log-probabilities of its tokens."""

from __future__ import annotations

import math
from typing import Literal

from llmrank.questions import Grade, Said


class LikelihoodParser:
    """The mean or the sum of the text's token log-probabilities: 0 is certain, lower is less likely."""

    def __init__(self, scoring: Literal["mean", "sum"] = "mean") -> None:
        self.scoring = scoring

    def read(self, said: Said, n: int = 1) -> Grade:
        tokens = said.tokens
        if not tokens:
            return Grade(status="failed", reason="no-logprobs")
        total = math.fsum(min(token.logprob, 0.0) for token in tokens)
        return Grade(value=total / len(tokens) if self.scoring == "mean" else total, score_kind="log-likelihood")

    def write(self, grade: Grade, n: int = 1) -> str:
        return ""  # nothing is generated
