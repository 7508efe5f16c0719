"""Replies held to words or permutations in vLLM's engine, whatever else is in its batch or given up on the way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmrank.llm.backends import open_backend
from llmrank.llm.types import Constraint, Failure, Reply, Request, Sampling
from llmrank.questions import Token
from llmrank.templates import load
from tests.engines.conftest import OPTIONS

ORDER = load("listwise/rank")
NUMBERS = [f"[{i}]" for i in range(1, 21)]
LETTERS = [f"[{letter}]" for letter in "ABCDEFGHIJKLMNOPQRST"]
LONG = ["doc-1", "doc-10", "doc-2", "Zürich", "passage 7", "日本"]


class Counted:
    """A backend, the requests that its engine got, and whether held and free ones ran together."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.requests: list[Any] = []
        self.together: set[frozenset[bool]] = set()
        run = backend._engine.run

        async def counted(ids: Sequence[int], params: Any, **more: Any) -> Any:
            self.requests.append(params)
            return await run(ids, params, **more)

        backend._engine.run = counted
        step = backend._engine.engine.step

        def watched() -> Any:
            running = list(backend._engine._running.values())
            self.together.add(frozenset(job.params.allowed_token_ids is not None for job in running))
            return step()

        backend._engine.engine.step = watched

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Their replies, asked for all at once."""
        self.requests.clear()
        self.together.clear()
        return in_time(self._replies(requests))

    async def _replies(self, requests: Sequence[Request]) -> list[Reply]:
        outcomes = await asyncio.gather(*map(self.backend.complete, requests))
        assert not [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        return [outcome for outcome in outcomes if isinstance(outcome, Reply)]


def in_time(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 600))


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[Counted]:
    backend: Any = open_backend(f"vllm:{model}", engine_options=OPTIONS)
    asyncio.run(backend.ready())
    yield Counted(backend)
    backend.close()


def order(value: Any, prompt: str = "Best first:", **sampling: Any) -> Request:
    return Request(prompt=prompt, sampling=Sampling(**sampling), constraint=Constraint("permutation", value))


def permutes(text: str, names: Sequence[str]) -> bool:
    return sorted(text.split(" > ")) == sorted(names)


def near(tokens: Sequence[Token] | None) -> list[Any]:
    return [(t.text, pytest.approx(t.logprob, abs=1e-4), approximately(t)) for t in tokens or ()]


def approximately(token: Token) -> dict[str, Any]:
    return {text: pytest.approx(logprob, abs=1e-4) for text, logprob in token.top}


def told(tokens: Sequence[Token] | None) -> list[Any]:
    return [(t.text, t.logprob, dict(t.top)) for t in tokens or ()]


def test_a_thousand_permutations_are_all_valid(engine: Counted) -> None:
    request = order(NUMBERS, temperature=1.0, seed=5, max_tokens=200)
    replies = engine.ask([request.resampled(i) for i in range(1000)])
    assert all(permutes(reply.text, NUMBERS) for reply in replies)
    assert len({reply.text for reply in replies}) > 900
    assert {reply.finish for reply in replies} == {"stop"}


FORMS: dict[str, Any] = {
    "one": ["[1]"],
    "two": ["[1]", "[2]"],
    "seven": NUMBERS[:7],
    "twenty": NUMBERS,
    "letters": LETTERS,
    "forty": [f"[{i}]" for i in range(1, 41)],
    "long": {"identifiers": LONG, "between": ", "},
    "in JSON": {"identifiers": ["1", "2", "3", "10"], "before": '{"ranking": [', "between": ", ", "after": "]}"},
    "bare": {"identifiers": list("ABCDE"), "between": ""},
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_kept_and_the_engine_asked_only_where_there_is_a_choice(name: str, engine: Counted) -> None:
    value = FORMS[name]
    names = value["identifiers"] if isinstance(value, dict) else value
    between = value.get("between", " > ") if isinstance(value, dict) else " > "
    (reply,) = engine.ask([order(value)])
    text = reply.text.removeprefix('{"ranking": [').removesuffix("]}")
    assert sorted(text.split(between) if between else text) == sorted(names)
    assert reply.finish == "stop"
    assert len(engine.requests) <= 3 * len(names)  # of each name's tokens some are a choice; what is between is none
    assert len(engine.requests) < (reply.completion_tokens or 0) or len(names) == 1


def test_each_place_tells_the_identifiers_that_are_left(engine: Counted) -> None:
    (reply,) = engine.ask([order(LETTERS, temperature=1.0, seed=1, logprobs=20)])
    places = [token for token in reply.tokens or () if any(letter in token.text for letter in "ABCDEFGHIJKLMNOPQRST")]
    said = [name.strip("[]") for name in reply.text.split(" > ")]
    left = [{text.strip("[]") for text, _ in place.top} for place in places]
    assert left[:-1] == [set(said[i:]) for i in range(19)]
    assert left[-1] == set()  # the last has no rival: the engine is not asked for it


WORDS = ["no", "none", "no way", "yes", "yes and no", "A"]


def choose(words: Sequence[str], prompt: str = "Is it? ", **sampling: Any) -> Request:
    return Request(prompt=prompt, sampling=Sampling(**sampling), constraint=Constraint("choice", words))


def test_every_word_is_drawn_and_a_seed_draws_the_same_again(engine: Counted) -> None:
    requests = [choose(WORDS, temperature=2.0, seed=2).resampled(i) for i in range(200)]
    texts = [reply.text for reply in engine.ask(requests)]
    assert len(set(texts)) > 2
    assert set(texts) <= set(WORDS)
    assert [reply.text for reply in engine.ask(requests)] == texts


def test_free_requests_in_the_same_batch_say_what_they_say_alone(engine: Counted) -> None:
    free = [Request(prompt=f"Passage {i}: a river", sampling=Sampling(max_tokens=12, logprobs=5)) for i in range(12)]
    held = [
        *(order(NUMBERS[: 3 + i], temperature=1.0, seed=i, max_tokens=200) for i in range(12)),
        *(choose(WORDS, f"Is it {i}? ") for i in range(12)),
    ]
    alone = engine.ask(free)
    mixed = [request for both in itertools.zip_longest(free, held) for request in both if request is not None]
    replies = dict(zip(map(id, mixed), engine.ask(mixed), strict=True))
    assert frozenset((True, False)) in engine.together
    for request, reply in zip(free, alone, strict=True):
        assert replies[id(request)].text == reply.text
        assert told(replies[id(request)].tokens) == near(reply.tokens)
    for request in held:
        assert request.constraint is not None
        text, value = replies[id(request)].text, request.constraint.value
        assert text in value or permutes(text, value)


def test_others_go_on_when_some_are_given_up_in_mid_flight(engine: Counted) -> None:
    requests = [order(NUMBERS if i % 2 else LETTERS, f"Query {i}. Best first:") for i in range(24)]
    alone = [engine.ask([request])[0].text for request in requests]
    tick = Request(prompt="A", sampling=Sampling(max_tokens=1))

    async def ask() -> list[Any]:
        tasks = [asyncio.create_task(engine.backend.complete(request)) for request in requests]
        for i in (0, 3, 4, 10, 23, 1):
            for _ in range(3):
                await engine.backend.complete(tick)  # a few steps pass
            assert not tasks[i].done()
            tasks[i].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = in_time(ask())
    given_up = {i for i, outcome in enumerate(outcomes) if isinstance(outcome, asyncio.CancelledError)}
    assert given_up == {0, 1, 3, 4, 10, 23}
    assert all(outcomes[i].text == alone[i] for i in range(24) if i not in given_up)


def test_a_bracket_that_the_prompt_gives_is_not_written_again(engine: Counted) -> None:
    (reply,) = engine.ask([order(NUMBERS[:5], "Best first: [")])
    assert permutes(f"[{reply.text}", NUMBERS[:5])


def test_a_single_token_is_the_first_of_the_permutation(engine: Counted) -> None:
    (reply,) = engine.ask([order(LETTERS, "Best first: [", max_tokens=1, logprobs=20)])
    assert len(engine.requests) == 1
    (token,) = reply.tokens or ()
    assert reply.text == token.text
    assert {text.strip("]") for text, _ in token.top} == {name.strip("[]") for name in LETTERS}
    assert reply.finish == "length"


def test_it_is_held_from_the_answer_on_after_the_thinking(engine: Counted) -> None:
    rendered = ORDER.render("rivers", ["a river", "a cat", "a valley"])
    messages = (("system", "You think first."), *rendered.messages[-1:])
    request = Request(messages, sampling=Sampling(max_tokens=64), constraint=Constraint("permutation", NUMBERS[:3]))
    (reply,) = engine.ask([request])
    assert reply.reasoning is not None
    assert permutes(reply.text, NUMBERS[:3])


def test_free_text_is_spelled_as_the_engine_spells_it(engine: Counted) -> None:
    sampling = Sampling(max_tokens=40, temperature=2.0, seed=3, logprobs=3)  # bytes that are no text, and marks
    free = [Request(prompt="日本 Ünï", sampling=sampling).resampled(i) for i in range(60)]
    by_engine = [replace(request, sampling=replace(sampling, stop=("never said",))) for request in free]
    replies = engine.ask(free)
    assert {params.detokenize for params in engine.requests} == {False}
    assert len({reply.text for reply in replies}) > 50
    for reply, other in zip(replies, engine.ask(by_engine), strict=True):
        assert (reply.text, reply.finish) == (other.text, other.finish)
    assert {params.detokenize for params in engine.requests} == {True}
