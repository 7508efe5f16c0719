"""nano's numpy forward pass, tokens and chat template against transformers, which loads the same folder."""

from __future__ import annotations

from typing import Any

import pytest

from llmrank import templates
from llmrank.llm.backends import nano
from llmrank.llm.backends.nano import NanoBackend
from llmrank.llm.types import Request, Sampling

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'llmrank[transformers]'")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'llmrank[transformers]'"
)

TEXTS = {
    "plain": "Return a new list with the items of the iterable in order.",
    "endings": "Methods changed; the boxes' passages are matching, needed, used and classes' statuses processed.",
    "scripts": "naïve ÅNGSTRÖM ﬁle 朴素贝叶斯 Ελληνικά 🙂 a\u0301",
    "code": "f(x_1)[0] += 'it''s' <|end|> \\n\t{}\r\n",
    "empty": "",
    "long": "some words " * 330,
}
CHATS = {
    name: (("system", "Be brief."), ("user", f"Search query: bread\n\nPassage: {text}")) for name, text in TEXTS.items()
} | {"turns": (("user", "a"), ("assistant", "b c"), ("user", "d"))}


@pytest.fixture(scope="module")
def judge() -> NanoBackend:
    return NanoBackend()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(nano.folder())


@pytest.fixture(scope="module")
def model() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(nano.folder(), dtype=torch.float32).eval()


def coded(tokenizer: Any, messages: tuple[tuple[str, str], ...]) -> list[int]:
    told = [{"role": role, "content": content} for role, content in messages]
    text = tokenizer.apply_chat_template(told, add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize(
    "name", sorted(set(CHATS) - {"code"})
)  # its marks are text to nano, and marks to the chat template
def test_prompts_are_the_same_tokens(judge: NanoBackend, tokenizer: Any, name: str) -> None:
    assert judge._put(Request(CHATS[name])).ids == coded(tokenizer, CHATS[name])


@pytest.mark.parametrize("name", TEXTS)
def test_log_probabilities_are_equal_at_every_place(judge: NanoBackend, model: Any, name: str) -> None:
    ids = judge._put(Request(CHATS[name])).ids
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
    told, _ = judge._model.logprobs(ids, last=len(ids))
    assert abs(told - wanted).max() < 1e-3


def test_greedy_replies_are_equal(judge: NanoBackend, model: Any, tokenizer: Any) -> None:
    for template, n in (("pointwise/yes-no", 1), ("pointwise/graded", 1), ("pairwise/prefer", 2)):
        messages = templates.load(template).render("open a file", ["Opens the file."] * n).messages
        ids = coded(tokenizer, messages)
        with torch.no_grad():
            made = model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0, len(ids) :]
        reply = judge.reply(Request(messages, sampling=Sampling(6)))
        assert tokenizer.decode(made, skip_special_tokens=True).strip() == reply.text  # type: ignore[union-attr]
    ids = tokenizer("The file is", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        made = model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0, len(ids) :]
    reply = judge.reply(Request(prompt="The file is", sampling=Sampling(20)))
    assert tokenizer.decode(made, skip_special_tokens=True).strip() == reply.text.strip()  # type: ignore[union-attr]


def test_a_continuation_has_the_likelihood_that_transformers_gives_it(
    judge: NanoBackend, model: Any, tokenizer: Any
) -> None:
    before, after = "Passage: bread goes stale. Question:", " why does bread go stale?"
    ids = tokenizer(before + after, add_special_tokens=False)["input_ids"]
    start = len(tokenizer(before, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        rows = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    wanted = [rows[i - 1, ids[i]].item() for i in range(start, len(ids))]
    reply = judge.reply(Request(prompt=before, continuation=after))
    assert [t.logprob for t in reply.tokens] == pytest.approx(wanted, abs=1e-3)  # type: ignore[union-attr]
