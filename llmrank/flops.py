"""What a prompt costs in floating point operations, from a model's configuration alone: no hardware, no run.

Quality per PetaFLOP and queries per PetaFLOP are those of E2R-FLOPs (2507.06223).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmrank.errors import InputError

PETA = 1e15
TOKENS = "count its tokens alone"
Mode = Literal["full", "paper"]

# fmt: off
PLAIN = frozenset({
    "bart", "blenderbot", "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "m2m_100",
    "marian", "mbart", "mpt", "nemotron", "opt", "pegasus", "persimmon", "phi", "starcoder2", "xglm",
})
"""Model types whose feed-forward has two matrices; that of others has a gate too, or says so as T5 does."""
FOUR_TIMES = frozenset({"bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "mpt"})
"""Model types whose feed-forward is four times as wide as the model where nothing is said."""
ENCODERS = frozenset({"bert", "deberta-v2", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"})
"""Model types that generate nothing."""
# fmt: on

NAMES: dict[str, tuple[str, ...]] = {
    "width": ("hidden_size", "d_model", "n_embd"),
    "layers": ("layers", "num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    "heads": ("attention_heads", "num_attention_heads", "num_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_width": ("head_dim", "d_kv"),
    "inner": ("intermediate_size", "d_ff", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "active": ("num_experts_per_tok", "experts_per_token", "moe_topk"),
}
"""What a field is called in the config.json of one model or another."""

UNKNOWN = {
    "kv_lora_rank": "multi-head latent attention",
    "state_size": "a state-space layer",
    "mamba_d_state": "a state-space layer",
    "ssm_state_size": "a state-space layer",
    "linear_num_key_heads": "linear attention",
    "num_kv_shared_layers": "layers that share keys and values",
    "intermediate_size_mlp": "experts among wider dense layers",
}
"""Fields of architectures that are not counted here, and what they tell of."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The layers of a decoder, or of an encoder. All counts are of matrix multiplications, two operations a weight."""

    layers: int
    width: int
    """Of the model: what goes from layer to layer."""
    heads: int
    kv_heads: int
    """Fewer than `heads` with grouped queries."""
    head_width: int
    inner: int
    """Width of the feed-forward that a token passes through, its active experts together; of all layers, summed."""
    gated: bool
    """The feed-forward has three matrices, not two."""
    routed: int = 0
    """Weights of the routers and gates that choose experts, of all layers."""
    local_layers: int = 0
    """How many layers attend to no more than the last `window` tokens."""
    window: int = 0

    @property
    def attended(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_width

    @property
    def key_value_weights(self) -> int:
        """Of one layer."""
        return 2 * self.width * self.kv_heads * self.head_width

    @property
    def query_output_weights(self) -> int:
        """Of one layer."""
        return 2 * self.width * self.attended

    def weights(self, matrices: int | None = None) -> int:
        """What one token is multiplied with; `matrices` of the feed-forward are counted, all where none are named."""
        feed_forward = (matrices or 2 + self.gated) * self.width * self.inner
        return self.layers * (self.key_value_weights + self.query_output_weights) + feed_forward + self.routed

    def causal(self, old: int, new: int) -> int:
        """Attention of `new` tokens, each to itself and all before it, `old` others included: scores and values."""
        everywhere = _places_seen(old, new, old + new)
        nearby = _places_seen(old, new, self.window)
        return 4 * self.attended * ((self.layers - self.local_layers) * everywhere + self.local_layers * nearby)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model as far as its FLOPs go. `dataclasses.replace` changes what a configuration does not tell rightly."""

    decoder: Stack
    vocabulary: int
    encoder: Stack | None = None
    """Reads the prompt, where the model has one; the decoder then writes the completion alone."""
    name: str = ""

    @classmethod
    def from_config(cls, config: str | Path | Mapping[str, Any]) -> Architecture:
        """From a Hugging Face `config.json`: its content, its path, or the folder that it lies in.

        Decoders and encoder-decoders; grouped queries, gated feed-forward, mixtures of experts (the active ones),
        layers with a sliding window. Raises InputError where a field is lacking, or tells of what is not counted here.
        """
        if isinstance(config, Mapping):
            fields, where = dict(config), "the model's configuration"
        else:
            fields, where = _read(Path(config))
        if isinstance(inner := fields.get("text_config"), Mapping):
            fields = {**inner, "model_type": inner.get("model_type", fields.get("model_type", ""))}
        if fields.get("model_type") in ENCODERS:
            raise InputError(f"{where} is of the type {fields['model_type']}, which generates nothing; name a decoder")
        vocabulary = fields.get("vocab_size")
        if not isinstance(vocabulary, int) or vocabulary < 1:
            raise InputError(f"{where} lacks vocab_size, without which FLOPs cannot be counted; name a complete one")
        name = str(fields.get("_name_or_path") or fields.get("model_type", ""))
        if not fields.get("is_encoder_decoder"):
            return cls(_stack(fields, where), vocabulary, name=name)
        encoder, decoder = (_stack(_side(fields, side), where) for side in ("encoder", "decoder"))
        return cls(decoder, vocabulary, encoder, name)

    def flops(self, prompt: int, completion: int, cached: int = 0, mode: Mode = "full") -> float:
        """Operations for a prompt of so many tokens and a completion of so many, generated with a key-value cache.

        `cached`: tokens at the start of the prompt that a prefix cache holds. They are multiplied with no weights; what
        is left of them is that the others attend to them. The last token of a prompt is always worked out where a
        completion begins from it. A completion that is given and only scored costs the same.

        `full`: every matrix multiplication, an addition and a multiplication as two operations: projections of queries,
        keys, values and output, scores and values of the attention that a token really has (causal in a decoder; a
        kernel that works out the whole square does up to twice as much there), the feed-forward with its gate, the
        active experts and their routers, and the vocabulary once for each completion token. The last of these is not
        fed back. Not counted, since little beside these: norms, activations, softmax, rotary positions, look-ups.

        `paper`: the closed form that E2R-FLOPs builds on, Kaplan et al. (2001.08361): each token 2N + 2 x layers x
        context x attended width, with N the weights of attention and of two feed-forward matrices, no vocabulary, and
        the context as long as the text at hand: the prompt for its tokens, prompt and completion for what is
        generated. An encoder reads the prompt; in the decoder, cross-attention adds its weights and as much
        attention to the prompt. How the paper deals with grouped queries and with cross-attention was not verified to
        the letter: keys and values are counted at their own width here.
        """
        if min(prompt, completion, cached) < 0 or cached > prompt:
            raise InputError(
                f"{prompt} prompt, {completion} completion and {cached} cached tokens: none can be below 0, "
                "and cached ones are part of the prompt"
            )
        if cached and self.encoder is not None:
            raise InputError(
                f"{cached} cached tokens: an encoder reads a prompt as a whole and has no prefix to keep; leave it at 0"
            )
        if mode not in _COUNTS:
            raise InputError(f"mode {mode}: there are {', '.join(_COUNTS)}")
        return float(_COUNTS[mode](self, prompt, completion, cached))


def per_petaflop(quality: float, flops: float | None) -> float | None:
    """RPP, a ranking measure for each PetaFLOP spent on a query; None where the FLOPs are not known."""
    return None if flops is None else _per(quality, flops)


def queries_per_petaflop(queries: int, flops: float | None) -> float | None:
    """QPP, queries for each PetaFLOP, `flops` being those of all of them; None where they are not known."""
    return None if flops is None else _per(queries, flops)


def _per(amount: float, flops: float) -> float | None:
    return amount / (flops / PETA) if flops else None  # what cost nothing has no rate


def _full(model: Architecture, prompt: int, completion: int, cached: int) -> int:
    decoder = model.decoder
    projected = completion * model.vocabulary * decoder.width
    if model.encoder is None:
        cached = min(cached, max(0, prompt - 1)) if completion else cached
        new = prompt - cached + max(0, completion - 1)
        return 2 * (new * decoder.weights() + projected) + decoder.causal(cached, new)
    encoder = model.encoder
    read = 2 * prompt * encoder.weights() + 4 * encoder.layers * encoder.attended * prompt**2
    if not completion:
        return read
    crossed = decoder.layers * (completion * decoder.query_output_weights + prompt * _cross_weights(model))
    attended = decoder.causal(0, completion) + 4 * decoder.layers * decoder.attended * completion * prompt
    return read + 2 * (completion * decoder.weights() + crossed + projected) + attended


def _paper(model: Architecture, prompt: int, completion: int, cached: int) -> int:
    decoder = model.decoder

    def each(stack: Stack, context: int) -> int:
        return 2 * stack.weights(matrices=2) + 2 * stack.layers * context * stack.attended

    if model.encoder is None:
        return (prompt - cached) * each(decoder, prompt) + completion * each(decoder, prompt + completion)
    crossed = decoder.layers * (decoder.query_output_weights + prompt * decoder.attended)
    keys = decoder.layers * prompt * _cross_weights(model) if completion else 0
    written = completion * (each(decoder, completion) + 2 * crossed) + 2 * keys
    return prompt * each(model.encoder, prompt) + written


def _cross_weights(model: Architecture) -> int:
    """Weights of one layer that make keys and values of the encoder's output."""
    assert model.encoder is not None
    return 2 * model.encoder.width * model.decoder.kv_heads * model.decoder.head_width


_COUNTS = {"full": _full, "paper": _paper}


def _places_seen(old: int, new: int, window: int) -> int:
    """How many places `new` tokens after `old` others attend to, summed, each to at most `window` with its own."""
    growing = min(max(window - old, 0), new)  # tokens that still see all before them
    return growing * old + growing * (growing + 1) // 2 + (new - growing) * window


def _read(path: Path) -> tuple[dict[str, Any], str]:
    file = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); name a config.json or its folder") from None
    except ValueError:
        raise InputError(f"{file}: is not JSON; name the config.json of a Hugging Face model") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds no JSON object; name the config.json of a Hugging Face model")
    return content, str(file)


