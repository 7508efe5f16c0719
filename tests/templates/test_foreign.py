"""Template files in rank_llm's schema and in its manner are read as they are; what is wrong is told with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.llm.types import Reply
from llmrank.questions import Order
from llmrank.templates import Shown, Template, TemplateError, load
from llmrank.templates.foreign import translated
from llmrank.templates.lint import lint

SINGLE = """\
method: "singleturn_listwise"
system_message: "You sort things. {Braces} stay."
prefix: |
  Here are {num} things for {query}. A {{brace}} and {{{{ two }}}}.

  They follow.
body: "[{rank}] {candidate}\\n"
suffix: "Query: {query}.\\nSort {num}, like [2] > [1].\\n"
output_validation_regex: r"^\\[\\d+\\]( > \\[\\d+\\])*$"
output_extraction_regex: r"\\[(\\d+)\\]"
"""
MULTI = """\
method: multiturn_listwise
system_message: You sort things.
prefix_user: "{num} things for {query} are coming."
prefix_assistant: Send them.
body_user: "[{rank}] {candidate}"
body_assistant: "Got [{rank}]."
suffix_user: "Sort {num} by {query}."
output_validation_regex: r"^\\[\\d+\\]( > \\[\\d+\\])*$"
output_extraction_regex: r"\\[(\\d+)\\]"
"""
OWN = """\
system: You sort things.
prefix: "{num} things about {query}:\\n"
body: "({rank}) {candidate}\\n"
suffix: Best first, as PASSAGE2 PASSAGE1.
output_regex: PASSAGE(\\d+)
"""


def read(text: str, name: str = "mine.yaml") -> Template:
    return Template(translated(text, name), origin=name)


def without(text: str, key: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(f"{key}:"))


class TestSingleTurn:
    def test_one_user_message_with_the_line_breaks_of_the_file_and_no_others(self) -> None:
        assert read(SINGLE).render("FISH", ["one", "two"]).messages == (
            ("system", "You sort things. {Braces} stay."),
            (
                "user",
                "Here are 2 things for FISH. A {brace} and {{ two }}.\n\nThey follow.\n[1] one\n[2] two\n"
                "Query: FISH.\nSort 2, like [2] > [1].\n",
            ),
        )

    def test_the_first_300_words_of_a_passage_with_its_title(self) -> None:
        title = [Shown("1", "T\na  b\nc", "T"), Shown("2", "wort " * 400)]
        made = read(SINGLE).render("q", title).messages[1][1]
        assert "[1] Title: T Content: a b c\n" in made
        assert made.count("wort") == 300

    def test_prefix_and_suffix_may_be_absent(self) -> None:
        text = without(without(SINGLE, "system_message"), "suffix")
        text = re.sub(r"prefix: \|\n(?:  .*\n|\n)*", "", text)
        assert read(text).render("q", ["one", "two"]).messages == (("user", "[1] one\n[2] two\n"),)

    def test_passage_names_and_scores(self) -> None:
        text = SINGLE.replace("Sort {num},", "Of {psg_ids}:").replace("{candidate}", "{candidate} ({score})")
        made = read(text).render("q", [Shown("1", "x", score=1.5), Shown("2", "y")]).messages[1][1]
        assert "[1] x (1.5)\n[2] y ()\n" in made
        assert "Of PASSAGE1, PASSAGE2: like" in made

    def test_letters_are_told_by_the_expression(self) -> None:
        template = read(SINGLE.replace("\\\\d+", "[A-Z]").replace("\\d+", "[A-Z]"))
        assert template.header.identifiers == "letters"
        assert "[A] one\n[B] two" in template.render("q", ["one", "two"]).messages[1][1]
        assert order(template, "[B] > [A]", 2) == ("ok", (1, 0))

    def test_thinking_gets_room(self) -> None:
        template = read(SINGLE.replace("You sort things.", "Think in <think> tags."))
        assert template.completion_tokens(20) > 10_000
        assert template.header.close


def order(template: Template, said: str, n: int) -> tuple[str, Any]:
    answer = template.read(Reply(said), n)
    assert isinstance(answer, Order)
    return answer.status, answer.permutation or answer.reason


class TestReplies:
    @pytest.mark.parametrize(
        ("said", "read_as"),
        [
            ("[2] > [3] > [1]", ("ok", (1, 2, 0))),
            ("<think>[1] > [2] > [3]</think>\n[2] > [3] > [1]\n", ("ok", (1, 2, 0))),
            ("First I thought:\n[1] > [2] > [3]\nnow:\n[2] > [3] > [1]", ("ok", (1, 2, 0))),
            ("[2] > [2] > [9]", ("repaired", (1, 0, 2))),
            ("Passage 2, Passage 3, Passage 1", ("ok", (1, 2, 0))),
            ("I will rank the [20] passages", ("failed", "no-identifier")),
            ("", ("failed", "empty")),
            ("<think>[1] > [2]", ("failed", "truncated")),
        ],
    )
    def test_by_the_files_own_expressions_else_by_all_that_is_known(self, said: str, read_as: tuple[str, Any]) -> None:
        assert order(read(SINGLE), said, 3) == read_as

    @pytest.mark.parametrize(
        ("said", "read_as"),
        [
            ("PASSAGE3, then PASSAGE1 and last of all PASSAGE2", ("ok", (2, 0, 1))),
            ("[PASSAGE3, PASSAGE1, PASSAGE2]", ("ok", (2, 0, 1))),
            ("PASSAGE3 it is", ("failed", "no-identifier")),
            ("I cannot rank PASSAGE1 and PASSAGE2", ("failed", "no-identifier")),
        ],
    )
    def test_an_extraction_alone_is_for_what_cannot_be_read_otherwise(
        self, said: str, read_as: tuple[str, Any]
    ) -> None:
        status, what = order(read(OWN), said, 3)
        assert (status, what if status != "failed" else "no-identifier") == read_as


class TestOtherMethods:
    def test_turns(self) -> None:
        assert read(MULTI).render("FISH", ["one", "two"]).messages == (
            ("system", "You sort things."),
            ("user", "2 things for FISH are coming."),
            ("assistant", "Send them."),
            ("user", "[1] one"),
            ("assistant", "Got [1]."),
            ("user", "[2] two"),
            ("assistant", "Got [2]."),
            ("user", "Sort 2 by FISH."),
        )

    def test_without_a_word_of_the_assistants_between_there_is_one_turn(self) -> None:
        assert read(without(MULTI, "body_assistant")).render("FISH", ["one", "two"]).messages[3:] == (
            ("user", "[1] one[2] twoSort 2 by FISH."),
        )

    def test_a_pair_is_a_raw_prompt_answered_true_or_false(self) -> None:
        template = read('method: pairwise\nbody: "Query: {query} Document0: {doc1} Document1: {doc2} Relevant: "\n')
        assert template.render("q", ["a", "b"]).raw == "Query: q Document0: a Document1: b Relevant: "
        assert template.read(Reply("true"), 2).winner == "left"  # type: ignore[union-attr]

    def test_one_document_raw_or_as_messages(self) -> None:
        body = 'method: pointwise\nbody: "Query: {query} Document: {doc_content} Relevant: "\n'
        template = read(body)
        assert template.render("q", ["a"]).raw == "Query: q Document: a Relevant: "
        assert list(template.header.labels) == ["false", "true"]
        chat = read(body + "system_message: Say yes or no.\n")
        assert chat.render("q", ["a"]).messages == (
            ("system", "Say yes or no."),
            ("user", "Query: q Document: a Relevant: "),
        )
        assert list(chat.header.labels) == ["no", "yes"]

    def test_a_file_of_ones_own_names_no_method(self) -> None:
        template = read(OWN)
        assert template.render("fish", ["one " * 400, "two"]).messages == (
            ("system", "You sort things."),
            ("user", f"2 things about fish:\n(1) {'one ' * 400}\n(2) two\nBest first, as PASSAGE2 PASSAGE1."),
        )
        whole = read(OWN.replace("PASSAGE(\\d+)", "^\\[\\d+\\]( > \\[\\d+\\])*$"))
        assert order(whole, "As asked:\n[2] > [1]\nDone with 7 > 3.", 2) == ("ok", (1, 0))
        assert read('body: "{query}: {doc1} or {doc2}?"\n').question == "compare"
        assert read('body: "{query}: {doc_content}?"\n').question == "grade"


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            (SINGLE + "colour: red\n", "mine.yaml:11: colour: unknown key; a singleturn_listwise file has"),
            (without(SINGLE, "body"), "mine.yaml:1: body: a singleturn_listwise file must have this key"),
            (
                without(SINGLE, "output_extraction_regex"),
                "output_extraction_regex: a singleturn_listwise file must have",
            ),
            (SINGLE.replace("{rank}", "x"), "mine.yaml:7: body: {rank} is missing"),
            (
                SINGLE.replace("{candidate}", "{passage}"),
                "mine.yaml:7: body: {passage} is unknown here; there are {rank}",
            ),
            (SINGLE.replace("{rank}", "{rank:>2}"), "mine.yaml:7: body: {rank} must stand without a format"),
            (SINGLE.replace("{{brace}}", "{brace"), "mine.yaml:3: prefix: "),
            (SINGLE.replace("{query}", "it"), "mine.yaml:3: prefix: {query} stands nowhere"),
            (
                SINGLE.replace("singleturn", "oneturn"),
                "there is no method 'oneturn_listwise'; there are singleturn_listwise",
            ),
            (SINGLE.replace('r"\\[(', 'r"\\[(('), "output_extraction_regex: it is no regular expression"),
            (SINGLE.replace('(\\d+)\\]"', "(\\\\d+)\\\\]"), "output_extraction_regex: "),
            (SINGLE + "body: again\n", "mine.yaml:11: body: the key stands there twice"),
            (SINGLE.replace("body:", "body: [a]\nx:"), "mine.yaml:7: body: it must be a text"),
            (
                without(without(MULTI, "body_assistant"), "prefix_assistant"),
                "turns need prefix_assistant or body_assistant",
            ),
            ("method: rankfid\ntext: x\n", "mine.yaml:1: method: rankfid: it encodes every passage apart"),
            (
                "method: pointwise\nmessage_roles: reranker\nbody: '{query}{doc_content}'",
                "mine.yaml:2: message_roles: rer",
            ),
            ("a: [", "mine.yaml:1: this is no YAML"),
            ("- a", "a template in YAML has keys with texts"),
            ("", "a template in YAML has keys with texts"),
        ],
    )
    def test_name_file_line_and_key(self, text: str, told: str) -> None:
        with pytest.raises(TemplateError) as error:
            read(text)
        assert told in str(error.value)
        assert str(error.value).startswith("mine.yaml")
        assert "\n" not in str(error.value)


class TestFiles:
    def test_load_takes_a_path(self, tmp_path: Path) -> None:
        path = tmp_path / "rank_mine_template.yaml"
        path.write_text(SINGLE, encoding="utf-8")
        template = load(path, {"words": "5"})
        assert template.name == "rank_mine_template"
        assert template.render("q", ["wort " * 9]).messages[1][1].count("wort") == 5
        assert lint(template) == []

    def test_the_hash_covers_the_text_and_not_the_folder(self, tmp_path: Path) -> None:
        hashes = []
        for folder, text in (("a", SINGLE), ("b", SINGLE), ("c", SINGLE.replace("Sort", "Order"))):
            (tmp_path / folder).mkdir()
            path = tmp_path / folder / "mine.yml"
            path.write_text(text)
            hashes.append(load(path).hash)
        assert hashes[0] == hashes[1] != hashes[2]


HOSTILE = st.text(st.sampled_from("{}%#\n\r\t \"'\\aé🙂-"), max_size=12)


@settings(deadline=None)
@given(texts=st.lists(HOSTILE, min_size=5, max_size=5), passage=HOSTILE)
def test_whatever_a_file_says_is_sent_as_str_format_gives_it(texts: list[str], passage: str) -> None:
    """Literal texts, in both languages of templates, against `str.format` itself."""
    system, one, two, three, four = texts
    plain = [text.replace("{", "{{").replace("}", "}}") for text in (one, two, three, four)]
    prefix, body = plain[0] + "{query}" + plain[1], "[{rank}]" + plain[2] + "{candidate}\n"
    suffix = plain[3] + "{num}{query}"
    keys = {"prefix": prefix, "body": body, "suffix": suffix, "system": system}
    template = read(yaml.safe_dump(keys, allow_unicode=False))
    passages = [Shown("1", passage), Shown("2", "{query} {{ n }} {% if %}")]
    told = {"query": "Q {num}", "num": 2}
    expected = prefix.format(**told)
    expected += "".join(body.format(rank=shown.identifier, candidate=shown.text) for shown in passages)
    expected += suffix.format(**told)
    messages = dict(template.render(_query("Q {num}"), passages).messages)
    assert messages["user"] == expected
    assert messages.get("system", "") == system


def _query(text: str) -> Any:
    from llmrank.data.types import Query

    return Query("q", text)
