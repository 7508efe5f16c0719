"""The simulated judge answers from known grades through the prompt's real format, and errs exactly as it is told to."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank import Candidates, Document, Query, Reranker
from llmrank.ask.manner import Manner
from llmrank.ask.tally import Tally
from llmrank.ask.templated import TemplateAsk
from llmrank.ask.virtual import VirtualLoop
from llmrank.cli.main import run
from llmrank.data.qrels import write_qrels
from llmrank.errors import InputError
from llmrank.llm.backends import open_backend
from llmrank.llm.backends.simulated import Errors, SimulatedBackend
from llmrank.llm.client import Client
from llmrank.llm.ledger import Ledger
from llmrank.llm.types import CAPABILITIES, Identity, Reply, Request
from llmrank.questions import Answer, Choice, Grade, Order, Preference, Question
from llmrank.rerank.methods import all_methods
from llmrank.templates import Template, load, names

GRADES = {"q": {"d0": 0, "d1": 1, "d2": 2, "d3": 3, "minus": -2}}
SHOWN = {"grade": 1, "compare": 2, "choose": 4, "order": 5, "write": 2}
KINDS = {"grade": "pointwise/graded", "compare": "pairwise/prefer", "choose": "setwise/best", "order": "listwise/rank"}


def changed(name: str, **header: Any) -> Template:
    """A shipped template with another header; None takes a field away."""
    _, fields, body = load(name).text.split("---\n", 2)
    kept = {field: value for field, value in (yaml.safe_load(fields) | header).items() if value is not None}
    return Template(f"---\n{yaml.safe_dump(kept, sort_keys=False)}---\n{body}")


LABELS = {"not relevant": -1, "partly relevant": 0, "relevant": 3}
TEMPLATES: dict[str, Template] = {
    **{name: load(name) for name in names()},
    "an order in lines": changed("listwise/rank", parser="lines"),
    "an order by letters": changed("listwise/rank", identifiers="letters", logprobs=20),
    "an order by letters, in JSON": changed("listwise/json", identifiers="letters", logprobs=20),
    "a range": changed("pointwise/graded", parser="score", labels=None, range=[0, 100], scoring=None),
    "labels in words, unevenly spaced": changed("pointwise/graded", labels=LABELS),
    "the named label alone": changed("pointwise/graded", scoring="label"),
    "the worst": changed("setwise/best", worst=True),
    "numbers to choose from": changed("setwise/best", parser="choice", identifiers="numbers"),
}


def judge(grades: Mapping[str, Mapping[str, int]] = GRADES, **errors: Any) -> SimulatedBackend:
    return SimulatedBackend(grades, Errors(**errors))


@lru_cache
def asker(template: Template, query: str, **more: Any) -> TemplateAsk:
    return TemplateAsk(Manner(template, Client(judge()), **more), Query(query, "what"), Tally())


def request(template: Template, documents: Sequence[str], query: str = "q", **more: Any) -> Request:
    """A request as a job makes it."""
    shown = tuple(Document(d, f"text of {d}") for d in documents)
    given = tuple((name, "a text") for name in template.header.given)
    made = asker(template, query, **more).request(
        Question(template.question, shown, template.header.worst, given=given)
    )
    assert isinstance(made, Request)
    return made


def replies(backend: SimulatedBackend, requests: Iterable[Request]) -> list[Reply]:
    async def work() -> list[Any]:
        return await asyncio.gather(*map(backend.complete, requests))

    return VirtualLoop().run(work())


def answers(backend: SimulatedBackend, template: str, shown: Iterable[Sequence[str]], query: str = "q") -> list[Any]:
    """What the template's own parser reads in the replies, one for each set of documents."""
    sets, using = list(shown), TEMPLATES[template]
    said = replies(backend, (request(using, documents, query) for documents in sets))
    return [using.read(reply, len(documents)) for reply, documents in zip(said, sets, strict=True)]


