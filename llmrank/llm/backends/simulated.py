"""The `simulated` backend: answers from known grades, in the text a model would give, with errors of known kinds."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any

from llmrank.data.files import file_sha256
from llmrank.data.qrels import read_qrels
from llmrank.data.types import Anchor, Document, Passage
from llmrank.errors import InputError
from llmrank.llm.backends.answering import answer, nearest, reply
from llmrank.llm.types import CAPABILITIES, About, Failure, Identity, Reply, Request

MALFORMED = (
    "20 passages are provided.",
    "",
    "Thank you for the question! Here is some background on the topic.",
    "<think>Let me look at each of them in turn, beginning with",
    "Error: upstream returned 502",
)
REFUSED = "I'm sorry, but I can't help with that request."
GAUSSIAN = NormalDist()


@dataclass(frozen=True, slots=True)
class Errors:
    """How a simulated judge errs."""

    noise: float = 0.0
    """Standard deviation of Gaussian noise on grade / highest grade, drawn anew for every question."""
    label_noise: float = 0.0
    """Probability that a label is replaced by another, uniformly."""
    order_bias: float = 0.0
    """Probability that what is shown first wins whatever it is."""
    ties: float = 0.0
    """Grades nearer than this share of the scale tie."""
    malformed: float = 0.0
    """Share of replies that no parser can read."""
    refused: float = 0.0
    """Share of replies that refuse."""
    latency: str = "0"
    """Seconds, or `lognormal:MEDIAN:SIGMA`."""
    seed: int = 0

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Errors:
        kinds: dict[str, Any] = {f.name: type(f.default) for f in fields(cls)}
        values: dict[str, Any] = {}
        for name, text in parameters.items():
            if name not in kinds:
                raise InputError(f"simulated: {name} is no parameter; there are {', '.join(kinds)}")
            try:
                values[name] = kinds[name](text)
            except ValueError:
                raise InputError(f"simulated: {name}={text} is no number") from None
        errors = cls(**values)
        for name in ("label_noise", "order_bias", "ties", "malformed", "refused"):
            if not 0 <= getattr(errors, name) <= 1:
                raise InputError(f"simulated: {name}={parameters[name]} must lie between 0 and 1")
        if errors.malformed + errors.refused > 1:
            raise InputError(
                "simulated: malformed and refused are shares of all replies; together they must not pass 1"
            )
        if not 0 <= errors.noise < math.inf:
            raise InputError(f"simulated: noise={parameters['noise']} must be a number not below 0")
        _latency(errors.latency, None)
        return errors


class SimulatedBackend:
    """Knows the grades; a document's grade reaches it by the ids that a request carries, never by its text."""

    capabilities = frozenset(CAPABILITIES)

    def __init__(self, grades: Mapping[str, Mapping[str, int]], errors: Errors | None = None, fingerprint: str = ""):
        fingerprint = fingerprint or _fingerprint(grades)
        self.errors = errors or Errors()
        self._grades = grades
        self._highest = max((g for of_query in grades.values() for g in of_query.values()), default=0)
        self._highest = max(1, self._highest)
        told = "&".join(f"{f.name}={getattr(self.errors, f.name)}" for f in fields(Errors) if f.name != "latency")
        self.identity = Identity("simulated", f"qrels={fingerprint}&{told}")

    @classmethod
    def from_file(cls, path: str, parameters: Mapping[str, str]) -> SimulatedBackend:
        if not path:
            raise InputError("the backend simulated: lacks its qrels; write simulated:QRELS")
        return cls(read_qrels(path), Errors.parse(parameters), file_sha256(path)[:16])

    async def complete(self, request: Request) -> Reply | Failure:
        about = request.about
        if about is None:
            return Failure("bad-request", "a simulated judge answers only questions about known documents")
        draws = _Draws(self.errors.seed, about, request.sample)
        seconds = _latency(self.errors.latency, draws)
        if seconds:
            await asyncio.sleep(seconds)
        return self._reply(request, about, draws)

    def _reply(self, request: Request, about: About, draws: _Draws) -> Reply:
        errors = self.errors
        if errors.malformed or errors.refused:
            fault = draws.uniform("fault")  # one draw: both are shares of all replies
            if fault < errors.malformed:
                return reply(request, MALFORMED[int(draws.uniform("which") * len(MALFORMED))])
            if fault < errors.malformed + errors.refused:
                return reply(request, REFUSED)
        return answer(request, about, self._worths(about, draws), ties=errors.ties)

    def _worths(self, about: About, draws: _Draws) -> list[float]:
        """What each shown document is worth to this judge at this moment, on a scale from 0 to 1."""
        grades, errors = self._grades.get(about.query.id, {}), self.errors
        worths = [self._worth(grades, d) for d in about.documents]
        if errors.noise:
            worths = [
                w + errors.noise * draws.normal(f"noise {d.id}") for w, d in zip(worths, about.documents, strict=True)
            ]
        if about.question.kind == "grade":
            if errors.label_noise and draws.uniform("label") < errors.label_noise:
                worths = [_another(worths[0], about, draws)]
        elif errors.order_bias and draws.uniform("bias") < errors.order_bias:
            first = 2.0 + max(worths) if not about.question.worst else min(worths) - 2.0
            worths[0] = first
        return worths

    def _worth(self, grades: Mapping[str, int], document: Document) -> float:
        """By the document's grade; a passage has that of its document, an anchor that is not listed its own."""
        known = document.of if isinstance(document, Passage | Anchor) else document.id
        if isinstance(document, Anchor) and known not in grades:
            return document.worth
        return max(0, grades.get(known, 0)) / self._highest


