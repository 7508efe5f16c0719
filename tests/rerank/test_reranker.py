"""`Reranker` as its users hold it: three lines, any caller, any loop, and nothing to clean up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from llmrank import Candidates, Document, InputError, Query, Reranker
from llmrank.llm import Reply, Request
from tests.conftest import ROOT
from tests.stub import Stub


class Backwards:
    """A backend of one's own: puts whatever it is shown in reverse order."""

    async def complete(self, request: Request) -> Reply:
        assert request.about is not None
        n = len(request.about.documents)
        return Reply(text=" > ".join(f"[{i}]" for i in range(n, 0, -1)))


def reversing(**more: Any) -> Reranker:
    return Reranker("sliding-window", backend=Backwards(), ledger="none", **more)


def test_three_lines_give_a_ranking() -> None:
    ranking = reversing().rank("what is bm25", ["text one", "text two"])
    assert [(hit.rank, hit.document.id, hit.score, hit.document.text) for hit in ranking] == [
        (1, "1", None, "text two"),
        (2, "0", None, "text one"),
    ]
    assert (ranking.row.status, ranking.row.questions, ranking.row.ok, ranking.row.rounds) == ("reranked", 1, 1, 1)


def test_it_works_inside_a_running_loop_and_again_after_closing() -> None:
    reranker = reversing()

    async def notebook() -> list[str]:
        return reranker.rank("q", ["a", "b"]).ids + (await reranker.arank("q", ["a", "b"])).ids

    assert asyncio.run(notebook()) == ["1", "0", "1", "0"]
    reranker.close()
    reranker.close()
    assert reranker.rank("q", ["a", "b"]).ids == ["1", "0"]


def test_many_requests_come_back_in_their_order() -> None:
    work = [(f"query {i}", ["x"] * i) for i in range(40)]
    assert [len(ranking) for ranking in reversing(concurrency=3).rank_many(work)] == list(range(40))


def test_a_stream_may_be_left_early_and_the_reranker_used_again() -> None:
    reranker = reversing()

    async def early() -> int:
        async for _ in reranker.astream((f"q{i}", ["a", "b"]) for i in range(10_000)):
            break
        return len((await reranker.arank("q", ["a", "b"])).ids)

    assert asyncio.run(early()) == 2


def test_depth_leaves_the_others_below_as_they_were() -> None:
    ranking = reversing(depth=3).rank("q", list("abcde"))
    assert ranking.ids == ["2", "1", "0", "3", "4"]
    assert reversing(depth=0).rank("q", list("abc")).row.status == "unchanged"


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_ask_is_unchanged(n: int) -> None:
    ranking = reversing().rank("q", ["a"] * n)
    assert (len(ranking), ranking.row.status, ranking.row.questions, ranking.row.calls) == (n, "unchanged", 0, 0)


def test_ids_must_differ_and_texts_need_not() -> None:
    same = Candidates(Query("q7", "q"), (Document("a", "x"), Document("a", "y")))
    with pytest.raises(InputError, match="query q7: the document a is given twice"):
        reversing().rank_many([same])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"method": "sliding-windw"}, "did you mean sliding-window"),
        (
            {"method": "heapsort", "template": "listwise/rank"},
            "asks `order`, the method heapsort needs a template that",
        ),
        ({"method": "yes-no"}, "needs logprobs .* does not have"),
        ({"method": "setwise-heapsort", "options": {"children": 30}}, "can name 26 documents"),
        ({"method": "heapsort", "depth": -1}, "--depth -1: it must not be below 0"),
        ({"method": "heapsort", "max_cost": 1.0}, "give --price IN,OUT"),
        ({"method": "heapsort", "price": "cheap"}, "--price cheap: it must be two numbers"),
        ({"method": "heapsort", "concurrency": 0}, "--concurrency 0: "),
        ({"method": "heapsort", "colour": "red"}, "colour is no setting; there are base_url"),
    ],
)
def test_what_does_not_go_together_is_told_at_construction(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Reranker(backend=Backwards(), ledger="none", **arguments)


@pytest.mark.parametrize("spec", ["gpt-4", "openai:", "simulated:", "openai:m?colour=red", "replay:"])
def test_a_bad_backend_is_told_at_construction(spec: str) -> None:
    with pytest.raises(InputError):
        Reranker(backend=spec, ledger="none")


SCRIPT = """
import sys
from llmrank import Reranker
ranking = Reranker("sliding-window", backend="openai:m", base_url=sys.argv[1], ledger="none").rank("q", ["a", "b"])
for hit in ranking: print(hit.rank, hit.document.id)
"""


def test_a_script_that_closes_nothing_leaves_no_warning() -> None:
    with Stub(lambda *_: "[2] > [1]") as stub:
        command = [sys.executable, "-W", "always::ResourceWarning", "-c", SCRIPT, stub.url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 1\n2 0\n", "")


def test_one_reranker_serves_several_loops_over_a_real_server() -> None:
    with (
        Stub(lambda *_: "[2] > [1]") as stub,
        Reranker("sliding-window", backend="openai:m", base_url=stub.url, ledger="none") as reranker,
    ):

        async def one() -> list[str]:
            return (await reranker.arank("q", ["a", "b"])).ids

        assert reranker.rank("q", ["a", "b"]).ids == ["1", "0"]
        for _ in range(3):
            assert asyncio.run(one()) == ["1", "0"]
        assert reranker.rank("q", ["a", "b"]).ids == ["1", "0"]
