"""The `{% message "user" %}` block: chat messages as structure, so that no passage can forge their boundary.

A `{% continuation %}` block holds the text whose log-probability after the prompt is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context

ROLES = ("system", "user", "assistant")
CONTINUATION = "continuation"
COLLECTED = "__messages__"


class MessageExtension(Extension):
    """Collects the rendered body of each block as one message of the role that it names."""

    tags = {"message", CONTINUATION}  # noqa: RUF012  jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        tag = next(parser.stream)
        line = tag.lineno
        role: nodes.Expr = nodes.Const(CONTINUATION)
        if tag.value == "message":
            role = parser.parse_expression()
            if not isinstance(role, nodes.Const) or role.value not in ROLES:
                parser.fail(f"a message is one of {', '.join(ROLES)}, in quotes", line)
        body = parser.parse_statements((f"name:end{tag.value}",), drop_needle=True)
        call = self.call_method("_collect", [nodes.ContextReference(), role], lineno=line)
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _collect(self, context: Context, role: str, caller: Callable[[], str]) -> str:
        collected: list[Any] = context[COLLECTED]
        collected.append((role, caller()))
        return ""
