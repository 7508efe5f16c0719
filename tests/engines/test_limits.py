"""At the edges: prompts at the context's limit, permutations by the thousand, engines without memory or that die."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmrank.data.types import Document
from llmrank.llm.backends import open_backend
from llmrank.llm.backends.held import Permutation, Vocabulary, Words, begun
from llmrank.llm.backends.tongue import Tongue
from llmrank.llm.backends.vllm import VllmBackend
from llmrank.llm.backends.vllm_engine import Engine, EngineStopped, Refused
from llmrank.llm.client import BackendRefused
from llmrank.llm.types import Backend, Constraint, Failure, Reply, Request, Sampling
from llmrank.rerank.ranking import Row
from llmrank.rerank.reranker import Reranker
from llmrank.templates import load
from tests.engines.conftest import CONTEXT

ENGINES = ("transformers", "vllm", "vllm-http")
ORDER = load("listwise/rank")


@pytest.mark.parametrize("name", ENGINES)
def test_a_prompt_fits_to_the_last_token_and_no_further(name: str, backend_of: Callable[[str], Backend]) -> None:
    backend = backend_of(name)
    context = 2048 if name == "transformers" else CONTEXT

    async def ask(words: int) -> Reply | Failure:
        # Every " A" is one token.
        request = Request(prompt="A" + " A" * (words - 1), sampling=Sampling(max_tokens=4))
        return await asyncio.wait_for(backend.complete(request), 300)

    async def at_the_limit() -> list[Reply | Failure]:
        over = (context - 3,) if name != "vllm-http" else ()  # that server gives a shorter reply where there is room
        return [await ask(n) for n in (context - 4, *over, context, context + 1)]

    fits, *others = asyncio.run(at_the_limit())
    assert isinstance(fits, Reply)
    assert fits.prompt_tokens == context - 4
    for other in others:
        assert isinstance(other, Failure)
        assert other.kind == "context-length", other.detail


@pytest.mark.parametrize("name", [*ENGINES, "nano", "transformers-http"])
def test_ten_thousand_candidates_in_one_prompt_do_not_fit(name: str, backend_of: Callable[[str], Backend]) -> None:
    backend, documents = backend_of(name), [Document(f"d{i}", f"passage {i}") for i in range(10_000)]
    rendered = ORDER.render("rivers", [document.text for document in documents])
    if name != "transformers-http":  # which lets a model run on beyond its context, so the job must know better
        outcome = asyncio.run(asyncio.wait_for(backend.complete(Request(rendered.messages)), 300))
        assert isinstance(outcome, Failure)
        assert outcome.kind == "context-length", outcome
    settings: dict[str, Any] = {"options": {"window": 10_000, "stride": 5000}, "ledger": "none"}
    with Reranker("sliding-window", backend=backend, **settings) as reranker:
        ranking = reranker.rank("rivers", documents)
    assert [hit.document for hit in ranking] == documents
    assert (ranking.row.status, ranking.row.failed, ranking.row.calls) == ("failed", 1, 0)


def ordered(backend: Backend, queries: int, *, constrain: bool, n: int = 20, **more: Any) -> list[Row]:
    """The rows of as many queries, each of one window."""
    requests = [(f"query {i}", [f"passage about thing {j}" for j in range(n)]) for i in range(queries)]
    settings: dict[str, Any] = {"temperature": 1.0, "ledger": "none", "concurrency": 128, "timeout": 600, **more}
    with Reranker("sliding-window", backend=backend, template=ORDER, constrain=constrain, **settings) as reranker:
        rankings = reranker.rank_many(requests)
    assert all({hit.document.id for hit in ranking} == {str(j) for j in range(n)} for ranking in rankings)
    rows = [ranking.row for ranking in rankings]
    assert all(row.questions == row.ok + row.repaired + row.failed == 1 for row in rows)
    return rows


@pytest.fixture(scope="module")
def over_http(backend_of: Callable[[str], Backend]) -> Iterator[Future[list[Row]]]:
    """A thousand windows of twenty, which the server is asked while others are worked on in this process."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(ordered, backend_of("vllm-http"), 1000, constrain=True)