class _Draws:
    """Random numbers from a hash of seed, query, documents and question, never from the order of arrival."""

    def __init__(self, seed: int, about: About, sample: int) -> None:
        ids = "\0".join(d.id for d in about.documents)
        text = f"{seed}\0{sample}\0{about.question.kind}\0{about.question.worst}\0{about.query.id}\0{ids}"
        if about.question.given:  # another criterion is another question
            text += "".join(f"\0{name}\0{told}" for name, told in about.question.given)
        self._base = text.encode(errors="surrogatepass")

    def uniform(self, name: str) -> float:
        """In (0, 1)."""
        digest = hashlib.blake2b(self._base + b"\0" + name.encode(errors="surrogatepass"), digest_size=7).digest()
        return (int.from_bytes(digest, "big") + 0.5) / 2**56

    def normal(self, name: str) -> float:
        return GAUSSIAN.inv_cdf(self.uniform(name))


def _fingerprint(grades: Mapping[str, Mapping[str, int]]) -> str:
    listed = sorted((query, sorted(of_query.items())) for query, of_query in grades.items())
    return hashlib.sha256(repr(listed).encode(errors="surrogatepass")).hexdigest()[:16]


def _another(worth: float, about: About, draws: _Draws) -> float:
    """The worth of a label other than the one that would be said, each as likely."""
    if len(about.grades) < 2:
        return worth
    values = [value for _, value in about.grades]
    other = int(draws.uniform("other label") * (len(values) - 1))
    other += other >= nearest(about, worth)
    return (values[other] - values[0]) / (values[-1] - values[0])


def _latency(text: str, draws: _Draws | None) -> float:
    """Seconds to wait; without draws the text is only checked."""
    kind, *numbers = text.split(":")
    try:
        if not numbers:
            seconds = float(kind)
            if 0 <= seconds < math.inf:
                return seconds
        elif kind == "lognormal" and len(numbers) == 2:
            median, sigma = map(float, numbers)
            if 0 <= median < math.inf and 0 <= sigma <= 10:
                return 0.0 if draws is None else median * math.exp(sigma * draws.normal("latency"))
    except ValueError:
        pass
    raise InputError(f"simulated: latency={text} is neither seconds nor lognormal:MEDIAN:SIGMA")
