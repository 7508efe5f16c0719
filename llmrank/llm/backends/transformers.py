"""The `transformers` backend: a model in this process through Hugging Face's library, in batches by length.

Causal models and encoder-decoders write; models with a classification head, and any model with the option `score=WORD`,
score: their reply is the number.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from llmrank.errors import InputError
from llmrank.llm.backends import local
from llmrank.llm.backends.awaited import Awaited, deliver
from llmrank.llm.backends.scoring import decimal
from llmrank.llm.backends.tongue import Tongue, TooLong, Unaskable, check_room
from llmrank.llm.client import BackendRefused
from llmrank.llm.types import CAPABILITIES, Failure, Identity, Reply, Request
from llmrank.questions import Token

if TYPE_CHECKING:
    from llmrank.llm.backends.torch_model import Row, TorchModel

Kind = Literal["causal", "two-part", "head"]
BATCH_TOKENS = 16_384
"""Tokens of one batch, prompts and replies with their padding; `batch_tokens` sets another number."""

MOST_ROWS = 256
CLASSES = (1, 2)


class Work(Awaited):
    """One request on its way through a batch."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request
        self.row: Row
        self.ids: Sequence[int] = ()
        self.kinds: Sequence[int] = ()


class TransformersBackend:
    """A model of transformers: `transformers:PATH`. It is loaded with the first request, or with `ready`."""

    remote = False
    concurrency = 256
    """Requests that should be in flight at once: they are batched by length."""

    def __init__(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        spec, given = f"transformers:{name}", dict(options or {})
        local.need("transformers", spec)
        local.need("torch", spec, extra="transformers")
        told = dict(given)
        folder = local.model_folder(name, spec, download=bool(local.switch(given, "download", spec)))
        self.model, self._spec = local.Model(name, folder), spec
        self._thinking = local.switch(given, "thinking", spec)
        self._batch_tokens = _whole(given.pop("batch_tokens", BATCH_TOKENS), spec)
        self._device, self._dtype = given.pop("device", None), given.pop("dtype", None)
        word = given.pop("score", None)
        self._word: str | None = None if word is None else str(word)
        self._options = given
        self._kind = _kind(self.model, spec)
        self.identity = Identity("transformers", self.model.identity(told))
        self.counter = self.model.counter
        self.context: int | None = self.model.context
        self.capabilities = self._capabilities()
        self._worker: Worker | None = None

    def _capabilities(self) -> frozenset[str]:
        if self._kind == "head" or self._word is not None:
            return frozenset({"text", "raw"} | ({"tokenizer"} if self.counter is not None else set()))
        missing = set() if self.counter is not None else {"tokenizer"}
        missing |= set() if self.model.chat_template else {"prefill"}
        missing |= set() if self.model.reasons else {"reasoning"}
        missing |= set() if importlib.util.find_spec("xgrammar") is not None else {"regex", "json-schema"}
        return frozenset(CAPABILITIES) - missing

    async def ready(self) -> None:
        """Loads the model, if it is not loaded yet, and waits for it. Raises BackendRefused where it cannot be."""
        if self._worker is None:
            self._worker = Worker(self._load, self._kind, self._word, self._batch_tokens)
            weakref.finalize(self, self._worker.close)
        while not self._worker.ready.is_set():
            await asyncio.sleep(0.02)
        if self._worker.problem is not None:
            raise BackendRefused(f"{self._spec}: the model cannot be loaded ({self._worker.problem})")

    def close(self) -> None:
        """Ends the work and gives the memory back."""
        if self._worker is not None:
            self._worker.close()

    async def complete(self, request: Request) -> Reply | Failure:
        await self.ready()
        assert self._worker is not None
        outcome: Reply | Failure = await self._worker.run(Work(request))
        return outcome

    def _load(self) -> TorchModel:
        """The model on its device; runs in the worker's thread."""
        import torch  # type: ignore[import-not-found, unused-ignore]
        import transformers  # type: ignore[import-not-found, unused-ignore]

        from llmrank.llm.backends.torch_model import TorchModel

        device = self._device or _best_device(torch)
        dtype = self._dtype or ("float32" if str(device) == "cpu" else "auto")
        made = getattr(transformers, AUTOMATIC[self._kind])
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        options = {"dtype": dtype, "local_files_only": True, **self._options}
        model = made.from_pretrained(str(self.model.folder), **options)
        if "device_map" not in self._options:
            model = model.to(device)
        return TorchModel(model.eval(), Tongue(self.model, thinking=self._thinking), self.context)


AUTOMATIC: dict[Kind, str] = {
    "causal": "AutoModelForCausalLM",
    "two-part": "AutoModelForSeq2SeqLM",
    "head": "AutoModelForSequenceClassification",
}


def _kind(model: local.Model, spec: str) -> Kind:
    if model.architecture.endswith("ForSequenceClassification"):
        classes = len(model.config.get("id2label") or ()) or model.config.get("num_labels", 2)
        if classes not in CLASSES:
            raise InputError(f"--backend {spec}: its head has {classes} classes; a score comes from one or two")
        return "head"
    return "two-part" if model.config.get("is_encoder_decoder") else "causal"


def _whole(value: Any, spec: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"--backend {spec}: --engine-option batch_tokens={value}: it must be a whole number above 0")
    return value


def _best_device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


class Worker:
    """A thread that puts what has come into batches of like length, and works through them."""

    def __init__(self, load: Any, kind: Kind, word: str | None, batch_tokens: int) -> None:
        self._kind, self._word, self._batch_tokens = kind, word, batch_tokens
        self.ready = threading.Event()
        self.problem: str | None = None
        self._wake = threading.Condition()
        self._arrived: deque[Work] = deque()
        self._closed = False
        self._model: Any = None
        self._thread = threading.Thread(target=self._work, args=(load,), name="llmrank-transformers", daemon=True)
        self._thread.start()

    async def run(self, work: Work) -> Reply | Failure:
        with self._wake:
            if self._closed:
                return Failure("backend-error", "the model was closed")
            self._arrived.append(work)
            self._wake.notify()
        outcome: Reply | Failure = await work.future
        return outcome

    def close(self) -> None:
        with self._wake:
            self._closed = True
            left, self._arrived = list(self._arrived), deque()
            self._wake.notify()
        deliver([(work, Failure("backend-error", "the model was closed")) for work in left])
        if self._thread is not threading.current_thread():
            self._thread.join(10)

    def _work(self, load: Any) -> None:
        try:
            self._model = load()
        except BaseException as error:
            self.problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return
        finally:
            self.ready.set()
        while (works := self._take()) is not None:
            for batch in self._batches(works):
                waiting = [work for work in batch if not work.future.done()]  # less those given up
                if self._closed:
                    deliver([(work, Failure("backend-error", "the model was closed")) for work in waiting])
                elif waiting:
                    self._run(waiting)
        self._model = None

    def _take(self) -> list[Work] | None:
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._arrived)
            works, self._arrived = list(self._arrived), deque()
            return None if self._closed and not works else works

    def _batches(self, works: Sequence[Work]) -> Iterator[list[Work]]:
        """Works of one kind whose lengths are near to each other, the longest first: so it shows at once what fits."""
        made: dict[tuple[bool, int], list[Work]] = {}
        for work in works:
            try:
                self._prepare(work)
            except Unaskable as error:
                deliver([(work, Failure("bad-request", str(error)))])
            except TooLong as error:
                deliver([(work, Failure("context-length", str(error)))])
            else:
                scored = work.request.continuation is not None
                even = len(work.ids) if self._kind == "head" and not self._model.pads else 0
                made.setdefault((scored, even), []).append(work)
        for of_kind in made.values():
            of_kind.sort(key=_length, reverse=True)
            start = 0
            while start < len(of_kind):
                rows = max(1, min(MOST_ROWS, self._batch_tokens // max(1, _length(of_kind[start]))))
                yield of_kind[start : start + rows]
                start += rows

    def _prepare(self, work: Work) -> None:
        from llmrank.llm.backends.torch_model import Row

        request, tongue = work.request, self._model.tongue
        if self._kind == "head":
            work.ids, work.kinds = tongue.pair(request)
            room = 0
        else:
            chat = self._kind == "causal"
            put = tongue.put(request) if chat else tongue.encoded(request)
            seed = request.sampling.seed
            work.row = Row(
                put,
                request.sampling,
                None if seed is None else seed + request.sample,
                request.constraint,
                tongue.target(request.continuation) if request.continuation is not None and not chat else (),
                request.continuation is not None,
            )
            work.ids = put.ids
            room = 0 if request.continuation is not None or not chat else request.sampling.max_tokens
        check_room(len(work.ids), room, self._model.context)

    def _run(self, batch: Sequence[Work]) -> None:
        """Works on a batch. What takes more memory than there is goes in halves; what one got wrong fails no other."""
        import torch

        try:
            replies: Sequence[Reply | Failure] = self._replies(batch)
        except Exception as error:
            if len(batch) > 1:
                parts = 2 if isinstance(error, torch.OutOfMemoryError) else len(batch)
                size = -(-len(batch) // parts)
                for start in range(0, len(batch), size):
                    part = batch[start : start + size]
                    for work in part:
                        self._prepare(work)
                    self._run(part)
                return
            if isinstance(error, Unaskable):
                replies = [Failure("bad-request", str(error))]
            else:
                replies = [Failure("backend-error", " ".join(f"{type(error).__name__}: {error}".split())[:300])]
        deliver(zip(batch, replies, strict=True))

    def _replies(self, batch: Sequence[Work]) -> list[Reply | Failure]:
        model = self._model
        if self._kind == "head":
            scores = model.heads([work.ids for work in batch], [work.kinds for work in batch if work.kinds])
            return [_number(score, len(work.ids)) for work, score in zip(batch, scores, strict=True)]
        if self._word is not None:
            (word,) = model.tongue.first_tokens([self._word], False) or [0]
            scores = model.words([work.ids for work in batch], word)
            return [_number(score, len(work.ids)) for work, score in zip(batch, scores, strict=True)]
        model.run([work.row for work in batch])
        again = [work for work in batch if work.row.thinking and work.row.finish == "stop" and not work.row.put.opened]
        for work in again:  # it answered without thinking, and so without coming to the constrained part
            self._prepare(work)
            work.row.put = work.row.put._replace(thinks=False)
        if again:
            model.run([work.row for work in again])
        return [model.reply(work.row) for work in batch]


def _length(work: Work) -> int:
    row: Row | None = getattr(work, "row", None)
    return len(work.ids) if row is None else row.work


def _number(score: float, prompt_tokens: int) -> Reply:
    """A reply that says a score; its token's probability is the score's under a sigmoid."""
    text = decimal(score)
    logprob = -math.log1p(math.exp(-score)) if score > -30 else score
    token = Token(text, logprob, ((text, logprob),))
    return Reply(text, "stop", (token,), prompt_tokens=prompt_tokens, completion_tokens=0)