@pytest.mark.usefixtures("over_http")
@pytest.mark.parametrize("name", ["transformers", "vllm"])
def test_a_thousand_permutations_are_all_complete(name: str, backend_of: Callable[[str], Backend]) -> None:
    backend = backend_of(name)
    n, rounds = 20, 1000
    rendered = ORDER.render("rivers", [f"passage about thing {i}" for i in range(n)])
    sampling = Sampling(max_tokens=ORDER.completion_tokens(n), temperature=1.0, seed=3)
    held = Constraint("permutation", [f"[{i}]" for i in range(1, n + 1)])
    request = Request(rendered.messages, sampling=sampling, constraint=held)

    async def ask() -> list[Reply | Failure]:
        return await asyncio.gather(*(backend.complete(request.resampled(i)) for i in range(rounds)))

    replies = asyncio.run(asyncio.wait_for(ask(), 900))
    answers = [ORDER.read(reply, n) for reply in replies if isinstance(reply, Reply)]
    assert [answer.status for answer in answers] == ["ok"] * rounds
    assert len({reply.text for reply in replies if isinstance(reply, Reply)}) > rounds // 2


def test_a_thousand_permutations_over_http_are_all_read_and_their_repeats_counted(
    over_http: Future[list[Row]],
) -> None:
    rows = over_http.result(900)
    assert len(rows) == 1000
    assert not any(row.failed for row in rows)
    repairs = sum((Counter(row.repairs) for row in rows), Counter[str]())
    assert set(repairs) == {"repeated", "missing"}
    assert repairs["repeated"] > 900  # a random model hardly ever names twenty without a repeat


@pytest.mark.parametrize("temperature", [1.0, 2.0])  # words and numbers; and texts of no sense at all
@pytest.mark.parametrize("name", ["vllm", "vllm-http"])
def test_without_a_constraint_every_reply_is_counted_repaired_or_failed(
    name: str, temperature: float, backend_of: Callable[[str], Backend]
) -> None:
    backend = backend_of(name)
    rows = [r for i in range(10) for r in ordered(backend, 5, constrain=False, temperature=temperature, seed=i)]
    assert any(row.repaired for row in rows)
    assert all(row.reasons for row in rows if row.failed)
    assert any(row.failed for row in rows)


@pytest.mark.parametrize("name", ["transformers", "vllm"])
def test_a_permutation_tells_the_distribution_at_each_place(name: str, backend_of: Callable[[str], Backend]) -> None:
    sampling = Sampling(max_tokens=64, logprobs=20)
    constraint = Constraint("permutation", {"identifiers": ["A", "B", "C"], "between": " > "})
    request = Request((("user", "Order A, B and C."),), sampling=sampling, constraint=constraint)
    reply = asyncio.run(backend_of(name).complete(request))
    assert isinstance(reply, Reply)
    assert sorted(reply.text.split(" > ")) == ["A", "B", "C"]
    assert reply.tokens is not None
    asked = [{token.strip() for token, _ in place.top} for place in reply.tokens if place.top]
    assert asked[0] == {"A", "B", "C"}
    assert asked[1] == {"A", "B", "C"} - {reply.text[0]}


@pytest.mark.parametrize("name", ["transformers", "vllm"])
def test_a_bracket_that_the_prompt_ends_in_is_not_written_again(
    name: str, backend_of: Callable[[str], Backend]
) -> None:
    messages = (("user", "Order the two."), ("assistant", "["))
    request = Request(messages, sampling=Sampling(max_tokens=32), constraint=Constraint("permutation", ["[1]", "[2]"]))
    reply = asyncio.run(backend_of(name).complete(request))
    assert isinstance(reply, Reply)
    assert reply.text in ("1] > [2]", "2] > [1]")


@pytest.mark.parametrize("name", ["transformers", "vllm"])
def test_thinking_that_does_not_end_is_no_answer(name: str, backend_of: Callable[[str], Backend]) -> None:
    messages = (("system", "You think."), ("user", "Is it relevant?"))
    for constraint in (None, Constraint("choice", ["yes", "no"])):
        request = Request(messages, sampling=Sampling(max_tokens=1, logprobs=20), constraint=constraint)
        reply = asyncio.run(backend_of(name).complete(request))
        assert isinstance(reply, Reply)
        assert reply.finish == "length"
        answer = load("pointwise/yes-no").read(reply, 1)
        assert (answer.status, answer.reason) == ("failed", "truncated")