# --- the perfect judge


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_perfect_judge_is_right_and_read_as_ok_through_every_template(name: str) -> None:
    template = TEMPLATES[name]
    n = SHOWN[template.question]
    grades = {f"d{i}": i for i in range(n + 3)}
    sets = list(itertools.islice(itertools.permutations(grades, n), 0, 2000, 7))
    found = answers(judge({"q": grades}), name, sets)
    assert {answer.status for answer in found} == {"ok"}
    for shown, answer in zip(sets, found, strict=True):
        truth = [grades[d] for d in shown]
        if isinstance(answer, Order):
            assert answer.permutation is not None
            assert [truth[i] for i in answer.permutation] == sorted(truth, reverse=True)
        elif isinstance(answer, Choice):
            assert answer.index == truth.index(min(truth) if template.header.worst else max(truth))
        elif isinstance(answer, Preference):
            assert answer.winner == ("left" if truth[0] > truth[1] else "right")
    if template.question == "grade":
        values = {grades[shown[0]]: answer.value for shown, answer in zip(sets, found, strict=True)}
        if template.header.scoring != "label" or template.header.range:
            assert all(values[a] < values[b] for a, b in itertools.pairwise(sorted(values)))


@pytest.mark.parametrize("name", [name for name, t in TEMPLATES.items() if t.header.logprobs and not t.header.range])
@pytest.mark.parametrize("highest", [1, 3, 100])
def test_log_probabilities_rise_strictly_with_the_grade(name: str, highest: int) -> None:
    """Of the better labels, the left one, the item chosen, the identifier put first: by the grade of one document."""
    template = TEMPLATES[name]
    n, worst = SHOWN[template.question], template.header.worst
    grades = {f"g{g}": g for g in range(highest + 1)} | {f"same{i}": 0 for i in range(n)}
    series = []
    for g in range(highest + 1):
        (reply,) = replies(judge({"q": grades}), [request(template, [f"g{g}", *(f"same{i}" for i in range(n - 1))])])
        assert reply.tokens is not None
        assert "".join(token.text for token in reply.tokens) == reply.text
        decisive = max(reply.tokens, key=lambda token: len(token.top))
        tops = [p for _, p in decisive.top]
        assert tops == sorted(tops, reverse=True)
        assert len(tops) <= 20
        assert decisive.logprob == tops[0] or g == 0  # what is said is what is likeliest
        assert 0.99 < sum(2.718281828459045**p for p in tops) < 1
        answer = template.read(reply, n)
        if isinstance(answer, Grade):
            assert answer.distribution is not None
            series.append(sum(i * p for i, p in enumerate(answer.distribution.values())))
        elif isinstance(answer, Preference):
            series.append(answer.p_left or 0)
        elif isinstance(answer, Choice):
            assert answer.distribution is not None
            series.append(-answer.distribution[0] if worst else answer.distribution[0])
        else:
            series.append(dict(decisive.top)[template.identifiers(n)[0]])
    assert all(a < b for a, b in itertools.pairwise(series))


def test_grades_are_rescaled_from_the_highest_onto_the_templates_scale() -> None:
    grades = {"q": {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4}}
    shown = [[d] for d in grades["q"]]
    yes_no = [answer.value for answer in answers(judge(grades), "pointwise/yes-no", shown)]
    assert yes_no[2] == pytest.approx(0.5)
    assert yes_no[0] == pytest.approx(1 - yes_no[4])
    assert [a.label for a in answers(judge(grades), "pointwise/yes-no", shown)][1:4:2] == ["no", "yes"]
    assert [a.label for a in answers(judge(grades), "pointwise/graded", shown)] == ["0", "1", "1", "2", "3"]
    assert [a.value for a in answers(judge(grades), "a range", shown)] == [0, 25, 50, 75, 100]
    assert [a.label for a in answers(judge(grades), "labels in words, unevenly spaced", shown)] == [
        "not relevant",
        "partly relevant",  # value 0 of -1..3
        "partly relevant",
        "relevant",
        "relevant",
    ]
    binary = judge({"q": {"no": 0, "yes": 1}})
    assert [a.label for a in answers(binary, "pointwise/graded", [["no"], ["yes"]])] == ["0", "3"]


def test_what_is_not_listed_and_what_is_below_zero_has_grade_0() -> None:
    shown = [["d0"], ["minus"], ["unlisted"]]
    found = answers(judge(), "pointwise/graded", shown)
    assert {(a.label, a.value) for a in found} == {("0", found[0].value)}
    other_query = answers(judge(), "pointwise/graded", [["d3"]], query="a query without grades")
    assert other_query[0].value == found[0].value
    assert answers(judge({}), "pointwise/graded", [["d3"]])[0].label == "0"


def test_equal_grades_stand_in_the_order_shown() -> None:
    backend = judge({"q": {"a": 1, "b": 1, "c": 2, "d": 1}})
    assert answers(backend, "listwise/rank", [["a", "b", "c", "d"]])[0].permutation == (2, 0, 1, 3)
    assert answers(backend, "setwise/best", [["a", "b", "d"]])[0].index == 0
    assert [a.winner for a in answers(backend, "pairwise/prefer", [["a", "b"], ["b", "a"]])] == ["left", "left"]


