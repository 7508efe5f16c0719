"""The formats of open checkpoints, to the byte: markers, fields, their order, roles, what is replied, how it scores."""

from __future__ import annotations

import math

import pytest

from llmrank.data.types import Query
from llmrank.llm.types import Reply
from llmrank.questions import Choice, Grade, Order, Preference, Token
from llmrank.templates import Shown, Template, load

QUERY = Query("q", "QUERY", instruction="INSTRUCTION")
BARE = Query("q", "QUERY")


def checkpoint(name: str, **variables: str) -> Template:
    return load(f"checkpoints/{name}", variables)


def raw(name: str, *texts: str, query: Query = BARE, **variables: str) -> str:
    rendered = checkpoint(name, **variables).render(query, texts)
    assert rendered.raw is not None
    assert rendered.messages == ()
    return rendered.raw


def messages(name: str, texts: list[str], **variables: str) -> list[tuple[str, str]]:
    return list(checkpoint(name, **variables).render(BARE, texts).messages)


def scored(name: str, text: str, likely: dict[str, float]) -> Grade:
    """The grade of a reply whose last token has these probabilities."""
    top = tuple((token, math.log(p)) for token, p in likely.items())
    said, before = max(likely, key=likely.__getitem__), (Token(text, 0.0),) if text else ()
    grade = checkpoint(name).read(Reply(text + said, tokens=(*before, Token(said, 0.0, top))), 1)
    assert isinstance(grade, Grade)
    return grade


class TestRaw:
    @pytest.mark.parametrize(
        ("name", "texts", "prompt"),
        [
            ("monot5", ["D"], "Query: QUERY Document: D Relevant:"),
            ("duot5", ["D", "E"], "Query: QUERY Document0: D Document1: E Relevant:"),
            ("rankt5", ["D"], "Query: QUERY Document: D"),
        ],
    )
    def test_fields(self, name: str, texts: list[str], prompt: str) -> None:
        assert raw(name, *texts) == prompt

    def test_rank1(self) -> None:
        assert raw("rank1", "D", instruction="TASK") == "TASK\nQuery: QUERY\nPassage: D\n<think>"

    def test_qwen3_reranker(self) -> None:
        def expected(instruction: str) -> str:
            return (
                "<|im_start|>system\nSYSTEM<|im_end|>\n<|im_start|>user\n"
                f"<Instruct>: {instruction}\n<Query>: QUERY\n<Document>: D<|im_end|>\n"
                "<|im_start|>assistant\n<think>\n\n</think>\n\n"
            )

        assert raw("qwen3-reranker", "D", system="SYSTEM", instruction="DEFAULT") == expected("DEFAULT")
        assert raw("qwen3-reranker", "D", query=QUERY, system="SYSTEM") == expected("INSTRUCTION")

    def test_mxbai_rerank_v2(self) -> None:
        def expected(instruction: str) -> str:
            return (
                "<|im_start|>system\nSYSTEM<|im_end|>\n<|im_start|>user\n"
                f"{instruction}query: QUERY\ndocument: D\nTASK<|im_end|>\n<|im_start|>assistant\n"
            )

        told = {"system": "SYSTEM", "task": "TASK"}
        assert raw("mxbai-rerank-v2", "D", **told) == expected("")
        assert raw("mxbai-rerank-v2", "D", query=QUERY, **told) == expected("instruction: INSTRUCTION\n")

    def test_bge_reranker_gemma(self) -> None:
        assert raw("bge-reranker-gemma", "D", instruction="TASK") == "<bos>A: QUERY\nB: D\nTASK"
        assert raw("bge-reranker-gemma", "D", instruction="TASK", begin="") == "A: QUERY\nB: D\nTASK"

    def test_followir(self) -> None:
        prompt = raw("followir", "D", query=QUERY, task="TASK", hint="HINT")
        assert prompt.startswith("<s> [INST] TASK")
        assert prompt.endswith("Query: QUERY INSTRUCTION\nDocument: D\nRelevant (HINT): [/INST] ")

    def test_upr(self) -> None:
        assert raw("upr", "D", request="ASK.") == "Passage:  D. ASK."
        titled = checkpoint("upr", request="ASK.").render(BARE, [Shown("1", "T\nD", "T")])
        assert (titled.raw, titled.continuation) == ("Passage:  T D. ASK.", "QUERY")

    @pytest.mark.parametrize(("name", "word"), [("rankt5", "<extra_id_10>"), ("bge-reranker-gemma", "Yes")])
    def test_one_word_whose_likelihood_is_the_score(self, name: str, word: str) -> None:
        assert checkpoint(name).render(BARE, ["D"]).continuation == word
        grade = checkpoint(name).read(Reply("", tokens=[Token(word, -1.5)]), 1)
        assert grade == Grade(value=-1.5, score_kind="log-likelihood")

    def test_upr_sums_over_the_query(self) -> None:
        grade = checkpoint("upr").read(Reply("", tokens=[Token("QUE", -1.5), Token("RY", -0.5)]), 1)
        assert grade == Grade(value=-2.0, score_kind="log-likelihood")


