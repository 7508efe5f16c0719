"""The `@method` decorator and the table of methods: what each asks, needs and costs, and its options."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar, get_args, get_type_hints

from llmrank.ask.base import Ask, BothOrders, OneOrder, OtherOrderWhereItMatters
from llmrank.errors import InputError, LlmrankError
from llmrank.questions import Kind

Item = TypeVar("Item", bound=Hashable)
Strategy = Callable[..., Coroutine[Any, Any, "Ranked | list[Any]"]]
Count = int | tuple[int, int]
"""A number of questions or rounds: one number, or the least and the most where it depends on the answers."""

LEAST: dict[str, int] = {"k": 1, "window": 2, "stride": 1, "passes": 1, "children": 1, "repeats": 1, "block_size": 2}
LEAST |= {"group_size": 1, "shuffles": 1, "pool": 2, "beam": 1, "rounds": 1, "budget": 1, "m": 2, "r": 1}
CLAMPED = ("k", "window", "stride", "block_size", "group_size", "pool")
FAMILIES = (
    *("listwise", "tournaments", "blocks", "consistency"),
    *("setwise", "pairwise", "sorts", "matches", "active"),
    "pointwise",
)
"""The modules that hold methods, in the order in which these are listed."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a strategy returns where it has scores of its own; without them a plain list will do."""

    items: list[Any]
    """Best first."""
    scores: list[float | None] | None = None
    """The method's own score of each item, higher is better; None for an item that has none."""
    score_kind: str | None = None
    """What the scores are: `probability`, `expected-grade`, `wins`, ..."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a method."""

    type: type
    default: Any


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a method that asks through a template of its own, and of a model of its own where it names one."""

    template: str
    question: Kind
    backend: str | Any | None = None
    """A SPEC, or a backend; None for that of the job."""
    worst: bool = False
    needs: tuple[str, ...] = ("text",)
    shown: int = 1
    """How many items one of its prompts may show."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method, as `llmrank methods` lists it."""

    name: str
    strategy: Strategy
    question: Kind
    source: str
    template: str
    """The template that it asks with unless another is named."""
    calls: Callable[..., Count]
    """Questions for n items, and the options by name."""
    rounds: Callable[..., Count]
    """The longest chain of questions that wait for each other."""
    formula: tuple[str, str] = ("", "")
    """Calls and rounds in words, for the table."""
    needs: tuple[str, ...] = ("text",)
    shown: Callable[..., int] = lambda n, **options: n
    """How many items one prompt may show, of n."""
    whole: bool = False
    """Texts are never cut to make a prompt fit."""
    worst: bool = False
    """It asks `choose` for the worst, and needs a template that does."""
    problem: Callable[..., str | None] = lambda n, **options: None
    """Why a query of n items cannot be ranked with these options, as the end of a sentence; None where it can."""
    around: Callable[[Method, Mapping[str, Any]], Method] = lambda method, given: method
    """The method as it is with the options given; another where it wraps one that they name."""
    parts: Callable[..., Mapping[str, Part]] = lambda **options: {}
    """Its further parts by the name under which they ask (`Question.by`), given the options."""
    options: Mapping[str, Option] = field(default_factory=dict)
    draws: bool = False
    """It draws at random, and takes a seed."""

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.strategy) or "").partition("\n\n")[0].replace("\n", " ")

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options by name, those given converted and checked. Raises InputError in one sentence."""
        values = {name: option.default for name, option in self.options.items()}
        for name, value in given.items():
            if name not in values:
                near = difflib.get_close_matches(name, values, n=1)
                known = f"did you mean {near[0]}?" if near else f"it has {', '.join(values) or 'none'}"
                raise InputError(f"--option {name}={value}: the method {self.name} has no such option; {known}")
            values[name] = _converted(name, value, self.options[name].type)
        for name, value in values.items():
            if name in LEAST and value is not None and value < LEAST[name]:
                raise InputError(f"--option {name}={value}: it must be at least {LEAST[name]}")
        if "stride" in values and values["stride"] > values["window"]:
            raise InputError(
                f"--option stride={values['stride']}: a stride beyond the window of {values['window']} would leave "
                "documents out; it must not be larger than the window"
            )
        if "sample" in values and not 0 < values["sample"] <= 1:
            raise InputError(f"--option sample={values['sample']}: it must lie above 0 and not above 1")
        if "level" in values and not 0 < values["level"] < 1:
            raise InputError(f"--option level={values['level']}: it must lie between 0 and 1")
        if "r" in values and 2 * values["r"] > values["m"]:
            raise InputError(f"--option r={values['r']}: at most half of a group, {values['m'] // 2} of m, can go up")
        if values.get("design") == "triangular" and values["repeats"] != 2:
            raise InputError(
                f"--option repeats={values['repeats']}: the triangular design shows every document twice; leave it at 2"
            )
        for name, names in NAMED.items():
            if name in values and values[name] != self.options[name].default and values[name] not in names():
                raise InputError(f"--option {name}={values[name]}: there are {', '.join(names())}")
        return values

    def clamped(self, values: Mapping[str, Any], n: int) -> dict[str, Any]:
        """The options for a query of n items: what goes beyond them is cut back to them."""
        return {name: min(value, max(n, 1)) if name in CLAMPED else value for name, value in values.items()}

    def given(self, options: Mapping[str, Any]) -> Method:
        """The method as it is with these options: where one of them names a method that it wraps, with that one's."""
        return self.around(self, options)

    async def run(self, items: Sequence[Item], ask: Ask, values: Mapping[str, Any], *, seed: int = 0) -> Ranked:
        """The ranking of the items. `values` are checked options; `seed` is for methods that draw."""
        keywords = self.clamped(values, len(items))
        if self.draws:
            keywords["seed"] = seed
        result = await self.strategy(items, ask, **keywords)
        ranked = result if isinstance(result, Ranked) else Ranked(list(result))
        same = len(ranked.items) == len(items) and set(map(id, ranked.items)) == set(map(id, items))
        if not same and (len(ranked.items) != len(items) or set(ranked.items) != set(items)):
            raise LlmrankError(f"the method {self.name} lost or doubled a document; that is a mistake in the method")
        return ranked

    def asking(self, ask: Ask, values: Mapping[str, Any]) -> Ask:
        """The ask as the method wants it: comparisons in both orders, unless `swap` is off or `lazy` puts one off."""
        if self.question != "compare":
            return ask
        if not values.get("swap", True):
            return OneOrder(ask)
        return OtherOrderWhereItMatters(ask) if values.get("lazy") else BothOrders(ask)

    def expected(self, n: int, values: Mapping[str, Any]) -> tuple[Count, Count]:
        """Calls and rounds for n items."""
        keywords = self.clamped(values, n)
        return self.calls(n, **keywords), self.rounds(n, **keywords)


