"""A loaded model of transformers, run in batches: replies, likelihoods of given texts, scores of a head or a word."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch  # type: ignore[import-not-found, unused-ignore]

from llmrank.llm.backends import held
from llmrank.llm.backends.tongue import CLOSE, Put, Tongue, Unaskable
from llmrank.llm.types import Constraint, Reply, Sampling
from llmrank.questions import Token

MOST_NAMED = 128  # tokens whose log-probabilities are looked at where the output is held to words


@dataclass
class Row:
    """One request in a batch, and what came of it."""

    put: Put
    sampling: Sampling
    seed: int | None = None
    constraint: Constraint | None = None
    wanted: Sequence[int] = ()
    """For an encoder-decoder: the tokens of the continuation. For others the prompt holds them, from `put.start` on."""
    scores: bool = False
    """Nothing is generated: the likelihood of the continuation is wanted."""
    ids: list[int] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None
    cut: str | None = None
    """The text at which it was stopped."""
    thinking: bool = False
    """It has not come to the constrained part yet."""
    thought: int = 0
    """How many of its tokens were thinking, where a constrained part follows."""

    @property
    def work(self) -> int:
        return len(self.put.ids) + (len(self.wanted) if self.scores else self.sampling.max_tokens)


class Likelihoods(NamedTuple):
    """Log-probabilities of one place over the whole vocabulary, with the likeliest tokens picked out."""

    all: Any
    top: list[tuple[int, float]]


class TorchModel:
    """A loaded model with its tokeniser. `run` takes a batch; everything else is below it."""

    def __init__(self, model: Any, tongue: Tongue, context: int | None = None) -> None:
        self._model, self.tongue, self.context = model, tongue, context
        self._device = model.device
        self._vocabulary = held.Vocabulary(tongue.pieces, tongue.special)
        self._grammars: Any = None
        takes = inspect.signature(model.forward).parameters
        self._keeps = "logits_to_keep" in takes
        self._positions = "position_ids" in takes
        self._kinds = "token_type_ids" in takes
        self._two_parts = bool(getattr(model.config, "is_encoder_decoder", False))
        own = tongue.tokenizer.pad_token_id
        self._pad: int = own if isinstance(own, int) else 0
        self.pads = isinstance(own, int) and own not in tongue.ends
        """Whether a mark of padding can be told from what a text holds."""

    def run(self, rows: Sequence[Row]) -> None:
        """Works on rows of one kind, all of them generating or all scoring."""
        with torch.inference_mode():
            (self._score if rows[0].scores else self._generate)(rows)

    def heads(self, batch: Sequence[Sequence[int]], kinds: Sequence[Sequence[int]] = ()) -> list[float]:
        """The score of each text by the model's classification head: of two classes the log-odds of the second.

        `kinds`: which of two texts each token belongs to, for models that are told.
        """
        with torch.inference_mode():
            ids, mask = self._padded(batch, left=False)
            inputs = {"input_ids": ids, "attention_mask": mask}
            if kinds and self._kinds:
                inputs["token_type_ids"] = self._padded(kinds, left=False, pad=0)[0]
            # What is no padding is read to its end; where padding cannot be told, there is none.
            self._model.config.pad_token_id = self._pad if self.pads else -1
            logits = self._model(**inputs).logits.float().cpu()
        scores = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        return [float(score) for score in scores]

    def words(self, batch: Sequence[Sequence[int]], word: int) -> list[float]:
        """The logit of one token at the first place of each reply."""
        with torch.inference_mode():
            logits, _ = next(self._steps(batch))
            return [float(logit) for logit in logits[:, word].float().cpu()]

    def _padded(self, batch: Sequence[Sequence[int]], *, left: bool, pad: int | None = None) -> tuple[Any, Any]:
        longest = max(map(len, batch))
        ids = torch.full((len(batch), longest), self._pad if pad is None else pad, dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for i, row in enumerate(batch):
            where = slice(longest - len(row), longest) if left else slice(0, len(row))
            ids[i, where] = torch.tensor(row, dtype=torch.long)
            mask[i, where] = 1
        return ids.to(self._device), mask.to(self._device)

    def _begin(self, rows: int) -> Any:
        start = self._model.config.decoder_start_token_id
        if start is None:
            start = self._model.generation_config.decoder_start_token_id
        return torch.full((rows, 1), start if start is not None else self._pad, dtype=torch.long, device=self._device)

    def _score(self, rows: Sequence[Row]) -> None:
        """The log-probability of every token of each row's continuation, where it stands."""
        if self._two_parts:
            ids, mask = self._padded([row.put.ids for row in rows], left=False)
            wanted, _ = self._padded([row.wanted for row in rows], left=False)
            given = torch.cat([self._begin(len(rows)), wanted[:, :-1]], dim=1)
            logits = self._model(input_ids=ids, attention_mask=mask, decoder_input_ids=given).logits
            spans = [(row, logits[i, : len(row.wanted)], row.wanted) for i, row in enumerate(rows)]
        else:
            ids, mask = self._padded([row.put.ids for row in rows], left=True)
            longest = max(len(row.put.ids) - row.put.start for row in rows)
            logits = self._forward(ids, mask, keep=longest + 1).logits[:, -longest - 1 :]
            spans = []
            for i, row in enumerate(rows):
                n = len(row.put.ids) - row.put.start
                spans.append((row, logits[i, -n - 1 : -1], row.put.ids[row.put.start :]))
        for row, of_row, wanted_ids in spans:
            likelihoods = torch.log_softmax(of_row.float(), dim=-1)
            for place, token in zip(likelihoods, wanted_ids, strict=True):
                top = _likeliest(place, row.sampling.logprobs)
                row.tokens.append(self.tongue.token(token, float(place[token]), top))
            row.finish = "stop"

    def _forward(self, ids: Any, mask: Any, *, keep: int, cache: Any = None) -> Any:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if self._positions:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if self._keeps:
            inputs["logits_to_keep"] = keep
        return self._model(**inputs, past_key_values=cache, use_cache=True)

    def _generate(self, rows: Sequence[Row]) -> None:
        choosers = [_Chooser(self, row) for row in rows]
        for logits, given in self._steps([row.put.ids for row in rows]):
            likelihoods = torch.log_softmax(logits.float(), dim=-1)
            count = max(1, max(row.sampling.logprobs for row in rows))
            values, places = likelihoods.topk(min(count, likelihoods.shape[-1]), dim=-1)
            tops = [list(zip(p, v, strict=True)) for p, v in zip(places.tolist(), values.tolist(), strict=True)]
            for i, chooser in enumerate(choosers):
                if chooser.row.finish is None:
                    given[i] = chooser.choose(Likelihoods(likelihoods[i], tops[i]))
            if all(row.finish is not None for row in rows):
                return

    def _steps(self, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[Any, list[int]]]:
        """The logits of each next place, and a list to be filled with the tokens that were chosen there."""
        given = [self._pad] * len(prompts)
        ids, mask = self._padded(prompts, left=not self._two_parts)
        if self._two_parts:
            encoded = self._model.get_encoder()(input_ids=ids, attention_mask=mask)
            following, cache = self._begin(len(prompts)), None
            while True:
                out = self._model(
                    encoder_outputs=encoded,
                    attention_mask=mask,
                    decoder_input_ids=following,
                    past_key_values=cache,
                    use_cache=True,
                )
                yield out.logits[:, -1], given
                cache, following = out.past_key_values, torch.tensor(given, device=self._device)[:, None]
        out = self._forward(ids, mask, keep=1)
        while True:
            yield out.logits[:, -1], given
            mask = torch.cat([mask, mask.new_ones((len(prompts), 1))], dim=1)
            following = torch.tensor(given, device=self._device)[:, None]
            out = self._forward(following, mask, keep=1, cache=out.past_key_values)

    def grammar(self, constraint: Constraint) -> Any:
        """A matcher of xgrammar for a regular expression or a JSON schema. Raises Unaskable for one that is none."""
        import xgrammar  # type: ignore[import-not-found, unused-ignore]

        if self._grammars is None:
            size = self._model.get_output_embeddings().weight.shape[0]
            info = xgrammar.TokenizerInfo.from_huggingface(self.tongue.tokenizer, vocab_size=size)
            self._grammars = xgrammar.GrammarCompiler(info), xgrammar.allocate_token_bitmask(1, size)
        compiler, bits = self._grammars
        try:
            if constraint.kind == "regex":
                compiled = compiler.compile_regex(constraint.value)
            else:
                compiled = compiler.compile_json_schema(
                    _json(constraint.value), any_whitespace=False, separators=(",", ":")
                )
        except Exception as error:  # its own types differ from version to version
            raise Unaskable(f"the {constraint.kind} is none: {' '.join(str(error).split())[:200]}") from None
        return xgrammar.GrammarMatcher(compiled), bits

    def options(self, form: held.Form, state: Any) -> dict[int, Any]:
        return self._vocabulary.options(form, state)

    def reply(self, row: Row) -> Reply:
        """What came of a row."""
        tongue = self.tongue
        tokens = tuple(row.tokens) if row.sampling.logprobs or row.scores else None
        if row.scores:
            count = len(row.put.ids) + len(row.wanted)
            return Reply("", "stop", tokens, prompt_tokens=count, completion_tokens=0)
        formed = row.constraint is not None and row.constraint.kind in ("choice", "permutation") and not row.thinking
        if formed:
            text = tongue.spelled(row.ids[row.thought :]).removeprefix(" ")
        else:
            text = tongue.said(row.ids[row.thought :]) if row.cut is None else tongue.spelled(row.ids)
            text = text.partition(row.cut)[0] if row.cut is not None else text
        reasoning = tongue.thinking(row.ids[: row.thought]) if row.thought else None
        if not row.thought:
            text, reasoning, split = tongue.split(row.put, text, row.ids, tokens)
            tokens = None if split is None else tuple(split)
        counts = {"prompt_tokens": len(row.put.ids), "completion_tokens": len(row.ids)}
        return Reply(text, row.finish, tokens, reasoning, **counts)


