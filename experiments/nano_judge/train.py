"""Trains nano, the small judge that ships with llmrank: `python experiments/nano_judge/train.py models/nano`."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import NamedTuple

import torch
from data import Group, Groups, docstrings, split
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llmrank import templates
from llmrank.templates import Template

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
VOCABULARY = 4096
CONTEXT = 1024
ROTARY_BASE = 1e6
IGNORED = -100
CHUNK = 24
SLOW, SHARP = 0.45, 2.0


class Stage(NamedTuple):
    """A part of the training: how long the passages are, and what else is asked of the model."""

    steps: int
    groups: int
    longest: int
    hints: float
    """Weight of the auxiliary losses at its beginning and its end."""
    hints_end: float
    forms: dict[str, float]


STAGES = (
    Stage(300, 12, 30, 1.0, 1.0, {"pointwise/yes-no": 1.0}),
    Stage(600, 12, 80, 0.7, 0.2, {"pointwise/yes-no": 0.8, "pointwise/graded": 0.1, "pairwise/prefer": 0.1}),
    Stage(500, 9, 160, 0.2, 0.0, {"pointwise/yes-no": 0.6, "pointwise/graded": 0.2, "pairwise/prefer": 0.2}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder of the model")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps to take, for a quick try")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, _ = split(docstrings())
    tokenizer = trained_tokenizer([text for doc in train for text in (doc.first, doc.rest)])
    model = made(tokenizer)
    print(f"{len(train)} docstrings, {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    stages = [s._replace(steps=max(1, round(s.steps * arguments.scale))) for s in STAGES]
    fit(model, tokenizer, Groups(train, seed=1, rename=0.6), stages)
    save(model, tokenizer, arguments.output)


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
    """A Llama of three layers, with heads that look for equal tokens from the start."""
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=128, intermediate_size=384, num_hidden_layers=3,
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


class Form:
    """A template of llmrank as pieces of tokens, between which the query and the passages go."""

    def __init__(self, template: Template, tokenizer: Tokenizer) -> None:
        n = 2 if template.question == "compare" else 1
        shown = template.render("\ue000", ["\ue000"] * n).messages
        (content,) = (text for role, text in shown if role == "user")
        self._tokenizer = tokenizer
        pieces = [self.ids(piece) for piece in content.split("\ue000")]
        mark = tokenizer.token_to_id
        self._pieces = [[mark(USER), *pieces[0]], *pieces[1:-1], [*pieces[-1], mark(END), mark(ASSISTANT)]]
        self._end = mark(END)
        self._answers: dict[str, int] = {}

    def ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def example(self, query: str, passages: list[str], answer: str, longest: int) -> Example:
        asked, shown = self.ids(query)[:40], [self.ids(p)[:longest] for p in passages]
        ids, hints, places = list(self._pieces[0]), [IGNORED] * len(self._pieces[0]), [0] * len(self._pieces[0])
        known = set(asked)
        for i, (inserted, piece) in enumerate(zip([asked, *shown], self._pieces[1:], strict=True)):
            ids += inserted + piece
            told = [int(t in known) for t in inserted] if i else [IGNORED] * len(inserted)
            hints += told + [IGNORED] * len(piece)
            places += [min(i, 1) + 1] * len(inserted) + [0] * len(piece)
        found = known.intersection(shown[0])
        (said,) = self.ids(answer)
        return Example(ids, hints, places, said, len(found) / max(1, len(known)), self._end)


class Example(NamedTuple):
    ids: list[int]
    hints: list[int]
    """For each token of a passage whether it occurs in the query."""
    places: list[int]
    """For each token whether it stands in the frame (0), the query (1) or a passage (2)."""
    answer: int
    covered: float
    """Share of the query's tokens that the first passage has."""
    end: int


