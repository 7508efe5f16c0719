"""A method of one's own: the example of the documentation, listed, planned, run and tested as those that ship."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from llmrank import InputError, Reranker
from llmrank.ask.base import Ask
from llmrank.ask.examples import FEW_SHOT, Examples
from llmrank.data.examples import read_examples
from llmrank.llm.backends.simulated import SimulatedBackend
from llmrank.questions import Order
from llmrank.rerank import methods
from llmrank.rerank.methods import METHODS, find, method
from llmrank.rerank.stages import Stages
from llmrank.templates import load
from llmrank.testing import check_method
from tests.cli.conftest import JOB, Program, folder, llmrank  # noqa: F401  fixtures
from tests.conftest import ROOT

DOCS = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", DOCS, re.S | re.M)
EXAMPLE, TEST = (text for kind, text in BLOCKS if kind == "python")
STRATEGY = {"question": "order", "source": "s", "template": "listwise/rank", "rounds": lambda n: 1}


@pytest.fixture(autouse=True)
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The documentation's file, and a table of methods that forgets it afterwards."""
    before = dict(methods.all_methods())
    (tmp_path / "my_methods.py").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(methods, "_FILES", {})
    yield tmp_path / "my_methods.py"
    METHODS.clear()
    METHODS.update(before)
    sys.modules.pop("my_methods", None)


def test_the_documented_test_passes() -> None:
    names: dict[str, object] = {}
    exec(TEST, names)
    test = names["test_knockout"]
    assert callable(test)
    test()


def test_a_file_is_enough_to_rank() -> None:
    judge = SimulatedBackend({"query": {str(i): int(i == 17) for i in range(30)}})
    with Reranker("my_methods.py:knockout", backend=judge, ledger="none", options={"group": "4"}) as reranker:
        ranking = reranker.rank("q", [f"text {i}" for i in range(30)])
    assert ranking.ids == ["17", *(str(i) for i in range(30) if i != 17)]
    assert (ranking.row.calls, ranking.row.rounds) == (8 + 2 + 1, 3)


def test_the_command_line_lists_plans_and_runs_it(llmrank: Program, own_file: Path, folder: Path) -> None:  # noqa: F811
    flags = ("--method", "my_methods.py:knockout", "--option", "group=6", "--json")
    (listed,) = json.loads(llmrank("methods", "my_methods.py:knockout", "--json").out)["methods"]
    assert (listed["name"], listed["question"], listed["options"]) == (
        "knockout",
        "choose",
        {"group": {"type": "int", "default": 5}},
    )
    planned = json.loads(llmrank("plan", "rerank", *JOB, *flags).out)
    told = json.loads(llmrank("rerank", *JOB, *flags).out)
    assert told["calls"] == planned["calls"] == (4 + 1) + (2 + 1)
    tags = {line.split()[5] for line in (folder / "out.trec").read_text().splitlines()}
    assert tags == {"llmrank-knockout"}


def test_it_may_be_a_stage_of_a_cascade() -> None:
    stages = [{"method": "yes-no"}, {"method": "my_methods.py:knockout", "depth": 6}]
    judge = SimulatedBackend({"query": {str(i): i % 4 for i in range(12)}})
    with Reranker("cascade", backend=judge, ledger="none", options={"stages": stages}) as reranker:
        assert reranker.rank("q", ["text"] * 12).row.parts == {"1": 12, "2": 2}


def test_an_entry_point_makes_it_known_by_name(own_file: Path) -> None:
    package = own_file.parent / "own-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[llmrank.methods]\nknockout = my_methods\n")
    assert find("knockout").source == "a knockout among groups; ours"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing.py:knockout", "--method missing.py:knockout: there is no file missing.py"),
        (
            "my_methods.py:knockot",
            "--method my_methods.py:knockot: the file registers no such method; there are knockout",
        ),
        ("my_methods.py:levels", "the file registers no such method"),
        ("broken.py:x", r"--method broken.py: the file cannot be run \(ZeroDivisionError: "),
        ("empty.py:x", "the file registers no such method; put @method above a strategy"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(name: str, problem: str) -> None:
    Path("broken.py").write_text("1 / 0\n")
    Path("empty.py").write_text("x = 1\n")
    for _ in range(2):
        with pytest.raises(InputError, match=problem):
            find(name)


def test_its_bad_options_are_told_before_any_call() -> None:
    with pytest.raises(InputError, match="--option group: it must be at least 2"):
        Reranker("my_methods.py:knockout", backend="lexical", ledger="none", options={"group": 1})


class TestCheckMethod:
    """Finds what is wrong with a method, and says so."""

    def test_that_loses_documents(self) -> None:
        @method(**STRATEGY, calls=lambda n: 0, name="loses")
        async def loses(items: Sequence[int], ask: Ask) -> list[int]:
            return list(items)[:3]

        with pytest.raises(Exception, match="lost or doubled a document"):
            check_method("loses", sizes=[5])

    def test_that_asks_more_than_it_says(self) -> None:
        @method(**STRATEGY, calls=lambda n: int(n > 1), name="asks")
        async def asks(items: Sequence[int], ask: Ask) -> list[int]:
            for i in range(len(items) - 1):
                await ask.order(items[i : i + 2])
            return list(items)

        with pytest.raises(AssertionError, match="asks, n=3, seed=0: it asks 2 questions and declares 1 to 1"):
            check_method("asks", sizes=[2, 3])

    def test_that_hangs_on_the_order_of_arrival(self) -> None:
        @method(**STRATEGY, calls=lambda n: n, name="first")
        async def first(items: Sequence[int], ask: Ask) -> list[int]:
            import asyncio

            arrived: list[int] = []

            async def one(item: int) -> None:
                await ask.order([item])
                arrived.append(item)

            await asyncio.gather(*map(one, items))
            return arrived

        with pytest.raises(AssertionError, match="the ranking hangs on the order in which answers arrive"):
            check_method("first", sizes=[9])

    def test_that_turns_the_order_round_without_an_answer(self) -> None:
        @method(**STRATEGY, calls=lambda n: 1, name="turns")
        async def turns(items: Sequence[int], ask: Ask) -> list[int]:
            order: Order = await ask.order(items)
            return order.apply(items) if order.usable else list(items)[::-1]

        with pytest.raises(AssertionError, match="turns, n=4: nothing was answered, yet the order changed"):
            check_method("turns", sizes=[4])

    def test_that_guarantees_too_much(self) -> None:
        with pytest.raises(AssertionError, match="sliding-window, n=40, seed=0: the top 40 are not the best 40"):
            check_method("sliding-window", exact=lambda n: n)
        check_method("sliding-window", exact=lambda n: n if n <= 20 else 10)


def test_the_documented_stages_and_examples_are_read(tmp_path: Path) -> None:
    stages = next(text for kind, text in BLOCKS if kind == "yaml")
    (tmp_path / "stages.yaml").write_text(stages)
    assert [step.question for step in Stages.of(str(tmp_path / "stages.yaml")).steps] == ["write", "grade", "order"]
    lines = next(text for kind, text in BLOCKS if kind == "json").splitlines()
    fits = {0: ["compare", "choose", "order"], 1: ["grade"], 2: ["grade", *FEW_SHOT], 3: ["compare", "choose", "order"]}
    for number, line in enumerate(lines):
        (tmp_path / "e.jsonl").write_text(line + "\n")
        examples = Examples("e.jsonl", read_examples(tmp_path / "e.jsonl"), shots=1)
        for question in fits[number]:
            examples.worded(load(FEW_SHOT[question]))  # type: ignore[index]