def _side(fields: Mapping[str, Any], side: str) -> dict[str, Any]:
    """The fields of the encoder or of the decoder, which some models name apart (`decoder_layers`)."""
    own = {name.removeprefix(f"{side}_"): value for name, value in fields.items() if name.startswith(f"{side}_")}
    own.setdefault("layers", fields.get(f"num_{side}_layers"))
    return {**fields, **{name: value for name, value in own.items() if value is not None}}


def _stack(fields: Mapping[str, Any], where: str) -> Stack:
    for name, what in UNKNOWN.items():
        if fields.get(name):
            raise InputError(f"{where} has {name}: the FLOPs of {what} are not counted here; {TOKENS}")

    def needed(field: str) -> int:
        value = _value(fields, field)
        if value is None:
            said = " or ".join(NAMES[field])
            raise InputError(f"{where} lacks {said}, without which FLOPs cannot be counted; name a complete one")
        return value

    width, layers, heads = needed("width"), needed("layers"), needed("heads")
    one_key = bool(fields.get("multi_query")) and not fields.get("new_decoder_architecture")
    kind = fields.get("model_type", "")
    head_width = _value(fields, "head_width") or width // heads
    wide = _value(fields, "inner") or (4 * width if kind in FOUR_TIMES else None)
    if wide is None and not _value(fields, "experts"):
        wide = needed("inner")
    inner, routed = _feed_forward(fields, where, layers, width, wide or 0)
    local, window = _windows(fields, where, layers)
    return Stack(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=1 if one_key else _value(fields, "kv_heads") or heads,
        head_width=head_width,
        inner=inner,
        gated=_gated(fields, kind),
        routed=routed,
        local_layers=local,
        window=window,
    )


