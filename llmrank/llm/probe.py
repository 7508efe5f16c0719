"""What a server really answers: found out with a call or two, once for each server and model, and remembered.

A server that answers and ignores what was asked is found out: each probe asks for something that nothing but
obeying would give.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import orjson

from llmrank.errors import InputError
from llmrank.llm.backends.constraints import FORMS
from llmrank.llm.backends.wire import NO_SUCH_MODEL
from llmrank.llm.client import BackendRefused, Client
from llmrank.llm.ledger import Row
from llmrank.llm.types import (
    CAPABILITIES,
    Backend,
    Capability,
    Constraint,
    Failure,
    Message,
    Reply,
    Request,
    Sampling,
    capabilities_of,
    ledger_key,
)

VERSION = 1  # of the probes: what another version found out is asked again
REFUSED = frozenset({"bad-request", "unknown-model"})
"""Failures that answer a probe: the server cannot do it."""

GREETING: tuple[Message, ...] = (("user", "Say hello."),)
COUNTING: tuple[Message, ...] = (("user", "Count from one to five, in words."),)
BEGUN: tuple[Message, ...] = (
    ("user", "What is the capital of France? Answer in one sentence."),
    ("assistant", "The capital of France is Par"),
)
RIDDLE: tuple[Message, ...] = (("user", "How many days are there from 3 May to 20 June? Think first."),)
WORDS = ["vexing", "quorum"]
PATTERN = "q[0-9]{3}z"
SCHEMA = {
    "type": "object",
    "properties": {"zone": {"type": "string", "enum": ["vexing"]}},
    "required": ["zone"],
    "additionalProperties": False,
}
SCHEMA_REPLY = '{"zone":"vexing"}'
FOX, JUMPS = "The quick brown fox", " jumps over"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe found."""

    has: bool | None
    """None: it could not be told."""
    form: str = ""
    """How the server wants to be asked for it, where there are several ways."""
    note: str = ""
    """What it did, for people."""
    remembered: float | None = None
    """When it was found out, in seconds since 1970, where the ledger told it."""


class Attempt(NamedTuple):
    """One request of a probe, in one of the forms that servers know for it."""

    request: Request
    obeyed: Callable[[Reply], bool | None]
    form: str = ""
    shared: bool = False
    """Its reply tells of two capabilities: the second to be examined takes what the first was told."""


async def probe(client: Client, capability: Capability, *, raw: bool = False, again: bool = False) -> bool:
    """Whether the client's backend has the capability, as far as can be told.

    raw: with raw prompts instead of chat messages. again: also where it is known. What could not be told counts as had.
    """
    return (await examine(client, capability, raw=raw, again=again)).has is not False


def needed(backend: Backend, needs: Iterable[str]) -> list[Capability]:
    """Those of the needs that have to be probed before a backend is asked for them; none of a local one's."""
    probed: frozenset[str] = getattr(backend, "probed", frozenset())
    return [cast(Capability, need) for need in sorted(set(needs)) if need in probed and need in PROBED]


async def require(client: Client, needs: Iterable[str], who: str, *, raw: bool = False) -> None:
    """Probes what the needs ask for. Raises InputError where the server lacks one. `who` names what needs it."""
    for capability in needed(client.backend, needs):
        verdict = await examine(client, capability, raw=raw)
        if verdict.has is False:
            when = " when it was last asked" if verdict.remembered else ""
            raise InputError(
                f"{who} needs {capability} ({CAPABILITIES[capability]}), which {client.identity.model} at "
                f"{client.origin} did not give{when}: {verdict.note}; take another method, template or backend "
                f"(`llmrank backends check {client.identity.kind}:{client.identity.model} --again` asks anew)"
            )


async def examine(client: Client, capability: Capability, *, raw: bool = False, again: bool = False) -> Verdict:
    """What the backend has of a capability: what it says itself if it is local, else what a probe finds."""
    backend: Any = client.backend
    if capability not in getattr(backend, "probed", frozenset()) or capability not in PROBED:
        return Verdict(capability in capabilities_of(backend))
    if capability == "permutation":
        return await _permutation(client, raw, again)
    found: dict[tuple[str, bool], Verdict] = backend.found
    key = (capability, raw)
    if key not in found or again:
        canonical = _canonical(client, capability, raw)
        verdict = None if again else _remembered(client, canonical)
        if verdict is None:
            verdict = await _asked(client, capability, raw)
            if verdict.has is not None and client.ledger is not None:
                stored = Reply(f"{'has' if verdict.has else 'lacks'}|{verdict.form}|{verdict.note}").dumps()
                row = Row(ledger_key(canonical), *client.identity, client.origin, time.time(), stored, canonical)
                await client.ledger.put(row, replace=True)
        if verdict.has is None:
            return verdict
        found[key] = verdict
    _take_to_heart(backend, capability, found[key])
    return found[key]


