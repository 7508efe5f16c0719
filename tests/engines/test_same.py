"""One model behind three engines gives the same numbers: transformers, vLLM, vLLM over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from llmrank.data.types import Query
from llmrank.llm.types import Backend, Constraint, Reply, Request, Sampling
from llmrank.questions import Grade
from llmrank.settings import Settings
from llmrank.templates import load
from llmrank.templates.parsers.likelihood import label_probabilities, place_of
from tests.engines.conftest import MODELS
from tests.engines.contract import replies_to

ENGINES = ("transformers", "vllm", "vllm-http")
TEXTS = (
    "A river flows through the valley and down to the sea.",
    "Cats sleep for most of the day, and hunt at night.",
    "The valley is green in spring.",
    "Interest rates rose again last year; banks were pleased.",
    "A glacier is a river of ice that moves slowly.",
    "Recipes for bread need flour, water, salt and time.",
    "Water carves valleys out of rock over thousands of years.",
    "The committee met on Tuesday. Nobody came.",
    "Dams hold rivers back to make electricity.",
    "Le fleuve traverse la vallée, puis la plaine — 42 km.",
)
QUERY = Query("q", "what flows through the valley")
GRADE = load("pointwise/yes-no")
thinking = pytest.mark.parametrize("which", ["thinker"], indirect=True)


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-4)


@pytest.fixture(scope="module", params=MODELS)
def which(request: pytest.FixtureRequest) -> str:
    """The model that answers."""
    return str(request.param)


@pytest.fixture(scope="module")
def ask_all(which: str, backend_of: Callable[[str], Backend]) -> Callable[[Sequence[Request]], dict[str, list[Reply]]]:
    """Asks the same of all three engines."""
    model = "" if which == "thinker" else f"/{which}"

    async def asked(name: str, requests: Sequence[Request]) -> list[Reply]:
        client = Settings(ledger="none", timeout=600).client(backend_of(name + model))
        try:
            return await replies_to(client, requests)
        finally:
            await client.aclose()

    return lambda requests: {name: asyncio.run(asked(name, requests)) for name in ENGINES}


def graded(text: str, sampling: Sampling, system: str | None = None) -> Request:
    messages = GRADE.render(QUERY, [text]).messages
    if system is not None:
        messages = (("system", system), *messages[1:])
    return Request(messages, sampling=sampling)


Asker = Callable[[Sequence[Request]], dict[str, list[Reply]]]


def test_next_token_scores(ask_all: Asker) -> None:
    told = ask_all([graded(text, Sampling(max_tokens=1, logprobs=20)) for text in TEXTS])
    grades = {name: [GRADE.read(reply, 1) for reply in replies] for name, replies in told.items()}
    assert all(grade.status == "ok" for grade in grades["transformers"])
    values = [[grade.value for grade in grades[name] if isinstance(grade, Grade)] for name in ENGINES]
    assert len({round(value or 0, 4) for value in values[0]}) > 5  # they do differ from text to text
    assert values[1] == [near(value or 0) for value in values[0]]
    assert values[2] == [near(value or 0) for value in values[0]]


@thinking
def test_scores_of_a_token_after_the_reasoning(ask_all: Asker) -> None:
    told = ask_all([graded(text, Sampling(max_tokens=16, logprobs=20), "You think first.") for text in TEXTS])
    assert {reply.reasoning for reply in told["vllm"]} == {reply.reasoning for reply in told["transformers"]} == {"tie"}
    assert all("</think>" in (reply.reasoning or "") + reply.text for reply in told["vllm-http"])
    distributions = {}
    for name, replies in told.items():
        answers = [GRADE.read(reply, 1) for reply in replies]
        assert all(answer.status == "ok" for answer in answers)
        distributions[name] = [answer.distribution for answer in answers if isinstance(answer, Grade)]
    for one, two, three in zip(*distributions.values(), strict=True):
        assert one is not None
        assert two == {label: near(p) for label, p in one.items()}
        assert three == {label: near(p) for label, p in one.items()}


@pytest.mark.parametrize("labels", [("no", "yes"), ("0", "1", "2", "3"), ("A", "B")])
def test_scores_of_labels_that_stand_later_in_a_text(labels: tuple[str, ...], ask_all: Asker) -> None:
    told = ask_all([graded(text, Sampling(max_tokens=6, logprobs=20)) for text in TEXTS])
    found = [[located(reply, labels) for reply in replies] for replies in zip(*told.values(), strict=True)]
    for one, two, three in found:
        for places in zip(one, two, three, strict=True):
            assert places[1] == {label: near(p) for label, p in places[0].items()}
            assert places[2] == {label: near(p) for label, p in places[0].items()}
    later = [place for replies in found for place in replies[0][1:]]
    assert sum(set(place) == set(labels) for place in later) > 5


def located(reply: Reply, labels: tuple[str, ...]) -> list[dict[str, float]]:
    """The labels' probabilities wherever a token of the reply begins, found by the characters before it."""
    assert reply.tokens is not None
    starts = [len("".join(token.text for token in reply.tokens[:i])) for i in range(len(reply.tokens))]
    places = [place_of(reply.tokens, reply.text, start) for start in starts if start < len(reply.text)]
    assert [place.token for place in places if place is not None] == list(reply.tokens[: len(places)])
    return [label_probabilities(place, labels) for place in places if place is not None]


