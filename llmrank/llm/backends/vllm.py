"""The `vllm` backend: a model in this process through vLLM's own engine.

Log-probabilities are always the model's own, from before any constraint: where the output is held to words or to a
permutation, only the tokens that may stand next are allowed at each place, which leaves them as they are; where it is
held to a grammar, the finished text is scored once more.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from llmrank.errors import InputError
from llmrank.llm.backends import held, local
from llmrank.llm.backends.tongue import CLOSE, Tongue, TooLong, Unaskable, check_room
from llmrank.llm.backends.vllm_engine import Engine, EngineStopped, Refused
from llmrank.llm.client import BackendRefused
from llmrank.llm.types import CAPABILITIES, Constraint, Failure, Identity, Reply, Request, Sampling
from llmrank.questions import Token

ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_NO_USAGE_STATS": "1"}
"""What vLLM is told before it is loaded, where the user has not said otherwise: it would log to standard output."""

DEFAULTS: dict[str, Any] = {
    "disable_log_stats": True,
    "use_tqdm_on_load": False,
    # A weak model would fill the whole reply with the spaces that JSON leaves room for.
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}
MOST_NAMED = 128  # tokens whose log-probabilities one request may ask for by name
STOPPED = "engine-stopped"


class VllmBackend:
    """A causal language model: `vllm:PATH`. The engine starts with the first request, or with `ready`."""

    remote = False
    concurrency = 512
    """Requests that should be in flight at once: they are batched, and those that share a head run together."""

    def __init__(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        spec, given = f"vllm:{name}", dict(options or {})
        local.need("vllm", spec)
        told = dict(given)
        folder = local.model_folder(name, spec, download=bool(local.switch(given, "download", spec)))
        self.model = local.Model(name, folder)
        self._thinking = local.switch(given, "thinking", spec)
        self._lora: str | None = given.pop("lora", None)
        if self._lora is not None and not os.path.isdir(self._lora):
            raise InputError(f"--backend {spec}: --engine-option lora={self._lora}: there is no such folder")
        self._options, self._spec = given, spec
        self.identity = Identity("vllm", self.model.identity(told))
        self.counter = self.model.counter
        most = given.get("max_model_len")
        self.context: int | None = most if isinstance(most, int) else self.model.context
        missing = set() if self.counter is not None else {"tokenizer"}
        missing |= set() if self.model.chat_template else {"prefill"}
        missing |= set() if self.model.reasons else {"reasoning"}
        self.capabilities = frozenset(CAPABILITIES) - missing
        self._engine: Engine | None = None
        self._tongue: Tongue | None = None
        self._vocabulary: held.Vocabulary | None = None

    async def ready(self) -> None:
        """Starts the engine, if it does not run yet, and waits for it. Raises BackendRefused where it cannot start."""
        if self._engine is None:
            self._engine = Engine(self._make)
            weakref.finalize(self, self._engine.close)
        try:
            await self._engine.ready()
        except EngineStopped as error:
            how = "stopped" if self._engine.started else "could not be started"
            failure = Failure(STOPPED, str(error))
            raise BackendRefused(f"{self._spec}: the engine {how} ({error})", failure) from None

    def close(self) -> None:
        """Ends the engine; its memory comes back once no other engine runs in this process."""
        if self._engine is not None:
            self._engine.close()

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that the engine has computed so far, by its own counts; the others were in its cache."""
        return 0 if self._engine is None else self._engine.computed

    async def complete(self, request: Request) -> Reply | Failure:
        try:
            await self.ready()
            assert self._tongue is not None
            return await _Asked(self, self._tongue, request).reply()
        except EngineStopped as error:
            return Failure(STOPPED, f"the engine stopped: {error}")
        except Unaskable as error:
            return Failure("bad-request", str(error))
        except TooLong as error:
            return Failure("context-length", str(error))
        except Refused as error:
            return Failure("bad-request", " ".join(str(error).split())[:300])

    async def run(self, ids: Sequence[int], **more: Any) -> Any:
        """One request to the engine; `told` and `urgent` go to it, all else are vLLM's sampling parameters."""
        from vllm import SamplingParams  # type: ignore[import-not-found, unused-ignore]
        from vllm.sampling_params import RequestOutputKind  # type: ignore[import-not-found, unused-ignore]

        assert self._engine is not None
        ways = {name: more.pop(name) for name in ("told", "urgent") if name in more}
        try:
            params = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, flat_logprobs=True, **more)
        except Exception as error:  # what it does not take, in types that differ from version to version
            raise Refused(str(error)) from None
        if hasattr(params, "skip_clone"):
            params.skip_clone = True  # it is this request's alone
        return await self._engine.run(ids, params, lora=self._lora_request, **ways)

    @property
    def vocabulary(self) -> held.Vocabulary:
        assert self._tongue is not None
        if self._vocabulary is None:
            self._vocabulary = held.Vocabulary(self._tongue.pieces, self._tongue.special)
        return self._vocabulary

    def _make(self) -> Any:
        """vLLM's engine; runs in the engine's thread."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from vllm import EngineArgs
        from vllm.platforms import current_platform  # type: ignore[import-not-found, unused-ignore]
        from vllm.v1.engine.llm_engine import LLMEngine  # type: ignore[import-not-found, unused-ignore]

        options: dict[str, Any] = DEFAULTS | self._options
        if current_platform.is_cpu():  # there a request with a seed whose prompt comes in two parts ends the engine
            options.setdefault("enable_chunked_prefill", False)
        self._lora_request = None
        if self._lora is not None:
            from vllm.lora.request import LoRARequest  # type: ignore[import-not-found, unused-ignore]

            rank = local.read_json(self._lora, "adapter_config.json").get("r", 16)
            options = {"enable_lora": True, "max_lora_rank": rank, **options}
            self._lora_request = LoRARequest("lora", 1, self._lora)
        known = EngineArgs.__dataclass_fields__
        if unknown := sorted(set(options) - set(known)):
            raise InputError(local.unknown_option(unknown[0], self._spec, known))
        engine = LLMEngine.from_engine_args(EngineArgs(model=str(self.model.folder), **options))
        self.context = int(engine.vllm_config.model_config.max_model_len)
        self._tongue = Tongue(self.model, thinking=self._thinking)
        return engine


class _Asked:
    """One request on its way through the engine."""

    def __init__(self, backend: VllmBackend, tongue: Tongue, request: Request) -> None:
        self._backend, self._tongue, self._request = backend, tongue, request
        self._put = tongue.put(request)
        self._cached: int | None = None
        sampling = request.sampling
        self._own: dict[str, Any] = {"temperature": sampling.temperature}
        if sampling.top_p is not None:
            self._own["top_p"] = sampling.top_p
        if sampling.temperature and sampling.seed is not None:
            self._own["seed"] = sampling.seed + request.sample

    async def reply(self) -> Reply:
        request, put = self._request, self._put
        room = 1 if request.continuation is not None else request.sampling.max_tokens
        check_room(len(put.ids), room, self._backend.context)
        if request.continuation is not None:
            tokens = await self._scored(put.ids, put.start, request.sampling.logprobs)
            return self._made("", "stop", (), tokens)
        if request.constraint is not None:
            return await self._constrained(request.constraint)
        output = await self._run(put.ids, **self._free(request.sampling))
        said = output.outputs[0]
        return self._split(said, self._told(said, request.sampling.logprobs))

    def _free(self, sampling: Sampling) -> dict[str, Any]:
        return {
            **self._own,
            "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop),
            "logprobs": sampling.logprobs or None,
            "detokenize": bool(sampling.stop) or not self._tongue.byte_level,
        }

    def _text(self, said: Any) -> str:
        """What was said; the engine spells it only where it has to, each place's likeliest tokens besides."""
        if not self._tongue.byte_level or said.text:
            return str(said.text)
        ended = said.finish_reason == "stop" and said.token_ids and said.token_ids[-1] in self._tongue.ends
        return self._tongue.written(said.token_ids[: -1 if ended else None])

    async def _run(self, ids: Sequence[int], **params: Any) -> Any:
        output = await self._backend.run(ids, **params)
        if self._cached is None:  # what the first part of it found; later parts find what that one left
            self._cached = output.num_cached_tokens
        return output

    async def _constrained(self, constraint: Constraint) -> Reply:
        ids = self._put.ids
        if self._put.thinks:
            params = {**self._free(self._request.sampling), "logprobs": None}
            params |= {"stop": [CLOSE], "include_stop_str_in_output": True, "detokenize": True}
            said = (await self._run(ids, **params)).outputs[0]
            if CLOSE in said.text:
                ids = [*ids, *said.token_ids]
            elif said.finish_reason == "length" or self._put.opened:
                return self._split(said, None)
        form = held.form_of(constraint, spaced=self._put.spaced)
        made = await (self._by_grammar(constraint, ids) if form is None else self._by_form(form, constraint, ids))
        if thought := ids[len(self._put.ids) :]:
            made.reasoning = self._tongue.thinking(thought)
            made.completion_tokens = (made.completion_tokens or 0) + len(thought)
        return made

    async def _by_form(self, form: held.Form, constraint: Constraint, ids: Sequence[int]) -> Reply:
        """One token after the other, of those that the form allows; where it leaves one, that one is not asked for."""
        backend, wants = self._backend, self._request.sampling.logprobs
        state = held.begun(form, self._put.tail)
        chosen: list[int] = []
        tokens: list[Token] = []
        words = self._tongue.first_tokens(constraint.value, self._put.spaced) if constraint.kind == "choice" else []
        once = constraint.kind == "permutation" and self._request.sampling.max_tokens == 1
        while not (once and chosen):
            options = backend.vocabulary.options(form, state)
            ends = self._tongue.ends if form.done(state) else ()
            if not options:
                break
            if len(options) == 1 and not ends and not (wants and not chosen):
                (token,) = options
                tokens.append(self._tongue.token(token, 0.0, ()))
            else:
                named = list(dict.fromkeys([*options, *words]))[:MOST_NAMED]
                params = {**self._own, "max_tokens": 1, "allowed_token_ids": [*options, *ends], "detokenize": False}
                if wants:
                    params |= {"logprob_token_ids": named, "told": "named"}
                if "seed" in params:
                    params["seed"] += 1_000_003 * len(chosen)
                said = (await self._run([*ids, *chosen], urgent=bool(chosen), **params)).outputs[0]
                token = said.token_ids[0]
                if token not in options:
                    break
                tokens += self._told(said, len(named)) or ()
            chosen.append(token)
            state, words = options[token], []
        text = self._tongue.spelled(chosen).removeprefix(" ")
        ended = "length" if once and not form.done(state) else "stop"
        return self._made(text, ended, chosen, tokens if wants else None)

    async def _by_grammar(self, constraint: Constraint, ids: list[int]) -> Reply:
        """A text of vLLM's own grammars, scored once more where it matters: what these tell is masked."""
        from vllm.sampling_params import StructuredOutputsParams

        sampling = self._request.sampling
        kind = {"json_schema": "json"}.get(constraint.kind, constraint.kind)
        params = {**self._free(sampling), "logprobs": None}
        params["structured_outputs"] = StructuredOutputsParams(**{kind: constraint.value})
        said = (await self._run(ids, **params)).outputs[0]
        tokens = None
        if sampling.logprobs and said.token_ids:
            whole = [*ids, *said.token_ids]
            room = (self._backend.context or len(whole) + 1) - 1  # the engine generates one token more
            tokens = await self._scored(whole[:room], len(ids), sampling.logprobs)
        return self._made(self._text(said), said.finish_reason, said.token_ids, tokens)

    async def _scored(self, ids: Sequence[int], start: int, top: int) -> list[Token]:
        """The tokens from `start` on with the log-probabilities that the model gives them where they stand."""
        output = await self._run(ids, max_tokens=1, temperature=0.0, prompt_logprobs=top, detokenize=False)
        places = [_place(output.prompt_logprobs, i) for i in range(start, len(ids))]
        told = zip(ids[start:], places, strict=True)
        return [self._tongue.token(i, place.get(i, 0.0), _likeliest(place, top)) for i, place in told]

    def _told(self, said: Any, top: int) -> list[Token] | None:
        if not self._request.sampling.logprobs or said.logprobs is None:
            return None
        places = [_place(said.logprobs, i) for i in range(len(said.token_ids))]
        told = zip(said.token_ids, places, strict=True)
        return [self._tongue.token(i, place[i], _likeliest(place, top)) for i, place in told]

    def _split(self, said: Any, tokens: Sequence[Token] | None) -> Reply:
        text, reasoning, tokens = self._tongue.split(self._put, self._text(said), said.token_ids, tokens)
        made = self._made(text, said.finish_reason, said.token_ids, tokens)
        made.reasoning = reasoning
        return made

    def _made(self, text: str, finish: str | None, ids: Sequence[int], tokens: Sequence[Token] | None) -> Reply:
        return Reply(
            text,
            finish,
            None if tokens is None else tuple(tokens),
            prompt_tokens=len(self._put.ids),
            completion_tokens=len(ids),
            cached_tokens=self._cached,
        )


def _place(flat: Any, i: int) -> dict[int, float]:
    """The log-probabilities told at one place, by token."""
    start, end = flat.start_indices[i], flat.end_indices[i]
    return dict(zip(flat.token_ids[start:end], flat.logprobs[start:end], strict=True))


def _likeliest(place: Mapping[int, float], top: int) -> list[tuple[int, float]]:
    """The likeliest tokens: the one that stands there is told besides them, and is one of them only by its rank."""
    return sorted(place.items(), key=lambda pair: -pair[1])[:top]
