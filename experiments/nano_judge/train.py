"""Trains nano, the small judge that ships with llmrank: `python experiments/nano_judge/train.py models/nano`."""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from data import FRAMES, Doc, Group, Groups, docstrings, split
from model import ASSISTANT, END, FORMS, LABELS, USER, made, save, trained_tokenizer
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from llmrank import templates

IGNORED = -100
CHUNK = 24


class Stage(NamedTuple):
    """A part of the training: how long the passages are, and what else is asked of the model."""

    steps: int
    longest: int
    hints: float
    """Weight of the auxiliary losses at its beginning and its end."""
    hints_end: float
    rate: float
    """Of learning, as a share of its peak, at its beginning and its end."""
    rate_end: float
    forms: dict[str, int]
    """How many groups of each form a step has."""


YES_NO, GRADED, PREFER = FORMS
FIRST = (
    Stage(250, 30, 1.0, 1.0, 1.0, 0.7, {YES_NO: 8, GRADED: 2, PREFER: 2}),
    Stage(600, 60, 0.7, 0.2, 0.6, 0.25, {YES_NO: 5, GRADED: 3, PREFER: 3}),
    Stage(300, 130, 0.2, 0.1, 0.25, 0.01, {YES_NO: 4, GRADED: 2, PREFER: 2}),
)
SECOND = (
    Stage(450, 80, 0.2, 0.1, 0.45, 0.2, {YES_NO: 5, GRADED: 2, PREFER: 4}),
    Stage(450, 160, 0.1, 0.05, 0.2, 0.0, {YES_NO: 4, GRADED: 2, PREFER: 3}),
)
"""A second run over it, with optimizers and hints of its own and a lower peak of the learning rate. What ships is
the mean of what both come to."""


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
    first, second = (
        [s._replace(steps=max(1, round(s.steps * arguments.scale))) for s in stages] for stages in (FIRST, SECOND)
    )
    telling = weights(train, tokenizer)
    forms = {name: Form(name, tokenizer, telling) for name in FORMS}
    fit(model, Groups(train, seed=1, rename=0.6), first, forms)
    first_weights = rounded(model)
    model.load_state_dict(first_weights)
    torch.manual_seed(1)
    fit(model, Groups(train, seed=3, rename=0.6), second, forms)
    model.load_state_dict({name: (weight + first_weights[name]) / 2 for name, weight in rounded(model).items()})
    save(model, tokenizer, arguments.output)