def _value(fields: Mapping[str, Any], field: str) -> int | None:
    values = (fields.get(name) for name in NAMES[field])
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def _gated(fields: Mapping[str, Any], kind: str) -> bool:
    if "feed_forward_proj" in fields:  # T5 and its kin
        return str(fields["feed_forward_proj"]).startswith("gated")
    return kind not in PLAIN and kind not in ("t5", "mt5", "longt5")


def _feed_forward(fields: Mapping[str, Any], where: str, layers: int, width: int, dense: int) -> tuple[int, int]:
    """The feed-forward width that a token passes through, and the weights of the routers: of all layers together."""
    experts = _value(fields, "experts")
    if experts is None or experts == 1:
        if strange := [name for name, value in fields.items() if "expert" in name and type(value) is int and value > 1]:
            raise InputError(f"{where} has {strange[0]}: the FLOPs of such experts are not counted here; {TOKENS}")
        return layers * dense, 0
    active = _value(fields, "active")
    if active is None:
        said = " or ".join(NAMES["active"])
        raise InputError(f"{where} has {experts} experts but lacks {said}; name a complete one")
    first, every = int(fields.get("first_k_dense_replace") or 0), int(fields.get("decoder_sparse_step") or 1)
    plain = set(fields.get("mlp_only_layers") or ())
    mixed = sum(i >= first and (i + 1) % every == 0 and i not in plain for i in range(layers))
    own = fields.get("moe_intermediate_size") or dense
    shared = int(fields.get("shared_expert_intermediate_size") or 0)
    shared_gate = bool(shared)
    shared += int(fields.get("n_shared_experts") or 0) * own + int(fields.get("shared_intermediate_size") or 0)
    routed = mixed * width * (experts + shared_gate)
    return (layers - mixed) * dense + mixed * (active * own + shared), routed


def _windows(fields: Mapping[str, Any], where: str, layers: int) -> tuple[int, int]:
    """How many layers attend within a sliding window, and how long it is."""
    kinds = fields.get("layer_types")
    window = fields.get("sliding_window")
    if kinds is not None:
        if strange := set(kinds) - {"full_attention", "sliding_attention"}:
            raise InputError(
                f"{where} has layers of the kind {min(strange)}, whose FLOPs are not counted here; {TOKENS}"
            )
        local = sum(kind == "sliding_attention" for kind in kinds[:layers])
        return (local, int(window)) if local and window else (0, 0)
    if not window or fields.get("use_sliding_window", True) is False:
        return 0, 0
    if pattern := fields.get("sliding_window_pattern"):  # every so many-th layer sees everything
        return layers - layers // int(pattern), int(window)
    if fields.get("model_type") == "gemma2":
        return layers - layers // 2, int(window)
    return max(0, layers - int(fields.get("max_window_layers") or 0)), int(window)
