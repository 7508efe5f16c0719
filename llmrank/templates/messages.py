"""The `{% message "user" %}` block: chat messages as structure, so that no passage can forge their boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context

ROLES = ("system", "user", "assistant")
COLLECTED = "__messages__"


class MessageExtension(Extension):
    """Collects the rendered body of each block as one message of the role that it names."""

    tags = {"message"}  # noqa: RUF012  jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        role = parser.parse_expression()
        if not isinstance(role, nodes.Const) or role.value not in ROLES:
            parser.fail(f"a message is one of {', '.join(ROLES)}, in quotes", line)
        body = parser.parse_statements(("name:endmessage",), drop_needle=True)
        call = self.call_method("_collect", [nodes.ContextReference(), role], lineno=line)
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _collect(self, context: Context, role: str, caller: Callable[[], str]) -> str:
        collected: list[Any] = context[COLLECTED]
        collected.append((role, caller().strip("\n")))
        return ""
