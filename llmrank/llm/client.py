"""The client turns requests into replies: ledger, requests in flight, budget, slots, backend, ledger again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llmrank.errors import InputError, LlmrankError
from llmrank.llm.adaptive import Adaptive
from llmrank.llm.budget import Amount, Budget, Price
from llmrank.llm.hedging import Hedging
from llmrank.llm.ledger import Ledger, Row
from llmrank.llm.limits import Rate, Slots
from llmrank.llm.storable import storable
from llmrank.llm.types import Backend, Failure, Reply, Request, identity_of, ledger_key

LONGEST_RETRY_AFTER = 300.0  # seconds; a server that wants a longer pause has in effect refused
AHEAD = 3  # prompts that are made and not answered, for each slot, at most


class BackendRefused(LlmrankError):
    """The backend refused in a way that no other request would escape: bad key, unknown model, nothing there."""

    exit_code = 5

    def __init__(self, told: str, failure: Failure | None = None) -> None:
        super().__init__(told)
        self.failure = failure


class Exchange(NamedTuple):
    """What came of a request: a reply, or a failure, or neither where a budget ended the job before it was sent."""

    reply: Reply | None
    failure: Failure | None = None
    calls: int = 0
    """Requests sent for it, retries included."""
    reused: bool = False
    """The reply came from the ledger, or from the same request in flight."""
    cost: float | None = None
    """USD, where a price is known."""
    key: bytes = b""

    @property
    def unasked(self) -> bool:
        return self.reply is None and self.failure is None


class Named(NamedTuple):
    """What a request is in the ledger."""

    canonical: bytes
    key: bytes


@dataclass(slots=True)
class Totals:
    """What the client did so far."""

    calls: int = 0
    reused: int = 0
    cost: float | None = None
    other_origins: set[str] = field(default_factory=set)
    """Addresses, other than the one in use, from which replies in the ledger came."""


@dataclass
class Client:
    """One backend with its ledger and limits, for one event loop. `ask` never raises for what one request met."""

    backend: Backend
    ledger: Ledger | None = None
    budget: Budget | None = None
    price: Price | None = None
    concurrency: int = 32
    rpm: float | None = None
    tpm: float | None = None
    timeout: float = 60.0
    retries: int = 8
    model_id: str | None = None
    """Tells apart two models that servers give one name; takes the model's place in the ledger key."""
    totals: Totals = field(default_factory=Totals)
    adaptive: bool = False
    """Finds out how many requests to keep in flight, up to `concurrency`."""
    hedge: float | None = None
    """A request that takes longer than this share of the last ones is sent a second time; the first reply counts."""

    landed: int = field(default=0, init=False)
    """Requests that are no longer in flight: what was not in the ledger before one landed may be there now."""
    gives_logprobs: bool = field(default=False, init=False)
    """A reply had them: the server does not pass over them."""
    without_logprobs: int = field(default=0, init=False)
    """Replies that lacked them, though they were asked for."""

    def __post_init__(self) -> None:
        self.identity = identity_of(self.backend)
        if self.model_id:
            # What a simulated judge answers hangs on its parameters, whatever it is called.
            told = f"{self.identity.model}&id={self.model_id}" if self.identity.kind == "simulated" else self.model_id
            self.identity = self.identity._replace(model=told)
        if self.budget is not None and self.budget.limit.cost != float("inf") and self.price is None:
            raise InputError(
                "--max-cost needs to know what the model costs: give --price IN,OUT in USD per million tokens"
            )
        self.origin: str = getattr(self.backend, "origin", "")
        spread: Callable[[int], int] | None = getattr(self.backend, "spread", None)  # each of several servers takes it
        size = self.concurrency if spread is None else spread(self.concurrency)
        self.slots = Slots(size)
        self.prompts = Slots(AHEAD * size)
        self._admit: Callable[[], Awaitable[None]] | None = getattr(self.backend, "admit", None)
        self._pace = Adaptive(self.slots) if self.adaptive else None
        self._hedging = None if self.hedge is None else Hedging(self.hedge, self.slots)
        self._requests = Rate(self.rpm) if self.rpm else None
        self._tokens = Rate(self.tpm) if self.tpm else None
        self._flying: dict[bytes, asyncio.Future[Exchange]] = {}
        self._proven = not getattr(self.backend, "remote", False)
        self._load: Callable[[], Awaitable[None]] | None = getattr(self.backend, "ready", None)
        self._first = asyncio.Lock()
        self._paused_until = 0.0
        self.refused: BackendRefused | None = None

    async def ask(
        self,
        request: Request,
        *,
        remaining: float = 0.0,
        fresh: bool = False,
        spent: list[float] | None = None,
        missing: Named | None = None,
    ) -> Exchange:
        """One request's reply. `remaining`: rounds the asking query has before it; `fresh`: not from the ledger.

        spent: takes the cost of every attempt, also where the asker is cancelled and gets no reply. missing: the
        request's name, where it was just found not to be in the ledger.
        """
        canonical, key = missing or self.named(request)
        while (flying := self._flying.get(key)) is not None:
            await asyncio.wait({flying})  # not `await flying`: the first asker's end must not be this one's
            if not flying.cancelled():
                return flying.result()._replace(calls=0, reused=True, cost=None)
            missing = None
        if not fresh and missing is None and (known := self.known(key)) is not None:
            self.totals.reused += 1
            return Exchange(known, reused=True, key=key)
        flying = self._flying[key] = asyncio.get_running_loop().create_future()
        try:
            exchange = await self._send_in_turn(request, canonical, key, remaining, fresh, spent)
            flying.set_result(exchange)
            return exchange
        finally:
            self.landed += 1
            del self._flying[key]
            if not flying.done():
                flying.cancel()

    def named(self, request: Request) -> Named:
        canonical = request.canonical(self.identity)
        return Named(canonical, ledger_key(canonical))

    def known(self, key: bytes) -> Reply | None:
        """The reply that the ledger holds."""
        return None if self.ledger is None else self._of_origin(self.ledger.get(key))

    def at_rest(self, keys: Sequence[bytes]) -> list[Reply | None]:
        """The replies that the ledger holds, where nothing that is in flight may change them."""
        flying, ledger = self._flying, self.ledger
        if ledger is None:
            return [None] * len(keys)
        if len(keys) == 1:
            return [None if keys[0] in flying else self._of_origin(ledger.get(keys[0]))]
        found = ledger.several(keys)
        return [None if key in flying else self._of_origin(found.get(key)) for key in keys]

    def _of_origin(self, found: tuple[Reply, str] | None) -> Reply | None:
        if found is None:
            return None
        reply, origin = found
        if origin != self.origin and self.origin:
            self.totals.other_origins.add(origin)
        return reply

    async def _send_in_turn(
        self, request: Request, canonical: bytes, key: bytes, remaining: float, fresh: bool, spent: list[float] | None
    ) -> Exchange:
        if self._proven:
            return await self._send(request, canonical, key, remaining, fresh, spent)
        async with self._first:  # a bad key is found out with one request, not with one for every slot
            if not self._proven:
                exchange = await self._send(request, canonical, key, remaining, fresh, spent)
                self._proven = True
                return exchange
        return await self._send(request, canonical, key, remaining, fresh, spent)

    async def _send(
        self, request: Request, canonical: bytes, key: bytes, remaining: float, fresh: bool, spent: list[float] | None
    ) -> Exchange:
        if getattr(self.backend, "ledger_path", None) is not None:  # a replayed ledger: there is nobody to send it to
            return Exchange(None, Failure("not-in-ledger"), key=key)
        if self._load is not None:  # an engine in this process: how long it takes to load is no request's time
            await self._load()
            self._load = None
        await self.slots.acquire(remaining)
        try:  # the slot is kept until the reply is committed
            outcome, calls, cost = await self._attempts(request, spent)
            if outcome is None or isinstance(outcome, Failure):
                return Exchange(None, outcome, calls, cost=cost, key=key)
            if self.ledger is not None:
                row = Row(key, *self.identity, self.origin, time.time(), outcome.dumps(), canonical)
                await self.ledger.put(row, replace=fresh)
            return Exchange(outcome, None, calls, cost=cost, key=key)
        finally:
            self.slots.release()

    async def unrecorded(self, request: Request) -> Reply | Failure | None:
        """What comes of a request past the ledger, within all limits; None where a budget ended the job."""
        await self.slots.acquire(0.0)
        try:
            outcome, _, _ = await self._attempts(request)
        finally:
            self.slots.release()
        self._proven |= isinstance(outcome, Reply)
        return outcome

    async def _attempts(
        self, request: Request, spent: list[float] | None = None
    ) -> tuple[Reply | Failure | None, int, float | None]:
        """The outcome of the last attempt, how many were made, and what they cost. None: a budget ended the job."""
        spent = [] if spent is None else spent
        outcome = await (self._attempt if self._hedging is None else self._hedged)(request, spent)
        if isinstance(outcome, Failure) and self._worth_retrying(outcome) and self.retries > 0:
            outcome = await self._retried(request, outcome, spent)
        if isinstance(outcome, Failure) and (outcome.fatal or (outcome.retry_after or 0) > LONGEST_RETRY_AFTER):
            pause = f"; it asks for a pause of {outcome.retry_after:.0f} s" if outcome.retry_after else ""
            self.refused = BackendRefused(f"{self.origin or self.identity.model}: {outcome}{pause}", outcome)
            raise self.refused
        return outcome, len(spent), sum(spent) if self.price is not None else None

    async def _retried(self, request: Request, first: Failure, spent: list[float]) -> Reply | Failure | None:
        """Further attempts after a first that failed; a call that succeeds at once pays for none of this."""
        from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt

        outcomes: list[Failure] = [first]

        async def attempt() -> Reply | Failure | None:
            return outcomes.pop() if outcomes else await self._attempt(request, spent)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=lambda state: _pause(state.outcome.result() if state.outcome else None, state.attempt_number),
            retry=retry_if_result(self._worth_retrying),
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        return await retrying(attempt)

    def _worth_retrying(self, outcome: Reply | Failure | None) -> bool:
        return (
            isinstance(outcome, Failure)
            and outcome.retry
            and self.refused is None
            and (outcome.retry_after or 0) <= LONGEST_RETRY_AFTER
        )

    async def _attempt(self, request: Request, spent: list[float]) -> Reply | Failure | None:
        """One request sent, or none where the budget has no room for it; appends its cost to `spent`."""
        most = Amount(calls=1)
        if self.budget is not None or self._tokens is not None:
            most = self._most(request)
        if self.budget is not None and not await self.budget.reserve(most):
            return None
        outcome: Reply | Failure = Failure("connection", "cancelled")
        try:
            await self._wait_for_rates(most.tokens)
            if self.refused is not None:
                raise self.refused
            self.totals.calls += 1
            if self._pace is None and self._hedging is None:
                outcome = await self._complete(request)
            else:
                outcome = await self._timed(request)
        finally:
            actual = self._actual(outcome, most)
            spent.append(actual.cost)
            if self._tokens is not None:
                self._tokens.give(most.tokens - actual.tokens)
            if self.budget is not None:
                self.budget.settle(most, actual)
        return outcome

    def _most(self, request: Request) -> Amount:
        """What one request takes at most."""
        prompt, completion = request.prompt_bytes(), request.sampling.max_tokens
        return Amount(1, prompt + completion, self.price.of(prompt, completion) if self.price else 0.0)

    async def _timed(self, request: Request) -> Reply | Failure:
        clock = asyncio.get_running_loop().time
        began = clock()
        outcome = await self._complete(request)
        ended = clock()
        if self._pace is not None:
            self._pace.seen(outcome, ended)
        if self._hedging is not None and isinstance(outcome, Reply):
            self._hedging.latencies.add(ended - began)
        return outcome

    async def _hedged(self, request: Request, spent: list[float]) -> Reply | Failure | None:
        assert self._hedging is not None
        return await self._hedging.first(lambda: self._attempt(request, spent), lambda: self._may_hedge(request))

    def _may_hedge(self, request: Request) -> bool:
        """Whether the budget has room for a second request without ending the job."""
        budget = self.budget
        if budget is None:
            return True
        return budget.ended is None and budget.spent.plus(budget.reserved).plus(self._most(request)).within(
            budget.limit
        )

    async def _complete(self, request: Request) -> Reply | Failure:
        try:
            async with asyncio.timeout(self.timeout):
                outcome = await self.backend.complete(request)
        except TimeoutError:
            return Failure("timeout", f"{self.timeout:g} s")
        except (OSError, EOFError) as error:
            return Failure("connection", type(error).__name__)
        except LlmrankError:
            raise
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return Failure("connection", "the backend cancelled it")
        except Exception as error:  # a user's own backend may raise anything: a value of ours from here on
            return Failure("backend-error", f"{type(error).__name__}: {error}")
        outcome = storable(outcome)
        if isinstance(outcome, Failure) and outcome.retry_after and outcome.retry_after <= LONGEST_RETRY_AFTER:
            now = asyncio.get_running_loop().time()
            self._paused_until = max(self._paused_until, now + outcome.retry_after)
        return outcome

    async def _wait_for_rates(self, tokens: float) -> None:
        if self._requests is not None:
            await self._requests.take(1)
        if self._tokens is not None:
            await self._tokens.take(tokens)
        if self._admit is not None:
            await self._admit()
        if self._paused_until:
            while (pause := self._paused_until - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(pause)

    def _actual(self, outcome: Reply | Failure, most: Amount) -> Amount:
        if isinstance(outcome, Failure):
            return most if outcome.billed else Amount(calls=1)
        totals = self.totals
        if outcome.prompt_tokens is None or outcome.completion_tokens is None:
            actual = most
        else:
            prompt, completion = outcome.prompt_tokens, outcome.completion_tokens
            actual = Amount(1, prompt + completion, self.price.of(prompt, completion) if self.price else 0.0)
        if self.price is not None:
            totals.cost = (totals.cost or 0.0) + actual.cost
        return actual

    def revive(self) -> None:
        """Lets a client that was refused try again once nothing of it is under way: the server may be back."""
        if self.refused is not None and not self._flying:
            self.refused = None
            self._proven = not getattr(self.backend, "remote", False)

    async def aclose(self) -> None:
        """Closes the backend's connections and commits what the ledger still holds."""
        close: Callable[[], object] | None = getattr(self.backend, "aclose", None)
        if close is not None:
            closing = close()
            if asyncio.iscoroutine(closing):
                await closing
        if self.ledger is not None:
            self.ledger.close()


def _pause(outcome: Reply | Failure | None, attempts: int) -> float:
    """Full jitter under a doubling ceiling: to 8 s, or to 60 s where the server asked for fewer requests."""
    limited = isinstance(outcome, Failure) and outcome.kind == "rate-limited"
    jitter = random.uniform(0, min(60.0 if limited else 8.0, 0.25 * 2**attempts))
    asked = outcome.retry_after if isinstance(outcome, Failure) else None
    # The pause that the server asked for is kept by all requests; only the jitter comes on top.
    return jitter if asked is None else min(jitter, 0.25)
