"""What nano is: its tokeniser, its shape, and the folder in which transformers and vLLM find it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llmrank import templates

PAD, USER, ASSISTANT, END = MARKS = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for m in messages if m['role'] != 'system' %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if not (loop.last and m['role'] == 'assistant') %}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Endings are tokens of their own, so that `methods` shares one with `method`, `changes` with `change`.
ENDINGS = r"(?<=\p{L}{5})(?:es|ed|e)(?!\w)|(?<=\p{L}{4})(?:ing|ed)(?!\w)|(?<=\p{L}{2}[^su\W])s(?!\w)"
FORMS = {"pointwise/yes-no": 1, "pointwise/graded": 1, "pairwise/prefer": 2}
"""The templates on whose prompts it is trained, with how many passages each shows."""
LABELS = dict(zip(FORMS, ("no yes", "0 1 2 3", "a b"), strict=True))
"""The words that each asks for, one token each."""
VOCABULARY = 4096
CONTEXT = 1024
ROTARY_BASE = 1e6
SLOW, SHARP = 0.45, 2.0


def trained_tokenizer(texts: list[str]) -> Tokenizer:
    """A lower-casing byte-level BPE in which a word is the same token wherever it stands."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.Split(Regex(r"[^\w\s]|_"), "isolated"),
            pre_tokenizers.Split(Regex(ENDINGS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(mark, special=True, normalized=False) for mark in MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    asked = [content for name, n in FORMS.items() for _, content in templates.load(name).render("", [""] * n).messages]
    tokenizer.train_from_iterator(texts + [*asked, "yes no a b 0 1 2 3"] * 50, trainer)
    return tokenizer


def made(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A Llama of four layers, with heads that look for equal tokens from the start."""
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": ROTARY_BASE}, rms_norm_eps=1e-5,
        pad_token_id=tokenizer.token_to_id(PAD), bos_token_id=None, eos_token_id=tokenizer.token_to_id(END),
    )  # fmt: skip
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()
        for layer in model.model.layers:
            for weight in (*layer.self_attn.parameters(), *layer.mlp.parameters()):
                weight.normal_(std=weight.shape[1] ** -0.5)
            layer.self_attn.o_proj.weight.mul_(0.4)
            layer.mlp.down_proj.weight.mul_(0.4)
        _look_for_equals(model.model.layers[1].self_attn, heads=2)
        model.lm_head.weight.mul_(0.5)
    return model


def _look_for_equals(attention: nn.Module, heads: int) -> None:
    """Lets some heads attend to equal tokens wherever they stand: keys are queries, in the slow rotary dimensions."""
    half = attention.head_dim // 2
    slow = torch.arange(half) >= SLOW * half
    for head in range(heads):
        rows = head * attention.head_dim + torch.arange(attention.head_dim)
        chosen, others = rows[slow.repeat(2)], rows[~slow.repeat(2)]
        attention.q_proj.weight[chosen] *= SHARP
        attention.k_proj.weight[chosen] = attention.q_proj.weight[chosen]
        attention.q_proj.weight[others] *= 0.1


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """The folder of the model, also as versions of transformers before 5 read it."""
    told = {"eos_token": END, "pad_token": PAD, "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **told)
    fast.chat_template = CHAT_TEMPLATE
    model.half().save_pretrained(folder)
    fast.save_pretrained(folder)
    for name, more in (
        ("config.json", {"rope_theta": ROTARY_BASE, "torch_dtype": "float16"}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        file = folder / name
        written = json.dumps(json.loads(file.read_text(encoding="utf-8")) | more, indent=2, sort_keys=True)
        file.write_text(f"{written}\n", encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)