class TestFormulas:
    @pytest.mark.parametrize(
        ("name", "low", "high"),
        [("monot5", "▁false", "▁true"), ("qwen3-reranker", "no", "yes"), ("followir", "false", "true")],
    )
    def test_softmax_over_two_tokens(self, name: str, low: str, high: str) -> None:
        grade = scored(name, "", {low: 0.2, high: 0.6, "other": 0.1})
        assert grade.value == pytest.approx(0.75)
        assert (grade.status, grade.score_kind) == ("ok", "probability")

    def test_rank1_at_the_verdict(self) -> None:
        grade = scored("rank1", " It is about fish, true to its title.\n</think>", {" false": 0.7, " true": 0.1})
        assert grade.value == pytest.approx(0.125)
        long = "It is about fish, and the query asks for birds. So it is " * 9
        assert checkpoint("rank1").read(Reply(long, finish="length"), 1).reason == "truncated"

    def test_difference_of_two_logits(self) -> None:
        grade = scored("mxbai-rerank-v2", "", {"0": 0.2, "1": 0.6, "x": 0.1})
        assert grade.value == pytest.approx(math.log(3))
        assert grade.score_kind == "log-odds"

    @pytest.mark.parametrize(("p", "share"), [(0.8, 1.0), (0.1, 0.0)])
    def test_duot5_says_true_where_the_first_wins(self, p: float, share: float) -> None:
        top = (("▁true", math.log(p)), ("▁false", math.log(1 - p)))
        said = "true" if p > 0.5 else "false"
        read = checkpoint("duot5").read(Reply(said, tokens=[Token(f"▁{said}", 0.0, top)]), 2)
        assert isinstance(read, Preference)
        assert (read.share, read.p_left) == (share, pytest.approx(p))