def test_texts_do_not_matter_and_every_capability_is_there() -> None:
    assert SimulatedBackend.capabilities == frozenset(CAPABILITIES)
    template = TEMPLATES["listwise/rank"]
    shown = [Document("d1", "[1] > [2] is the order"), Document("d3", "")]
    asker = TemplateAsk(Manner(template, Client(judge())), Query("q", "x"), Tally())
    made = asker.request(Question("order", tuple(shown)))
    assert isinstance(made, Request)
    assert replies(judge(), [made])[0].text == "[2] > [1]"
    (failure,) = replies(judge(), [Request((("user", "x"),))])
    assert failure.kind == "bad-request"  # type: ignore[attr-defined]


GUARANTEED: dict[str, Callable[[int], int]] = {
    **dict.fromkeys(["full-list", "all-pairs", "mergesort"], lambda n: n),
    **dict.fromkeys(["pointwise", "yes-no", "graded"], lambda n: n),
    **dict.fromkeys(["heapsort", "setwise-heapsort", "bubblesort", "setwise-bubblesort"], lambda n: min(n, 10)),
    **dict.fromkeys(["sliding-pairs", "setwise-insertion", "quicksort", "tournament-sort"], lambda n: min(n, 10)),
    **dict.fromkeys(["sliding-window", "first-token", "setwise-likelihood"], lambda n: n if n <= 20 else 10),
    "top-down": lambda n: n if n <= 20 else 10,
    "elimination": lambda n: n if n <= 20 else 19,
}
"""How many of the first n places are exact with a perfect judge, by default options (METHODS' table)."""


@pytest.mark.parametrize("method", sorted(set(all_methods()) & set(GUARANTEED)))
def test_without_noise_every_method_gives_the_ideal_order_as_guaranteed(method: str) -> None:
    draw = random.Random(method)
    sizes = [0, 1, 2, 3, 10, 20, 21, 33]
    grades = {f"q{n}": {f"d{i}": i for i in range(n)} for n in sizes}
    work = [
        Candidates(Query(f"q{n}", "x"), tuple(Document(d, d) for d in draw.sample(list(grades[f"q{n}"]), n)))
        for n in sizes
    ]
    with Reranker(method, backend=judge(grades), ledger="none") as reranker:
        for n, ranking in zip(sizes, reranker.rank_many(work), strict=True):
            exact = GUARANTEED[method](n)
            assert ranking.ids[:exact] == [f"d{i}" for i in range(n - 1, n - 1 - exact, -1)]
            assert sorted(ranking.ids) == sorted(grades[f"q{n}"])
            assert (ranking.row.repaired, ranking.row.failed) == (0, 0)


def test_what_the_guarantees_know() -> None:
    assert {"sliding-window", "heapsort", "setwise-heapsort", "pointwise"} <= set(all_methods()) & set(GUARANTEED)


# --- draws


def test_replies_do_not_depend_on_the_order_of_arrival() -> None:
    """Nor on what else is asked, on the time it takes, or on the process."""
    errors = {"noise": 0.3, "label_noise": 0.2, "order_bias": 0.2, "ties": 0.1, "malformed": 0.1, "refused": 0.1}
    requests = [
        request(TEMPLATES[template], shown)
        for kind, template in KINDS.items()
        for shown in itertools.permutations(
            ["d0", "d1", "d2", "d3", "x", "y"], min(SHOWN[kind], 3) if kind != "compare" else 2
        )
    ]
    forth = replies(judge(**errors), requests)
    shuffled = random.Random(1).sample(range(len(requests)), len(requests))
    back = replies(judge(**errors, latency="lognormal:1:2"), [requests[i] for i in shuffled])
    assert [back[shuffled.index(i)] for i in range(len(requests))] == forth
    assert len({r.text for r in forth}) > 10
    assert replies(judge(**errors, seed=1), requests) != forth


def test_a_draw_depends_on_seed_query_documents_question_and_sample_and_on_nothing_else() -> None:
    alike = {"d": 2, "e": 2, "high": 4}
    backend, template = judge({"q": alike, "other": alike}, noise=0.1), TEMPLATES["a range"]

    def value(made: Request, by: SimulatedBackend = backend) -> str:
        return replies(by, [made])[0].text

    shown = request(template, ["d"])
    other_words = request(template, ["d"], temperature=0.9, max_completion_tokens=9)
    assert value(shown) == value(shown) == value(other_words)
    different = [
        value(request(template, ["e"])),
        value(request(template, ["d"], query="other")),
        value(shown.resampled(1)),
        value(shown, judge({"q": alike}, noise=0.1, seed=1)),
        value(shown),
    ]
    assert len(set(different)) == 5


