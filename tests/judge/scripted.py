"""A model that answers by a function of the prompt, for tests of what is asked through real templates."""

from __future__ import annotations

from collections.abc import Callable

from llmrank.llm.types import Failure, Identity, Reply, Request


class Scripted:
    """`say(prompt, request)` gives the reply's text, or a failure; keeps what was asked."""

    capabilities = frozenset({"text"})

    def __init__(self, say: Callable[[str, Request], str | Failure], name: str = "scripted") -> None:
        self.identity = Identity("scripted", name)
        self.prompts: list[str] = []
        self._say = say

    async def complete(self, request: Request) -> Reply | Failure:
        prompt = "\n".join(content for _, content in request.messages)
        self.prompts.append(prompt)
        said = self._say(prompt, request)
        return said if isinstance(said, Failure) else Reply(said, finish="stop")
