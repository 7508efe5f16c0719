"""A job of questions through several templates: its sums, its files, its manifest, and asking it all."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import llmrank
from llmrank.data.files import file_sha256
from llmrank.jobs.outputs import Outputs
from llmrank.jobs.spool import Spool
from llmrank.jobs.totals import AskedTotals
from llmrank.jobs.work import JobEnd, work
from llmrank.judge.talk import Row, Talk, Worked
from llmrank.llm.client import Totals
from llmrank.llm.types import identity_of

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(slots=True)
class TalkTotals(AskedTotals):
    """The sums of a job."""

    done: int = 0
    """Units of work that are done."""

    def json(self) -> Row:
        return self.asked() | {"failure_rate": self.failure_rate}


@dataclass(slots=True)
class TalkEnd(JobEnd):
    """How a job ended."""

    totals: TalkTotals = field(default_factory=TalkTotals)
    later: bool = False
    """A later part of the job is going on, whose units of work are not those that are counted as done."""

    def json(self) -> Row:
        return {**self.totals.json(), "ended_by": self.ended_by}


OnProgress = Callable[[TalkEnd, Totals], None]


def ask_all(
    talk: Talk[In, Out],
    requests: Iterable[In],
    outputs: Outputs,
    lines: Callable[[Out], str],
    on_progress: OnProgress | None = None,
    end: TalkEnd | None = None,
) -> tuple[TalkEnd, Spool]:
    """Asks everything; how that ended, and what `lines` makes of each result, in OUT.partial until it is finished.

    `end`: that of an earlier part of the job, which goes on.
    """
    ended = end or TalkEnd()
    spool: Spool | None = None

    def begin() -> Spool:
        nonlocal spool
        spool = Spool(outputs.partial)
        return spool

    def take(place: int, worked: Worked[Out]) -> None:
        assert spool is not None
        spool.write(place, lines(worked.value))  # before it counts as done
        ended.totals.spent(worked.tallies)
        ended.totals.done += not ended.later

    def progress(spent: Totals) -> None:
        if on_progress is not None:
            on_progress(ended, spent)

    before = ended.ended_by
    written = asyncio.run(work(talk, requests, begin, take, ended, progress))
    ended.ended_by = ended.ended_by or before
    return ended, written


def describe(talk: Talk[Any, Any], config: Mapping[str, Any], inputs: Iterable[str | None]) -> Row:
    """The manifest: versions, models, templates, flags and the hashes of the inputs; no key and no credentials."""
    settings = talk.settings
    told = {**config, **settings.model_dump(mode="json"), "base_url": getattr(talk.models.backend, "origin", None)}
    parts = {}
    for name, voice in talk.voices.items():
        model, template = identity_of(voice.backend)._asdict(), voice.template
        parts[name] = {
            "model": model | ({"model": settings.model_id} if settings.model_id else {}),
            "template": {
                "name": template.name,
                "version": template.header.version,
                "hash": template.hash,
                "variables": dict(template.variables),
                "text": template.text,
            },
        }
    return {
        "llmrank": llmrank.__version__,
        "python": platform.python_version(),
        "parts": parts,
        "inputs": {path: None if path == "-" else file_sha256(path) for path in inputs if path is not None},
        "config": {name: value for name, value in told.items() if value is not None},
    }
