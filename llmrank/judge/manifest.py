"""The manifest of a judging job: everything needed to repeat it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from typing import Any

import llmrank
from llmrank.data.files import file_sha256
from llmrank.judge.grader import Grader
from llmrank.judge.judge import Labeller
from llmrank.judge.panels import Panel
from llmrank.llm.types import identity_of
from llmrank.voice import Voice


def describe(labeller: Labeller, config: Mapping[str, Any], inputs: Iterable[str]) -> dict[str, Any]:
    """Versions, models, recipes, templates, flags and the hashes of the inputs; no key and no credentials.

    config: the job's own flags. With the settings it makes up the manifest's `config`, which is what a --config file
    takes: with the same inputs and the same replies it gives the same labels.
    """
    settings = labeller.settings
    origin = getattr(labeller.models.backend, "origin", None)
    told = {**config, **settings.model_dump(mode="json"), "base_url": origin}
    if settings.examples is not None:
        inputs = [*inputs, settings.examples]
    panel = {"panel": labeller.rule_name, "escalate": labeller.escalate} if isinstance(labeller, Panel) else {}
    return {
        "llmrank": llmrank.__version__,
        "python": platform.python_version(),
        **panel,
        "judges": {name: _judge(grader, settings.model_id) for name, grader in labeller.graders.items()},
        "inputs": {path: None if path == "-" else file_sha256(path) for path in inputs},
        "config": {name: value for name, value in told.items() if value is not None},
    }


def _judge(grader: Grader, model_id: str | None) -> dict[str, Any]:
    main, *parts = grader.voices.items()
    return {
        "recipe": grader.recipe.name,
        "options": dict(grader.options),
        **_voice(main[1], model_id),
        "parts": {name: _voice(voice, model_id) for name, voice in parts},
    }


def _voice(voice: Voice, model_id: str | None) -> dict[str, Any]:
    template = voice.template
    model = identity_of(voice.backend)._asdict()
    return {
        "model": model | ({"model": model_id} if model_id else {}),
        "template": {
            "name": template.name,
            "version": template.header.version,
            "hash": template.hash,
            "variables": dict(template.variables),
            "text": template.text,
        },
    }