class _Chooser:
    """Chooses the tokens of one row, place by place, and ends it."""

    def __init__(self, model: TorchModel, row: Row) -> None:
        self.row, self._model, self._tongue = row, model, model.tongue
        row.thinking = row.put.thinks and row.constraint is not None
        self._form: held.Form | None = None
        self._matcher: Any = None
        self._text = ""
        if row.constraint is not None:
            self._form = held.form_of(row.constraint, spaced=row.put.spaced)
            if self._form is None:
                self._matcher, self._bits = model.grammar(row.constraint)
            else:
                self._state = held.begun(self._form, row.put.tail)
        self._random = None
        if row.sampling.temperature:
            self._random = torch.Generator()
            self._random.manual_seed(row.seed) if row.seed is not None else self._random.seed()

    def choose(self, told: Likelihoods) -> int:
        """The token that stands next; the row is finished where it ends there."""
        row = self.row
        if row.thinking:
            token = self._pick(told.all)
            self._add(token, told)
            if CLOSE in self._text:
                row.thinking, row.thought = False, len(row.ids)
                row.tokens.clear()
            return token
        if self._form is not None:
            return self._held(self._form, told)
        masked = told.all
        if self._matcher is not None:
            import xgrammar

            self._matcher.fill_next_token_bitmask(self._bits)
            masked = told.all.clone()[None]
            xgrammar.apply_token_bitmask_inplace(masked, self._bits.to(masked.device))
            masked = masked[0]
        token = self._pick(masked)
        if self._matcher is not None:
            self._matcher.accept_token(token)
        self._add(token, told)
        return token

    def _held(self, form: held.Form, told: Likelihoods) -> int:
        """A token that the form allows; where it leaves one only, that place has no rivals to tell."""
        row = self.row
        first = len(row.ids) == row.thought
        options = self._model.options(form, self._state)
        ends = self._tongue.ends if form.done(self._state) else ()
        if not options:
            row.finish = "stop"
            return 0
        allowed = [*options, *ends]
        top: list[tuple[int, float]] = []
        if len(allowed) == 1 and not first:
            token, own = allowed[0], 0.0
        else:
            masked = torch.full_like(told.all, -math.inf)
            masked[allowed] = told.all[allowed]
            token = self._pick(masked)
            named = list(options)
            if first and row.constraint is not None and row.constraint.kind == "choice":
                named += self._tongue.first_tokens(row.constraint.value, row.put.spaced)
            top = [(i, float(told.all[i])) for i in dict.fromkeys(named[:MOST_NAMED])]
            own = float(told.all[token])
        if token not in options:
            row.finish = "stop"
            return token
        row.ids.append(token)
        row.tokens.append(self._tongue.token(token, own, top))
        self._state = options[token]
        once = row.constraint is not None and row.constraint.kind == "permutation" and row.sampling.max_tokens == 1
        if not self._model.options(form, self._state):
            row.finish = "stop"
        elif once:
            row.finish = "length"
        return token

    def _pick(self, logprobs: Any) -> int:
        sampling = self.row.sampling
        if self._random is None:
            return int(logprobs.argmax())
        probabilities = torch.softmax(logprobs.double().cpu() / sampling.temperature, dim=-1)
        if sampling.top_p is not None and sampling.top_p < 1:
            ranked, order = probabilities.sort(descending=True)
            ranked[ranked.cumsum(0) - ranked >= sampling.top_p] = 0
            probabilities = torch.zeros_like(probabilities).scatter_(0, order, ranked)
        return int(torch.multinomial(probabilities, 1, generator=self._random))

    def _add(self, token: int, told: Likelihoods) -> None:
        row = self.row
        row.ids.append(token)
        if count := row.sampling.logprobs:
            row.tokens.append(self._tongue.token(token, float(told.all[token]), told.top[:count]))
        if token in self._tongue.ends:
            row.finish = "stop"
            return
        if row.thinking or row.sampling.stop:
            self._text = self._tongue.spelled(row.ids)
        row.cut = next((stop for stop in row.sampling.stop if stop in self._text), None)
        if row.cut is not None:
            row.finish = "stop"
        elif len(row.ids) >= row.sampling.max_tokens:
            row.finish = "length"


def _likeliest(place: Any, count: int) -> list[tuple[int, float]]:
    if not count:
        return []
    values, tokens = place.topk(min(count, place.shape[-1]))
    return list(zip(tokens.tolist(), values.tolist(), strict=True))


def _json(schema: Any) -> str:
    return schema if isinstance(schema, str) else json.dumps(schema)