METHODS: dict[str, Method] = {}


def method(
    *,
    question: Kind,
    source: str,
    template: str,
    calls: Callable[..., Count],
    rounds: Callable[..., Count],
    formula: tuple[str, str] = ("", ""),
    name: str | None = None,
    **more: Any,
) -> Callable[[Strategy], Strategy]:
    """Registers a strategy as a method. Its keyword-only parameters are its options, `seed` apart."""

    def register(strategy: Strategy) -> Strategy:
        called = name or getattr(strategy, "__name__", "").replace("_", "-")
        METHODS[called] = Method(
            name=called,
            strategy=strategy,
            question=question,
            source=source,
            template=template,
            calls=calls,
            rounds=rounds,
            formula=formula,
            options=_options(strategy),
            draws="seed" in inspect.signature(strategy).parameters,
            **more,
        )
        return strategy

    return register


def find(name: str) -> Method:
    """The method of that name; methods of installed packages (entry points `llmrank.methods`) are known too."""
    known = all_methods()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`llmrank methods` lists them"
        raise InputError(f"--method {name}: there is no such method; {hint}")
    return known[name]


def all_methods() -> dict[str, Method]:
    """Every method, in the order of the families."""
    for family in FAMILIES:
        import_module(f"llmrank.rerank.{family}")  # which fills the table
    for entry in entry_points(group="llmrank.methods"):
        entry.load()
    return METHODS


def between(least: int, most: int) -> Count:
    """The count from its least to its most; one number where they are the same."""
    return least if least == most else (least, most)


def top_first(items: Sequence[Item], top: Sequence[Item]) -> list[Item]:
    """The items of `top`, then all others in first-stage order."""
    chosen = set(top)
    return [*top, *(item for item in items if item not in chosen)]


def by_score(items: Sequence[Item], scores: Sequence[float | None], score_kind: str) -> Ranked:
    """The items by falling score, equal ones as they stood; one without a score keeps its place among them."""
    if all(score is None for score in scores):
        return Ranked(list(items))
    best = sorted((i for i, score in enumerate(scores) if score is not None), key=lambda i: -(scores[i] or 0.0))
    scored = iter(best)
    order = [i if score is None else next(scored) for i, score in enumerate(scores)]
    return Ranked([items[i] for i in order], [scores[i] for i in order], score_kind)


def _options(strategy: Strategy) -> dict[str, Option]:
    hints = get_type_hints(strategy)
    parameters = inspect.signature(strategy).parameters.values()
    return {
        p.name: Option(_plain(hints.get(p.name, str)), p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.name != "seed"
    }


def _plain(hint: Any) -> type:
    """The type of an option that may also be left open: `int` of `int | None`."""
    known: list[type] = [arg for arg in get_args(hint) if arg is not type(None)]
    return known[0] if known else hint


def _converted(name: str, value: Any, wanted: type) -> Any:
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


_SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
_WORDS = {int: "a whole number", float: "a number", bool: "on or off", str: "a word"}


def _aggregates() -> Iterable[str]:
    from llmrank.aggregate.methods import METHODS as KNOWN  # loaded only when it is asked for: it takes scipy

    return ("wins", *KNOWN)


def _designs() -> Iterable[str]:
    from llmrank.rerank.designs import DESIGNS

    return DESIGNS


NAMED: dict[str, Callable[[], Iterable[str]]] = {
    "aggregate": _aggregates,
    "design": _designs,
    "consensus": lambda: ("kemeny", "borda"),
}
"""Options whose values are names, and what these may be."""