def test_scores_of_a_label_inside_json_that_was_given(ask_all: Asker) -> None:
    given = [json.dumps({"seen": True, "relevant": label}) for label in ("no", "yes")]
    requests = [replace(graded(text, Sampling()), continuation=said) for text in TEXTS for said in given]
    told = ask_all(requests)
    labels = []
    for request, *replies in zip(requests, *told.values(), strict=True):
        assert request.continuation is not None
        start = request.continuation.index(': "') + 3
        places = [place_of(reply.tokens, request.continuation, start) for reply in replies]
        logprobs = [place.token.logprob for place in places if place is not None]
        assert logprobs == [near(logprobs[0])] * 3
        labels.append(logprobs[0])
    assert len({round(label, 4) for label in labels}) == len(labels)  # no two texts, nor yes and no, are alike to it


@pytest.mark.parametrize("which", MODELS[1:], indirect=True)  # in the thinker's JSON labels are not among the likeliest
def test_scores_of_a_label_inside_json_that_a_schema_asked_for(ask_all: Asker) -> None:
    """In this process from before the grammar's mask, over HTTP of what it left: so by how much one beats the other."""
    labels = ("no", "yes")
    schema = {"type": "object", "properties": {"relevant": {"enum": list(labels)}}, "required": ["relevant"]}
    held = Constraint("json_schema", {**schema, "additionalProperties": False})
    told = ask_all([replace(graded(t, Sampling(max_tokens=24, logprobs=20)), constraint=held) for t in TEXTS])
    odds = []
    for replies in zip(*told.values(), strict=True):
        tops = []
        for reply in replies:
            place = place_of(reply.tokens, reply.text, max(reply.text.find(f'"{label}"') for label in labels) + 1)
            assert place is not None
            tops.append(dict(place.token.top))
        in_process = [{token: p for token, p in top.items() if token in labels} for top in tops[:2]]
        assert in_process[1] == {token: near(p) for token, p in in_process[0].items()}
        odds.append([top["yes"] - top["no"] for top in tops])
    assert all(one == [near(one[0])] * 3 for one in odds)
    assert len({round(one[0], 4) for one in odds}) > 5


@pytest.mark.parametrize("raw", [False, True])
def test_scores_of_a_continuation(raw: bool, ask_all: Asker) -> None:
    requests = [replace(graded(text, Sampling()), continuation=QUERY.text) for text in TEXTS]
    if raw:
        requests = [Request(prompt=f"Passage: {text}\nQuery:", continuation=f" {QUERY.text}") for text in TEXTS]
    told = ask_all(requests)
    for one, two, three in zip(*told.values(), strict=True):
        spelled = ["".join(token.text for token in reply.tokens or ()) for reply in (one, two, three)]
        assert spelled == [requests[0].continuation] * 3
        logprobs = [[token.logprob for token in reply.tokens or ()] for reply in (one, two, three)]
        assert logprobs[1] == [near(p) for p in logprobs[0]]
        assert logprobs[2] == [near(p) for p in logprobs[0]]


def test_every_place_of_a_longer_reply(ask_all: Asker) -> None:
    told = ask_all([graded(text, Sampling(max_tokens=8, logprobs=5)) for text in TEXTS])
    for one, two, three in zip(*told.values(), strict=True):
        assert one.text == two.text == three.text
        for places in zip(one.tokens or (), two.tokens or (), three.tokens or (), strict=True):
            likeliest = [dict(place.top) for place in places]
            assert likeliest[1] == {token: near(p) for token, p in likeliest[0].items()}
            assert likeliest[2] == {token: near(p) for token, p in likeliest[0].items()}


def test_a_reply_goes_on_from_its_given_beginning(ask_all: Asker) -> None:
    free = graded(TEXTS[0], Sampling(max_tokens=1, logprobs=20))
    begun = replace(free, messages=(*free.messages, ("assistant", "My answer is:")))
    marked = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in free.messages)
    raw = replace(free, messages=(), prompt=f"{marked}<|im_start|>assistant\nMy answer is:")
    told = ask_all([begun, raw])
    tops = [dict(reply.tokens[0].top) for replies in told.values() for reply in replies if reply.tokens]
    assert len(tops) == 6
    for top in tops[1:]:
        assert top == {token: near(p) for token, p in tops[0].items()}


def test_a_grammar_does_not_hide_what_the_model_would_have_said(ask_all: Asker) -> None:
    free = graded(TEXTS[0], Sampling(max_tokens=1, logprobs=20))
    held = replace(free, constraint=Constraint("regex", "(yes|no)"), sampling=Sampling(max_tokens=4, logprobs=20))
    told = ask_all([free, held])
    for name in ("transformers", "vllm"):  # over HTTP vLLM tells what is left after its mask
        one, two = told[name]
        assert one.tokens is not None
        assert two.tokens is not None
        assert dict(two.tokens[0].top) == {token: near(p) for token, p in one.tokens[0].top}


@pytest.mark.parametrize(
    ("which", "thinks"), [*((name, False) for name in MODELS), ("thinker", True)], indirect=["which"]
)
def test_a_choice_tells_the_labels_probabilities_however_unlikely(thinks: bool, ask_all: Asker) -> None:
    request = graded(TEXTS[1], Sampling(max_tokens=16, logprobs=20), "You think." if thinks else None)
    told = ask_all([replace(request, constraint=Constraint("choice", ["False", "valley"]))])
    tops = []
    for name in ("transformers", "vllm"):
        (reply,) = told[name]
        assert reply.text in ("False", "valley")
        assert (reply.reasoning == "tie") is thinks
        assert reply.tokens is not None
        tops.append(dict(reply.tokens[0].top))
    assert "False" in tops[0]
    assert sum(token in "valley" for token in tops[0]) == 1
    assert tops[1] == {token: near(p) for token, p in tops[0].items()}
