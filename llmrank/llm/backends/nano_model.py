"""A Llama's forward pass in numpy, and the reader of its weights: enough for a model of a few million parameters."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
LARGE = np.float32(80)  # its exponential is still a 32-bit number
DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


class Past(NamedTuple):
    """Keys and values of the tokens so far, for one layer: (heads, tokens, head size)."""

    keys: Floats
    values: Floats


class Layer(NamedTuple):
    """The weights of one layer; a matrix takes vectors from its rows to its columns."""

    before_attention: Floats
    qkv: Floats
    out: Floats
    before_mlp: Floats
    gate_up: Floats
    down: Floats


class Llama:
    """A causal language model of the Llama family: full attention, one rotary base, no biases."""

    def __init__(self, folder: Path) -> None:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = read_safetensors(folder / "model.safetensors")
        self.context: int = config["max_position_embeddings"]
        self.end: int = config["eos_token_id"]
        self._heads: int = config["num_attention_heads"]
        self._epsilon: float = config["rms_norm_eps"]
        self._embedding = weights["model.embed_tokens.weight"]
        self._norm = weights["model.norm.weight"]
        self._head = np.ascontiguousarray(weights["lm_head.weight"].T)
        self._layers = [_layer(weights, f"model.layers.{i}") for i in range(config["num_hidden_layers"])]
        size = self._embedding.shape[1] // self._heads
        rope = config.get("rope_parameters") or config
        frequencies = rope["rope_theta"] ** (-np.arange(0, size, 2) / size)
        angles = np.outer(np.arange(self.context), np.concatenate([frequencies, frequencies]))
        self._cos, self._sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def logprobs(
        self, ids: Sequence[int], past: list[Past] | None = None, *, last: int = 1
    ) -> tuple[Floats, list[Past]]:
        """Log-probabilities of what follows each of the `last` tokens, shape (last, vocabulary); and the new past.

        ids: the tokens that come after those of `past`, which may be none.
        """
        x: Floats = self._embedding[np.asarray(ids)]
        begin = past[0].keys.shape[1] if past else 0
        later = np.triu(np.full((len(ids), begin + len(ids)), -np.inf, np.float32), begin + 1)
        known: list[Past] = []
        for i, layer in enumerate(self._layers):
            # Only the last tokens' outcome is wanted: the final layer need not work out any other.
            wanted = last if i == len(self._layers) - 1 else len(ids)
            attended, now = self._attention(layer, x, later[-wanted:], past[i] if past else None)
            known.append(now)
            x = x[len(ids) - wanted :] + attended
            gate, up = np.split(self._normed(x, layer.before_mlp) @ layer.gate_up, 2, axis=1)
            x = x + (gate / (1 + np.exp(np.minimum(-gate, LARGE))) * up) @ layer.down
        logits = self._normed(x, self._norm) @ self._head
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), known

    def _attention(self, layer: Layer, x: Floats, later: Floats, past: Past | None) -> tuple[Floats, Past]:
        """What attention adds to the last tokens, and the keys and values of all.

        later: for each of the last tokens, minus infinity at those that come after it.
        """
        (n, width), (wanted, end) = x.shape, later.shape
        parts: Floats = (self._normed(x, layer.before_attention) @ layer.qkv).reshape(n, 3, self._heads, -1)
        q, k, v = parts.transpose(1, 2, 0, 3)
        q, now = self._rotated(q[:, n - wanted :], end - wanted), Past(self._rotated(k, end - n), v)
        if past is not None:
            joined: Iterator[Floats] = (np.concatenate(pair, axis=1) for pair in zip(past, now, strict=True))
            now = Past(*joined)
        scores: Floats = q @ now.keys.transpose(0, 2, 1)
        scores *= np.float32(q.shape[2] ** -0.5)
        scores += later
        scores -= scores.max(axis=2, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=2, keepdims=True)
        mixed: Floats = (scores @ now.values).transpose(1, 0, 2).reshape(wanted, width)
        added: Floats = mixed @ layer.out
        return added, now

    def _rotated(self, x: Floats, begin: int) -> Floats:
        place = slice(begin, begin + x.shape[1])
        first, second = np.split(x, 2, axis=2)
        turned: Floats = np.concatenate([-second, first], axis=2)
        return x * self._cos[place] + turned * self._sin[place]

    def _normed(self, x: Floats, weight: Floats) -> Floats:
        variance = np.mean(x * x, axis=-1, keepdims=True)
        normed: Floats = weight * (x / np.sqrt(variance + np.float32(self._epsilon)))
        return normed


def _layer(weights: dict[str, Floats], name: str) -> Layer:
    def matrix(*parts: str) -> Floats:
        return np.ascontiguousarray(np.concatenate([weights[f"{name}.{part}_proj.weight"] for part in parts]).T)

    return Layer(
        weights[f"{name}.input_layernorm.weight"],
        matrix("self_attn.q", "self_attn.k", "self_attn.v"),
        matrix("self_attn.o"),
        weights[f"{name}.post_attention_layernorm.weight"],
        matrix("mlp.gate", "mlp.up"),
        matrix("mlp.down"),
    )


def read_safetensors(path: Path) -> dict[str, Floats]:
    """The arrays of a safetensors file as 32-bit floats: a length, a JSON header of that length, then raw buffers."""
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    start = 8 + length
    header: dict[str, Any] = json.loads(raw[8:start])
    arrays = {}
    for name, told in header.items():
        if name != "__metadata__":
            begin, end = told["data_offsets"]
            flat = np.frombuffer(raw[start + begin : start + end], DTYPES[told["dtype"]])
            arrays[name] = flat.astype(np.float32).reshape(told["shape"])
    return arrays