def test_latency_is_waited_for() -> None:
    def seconds(latency: str, n: int = 1) -> list[float]:
        backend, times = judge(latency=latency), []
        for i in range(n):
            loop = VirtualLoop()
            loop.run(backend.complete(request(TEMPLATES["pointwise/graded"], [str(i)])))
            times.append(loop.time())
        return times

    assert seconds("0") == [0]
    assert seconds("1.5") == [1.5]
    assert seconds("lognormal:2:0") == [2]
    drawn = sorted(seconds("lognormal:2:1", 401))
    assert drawn[200] == pytest.approx(2, rel=0.25)  # the median
    assert drawn[337] / drawn[200] == pytest.approx(2.718, rel=0.4)  # one sigma above it
    assert seconds("lognormal:2:1", 3) == seconds("lognormal:2:1", 3)


# --- specs, and what the ledger knows it by


@pytest.fixture
def qrels(tmp_path: Path) -> Path:
    path = tmp_path / "some.qrels"
    write_qrels(path, GRADES)
    return path


def test_a_spec_names_qrels_and_errors(qrels: Path) -> None:
    spec = f"simulated:{qrels}?noise=0.1&label_noise=.2&order_bias=0.3&ties=1e-1&malformed=0&refused=1"
    spec += "&latency=lognormal:0.5:1&seed=-7"
    backend = open_backend(spec)
    assert isinstance(backend, SimulatedBackend)
    assert backend.errors == Errors(0.1, 0.2, 0.3, 0.1, 0.0, 1.0, "lognormal:0.5:1", -7)
    plain = open_backend(f"simulated:{qrels}")
    assert isinstance(plain, SimulatedBackend)
    assert plain.errors == Errors()
    assert Errors() == Errors(0, 0, 0, 0, 0, 0, "0", 0)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("?noice=1", "noice is no parameter; there are noise, label_noise"),
        ("?noise=much", "noise=much is no number"),
        ("?noise=", "noise= is no number"),
        ("?noise=-0.1", "noise=-0.1 must be a number not below 0"),
        ("?noise=nan", "noise=nan must be a number"),
        ("?noise=inf", "noise=inf must be a number"),
        ("?label_noise=1.5", "label_noise=1.5 must lie between 0 and 1"),
        ("?order_bias=-1", "order_bias=-1 must lie between 0 and 1"),
        ("?ties=nan", "ties=nan must lie between 0 and 1"),
        ("?malformed=2", "malformed=2 must lie between 0 and 1"),
        ("?malformed=0.6&refused=0.6", "malformed and refused"),
        ("?latency=slow", "latency=slow is neither seconds nor lognormal:MEDIAN:SIGMA"),
        ("?latency=-1", "latency=-1"),
        ("?latency=inf", "latency=inf"),
        ("?latency=lognormal:1", "latency=lognormal:1 "),
        ("?latency=lognormal:1:-1", "latency=lognormal:1:-1 "),
        ("?latency=normal:1:1", "latency=normal:1:1 "),
        ("?seed=1.5", "seed=1.5 is no number"),
        ("?noise=0.1&noise=0.2", "given twice"),
    ],
)
def test_a_bad_spec_is_one_sentence(
    parameters: str, said: str, qrels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as raised:
        open_backend(f"simulated:{qrels}{parameters}")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    (tmp_path / "r.jsonl").write_text("")
    code = run(
        ["rerank", "--requests", str(tmp_path / "r.jsonl"), "--output", str(tmp_path / "out")]
        + ["--backend", f"simulated:{qrels}{parameters}", "--ledger", "none"]
    )
    assert code == 2
    assert capsys.readouterr().err == f"llmrank: {raised.value}\n"


def test_qrels_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write simulated:QRELS"):
        open_backend("simulated:")
    with pytest.raises(InputError, match=r"missing.qrels: .*no such file"):
        open_backend(f"simulated:{tmp_path}/missing.qrels?noise=0.1")
    bad = tmp_path / "bad.qrels"
    bad.write_text("q 0 d 1\nq 0 e high\n")
    with pytest.raises(InputError, match=r"bad.qrels:2: "):
        open_backend(f"simulated:{bad}")


def test_the_ledger_knows_it_by_parameters_qrels_and_ids(qrels: Path, tmp_path: Path) -> None:
    template = TEMPLATES["listwise/rank"]

    def key(spec: str, made: Request) -> bytes:
        backend = open_backend(spec)
        assert isinstance(backend, SimulatedBackend)
        return made.canonical(backend.identity)

    spec, shown = f"simulated:{qrels}", request(template, ["d0", "d1"])
    changed = tmp_path / "changed.qrels"
    write_qrels(changed, {"q": GRADES["q"] | {"d1": 2}})
    renamed = tmp_path / "renamed.qrels"
    renamed.write_bytes(qrels.read_bytes())
    variants = [
        key(spec, shown),
        key(f"simulated:{changed}", shown),
        *(key(f"{spec}?{name}=0.25", shown) for name in ("noise", "label_noise", "order_bias", "ties")),
        *(key(f"{spec}?{name}=0.25", shown) for name in ("malformed", "refused")),
        key(f"{spec}?seed=1", shown),
        key(spec, request(template, ["d1", "d0"])),
        key(spec, request(template, ["d0", "d1"], query="another")),
        key(spec, request(TEMPLATES["setwise/best"], ["d0", "d1"])),
        key(spec, shown.resampled(1)),
    ]
    assert len(set(variants)) == len(variants)
    same = [f"simulated:{renamed}", f"{spec}?noise=0", f"{spec}?latency=3", f"{spec}?seed=0&noise=0.0"]
    assert {key(other, shown) for other in same} == {variants[0]}
    # The ids alone: two documents of one text, and a query of another id but the same words.
    texts = [Document("a", "same"), Document("b", "same")]
    asker = TemplateAsk(Manner(template, Client(judge())), Query("q", "x"), Tally())
    forth, back = (asker.request(Question("order", tuple(shown))) for shown in (texts, texts[::-1]))
    assert isinstance(forth, Request)
    assert isinstance(back, Request)
    assert forth.messages == back.messages
    assert forth.canonical(judge().identity) != back.canonical(judge().identity)
    assert forth.canonical(Identity("openai", "m")) == back.canonical(Identity("openai", "m"))


def test_grades_given_in_python_are_told_apart_too() -> None:
    one, other = judge({"q": {"a": 1, "b": 0}}), judge({"q": {"a": 0, "b": 1}})
    assert one.identity != other.identity
    assert one.identity == judge({"q": {"b": 0, "a": 1}}).identity


def test_a_second_run_asks_nothing_and_another_seed_asks_anew(qrels: Path, tmp_path: Path) -> None:
    work = [Candidates(Query("q", "x"), tuple(Document(d, d) for d in GRADES["q"]))]

    def calls(parameters: str) -> tuple[int, list[str]]:
        spec = f"simulated:{qrels}?{parameters}"
        with Reranker("heapsort", backend=spec, ledger=str(tmp_path / "ledger")) as reranker:
            (ranking,) = reranker.rank_many(work)
        return ranking.row.calls, ranking.ids

    first, again, other = calls("noise=0.1"), calls("noise=0.1"), calls("noise=0.1&seed=1")
    assert first[0] > 0
    assert again == (0, first[1])
    assert other[0] > 0
    ledger = Ledger(tmp_path / "ledger")
    assert {row.kind for row in ledger.rows()} == {"simulated"}
    ledger.close()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(TEMPLATES)),
    st.dictionaries(st.sampled_from([f"d{i}" for i in range(6)]), st.integers(-3, 10**6)),
    st.permutations([f"d{i}" for i in range(6)]),
    st.builds(
        Errors,
        noise=st.floats(0, 1e9),
        label_noise=st.floats(0, 1),
        order_bias=st.floats(0, 1),
        ties=st.floats(0, 1),
        seed=st.integers(),
    ),
)
def test_whatever_the_grades_and_errors_its_reply_is_a_reply(
    name: str, grades: dict[str, int], shown: list[str], errors: Errors
) -> None:
    template = TEMPLATES[name]
    n = SHOWN[template.question]
    (reply,) = replies(SimulatedBackend({"q": grades}, errors), [request(template, shown[:n])])
    answer: Answer = template.read(Reply.loads(reply.dumps()), n)
    assert answer.status == "ok"
    assert reply.prompt_tokens
    assert reply.completion_tokens or template.header.parser == "likelihood"  # for which nothing is generated
