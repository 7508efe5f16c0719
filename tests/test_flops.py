"""FLOPs from a configuration equal those of a literal list of matrix products, and published parameter counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.flops import Architecture, per_petaflop, queries_per_petaflop

LLAMA = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA |= {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256}
T5 = {"model_type": "t5", "is_encoder_decoder": True, "d_model": 768, "d_kv": 64, "num_heads": 12, "d_ff": 3072}
T5 |= {"num_layers": 12, "num_decoder_layers": 12, "feed_forward_proj": "relu", "vocab_size": 32128}
SMALL = {"model_type": "qwen3", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
SMALL |= {"num_key_value_heads": 2, "intermediate_size": 40, "vocab_size": 100}
SMALL_T5 = T5 | {"d_model": 24, "d_kv": 8, "num_heads": 4, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2}
SMALL_T5 |= {"vocab_size": 100}

Shapes = list[tuple[int, int, int]]


def product(shapes: Shapes) -> int:
    return sum(2 * m * k * n for m, k, n in shapes)


def attention(c: dict[str, Any], rows: int, keys: int, fresh: int, kv: int) -> Shapes:
    """The multiplications of one layer's attention: so many rows ask, so many keys are there, so many are made."""
    d, heads, size = c["hidden_size"], c["num_attention_heads"], c["head_dim"]
    made: Shapes = [(rows, d, heads * size), (rows, heads * size, d), (fresh, d, kv * size), (fresh, d, kv * size)]
    return made + heads * [(rows, size, keys), (rows, keys, size)]


def written_out(c: dict[str, Any], prompt: int, completion: int, cached: int, gated: bool = True) -> int:
    """A decoder, token by token: every token's rows through every matrix."""
    shapes: Shapes = []
    fed = prompt + completion - 1 if completion else prompt
    for place in range(cached, fed):
        for _ in range(c["num_hidden_layers"]):
            shapes += attention(c, 1, place + 1, 1, c["num_key_value_heads"])
            shapes += (1 + gated) * [(1, c["hidden_size"], c["intermediate_size"])]
            shapes.append((1, c["intermediate_size"], c["hidden_size"]))
    shapes += completion * [(1, c["hidden_size"], c["vocab_size"])]
    return product(shapes)


@given(st.integers(1, 40), st.integers(0, 12), st.data())
def test_a_decoder_costs_what_its_matrices_do(prompt: int, completion: int, data: st.DataObject) -> None:
    cached = data.draw(st.integers(0, prompt - 1))
    model = Architecture.from_config(SMALL)
    assert model.flops(prompt, completion, cached) == written_out(SMALL, prompt, completion, cached)


@given(st.integers(1, 40), st.integers(1, 12))
def test_an_encoder_decoder_costs_what_its_matrices_do(prompt: int, completion: int) -> None:
    c = {"hidden_size": 24, "num_attention_heads": 4, "head_dim": 8}
    feed = [(1, 24, 40), (1, 40, 24)]
    shapes: Shapes = 3 * (attention(c, prompt, prompt, prompt, 4) + prompt * feed)
    for written in range(completion):
        crossing = attention(c, 1, prompt, prompt if written == 0 else 0, 4)
        shapes += 2 * (attention(c, 1, written + 1, 1, 4) + crossing + feed) + [(1, 24, 100)]
    assert Architecture.from_config(SMALL_T5).flops(prompt, completion) == product(shapes)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9), st.integers(1, 80))
def test_a_prefix_is_paid_for_once(first: int, second: int, completion: int, window: int) -> None:
    model = Architecture.from_config(SMALL | {"model_type": "mistral", "sliding_window": window})
    together = model.flops(first, 0) + model.flops(first + second, completion, cached=first)
    assert model.flops(first + second, completion) == together


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 60))
def test_a_window_bounds_what_is_attended_to(old: int, new: int, window: int) -> None:
    seen = sum(min(place + 1, window) for place in range(old, old + new))
    model = Architecture.from_config(SMALL | {"sliding_window": window, "layer_types": ["sliding_attention"] * 2})
    plain = Architecture.from_config(SMALL)
    everything = sum(place + 1 for place in range(old, old + new))
    assert plain.flops(old + new, 0, old) - model.flops(old + new, 0, old) == 4 * 2 * 32 * (everything - seen)


