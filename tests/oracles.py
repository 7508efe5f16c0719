"""Answers from known worths: perfect, random and garbage judges for tests of strategies."""

from __future__ import annotations

from llmrank.testing import Asked, Judge, erratic, from_first_stage, noisy, perfect, run

__all__ = ["Asked", "Judge", "erratic", "from_first_stage", "noisy", "perfect", "run"]
