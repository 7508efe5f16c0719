"""What a reply is held to, where it is to be unable to be malformed: the words of an answer, or a permutation."""

from __future__ import annotations

from llmrank.errors import InputError
from llmrank.llm.types import Capability, Constraint
from llmrank.questions import Choice, Order, Preference
from llmrank.templates import Template

BRIEF = 64  # tokens of a reply that has room for an answer and nothing else
PARTED = (1.0, 0.0, 0.5)


def constraint_of(template: Template, n: int) -> Constraint | None:
    """What replies about n items are held to; None where there is nothing to choose."""
    kind = template.question
    if kind == "order":
        return _permutation(template, n) if n > 1 else None
    if kind == "choose":
        return Constraint("choice", [template.write(Choice(index=i), n) for i in range(n)]) if n > 1 else None
    if kind == "compare":
        said = [template.write(Preference(share=share), 2) for share in PARTED]
        return Constraint("choice", list(dict.fromkeys(word for word in said if word)))
    return Constraint("choice", list(template.header.labels))


def needed_to_hold(template: Template) -> Capability:
    """The capability that holding its replies takes. Raises InputError for a template whose replies cannot be held."""
    header = template.header
    cannot = {
        "it lets the model write before its answer": header.reasoning != "none" or header.thinking_tokens > 0,
        "it asks for a score, of which there are too many": header.question == "grade" and not header.labels,
        "it asks for a text": header.question == "write",
        "it asks for a score of every passage": header.parser == "scores",
        "it reads one token": header.question == "order" and header.completion_tokens == 1,
        "its reply has room for more than a label": header.question == "grade" and header.completion_tokens > BRIEF,
    }
    if why := next((sentence for sentence, does in cannot.items() if does), None):
        raise InputError(f"--constrain does not go with --template {template.name}: {why}")
    return "permutation" if header.question == "order" else "choice"


def _permutation(template: Template, n: int) -> Constraint:
    """The identifiers with what stands before, between and after them, as the template's parser writes an order."""
    names = [str(name) for name in template.identifiers(n)]
    text, ends = template.write(Order(permutation=tuple(range(n))), n), 0
    starts = []
    for name in names:
        starts.append(text.index(name, ends))
        ends = starts[-1] + len(name)
    between = text[starts[0] + len(names[0]) : starts[1]]
    return Constraint(
        "permutation", {"identifiers": names, "before": text[: starts[0]], "between": between, "after": text[ends:]}
    )