def test_weights_are_those_of_published_models() -> None:
    """Public parameter counts, less embeddings and norms."""
    llama = Architecture.from_config(LLAMA)
    assert llama.decoder.weights() == 8_030_261_248 - 2 * 128_256 * 4096 - 65 * 4096
    t5 = Architecture.from_config(T5)
    assert t5.encoder is not None
    cross = 12 * 4 * 768 * 768
    norms, places = (12 * 2 + 12 * 3 + 2) * 768, 2 * 32 * 12
    assert t5.encoder.weights() + t5.decoder.weights() + cross == 222_903_552 - 32_128 * 768 - norms - places


def test_only_active_experts_count() -> None:
    mixtral = LLAMA | {"model_type": "mixtral", "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2}
    active = Architecture.from_config(mixtral).decoder.weights() + 2 * 32000 * 4096
    assert active == pytest.approx(12.88e9, rel=1e-3)  # as published: 12.9 billion of 46.7
    qwen = {"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32}
    qwen |= {"num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768}
    qwen |= {"num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": []}
    told = Architecture.from_config(qwen | {"vocab_size": 151936})
    assert told.decoder.weights() + 2 * 151936 * 2048 == pytest.approx(3.3e9, rel=0.02)
    half = Architecture.from_config(qwen | {"vocab_size": 151936, "mlp_only_layers": list(range(24))})
    assert half.decoder.inner == 24 * 6144 + 24 * 8 * 768


def test_models_name_their_fields_differently() -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None, "vocab_size": 50257}
    assert Architecture.from_config(gpt2).decoder.weights() == 12 * 12 * 768**2
    bart = {
        "model_type": "bart",
        "is_encoder_decoder": True,
        "d_model": 1024,
        "encoder_layers": 12,
        "vocab_size": 50265,
    }
    bart |= {"decoder_layers": 6, "encoder_attention_heads": 16, "decoder_attention_heads": 8, "num_hidden_layers": 12}
    bart |= {"encoder_ffn_dim": 4096, "decoder_ffn_dim": 2048}
    read = Architecture.from_config(bart)
    assert read.encoder is not None
    assert (read.encoder.layers, read.encoder.heads, read.encoder.inner) == (12, 16, 12 * 4096)
    assert (read.decoder.layers, read.decoder.heads, read.decoder.inner) == (6, 8, 6 * 2048)
    falcon = {"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71}
    falcon |= {"multi_query": True, "vocab_size": 65024}
    assert Architecture.from_config(falcon).decoder.kv_heads == 1
    assert Architecture.from_config({"model_type": "mistral3", "text_config": LLAMA}).decoder.layers == 32
    assert not Architecture.from_config(T5).decoder.gated
    assert Architecture.from_config(T5 | {"feed_forward_proj": "gated-gelu"}).decoder.gated


def test_windows_are_read_as_each_family_says_them() -> None:
    def local(**more: Any) -> tuple[int, int]:
        stack = Architecture.from_config(LLAMA | more).decoder
        return stack.local_layers, stack.window

    assert local() == (0, 0)
    assert local(model_type="mistral", sliding_window=4096) == (32, 4096)
    assert local(model_type="qwen2", sliding_window=4096, use_sliding_window=False) == (0, 0)
    assert local(model_type="qwen2", sliding_window=4096, use_sliding_window=True, max_window_layers=28) == (4, 4096)
    assert local(model_type="gemma2", sliding_window=4096) == (16, 4096)
    assert local(model_type="gemma3_text", sliding_window=512, sliding_window_pattern=6) == (27, 512)
    kinds = ["sliding_attention", "full_attention"] * 16
    assert local(sliding_window=512, layer_types=kinds) == (16, 512)


def test_the_paper_counts_two_matrices_and_no_vocabulary() -> None:
    """2N + 2 x layers x context x attended width a token, with N as Kaplan et al. have it."""
    one_head_each = SMALL | {"num_key_value_heads": 4}
    n = 2 * (4 * 24 * 32 + 2 * 24 * 40)
    expected = 30 * (2 * n + 2 * 2 * 30 * 32) + 5 * (2 * n + 2 * 2 * 35 * 32)
    model = Architecture.from_config(one_head_each)
    assert model.flops(30, 5, mode="paper") == expected
    assert model.flops(30, 5, cached=10, mode="paper") == expected - 10 * (2 * n + 2 * 2 * 30 * 32)
    assert model.flops(30, 5) > expected
    t5 = Architecture.from_config(T5)
    assert t5.flops(500, 1, mode="paper") == pytest.approx(t5.flops(500, 1), rel=0.15)


def test_a_prompt_that_is_all_cached_still_works_out_its_last_token() -> None:
    model = Architecture.from_config(SMALL)
    assert model.flops(20, 3, cached=20) == model.flops(20, 3, cached=19)
    assert model.flops(20, 0, cached=20) == 0


def test_a_configuration_may_be_a_file_or_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert Architecture.from_config(tmp_path) == Architecture.from_config(str(tmp_path / "config.json"))
    assert Architecture.from_config(tmp_path) == Architecture.from_config(LLAMA)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "lacks vocab_size"),
        ({"vocab_size": 9}, "lacks hidden_size or d_model or n_embd"),
        ({k: v for k, v in LLAMA.items() if k != "intermediate_size"}, "lacks intermediate_size"),
        (LLAMA | {"num_local_experts": 8}, "lacks num_experts_per_tok"),
        (LLAMA | {"moe_num_experts": 8}, "moe_num_experts"),
        (LLAMA | {"kv_lora_rank": 512}, "multi-head latent attention"),
        (LLAMA | {"layer_types": ["linear_attention"] * 32}, "linear_attention"),
        (LLAMA | {"model_type": "bert"}, "generates nothing"),
    ],
)
def test_what_cannot_be_counted_is_said(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        Architecture.from_config(config)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_configuration_is_named(tmp_path: Path) -> None:
    for content in ("{", "[]"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match=r"config\.json: .*JSON"):
            Architecture.from_config(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        Architecture.from_config(tmp_path / "none.json")


def test_counts_of_tokens_are_checked() -> None:
    model = Architecture.from_config(SMALL)
    for prompt, completion, cached in ((-1, 0, 0), (5, -1, 0), (5, 1, 6)):
        with pytest.raises(InputError, match="cached ones are part of the prompt"):
            model.flops(prompt, completion, cached)
    with pytest.raises(InputError, match="no prefix to keep"):
        Architecture.from_config(T5).flops(10, 1, cached=2)
    with pytest.raises(InputError, match="there are full, paper"):
        model.flops(5, 1, mode="exact")  # type: ignore[arg-type]


def test_rates_are_per_petaflop_and_unknown_for_a_closed_model() -> None:
    assert per_petaflop(0.7, 3.5e15) == pytest.approx(0.2)
    assert queries_per_petaflop(43, 2e15) == pytest.approx(21.5)
    assert per_petaflop(0.7, None) is None
    assert queries_per_petaflop(43, None) is None
    assert per_petaflop(0.7, 0.0) is None


def test_what_a_configuration_tells_wrongly_can_be_replaced() -> None:
    model = Architecture.from_config(SMALL)
    plain = replace(model, decoder=replace(model.decoder, gated=False))
    assert plain.flops(9, 2) == written_out(SMALL, 9, 2, 0, gated=False)