def examples(form: Form, name: str, group: Group, longest: int, rng: random.Random) -> list[Example]:
    """The questions of one form about a group, the passage that answers first."""
    query, (right, *wrong) = group.query, group.passages
    if name == "pointwise/yes-no":
        return [form.example(query, [p], "no" if i else "yes", longest) for i, p in enumerate(group.passages)]
    if name == "pairwise/prefer":
        pairs = [([right, w], "A") if rng.random() < 0.5 else ([w, right], "B") for w in wrong[:2]]
        return [form.example(query, shown, answer, longest) for shown, answer in pairs]
    near, *_, far = wrong
    hidden = " ".join([*far.split()[: len(right.split())], *right.split()[: len(right.split()) // 2]])
    graded = ((right, "3"), (hidden, "2"), (near, "1"), (far, "0"))
    return [form.example(query, [passage], grade, longest) for passage, grade in graded]


class Hints(nn.Module):
    """The heads that are thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(width, 3)
        self.occurs = nn.Linear(width, 1)
        self.covered = nn.Linear(width, 1)


def fit(model: LlamaForCausalLM, tokenizer: Tokenizer, groups: Groups, stages: list[Stage]) -> None:
    rng, forms = random.Random(2), {name: Form(templates.load(name), tokenizer) for name in FORMS}
    hints = Hints(model.config.hidden_size)
    optimizers = _optimizers(model, hints)
    total, step, progress = sum(s.steps for s in stages), 0, Progress()
    for stage in stages:
        for i in range(stage.steps):
            weight = stage.hints + (stage.hints_end - stage.hints) * i / stage.steps
            (name,) = rng.choices(list(stage.forms), list(stage.forms.values()))
            longest = 3 * stage.longest // 2  # tokens
            drawn = [examples(forms[name], name, groups.draw(stage.longest), longest, rng) for _ in range(stage.groups)]
            losses = _losses(model, hints, [e for group in drawn for e in group])
            loss = losses["answer"] + 0.1 * losses["end"]
            loss = loss + weight * (losses["occurs"] + losses["place"] + 0.5 * losses["covered"])
            if name == "pointwise/yes-no":
                margins = _margins(losses["logits"], forms[name], len(drawn))
                losses["ranked"] = functional.cross_entropy(margins, torch.zeros(len(drawn), dtype=torch.long))
                losses["first"] = (margins.argmax(1) == 0).float().mean()
                loss = loss + losses["ranked"]
                progress.seen(losses)
            rate = min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / total)))
            _step(model, optimizers, loss, rate)
            step += 1
            if step % 25 == 0:
                progress.told(step, total)


def _margins(logits: Tensor, form: Form, groups: int) -> Tensor:
    """How much likelier yes is than no, a row for each group."""
    (yes,), (no,) = form.ids("yes"), form.ids("no")
    return (logits[:, yes] - logits[:, no]).view(groups, -1)


def _step(model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], loss: Tensor, rate: float) -> None:
    for optimizer in optimizers:
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate * parameters["peak"]
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()


class Progress:
    """What the last steps came to, in a line."""

    NAMES = ("answer", "place", "occurs", "covered", "ranked", "first")

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._rows: list[list[float]] = []

    def seen(self, losses: dict[str, Tensor]) -> None:
        self._rows.append([losses[name].item() for name in self.NAMES])

    def told(self, step: int, total: int) -> None:
        means = [sum(column) / len(column) for column in zip(*self._rows, strict=True)]
        figures = "  ".join(f"{name} {mean:.3f}" for name, mean in zip(self.NAMES, means, strict=False))
        print(f"{time.perf_counter() - self._started:5.0f} s  step {step} of {total}  {figures}", flush=True)
        self._rows.clear()


def _optimizers(model: LlamaForCausalLM, hints: Hints) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between embedding and head, AdamW for everything else."""
    inner = [p for p in model.model.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in (*inner, model.model.embed_tokens.weight)}
    rest = [p for p in (*model.parameters(), *hints.parameters()) if id(p) not in known]
    muon = torch.optim.Muon([{"params": inner, "peak": 0.01}], lr=0.01, weight_decay=0.01, adjust_lr_fn="original")
    adam = [{"params": rest, "peak": 2e-3}, {"params": [model.model.embed_tokens.weight], "peak": 2e-3}]
    return [muon, torch.optim.AdamW(adam, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)]


def _losses(model: LlamaForCausalLM, hints: Hints, batch: list[Example]) -> dict[str, Tensor]:
    """Every loss of a batch, and the logits of the answers in the order of the examples."""
    order = sorted(range(len(batch)), key=lambda i: len(batch[i].ids))
    chunks = [order[i : i + CHUNK] for i in range(0, len(order), CHUNK)]  # of like length, so that little is padded
    columns = [_outputs(model, hints, [batch[i] for i in chunk]) for chunk in chunks]
    joined = (torch.cat(column).float() for column in zip(*columns, strict=True))
    logits, ends, share, guessed, occurs, placed, places = joined
    sorted_batch = [batch[i] for i in order]
    back = torch.tensor(order).argsort()
    return {
        "logits": logits[back],
        "answer": functional.cross_entropy(logits, torch.tensor([e.answer for e in sorted_batch])),
        "end": functional.cross_entropy(ends, torch.tensor([e.end for e in sorted_batch])),
        "place": functional.cross_entropy(placed, places.long()),
        "occurs": functional.binary_cross_entropy_with_logits(guessed, occurs),
        "covered": functional.binary_cross_entropy_with_logits(share, torch.tensor([e.covered for e in sorted_batch])),
    }


def _outputs(model: LlamaForCausalLM, hints: Hints, batch: list[Example]) -> tuple[Tensor, ...]:
    longest = max(len(e.ids) for e in batch) + 1
    ids = torch.tensor([[*e.ids, e.answer] + [0] * (longest - 1 - len(e.ids)) for e in batch])
    occurs = torch.tensor([e.hints + [IGNORED] * (longest - len(e.ids)) for e in batch])
    places = torch.tensor([e.places + [IGNORED] * (longest - len(e.ids)) for e in batch])
    at = torch.tensor([[len(e.ids) - 1, len(e.ids)] for e in batch])
    asked, real = occurs != IGNORED, places != IGNORED
    with torch.autocast("cpu", torch.bfloat16):
        after, said = _states(model, ids, at)
        placed, guessed = hints.place(after[0][real]), hints.occurs(after[1][asked]).squeeze(1)
        share = hints.covered(said[:, 0]).squeeze(1)
    logits = said.float() @ model.lm_head.weight.T  # in full precision: the answers come from here
    return logits[:, 0], logits[:, 1], share, guessed, occurs[asked], placed, places[real]


def _states(model: LlamaForCausalLM, ids: Tensor, at: Tensor) -> tuple[list[Tensor], Tensor]:
    """What the first layers leave at every place, and the model's last state at the places `at` alone.

    The same as the model's own forward pass, less what the last layer would work out for places that nobody asks.
    Padding stands on the right, where it changes nothing before it.
    """
    inner, rows, after = model.model, torch.arange(len(ids))[:, None], list[Tensor]()
    x = inner.embed_tokens(ids)
    cos, sin = (part[0] for part in inner.rotary_emb(x, torch.arange(ids.shape[1])[None]))
    for layer in inner.layers:
        attention, final = layer.self_attn, len(after) == len(inner.layers) - 1
        normed = layer.input_layernorm(x)
        places = at if final else torch.arange(ids.shape[1]).expand(ids.shape)
        q, k, v = (
            projection(h).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for projection, h in (
                (attention.q_proj, normed[rows, at] if final else normed),
                (attention.k_proj, normed),
                (attention.v_proj, normed),
            )
        )
        q, k = _rotated(q, cos[places][:, None], sin[places][:, None]), _rotated(k, cos, sin)
        seen = (torch.arange(ids.shape[1]) <= at[..., None])[:, None] if final else None
        mixed = functional.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=seen, is_causal=not final)
        x = (x[rows, at] if final else x) + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        after.append(x)
    return after[:-1], inner.norm(x)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


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


if __name__ == "__main__":
    main()
