"""Options: the keyword-only parameters of a method or a recipe, with their types, as users write them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from llmrank.errors import InputError

OWN = ("seed", "query_id")
"""Parameters that a job fills in itself."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a method or a recipe."""

    type: type
    default: Any
    names: tuple[str, ...] = ()
    """What it may be, where it is one of several names."""


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """The keyword-only parameters of a function as options."""
    hints = get_type_hints(function)
    return {
        p.name: Option(_plain(hints.get(p.name, str)), p.default, _names(hints.get(p.name, str)))
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name not in OWN
    }


def given_options(options: Mapping[str, Option], given: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """All options by name, those given converted. `whose` names what has them, for people."""
    values = {name: option.default for name, option in options.items()}
    for name, value in given.items():
        if name not in values:
            near = difflib.get_close_matches(name, values, n=1)
            known = f"did you mean {near[0]}?" if near else f"it has {', '.join(values) or 'none'}"
            raise InputError(f"--option {name}={value}: {whose} has no such option; {known}")
        values[name] = converted(name, value, options[name].type)
        if options[name].names and values[name] not in options[name].names:
            raise InputError(f"--option {name}={value}: there are {', '.join(options[name].names)}")
    return values


def converted(name: str, value: Any, wanted: type) -> Any:
    """The value of an option, as a user wrote it or of its type already."""
    if (of := getattr(wanted, "of", None)) is not None:  # it reads what it is given itself
        return of(value)
    if not isinstance(value, str):
        if isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
            return value
        if wanted is float and isinstance(value, int):
            return float(value)
        raise InputError(f"--option {name}={value}: it must be {_WORDS.get(wanted, wanted.__name__)}")
    try:
        return _SWITCH[value.lower()] if wanted is bool else wanted(value)
    except (ValueError, KeyError):
        raise InputError(f"--option {name}={value}: it must be {_WORDS.get(wanted, wanted.__name__)}") from None


def _plain(hint: Any) -> type:
    """The type of an option that may also be left open: `int` of `int | None`."""
    if get_origin(hint) is Literal:
        return str
    known: list[type] = [arg for arg in get_args(hint) if arg is not type(None)]
    return known[0] if known else hint


def _names(hint: Any) -> tuple[str, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


_SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
_WORDS = {int: "a whole number", float: "a number", bool: "on or off", str: "a word"}