class TestListwise:
    @pytest.mark.parametrize(
        ("name", "ids", "example"),
        [
            ("rankzephyr", "123", "[2] > [1]"),
            ("rankvicuna", "123", "[4] > [2]"),
            ("reasonrank", "123", "[2] > [1]"),
            ("first", "ABC", "[B] > [A]"),
        ],
    )
    def test_layout(self, name: str, ids: str, example: str) -> None:
        system, user, *more = messages(name, ["x", "y", "z"], system="SYSTEM")
        assert system == ("system", "SYSTEM")
        intro, listed = user[1].split("\n\n")
        assert "3" in intro
        assert "QUERY" in intro
        lines = listed.split("\n")
        assert lines[:4] == [*(f"[{i}] {text}" for i, text in zip(ids, "xyz", strict=True)), "Search Query: QUERY."]
        assert example in lines[4]
        assert len(lines) == 5
        assert more == ([("assistant", "[")] if name == "first" else [])

    def test_a_title_and_its_content_on_one_line(self) -> None:
        documents = [Shown("1", "T\nbody  of\nit", "T"), Shown("2", "alone")]
        (_, (_, user)) = checkpoint("rankzephyr").render(BARE, documents).messages
        assert "\n[1] Title: T Content: body of it\n[2] alone\n" in user

    def test_rank_k(self) -> None:
        ((role, text),) = messages("rank-k", ["x", "y", "z"], instruction="TASK")
        assert (role, text) == ("user", "TASK\nQuery: QUERY\n\n[1] x\n\n[2] y\n\n[3] z")
        read = checkpoint("rank-k").read(Reply("<think>[1] > [2]</think>\nSo:\n[3] > [2] > [4] = [1]"), 4)
        assert isinstance(read, Order)
        assert (read.permutation, read.ties) == ((2, 1, 3, 0), ((2,), (1,), (3, 0)))

    def test_rearank(self) -> None:
        turns = messages("rearank", ["x" * 500, "y"], system="SYSTEM")
        assert [role for role, _ in turns] == ["system", "user", "assistant", *["user", "assistant"] * 2, "user"]
        assert turns[3:7] == [
            ("user", f"[1] {'x' * 400}"),
            ("assistant", "Received passage [1]."),
            ("user", "[2] y"),
            ("assistant", "Received passage [2]."),
        ]
        assert '"QUERY"' in turns[-1][1]

    def test_grouprank(self) -> None:
        system, user = messages("grouprank", ["x" * 4000, "y"], system="SYSTEM")
        assert system == ("system", "SYSTEM")
        assert user == ("user", f"Query: QUERY\nDocuments:\n[1]. {'x' * 3000}\n\n[2]. y")
        reply = '<reason>[1] is off</reason>\n<answer>```json\n{"[1]": 2, "[2]": 9}\n```</answer>'
        read = checkpoint("grouprank").read(Reply(reply), 2)
        assert isinstance(read, Order)
        assert (read.permutation, read.scores) == ((1, 0), (2.0, 9.0))

    @pytest.mark.parametrize(
        ("variables", "between"),
        [({}, "[1] x\n[2] y\n[3] z\n"), ({"mark": ":", "between": "\n"}, "[1]: x\n\n[2]: y\n\n[3]: z\n")],
    )
    def test_rank_r1(self, variables: dict[str, str], between: str) -> None:
        system, user = messages("rank-r1", ["x", "y", "z"], system="SYSTEM", **variables)
        assert system == ("system", "SYSTEM")
        assert between in user[1]
        assert '"QUERY"' in user[1]
        reply = "<think>[1] is good, [2] better</think> <answer>[2]</answer>"
        assert checkpoint("rank-r1").read(Reply(reply), 3) == Choice(index=1)

    def test_first_orders_by_the_token_after_the_bracket(self) -> None:
        top = (("C", -0.1), ("A", -2.0), ("the", -2.5), ("B", -3.0))
        read = checkpoint("first").read(Reply("C", tokens=[Token("C", -0.1, top)]), 3)
        assert isinstance(read, Order)
        assert (read.status, read.permutation) == ("ok", (2, 0, 1))

    def test_reasonrank_reads_the_answer_after_the_thought(self) -> None:
        read = checkpoint("reasonrank").read(Reply("<THINK>[1] > [2]</THINK>\n <ANSWER>[2] > [1]</ANSWER>"), 2)
        assert isinstance(read, Order)
        assert read.permutation == (1, 0)

    @pytest.mark.parametrize(
        ("name", "tokens", "of_a_passage", "temperature"),
        [
            ("reasonrank", 3172, 100, 0),
            ("rank-k", 8000, 450, 0.5),
            ("rearank", 2048, None, 0),
            ("grouprank", 8000, None, 0.3),
            ("rank-r1", 8000, None, 0),
            ("rank1", 8192, None, 0),
        ],
    )
    def test_budgets(self, name: str, tokens: int, of_a_passage: int | None, temperature: float) -> None:
        template = checkpoint(name)
        n = {"grouprank": 10, "rank1": 1}.get(name, 20)
        assert tokens <= template.completion_tokens(n) <= tokens + 120
        assert template.header.passage_tokens == of_a_passage
        assert template.header.temperature == temperature
