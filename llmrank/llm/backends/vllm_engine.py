"""vLLM's engine in a thread of its own: requests go in whenever they come, and every step serves all that are there.

Waiting requests are let in by their tokens, from the first to the last and round again, so that those which share
a head run one after the other while its blocks are in the cache.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from operator import itemgetter
from typing import Any, Literal

from llmrank.llm.backends.awaited import Awaited, deliver

Told = Literal["likeliest", "named"]
"""Whose log-probabilities a request wants: the likeliest tokens', or those of tokens that it names.

vLLM's sampler may tell one or the other for a whole batch, so requests of both kinds never run at once.
"""
OTHER: dict[Told, Told] = {"likeliest": "named", "named": "likeliest"}

TURN = 8  # batches of one kind, after which the other has its turn
LONGEST_CLOSE = 10.0  # seconds that the end of the program waits for a step to end


ONE_AT_A_TIME = threading.Lock()
"""Held while an engine starts, steps or ends: what vLLM knows of a step stands in variables of the whole process."""
_RUNNING: list[Any] = []
_ENDED: list[Any] = []
"""Engines in this very process: the first that goes takes what all of them share with it, so they go together."""


class EngineStopped(Exception):
    """There is no engine, or none any more; the text says why."""


class Refused(Exception):
    """The engine does not take this request; the text says why."""


class Job(Awaited):
    """One request to the engine, and who waits for it."""

    def __init__(self, name: str, ids: Sequence[int], params: Any, told: Told, urgent: bool, lora: Any) -> None:
        super().__init__()
        self.name, self.ids, self.params = name, list(ids), params
        self.told, self.urgent, self.lora = told, urgent, lora


class Waiting:
    """Jobs of one kind that are not in the engine yet, in the order in which they are to go there."""

    def __init__(self) -> None:
        self._urgent: deque[Job] = deque()
        self._sorted: list[tuple[list[int], str, Job]] = []
        self._last: list[int] = []

    def __len__(self) -> int:
        return len(self._urgent) + len(self._sorted)

    def add(self, jobs: Sequence[Job]) -> None:
        self._urgent.extend(job for job in jobs if job.urgent)
        self._sorted.extend((job.ids, job.name, job) for job in jobs if not job.urgent)
        self._sorted.sort(key=itemgetter(0, 1))

    def take(self) -> Job:
        if self._urgent:
            return self._urgent.popleft()
        place = bisect.bisect_left(self._sorted, self._last, key=itemgetter(0))
        self._last, _, job = self._sorted.pop(place if place < len(self._sorted) else 0)
        return job

    def drop(self, job: Job) -> bool:
        """Whether the job was here."""
        before = len(self)
        self._urgent = deque(other for other in self._urgent if other is not job)
        self._sorted = [entry for entry in self._sorted if entry[2] is not job]
        return len(self) < before

    def drain(self) -> list[Job]:
        jobs = [*self._urgent, *(job for *_, job in self._sorted)]
        self._urgent.clear()
        self._sorted.clear()
        return jobs


class Engine:
    """Runs the engine that `make` gives. Its coroutines may be awaited from any event loop."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.engine: Any = None
        self.started = False
        self.stopped: str | None = None
        """Why there is no engine any more."""
        self.computed = 0
        """Prompt tokens that were computed, not found in the cache."""
        self._make = make
        self._names = count()
        self._wake = threading.Condition()
        self._arrived: deque[Job] = deque()
        self._given_up: deque[Job] = deque()
        self._closing = False
        self._waiting: dict[Told, Waiting] = {"likeliest": Waiting(), "named": Waiting()}
        self._running: dict[str, Job] = {}
        self._told: Told = "likeliest"
        self._admitted = 0
        self._most = 1
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="llmrank-vllm", daemon=True)
        self._thread.start()

    async def ready(self) -> None:
        """Waits until the engine is there. Raises EngineStopped where it could not be started."""
        while not self._ready.is_set():
            await asyncio.sleep(0.02)
        if self.stopped is not None:
            raise EngineStopped(self.stopped)

    async def run(
        self, ids: Sequence[int], params: Any, *, told: Told = "likeliest", urgent: bool = False, lora: Any = None
    ) -> Any:
        """vLLM's output for a prompt of tokens. Raises Refused or EngineStopped.

        `urgent`: it goes on from a request that has just been answered, while the blocks of that one are in the cache.
        """
        job = Job(f"{next(self._names):09}", ids, params, told, urgent, lora)
        with self._wake:
            if self.stopped is not None:
                raise EngineStopped(self.stopped)
            self._arrived.append(job)
            self._wake.notify()
        try:
            return await job.future
        except asyncio.CancelledError:
            with self._wake:
                self._given_up.append(job)
                self._wake.notify()
            raise

    def close(self) -> None:
        """Ends the engine; whoever still waits gets EngineStopped."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(LONGEST_CLOSE)

    def _work(self) -> None:
        why = "it was closed"
        try:
            with ONE_AT_A_TIME:
                self.engine = self._make()
                if here := _is_in_this_process(self.engine):
                    _RUNNING.append(self.engine)
            turn = ONE_AT_A_TIME if here else contextlib.nullcontext()
            self._most = 2 * self.engine.vllm_config.scheduler_config.max_num_seqs
            self.started = True
            self._ready.set()
            while self._take_arrivals():
                self._admit()
                if self._running:
                    with turn:
                        outputs = self.engine.step()
                    self._finish(outputs)
        except BaseException as error:  # out of memory, a worker that died: whatever it is, nobody may wait for ever
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        with self._wake:
            self.stopped = why
            left = [*self._arrived, *self._running.values(), *(j for w in self._waiting.values() for j in w.drain())]
            self._arrived.clear()
        self._ready.set()
        deliver([(job, EngineStopped(why)) for job in left])
        engine, self.engine = self.engine, None
        if engine is not None:
            _shut_down(engine)

    def _take_arrivals(self) -> bool:
        """Takes in what came and lets go of what was given up; waits where there is nothing to do. False: the end."""
        with self._wake:
            self._wake.wait_for(
                lambda: self._closing or self._arrived or self._given_up or self._running or any(self._waiting.values())
            )
            arrived, self._arrived = self._arrived, deque()
            given_up, self._given_up = self._given_up, deque()
            if self._closing:
                self._arrived = arrived
                return False
        for told, waiting in self._waiting.items():
            if of_kind := [job for job in arrived if job.told == told]:
                waiting.add(of_kind)
        for job in given_up:
            if not self._waiting[job.told].drop(job) and self._running.pop(job.name, None) is not None:
                self.engine.abort_request([job.name])
        return True

    def _admit(self) -> None:
        """Lets waiting jobs into the engine, as many as it runs at once and as many again, so that it is never idle."""
        refused = []
        other = OTHER[self._told]
        if self._waiting[other] and (not self._waiting[self._told] or self._admitted >= TURN * self._most):
            if self._running:
                return
            self._told, self._admitted = other, 0
        waiting = self._waiting[self._told]
        while waiting and len(self._running) < self._most:
            job = waiting.take()
            try:
                prompt = {"prompt_token_ids": job.ids}
                self.engine.add_request(job.name, prompt, job.params, lora_request=job.lora)
            except Exception as error:  # this request is none that it takes; the others go on
                refused.append((job, Refused(f"{type(error).__name__}: {error}")))
            else:
                self._running[job.name] = job
                self._admitted += 1
        deliver(refused)

    def _finish(self, outputs: Sequence[Any]) -> None:
        done = []
        for output in outputs:
            if output.finished and (job := self._running.pop(output.request_id, None)) is not None:
                self.computed += len(job.ids) - (output.num_cached_tokens or 0)
                done.append((job, output))
        deliver(done)


def _is_in_this_process(engine: Any) -> bool:
    return hasattr(engine.engine_core, "engine_core")


def _shut_down(engine: Any) -> None:
    with ONE_AT_A_TIME:
        if _is_in_this_process(engine):
            _RUNNING[:] = [other for other in _RUNNING if other is not engine]
            _ENDED.append(engine)
            going = [] if _RUNNING else [_ENDED.pop() for _ in range(len(_ENDED))]
        else:
            going = [engine]
        for each in going:
            with contextlib.suppress(Exception):
                each.engine_core.shutdown()