def rounded(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """The weights as a saved model has them."""
    return {name: weight.half().float() for name, weight in model.state_dict().items()}


class Form:
    """A template of llmrank as pieces of tokens, between which the query and the passages go."""

    def __init__(self, name: str, tokenizer: Tokenizer, weights: list[float]) -> None:
        shown = templates.load(name).render("\ue000", ["\ue000"] * FORMS[name]).messages
        (content,) = (text for role, text in shown if role == "user")
        self._weights = weights
        self.ids = lru_cache(256)(lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
        pieces = [self.ids(piece) for piece in content.split("\ue000")]
        mark = tokenizer.token_to_id
        self._pieces = [[mark(USER), *pieces[0]], *pieces[1:-1], [*pieces[-1], mark(END), mark(ASSISTANT)]]
        self._end = mark(END)
        self.labels = self.ids(LABELS[name])

    def example(self, query: str, passages: list[str], label: int, longest: int) -> Example:
        asked, shown = self.ids(query)[:40], [self.ids(p)[:longest] for p in passages]
        weight = {t: self._weights[t] for t in asked}
        whole = sum(weight.values())
        ids = [*self._pieces[0], *asked, *self._pieces[1]]
        before = len(ids)
        places = [0] * len(self._pieces[0]) + [1] * len(asked) + [0] * len(self._pieces[1])
        occurs, fresh, reached = ([IGNORED] * before for _ in range(3))
        covered = list[float]()
        for i, (passage, piece) in enumerate(zip(shown, self._pieces[2:], strict=True)):
            seen, sum_ = set[int](), 0.0
            for t in passage:
                new = t in weight and t not in seen
                if new:
                    seen.add(t)
                    sum_ += weight[t]
                occurs.append(t in weight)
                fresh.append(new)
                reached.append(sum_ / whole if whole else 0.0)
            covered.append(reached[-1] if passage else 0.0)
            ids += passage + piece
            places += [i + 2] * len(passage) + [0] * len(piece)
            for hint in (occurs, fresh, reached):
                hint += [IGNORED] * len(piece)
        return Example(ids, places, occurs, fresh, reached, (*covered, IGNORED)[:2], self.labels[label], self._end)


class Example(NamedTuple):
    ids: list[int]
    places: list[int]
    """For each token whether it stands in the frame (0), the query (1), the first passage (2) or the second (3)."""
    occurs: list[int]
    """For each token of a passage whether it occurs in the query."""
    fresh: list[int]
    """And whether it does so for the first time."""
    reached: list[float]
    """And the weighted share of the query that the passage has had up to here."""
    covered: tuple[float, ...]
    """That share for the whole of each passage."""
    answer: int
    end: int


def examples(form: Form, name: str, group: Group, longest: int, rng: random.Random) -> list[Example]:
    """Four questions of one form about a group."""
    query, (right, near, *_, far) = group.query, group.passages
    if name == "pointwise/yes-no":
        return [form.example(query, [p], i == 0, longest) for i, p in enumerate(group.passages)]
    half = len(right.split()) // 2
    hidden = " ".join([*far.split()[:half], *right.split()[:half]])
    if name == "pointwise/graded":
        return [form.example(query, [p], 3 - i, longest) for i, p in enumerate((right, hidden, near, far))]
    pairs = [(right, near), rng.choice([(right, far), (hidden, near), (near, far)])]
    return [form.example(query, [*shown][::d], d < 0, longest) for shown in pairs for d in (1, -1)]


class Hints(nn.Module):
    """The heads that are thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(width, 4)
        self.occurs = nn.Linear(width, 2)
        self.reached = nn.Linear(width, 1)
        self.covered = nn.Linear(width, 2)


def weights(docs: list[Doc], tokenizer: Tokenizer) -> list[float]:
    """How telling each token is in a query: the logarithm of how rare it is. The words of the frames tell nothing."""
    count = Counter(t for e in tokenizer.encode_batch([d.rest for d in docs]) for t in set(e.ids))
    count.update(dict.fromkeys({t for e in tokenizer.encode_batch(list(FRAMES)) for t in e.ids}, len(docs)))
    return [max(0.05, math.log((len(docs) + 1) / (count[t] + 1))) for t in range(tokenizer.get_vocab_size())]


def fit(model: LlamaForCausalLM, groups: Groups, stages: list[Stage], forms: dict[str, Form]) -> None:
    rng = random.Random(2)
    hints = Hints(model.config.hidden_size)
    optimizers = _optimizers(model, hints)
    total, step, progress = sum(s.steps for s in stages), 0, Progress()
    for stage in stages:
        for i in range(stage.steps):
            weight = stage.hints + (stage.hints_end - stage.hints) * i / stage.steps
            longest = 5 * stage.longest // 2  # tokens: few passages are cut, so that no right one loses its answer
            names = [name for name, n in stage.forms.items() for _ in range(n)]
            drawn = [examples(forms[name], name, groups.draw(stage.longest), longest, rng) for name in names]
            losses = _losses(model, hints, [e for group in drawn for e in group])
            losses |= _ranked(losses["logits"], names, forms)
            loss = losses["answer"] + 0.1 * losses["end"] + losses["ranked"]
            loss = loss + weight * sum(losses[hint] for hint in ("place", "occurs", "reached", "covered"))
            rate = min((step + 1) / 50, stage.rate + (stage.rate_end - stage.rate) * i / stage.steps)
            _step(model, optimizers, loss, rate)
            step += 1
            progress.seen(losses)
            if step % 25 == 0:
                progress.told(step, total)


def _ranked(logits: Tensor, names: list[str], forms: dict[str, Form]) -> dict[str, Tensor]:
    """How well the passages of each group are told apart by the logits of the labels, and how often rightly."""
    found: dict[str, Tensor] = {}
    losses = []
    for name, form in forms.items():
        rows = [i for i, n in enumerate(names) if n == name]
        if not rows:
            continue
        said = logits.view(len(names), 4, -1)[rows][..., form.labels]
        if name == "pairwise/prefer":
            score = (said[..., 0] - said[..., 1]).view(-1, 2) / 2 @ torch.tensor([1.0, -1.0])
            margins = torch.stack([score, -score], dim=1)
        elif name == "pointwise/graded":
            margins = 2 * said.softmax(-1) @ torch.arange(4.0)
        else:
            margins = said[..., 1] - said[..., 0]
        first = torch.zeros(len(margins), dtype=torch.long)
        losses.append(functional.cross_entropy(margins, first, reduction="sum") / len(names))
        found[name] = (margins.argmax(1) == 0).float().mean()
    return found | {"ranked": sum(losses)}


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

    NAMES = ("answer", "place", "occurs", "reached", "covered", "ranked", *FORMS)

    def __init__(self) -> None:
        self._started = time.process_time()
        self._rows: list[dict[str, float]] = []

    def seen(self, losses: dict[str, Tensor]) -> None:
        self._rows.append({name: losses[name].item() for name in self.NAMES if name in losses})

    def told(self, step: int, total: int) -> None:
        told = [(name, [row[name] for row in self._rows if name in row]) for name in self.NAMES]
        figures = "  ".join(f"{name.split('/')[-1]} {sum(seen) / len(seen):.3f}" for name, seen in told if seen)
        print(f"{time.process_time() - self._started:5.0f} s  step {step} of {total}  {figures}", flush=True)
        self._rows.clear()


def _optimizers(model: LlamaForCausalLM, hints: Hints) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between embedding and head, AdamW for everything else."""
    inner = [p for p in model.model.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in inner}
    rest = [p for p in (*model.parameters(), *hints.parameters()) if id(p) not in known]
    muon = torch.optim.Muon([{"params": inner, "peak": 0.01}], lr=0.01, weight_decay=0.01, adjust_lr_fn="original")
    adam = [{"params": rest, "peak": 2e-3}]
    return [muon, torch.optim.AdamW(adam, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)]


def _losses(model: LlamaForCausalLM, hints: Hints, batch: list[Example]) -> dict[str, Tensor]:
    """Every loss of a batch, and the logits of the answers in the order of the examples."""
    order = sorted(range(len(batch)), key=lambda i: len(batch[i].ids))
    chunks = [order[i : i + CHUNK] for i in range(0, len(order), CHUNK)]  # of like length, so that little is padded
    columns = [_outputs(model, hints, [batch[i] for i in chunk]) for chunk in chunks]
    joined = (torch.cat(column).float() for column in zip(*columns, strict=True))
    logits, ends, covered, share, placed, places, occurs, told, reached, share_here = joined
    in_order = [batch[i] for i in order]
    back = torch.tensor(order).argsort()
    binary = functional.binary_cross_entropy_with_logits
    return {
        "logits": logits[back],
        "answer": functional.cross_entropy(logits, torch.tensor([e.answer for e in in_order])),
        "end": functional.cross_entropy(ends, torch.tensor([e.end for e in in_order])),
        "place": functional.cross_entropy(placed, places.long()),
        "occurs": binary(occurs, told),
        "reached": binary(reached, share_here) - _entropy(share_here),
        "covered": binary(covered, share) - _entropy(share),
    }


def _entropy(share: Tensor) -> Tensor:
    """What a cross-entropy comes to at best."""
    return -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)).mean()