def _take_to_heart(backend: Any, capability: Capability, verdict: Verdict) -> None:
    """Makes the backend know: it has what it has with chat messages or with raw prompts."""
    others = (backend.found.get((capability, raw)) for raw in (False, True))
    has = verdict.has or any(other is not None and other.has for other in others)
    (backend.lacking.discard if has else backend.lacking.add)(capability)
    if verdict.form:
        backend.forms[capability.replace("-", "_")] = verdict.form


def _canonical(client: Client, capability: Capability, raw: bool) -> bytes:
    """What the ledger keeps as the request: no prompt that a job could ever send."""
    told = f"(a probe of {client.origin}: {capability}{', raw' if raw else ''})"
    sampling = Sampling(max_tokens=0)
    blank = orjson.loads(Request(prompt=told, sampling=sampling).canonical(client.identity))
    return orjson.dumps([*blank, {"probe": [capability, raw, VERSION]}])


def _remembered(client: Client, canonical: bytes) -> Verdict | None:
    """What the ledger holds; the server's address is part of it, unlike with replies."""
    if client.ledger is None:
        return None
    rows = list(client.ledger.rows("key = ?", (ledger_key(canonical),)))
    if not rows:
        return None
    has, form, note = Reply.loads(rows[0].reply).text.split("|", 2)
    return Verdict(has == "has", form, note, rows[0].created)


async def _asked(client: Client, capability: Capability, raw: bool) -> Verdict:
    if capability == "samples":
        return await _samples(client, raw)
    if capability == "prefill":
        return await _prefill(client)
    backend: Any = client.backend
    name, before, notes = capability.replace("-", "_"), dict(backend.forms), list[str]()
    unclear = False
    for attempt in PROBED[capability](raw):
        if attempt.form:
            backend.forms[name] = attempt.form
        outcome = await (_shared if attempt.shared else _outcome)(client, attempt.request)
        if isinstance(outcome, Reply):
            obeyed = attempt.obeyed(outcome)
            if obeyed:
                return Verdict(True, attempt.form)
            unclear |= obeyed is None
            notes.append("it answered, and passed over what was asked")
        elif outcome is not None and outcome.kind in REFUSED:
            notes.append(f"it refused ({outcome.detail or outcome})")
        else:
            unclear = True
            notes.append(str(outcome) if outcome else "the budget ended the job")
    backend.forms = before
    note = "the model refuses them" if capability in backend.left_out else notes[0].replace("|", "/")
    return Verdict(None if unclear else False, note=note)


async def _shared(client: Client, request: Request) -> Reply | Failure | None:
    backend: Any = client.backend
    told: dict[bytes, Reply | Failure | None] = backend.told
    key = request.canonical(client.identity)
    if key in told:
        return told.pop(key)
    told[key] = outcome = await _outcome(client, request)
    return outcome


async def _outcome(client: Client, request: Request) -> Reply | Failure | None:
    """What came of a request. One refusal in such a call does not end the job, unless it would meet every request."""
    try:
        return await client.unrecorded(request)
    except BackendRefused as error:
        failure = error.failure
        # A server says 404 also of a path that it does not have.
        no_such_path = failure is not None and failure.kind == "unknown-model" and request.prompt is not None
        if not no_such_path or failure is None or NO_SUCH_MODEL.search(failure.detail):
            raise
        client.revive()
        return failure


async def _permutation(client: Client, raw: bool, again: bool) -> Verdict:
    """Over the wire it is asked for as a regular expression or a schema of the right form and length."""
    regex = await examine(client, "regex", raw=raw, again=again)
    schema = regex if regex.has else await examine(client, "json-schema", raw=raw, again=again)
    if schema.has:
        note = "held to form and length alone: an identifier may come twice, which is repaired and counted"
        verdict = Verdict(True, "regex" if regex.has else "json_schema", note, schema.remembered)
    else:
        unclear = None in (regex.has, schema.has)
        verdict = Verdict(None if unclear else False, note=regex.note, remembered=regex.remembered)
    if verdict.has is not None:
        _take_to_heart(client.backend, "permutation", verdict)
    return verdict


async def _samples(client: Client, raw: bool) -> Verdict:
    sampling = Sampling(max_tokens=16, temperature=1.0, seed=1)
    request = _request("Invent a word that nobody has used before. Write only the word.", raw, sampling)
    texts = []
    for sample in range(2):
        outcome = await _outcome(client, request.resampled(sample))
        if not isinstance(outcome, Reply):
            return Verdict(None, note=str(outcome) if outcome else "the budget ended the job")
        texts.append(outcome.text)
    return Verdict(texts[0] != texts[1], note="" if texts[0] != texts[1] else "it wrote the same twice")