def test_a_model_of_another_folder_has_another_name_and_a_copy_the_same(model: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "elsewhere" / model.name
    shutil.copytree(model, copy)
    one, two = (open_backend(f"transformers:{folder}") for folder in (model, copy))
    assert one.identity == two.identity  # type: ignore[attr-defined]
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert open_backend(f"transformers:{copy}").identity != one.identity  # type: ignore[attr-defined]


def test_a_batch_that_takes_too_much_memory_goes_in_halves(
    backend_of: Callable[[str], Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = backend_of("transformers")
    import torch

    requests = [Request((("user", f"Is it {i}?"),), sampling=Sampling(max_tokens=1, logprobs=20)) for i in range(9)]

    async def ask() -> list[Reply | Failure]:
        await backend.ready()
        return await asyncio.wait_for(asyncio.gather(*map(backend.complete, requests)), 300)

    wanted = asyncio.run(ask())
    run, most = backend._worker._model.run, 2

    def cramped(rows: Any) -> None:
        if len(rows) > most:
            raise torch.OutOfMemoryError("out of memory")
        run(rows)

    monkeypatch.setattr(backend._worker._model, "run", cramped)
    for one, two in zip(asyncio.run(ask()), wanted, strict=True):
        assert isinstance(one, Reply)
        assert isinstance(two, Reply)
        assert one.text == two.text
    most = 0
    for failure in asyncio.run(ask()):
        assert isinstance(failure, Failure)
        assert failure.kind == "backend-error"
        assert "OutOfMemoryError" in failure.detail


def test_an_engine_without_memory_ends_the_job_with_a_typed_failure(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def make(backend: Any) -> Any:
        backend._tongue = Tongue(backend.model)
        return StandIn(fails=torch.OutOfMemoryError("out of memory"))

    monkeypatch.setattr(VllmBackend, "_make", make)
    monkeypatch.setattr(VllmBackend, "_lora_request", None, raising=False)
    with (
        Reranker("pointwise", backend=f"vllm:{model}", template="pointwise/graded", ledger="none") as reranker,
        pytest.raises(BackendRefused, match="out of memory") as refused,
    ):
        reranker.rank("rivers", ["one", "two", "three"])
    assert refused.value.exit_code == 5
    assert refused.value.failure is not None
    assert refused.value.failure.kind == "engine-stopped"


# What follows needs no engine: a stand-in for vLLM's, and vocabularies made up here.


class StandIn:
    """Answers each request in the step after it came; `fails` is what a step raises."""

    def __init__(self, most: int = 4, *, fails: Exception | None = None) -> None:
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=most))
        self.engine_core = SimpleNamespace(shutdown=lambda: None)
        self.admitted: list[tuple[int, ...]] = []
        self.together: list[int] = []
        self.fails = fails
        self._here: dict[str, Any] = {}

    def add_request(self, name: str, prompt: dict[str, list[int]], params: Any, lora_request: Any) -> None:
        if params == "refused":
            raise ValueError("no such thing")
        self.admitted.append(tuple(prompt["prompt_token_ids"]))
        self._here[name] = params

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            self._here.pop(name, None)

    def step(self) -> list[Any]:
        if self.fails is not None:
            raise self.fails
        self.together.append(len(set(self._here.values())))
        done, self._here = self._here, {}
        return [SimpleNamespace(request_id=name, finished=True, num_cached_tokens=0) for name in done]


def test_requests_that_share_a_head_are_let_in_together() -> None:
    stand_in = StandIn(most=1)
    engine = Engine(lambda: stand_in)
    prompts = [(head, tail) for tail, head in itertools.product(range(10), range(10))]  # as a sampled job might come

    async def ask() -> None:
        await engine.ready()
        await asyncio.gather(*(engine.run(list(prompt), None) for prompt in prompts))

    asyncio.run(asyncio.wait_for(ask(), 60))
    engine.close()
    heads = [head for head, _ in stand_in.admitted]
    assert sorted(stand_in.admitted) == sorted(prompts)
    changes = sum(a != b for a, b in itertools.pairwise(heads))
    assert changes <= 12  # the least is 9; the first few are let in before the others have come


def test_requests_that_want_other_logprobs_never_run_together() -> None:
    stand_in = StandIn()
    engine = Engine(lambda: stand_in)

    async def ask() -> None:
        runs = [engine.run([i], told, told=told) for i in range(100) for told in ("likeliest", "named")]  # type: ignore[arg-type]
        await asyncio.gather(*runs)

    asyncio.run(asyncio.wait_for(ask(), 60))
    engine.close()
    assert len(stand_in.admitted) == 200
    assert set(stand_in.together) == {1}


def test_an_engine_that_dies_leaves_nobody_waiting() -> None:
    engine = Engine(lambda: StandIn(fails=MemoryError("no room left")))

    async def ask() -> list[Any]:
        asked = [engine.run([i], None) for i in range(10)]
        return await asyncio.gather(*asked, return_exceptions=True)

    outcomes = asyncio.run(asyncio.wait_for(ask(), 60))
    assert all(isinstance(outcome, EngineStopped) for outcome in outcomes)
    assert "no room left" in str(outcomes[0])
    with pytest.raises(EngineStopped):
        asyncio.run(engine.run([1], None))


def test_a_request_that_the_engine_refuses_fails_alone() -> None:
    engine = Engine(StandIn)

    async def ask() -> list[Any]:
        return await asyncio.gather(
            *(engine.run([i], p) for i, p in enumerate([None, "refused", None])), return_exceptions=True
        )

    one, two, three = asyncio.run(asyncio.wait_for(ask(), 60))
    engine.close()
    assert isinstance(two, Refused)
    assert "no such thing" in str(two)
    assert one.finished
    assert three.finished


def test_a_word_has_the_tokens_that_the_model_would_write() -> None:
    pieces = [b"y", b"ye", b"yes", b"n", b"no", b"o", b"s", b" ", b" yes", b"yesterday"]
    vocabulary = Vocabulary(pieces)
    form = Words(["yes", "no"])
    assert {pieces[token] for token in vocabulary.options(form, form.start)} == {b"yes", b"no"}
    spaced = Words(["yes", "no"], spaced=True)
    assert {pieces[token] for token in vocabulary.options(spaced, spaced.start)} == {b"yes", b"no", b" ", b" yes"}
    pieces.append(b" no")  # then the space alone says nothing that the others do not
    whole = Vocabulary(pieces).options(spaced, spaced.start)
    assert {pieces[token] for token in whole} == {b"yes", b"no", b" yes", b" no"}


def test_a_word_that_begins_another_may_end_or_go_on() -> None:
    pieces = [b"a", b"ab", b"b", b"abc", b"c"]
    vocabulary, form = Vocabulary(pieces), Words(["a", "abc"])
    options = vocabulary.options(form, form.start)
    assert {pieces[token] for token in options} == {b"a", b"abc"}
    assert form.done(options[0])
    assert {pieces[token] for token in vocabulary.options(form, options[0])} == {b"b"}


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_the_form_of_a_permutation_holds_the_permutations_and_nothing_else(n: int) -> None:
    names = [str(10**i) for i in range(n)]  # 1 begins 10, which begins 100
    form = Permutation(names, before="{", between=", ", after="}")

    def texts(state: Any, said: bytes) -> list[str]:
        if form.done(state):
            return [said.decode()]
        return [text for byte, after in form.nexts(state).items() for text in texts(after, said + bytes([byte]))]

    wanted = ["{" + ", ".join(p) + "}" for p in itertools.permutations(names)] if n else [""]
    assert sorted(texts(form.start, b"")) == sorted(wanted)


def test_a_prompt_that_happens_to_end_in_a_name_has_not_begun_the_reply() -> None:
    form = Permutation(["A", "B"])
    assert begun(form, "which is better, A") == form.start
    brackets = Permutation(["[A]", "[B]"])
    assert begun(brackets, "best first: [") != brackets.start
