"""Models that are no causal writers: encoder-decoders and classification heads, against transformers itself."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmrank.errors import InputError
from llmrank.llm.backends import open_backend
from llmrank.llm.types import Constraint, Reply, Request, Sampling

TEXTS = (
    "Query: rivers Document: water flows Relevant:",
    "Query: cats Document: a much longer text about dogs Relevant:",
)


@pytest.fixture(scope="module")
def folders(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random models of three kinds, with the tiny model's tokenizer."""
    import torch
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
        T5Config,
        T5ForConditionalGeneration,
    )

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model)
    size = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    size |= {"num_attention_heads": 2, "pad_token_id": 0}
    t5 = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    made = {
        "t5": T5ForConditionalGeneration(t5),
        "llama": LlamaForSequenceClassification(LlamaConfig(**size, num_labels=1)),
        "bert": BertForSequenceClassification(BertConfig(**size, num_labels=2)),
        "three": BertForSequenceClassification(BertConfig(**size, num_labels=3)),
    }
    folders = {}
    for name, network in made.items():
        folders[name] = tmp_path_factory.mktemp(name)
        network.save_pretrained(folders[name])
        inputs = (
            ["input_ids", "token_type_ids", "attention_mask"] if name == "bert" else ["input_ids", "attention_mask"]
        )
        tokenizer = AutoTokenizer.from_pretrained(model, model_input_names=inputs)
        tokenizer.chat_template = None
        tokenizer.save_pretrained(folders[name])
    return folders


def replies(folder: Path, requests: Sequence[Request], **options: Any) -> list[Reply]:
    backend = open_backend(f"transformers:{folder}", engine_options={"device": "cpu", **options})

    async def ask() -> list[Any]:
        return await asyncio.gather(*map(backend.complete, requests))

    try:
        outcomes = asyncio.run(asyncio.wait_for(ask(), 300))
    finally:
        backend.close()  # type: ignore[attr-defined]
    assert all(isinstance(outcome, Reply) for outcome in outcomes), outcomes
    return outcomes


def first_logits(folder: Path, text: str) -> Any:
    """The logits of a T5's first place, as its authors' scripts take them."""
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = T5ForConditionalGeneration.from_pretrained(folder).eval()
    ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        return network(**ids, decoder_input_ids=torch.tensor([[0]])).logits[0, 0], tokenizer


def test_target_words_of_an_encoder_decoder(folders: dict[str, Path]) -> None:
    sampling, words = Sampling(max_tokens=1, logprobs=20), Constraint("choice", ["true", "false"])
    told = replies(folders["t5"], [Request(prompt=t, sampling=sampling, constraint=words) for t in TEXTS])
    for text, reply in zip(TEXTS, told, strict=True):
        logits, tokenizer = first_logits(folders["t5"], text)
        logprobs = logits.log_softmax(-1)
        assert reply.tokens is not None
        top = dict(reply.tokens[0].top)
        for word in ("true", "false"):
            (token,) = tokenizer.encode(word, add_special_tokens=False)
            assert top[word] == pytest.approx(float(logprobs[token]), abs=1e-4)


def test_the_likelihood_of_a_query_by_an_encoder_decoder(folders: dict[str, Path]) -> None:
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    told = replies(folders["t5"], [Request(prompt=text, continuation="what is a river") for text in TEXTS])
    tokenizer = AutoTokenizer.from_pretrained(folders["t5"])
    network = T5ForConditionalGeneration.from_pretrained(folders["t5"]).eval()
    labels = tokenizer("what is a river", return_tensors="pt", add_special_tokens=False)["input_ids"]
    for text, reply in zip(TEXTS, told, strict=True):
        with torch.no_grad():
            ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            loss = float(network(**ids, labels=labels).loss)
        assert reply.tokens is not None
        assert math.fsum(t.logprob for t in reply.tokens) / len(reply.tokens) == pytest.approx(-loss, abs=1e-4)


def test_the_logit_of_one_word_is_a_score(folders: dict[str, Path]) -> None:
    told = replies(folders["t5"], [Request(prompt=text) for text in TEXTS], score="true")
    for text, reply in zip(TEXTS, told, strict=True):
        logits, tokenizer = first_logits(folders["t5"], text)
        (token,) = tokenizer.encode("true", add_special_tokens=False)
        assert float(reply.text) == pytest.approx(float(logits[token]), abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_head_gives_the_score_that_it_gives_alone(name: str, folders: dict[str, Path]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    pairs = [("rivers", "water flows"), ("cats", "a much longer text about dogs and other animals"), ("a", "b")]
    requests = [Request((("user", query), ("user", document))) for query, document in pairs]
    told = replies(folders[name], [*requests, Request(prompt="rivers water")])
    tokenizer = AutoTokenizer.from_pretrained(folders[name])
    network = AutoModelForSequenceClassification.from_pretrained(folders[name]).eval()
    for pair, reply in zip([*pairs, ("rivers water",)], told, strict=True):
        ids = tokenizer(*pair, return_tensors="pt")
        assert ("token_type_ids" in ids) is (name == "bert")
        with torch.no_grad():
            logits = network(**ids).logits[0]
        wanted = float(logits[0]) if len(logits) == 1 else float(logits[1] - logits[0])
        assert float(reply.text) == pytest.approx(wanted, abs=1e-4)
        assert reply.tokens is not None
        assert math.exp(reply.tokens[0].logprob) == pytest.approx(1 / (1 + math.exp(-wanted)), abs=1e-4)


def test_a_head_of_three_classes_is_no_score(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="3 classes"):
        open_backend(f"transformers:{folders['three']}")