def _outputs(model: LlamaForCausalLM, hints: Hints, batch: list[Example]) -> tuple[Tensor, ...]:
    longest = max(len(e.ids) for e in batch) + 1

    def table(name: str) -> Tensor:
        rows = (getattr(e, name) for e in batch)
        return torch.tensor([[*row, *[IGNORED] * (longest - len(row))] for row in rows])

    ids = torch.tensor([[*e.ids, e.answer] + [0] * (longest - 1 - len(e.ids)) for e in batch])
    at = torch.tensor([[len(e.ids) - 1, len(e.ids)] for e in batch])
    places, occurs, reached = table("places"), torch.stack([table("occurs"), table("fresh")], dim=2), table("reached")
    share = torch.tensor([e.covered for e in batch])
    real, asked = places != IGNORED, occurs[..., 0] != IGNORED
    with torch.autocast("cpu", torch.bfloat16):
        after, said = _states(model, ids, at)
        placed, found = hints.place(after[0][real]), hints.occurs(after[1][asked])
        here, covered = hints.reached(after[2][asked]).squeeze(1), hints.covered(said[:, 0])
    logits = said.float() @ model.lm_head.weight.T  # in full precision: the answers come from here
    told = share != IGNORED
    return (
        *(logits[:, 0], logits[:, 1], covered[told], share[told], placed, places[real]),
        *(found, occurs[asked], here, reached[asked]),
    )


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
        later = torch.where(torch.arange(ids.shape[1]) <= places[..., None], 0.0, -math.inf)[:, None]
        scores = (q @ k.transpose(2, 3)).float() * attention.head_dim**-0.5 + later
        mixed = scores.softmax(-1).to(v.dtype) @ v
        x = (x[rows, at] if final else x) + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        after.append(x)
    return after[:-1], inner.norm(x)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


if __name__ == "__main__":
    main()