async def _prefill(client: Client) -> Verdict:
    """The reply goes on in the middle of a word; or, of a model that makes no sense, the prompt was left open."""
    backend: Any = client.backend
    before, prompt_tokens, notes = dict(backend.forms), dict[str, int | None](), list[str]()
    unclear = False
    for form in ("continue", "plain", "prefix"):
        backend.forms["prefill"] = form
        outcome = await _outcome(client, Request(BEGUN, sampling=Sampling(max_tokens=8)))
        if isinstance(outcome, Reply):
            if outcome.text.startswith(("is", BEGUN[1][1])):
                return Verdict(True, form)
            prompt_tokens[form] = outcome.prompt_tokens
            notes.append("it began a reply of its own")
        else:
            unclear |= outcome is None or outcome.kind not in REFUSED
            notes.append(str(outcome) if outcome else "the budget ended the job")
    backend.forms = before
    left_open, closed = prompt_tokens.get("continue"), prompt_tokens.get("plain")
    if left_open and closed and left_open < closed:
        return Verdict(True, "continue")
    return Verdict(None if unclear else False, note=notes[0].replace("|", "/"))


# --- what is asked, and what obeying it looks like


def _request(text: str, raw: bool, sampling: Sampling, constraint: Constraint | None = None) -> Request:
    if raw:
        return Request(prompt=f"{text}\n", sampling=sampling, constraint=constraint)
    return Request((("user", text),), sampling=sampling, constraint=constraint)


def _logprobs(raw: bool) -> Iterator[Attempt]:
    request = _request(COUNTING[0][1], raw, Sampling(max_tokens=8, logprobs=20))
    yield Attempt(request, lambda reply: bool(reply.tokens and len(reply.tokens[0].top) > 1), shared=True)


def _later_logprobs(raw: bool) -> Iterator[Attempt]:
    def obeyed(reply: Reply) -> bool | None:
        if not reply.tokens:
            return False
        return None if len(reply.tokens) < 2 else all(len(token.top) > 1 for token in reply.tokens)

    (attempt,) = _logprobs(raw)
    yield attempt._replace(obeyed=obeyed)


def _prompt_logprobs(raw: bool) -> Iterator[Attempt]:
    request = Request(prompt=FOX, continuation=JUMPS) if raw else Request((("user", FOX),), continuation=JUMPS)

    def obeyed(reply: Reply) -> bool:
        return "".join(token.text for token in reply.tokens or ()).strip() == JUMPS.strip()

    yield Attempt(request, obeyed)


def _held(kind: Any, value: Any, is_such: Callable[[str, bool], bool]) -> Callable[[bool], Iterator[Attempt]]:
    def obeyed(reply: Reply) -> bool | None:
        cut = reply.finish == "length"
        said = reply.text.rpartition("</think>")[2].strip()
        if cut and (not said or said.startswith("<think>")):  # it is still thinking
            return None
        return is_such(said, cut)

    def attempts(raw: bool) -> Iterator[Attempt]:
        request = _request(GREETING[0][1], raw, Sampling(max_tokens=48), Constraint(kind, value))
        for form in FORMS[kind]:
            yield Attempt(request, obeyed, form)

    return attempts


def _is_schema_reply(text: str, cut: bool) -> bool:
    """It obeys also where it was cut off: a small model may fill a page with the spaces that JSON allows."""
    said = re.sub(r"\s", "", text)
    return said == SCHEMA_REPLY or (cut and SCHEMA_REPLY.startswith(said))


def _raw(raw: bool) -> Iterator[Attempt]:
    yield Attempt(
        Request(prompt=FOX, sampling=Sampling(max_tokens=4)), lambda reply: bool(reply.text or reply.completion_tokens)
    )


def _reasoning(raw: bool) -> Iterator[Attempt]:
    yield Attempt(Request(RIDDLE, sampling=Sampling(max_tokens=64)), lambda reply: bool(reply.reasoning))


PROBED: dict[str, Callable[[bool], Iterable[Attempt]]] = {
    "logprobs": _logprobs,
    "later-logprobs": _later_logprobs,
    "prompt-logprobs": _prompt_logprobs,
    "choice": _held("choice", WORDS, lambda text, _: text in WORDS),
    "regex": _held("regex", PATTERN, lambda text, _: re.fullmatch(PATTERN, text) is not None),
    "json-schema": _held("json_schema", SCHEMA, _is_schema_reply),
    "permutation": lambda raw: (),
    "raw": _raw,
    "prefill": lambda raw: (),
    "samples": lambda raw: (),
    "reasoning": _reasoning,
}
"""The requests that find a capability out, by its name: the first form that is obeyed is taken."""
