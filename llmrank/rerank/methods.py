"""The `@method` decorator and the table of methods: what each asks, needs and costs, and its options."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any, TypeVar

from llmrank.ask.base import Ask, BothOrders, OneOrder, OtherOrderWhereItMatters
from llmrank.errors import InputError, LlmrankError
from llmrank.options import Option as Option
from llmrank.options import given_options, options_of
from llmrank.questions import Kind
from llmrank.voice import Part as Part

Item = TypeVar("Item", bound=Hashable)
Strategy = Callable[..., Coroutine[Any, Any, "Ranked | list[Any]"]]
Count = int | tuple[int, int]
"""A number of questions or rounds: one number, or the least and the most where it depends on the answers."""

LEAST: dict[str, int] = {"k": 1, "window": 2, "stride": 1, "passes": 1, "children": 1, "repeats": 1, "block_size": 2}
LEAST |= {"group_size": 1, "shuffles": 1, "pool": 2, "beam": 1, "rounds": 1, "budget": 1, "m": 2, "r": 1, "samples": 1}
CLAMPED = ("k", "window", "stride", "block_size", "group_size", "pool")
FAMILIES = (
    *("listwise", "tournaments", "blocks", "consistency"),
    *("setwise", "pairwise", "sorts", "matches", "active"),
    *("pointwise", "rubric", "scent", "anchored", "criteria"),
    "cascade",
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
    spread: list[float | None] | None = None
    """How far the replies behind each score lie apart, as a standard deviation; None where one alone is known."""


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
    apart: bool = False
    """It asks through its parts alone: it has no main template."""
    brings: tuple[str, ...] = ()
    """What its main template must show besides query and documents (`given`)."""
    fault: Callable[..., str | None] = lambda **options: None
    """What is wrong with the options together, as a sentence; None where nothing is."""
    options: Mapping[str, Option] = field(default_factory=dict)
    draws: bool = False
    """It draws at random, and takes a seed."""
    knows_query: bool = False
    """It takes the id of the query whose candidates it ranks, and so does `problem`."""

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.strategy) or "").partition("\n\n")[0].replace("\n", " ")

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options by name, those given converted and checked. Raises InputError in one sentence."""
        values = given_options(self.options, given, f"the method {self.name}")
        for name, value in values.items():
            if name in LEAST and value is not None and value < LEAST[name]:
                raise InputError(f"--option {name}={value}: it must be at least {LEAST[name]}")
        if "stride" in values and values["stride"] > values["window"]:
            raise InputError(_beyond_window(values["window"], values["stride"], "stride" in given))
        if "sample" in values and not 0 < values["sample"] <= 1:
            raise InputError(f"--option sample={values['sample']}: it must lie above 0 and not above 1")
        if "level" in values and not 0 < values["level"] < 1:
            raise InputError(f"--option level={values['level']}: it must lie between 0 and 1")
        if values.get("lazy") and not values.get("swap", True):
            raise InputError(
                "--option lazy=on: it puts off the second order of a pair, and swap=off asks for no second order; "
                "leave one of the two out"
            )
        if "r" in values and 2 * values["r"] > values["m"]:
            raise InputError(f"--option r={values['r']}: at most half of a group, {values['m'] // 2} of m, can go up")
        if values.get("design") == "triangular" and values["repeats"] != 2:
            raise InputError(
                f"--option repeats={values['repeats']}: the triangular design shows every document twice; leave it at 2"
            )
        for name, names in NAMED.items():
            if name in values and values[name] != self.options[name].default and values[name] not in names():
                raise InputError(f"--option {name}={values[name]}: there are {', '.join(names())}")
        if told := self.fault(**values):
            raise InputError(told)
        return values

    def clamped(self, values: Mapping[str, Any], n: int) -> dict[str, Any]:
        """The options for a query of n items: what goes beyond them is cut back to them."""
        return {name: min(value, max(n, 1)) if name in CLAMPED else value for name, value in values.items()}

    def given(self, options: Mapping[str, Any]) -> Method:
        """The method as it is with these options: where one of them names a method that it wraps, with that one's."""
        return self.around(self, options)

    async def run(
        self, items: Sequence[Item], ask: Ask, values: Mapping[str, Any], *, seed: int = 0, query_id: str = ""
    ) -> Ranked:
        """The ranking of the items. `values` are checked options; `seed` is for methods that draw."""
        keywords = self.clamped(values, len(items))
        if self.draws:
            keywords["seed"] = seed
        if self.knows_query:
            keywords["query_id"] = query_id
        result = await self.strategy(items, ask, **keywords)
        ranked = result if isinstance(result, Ranked) else Ranked(list(result))
        same = len(ranked.items) == len(items) and set(map(id, ranked.items)) == set(map(id, items))
        if not same and (len(ranked.items) != len(items) or set(ranked.items) != set(items)):
            raise LlmrankError(f"the method {self.name} lost or doubled a document; that is a mistake in the method")
        return ranked

    def asking(self, ask: Ask, values: Mapping[str, Any]) -> Ask:
        """The ask as the method wants it: comparisons in both orders, unless `swap` is off or `lazy` puts one off."""
        if self.question != "compare" or self.apart:
            return ask
        if not values.get("swap", True):
            return OneOrder(ask)
        return OtherOrderWhereItMatters(ask) if values.get("lazy") else BothOrders(ask)

    def expected(self, n: int, values: Mapping[str, Any]) -> tuple[Count, Count]:
        """Calls and rounds for n items."""
        keywords = self.clamped(values, n)
        return self.calls(n, **keywords), self.rounds(n, **keywords)


METHODS: dict[str, Method] = {}


def _beyond_window(window: int, stride: int, given: bool) -> str:
    """What is wrong with a stride larger than the window; one that was not given is the default."""
    if given:
        return (
            f"--option stride={stride}: a stride beyond the window of {window} would leave documents out; it must not "
            "be larger than the window"
        )
    return (
        f"--option window={window}: the stride is {stride} unless another is given, and one beyond the window would "
        f"leave documents out; give a smaller one too, for example --option stride={window // 2}"
    )


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
    """Registers a strategy as a method. Its keyword-only parameters are its options, `seed` and `query_id` apart."""

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
            options=options_of(strategy),
            draws="seed" in inspect.signature(strategy).parameters,
            knows_query="query_id" in inspect.signature(strategy).parameters,
            **more,
        )
        return strategy

    return register


def find(name: str) -> Method:
    """The method of that name; methods of installed packages (entry points `llmrank.methods`) are known too.

    `FILE.py:NAME` is the method of that name, or made of the function of that name, in a file of one's own.
    """
    path, sign, wanted = name.rpartition(":")
    if sign and path.endswith(".py"):
        return _in_file(path, wanted)
    known = all_methods()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
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


def _in_file(path: str, wanted: str) -> Method:
    """The method in a Python file, which is run once."""
    where = os.path.realpath(path)
    module = _FILES.get(where)
    if module is None:
        if not os.path.isfile(where):
            raise InputError(f"--method {path}:{wanted}: there is no file {path}")
        before = dict(METHODS)
        spec = spec_from_file_location(f"llmrank_method_{os.path.basename(path)[:-3]}", where)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever a file of somebody's own may raise
            METHODS.clear()
            METHODS.update(before)
            raise InputError(f"--method {path}: the file cannot be run ({type(error).__name__}: {error})") from error
        _FILES[where] = module
    strategy = getattr(module, wanted, None)
    own = {name: known for name, known in METHODS.items() if known.strategy.__module__ == module.__name__}
    for known in own.values():
        if known.strategy is strategy or known.name == wanted:
            return known
    there = f"there are {', '.join(own)}" if own else "put @method above a strategy"
    raise InputError(f"--method {path}:{wanted}: the file registers no such method; {there}")


_FILES: dict[str, ModuleType] = {}
"""Files of users' own methods that were run, by their real path."""


def between(least: int, most: int) -> Count:
    """The count from its least to its most; one number where they are the same."""
    return least if least == most else (least, most)


def top_first(items: Sequence[Item], top: Sequence[Item]) -> list[Item]:
    """The items of `top`, then all others in first-stage order."""
    chosen = set(top)
    return [*top, *(item for item in items if item not in chosen)]


def by_score(
    items: Sequence[Item],
    scores: Sequence[float | None],
    score_kind: str,
    spread: Sequence[float | None] | None = None,
) -> Ranked:
    """The items by falling score, equal ones as they stood; one without a score keeps its place among them."""
    if all(score is None for score in scores):
        return Ranked(list(items))
    best = sorted((i for i, score in enumerate(scores) if score is not None), key=lambda i: -(scores[i] or 0.0))
    scored = iter(best)
    order = [i if score is None else next(scored) for i, score in enumerate(scores)]
    spreads = None if spread is None else [spread[i] for i in order]
    return Ranked([items[i] for i in order], [scores[i] for i in order], score_kind, spreads)


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
