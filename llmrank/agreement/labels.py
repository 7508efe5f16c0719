"""Judges' labels against true ones: every figure of agreement, by judge, for `llmrank agree` and `llmrank audit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrank.agree.confusion import Confusion
from llmrank.agree.label_agreement import binarized_figures, hit_rate_figures, label_figures, polarity
from llmrank.agree.resampling import REPLICATES, Resample, Resampling
from llmrank.agree.results import Figure
from llmrank.agreement.files import LabelFile, Scale
from llmrank.agreement.systems import SystemScores
from llmrank.errors import InputError
from llmrank.evaluation import Run

Figures = Mapping[str, Figure]
NAMED = 5
"""How many topics a note names."""


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """How labels are compared."""

    scale: Scale
    """The labels there are."""
    bootstrap: int = REPLICATES
    """Resamples for the intervals; 0 for none."""
    resample: Resample = "topics"
    """What is resampled; the figures of one topic always resample its pairs."""
    seed: int = 0
    level: float = 0.95
    """Coverage of the intervals."""
    cuts: Sequence[int] | None = None
    """A label at or above a cut is relevant; every cut of the scale by default."""
    measures: Sequence[str] = ("nDCG@10",)
    """What runs are scored by."""
    topics_detail: bool = True
    """Whether every topic gets figures of its own."""

    def __post_init__(self) -> None:
        for cut in self.cuts or ():
            if cut not in self.scale.cuts:
                raise InputError(f"the cut {cut} leaves no label of the scale {self.scale} on one of its sides")

    def resampling(self, resample: Resample | None = None) -> Resampling:
        return Resampling(self.bootstrap, resample or self.resample, self.seed, self.level)


@dataclass(frozen=True, slots=True)
class JudgeAgreement:
    """How far one judge agrees with the truth."""

    labels_file: LabelFile
    pairs: int
    """Pairs that both have labelled: the only ones that count."""
    topics: int
    """Topics of these pairs."""
    coverage: float
    """`pairs` as a share of the truth's pairs."""
    labels: Figures
    binarized: Mapping[int, Figures]
    """By cut."""
    confusion: NDArray[np.int64]
    """Rows truth, columns predicted, over the scale."""
    hit_rates: Mapping[int, Figure]
    """By label of the scale: of the pairs that have it in truth, the share that has it predicted."""
    topics_detail: Mapping[str, Figures]
    systems: Mapping[str, Figures] | None
    """By measure; None without runs."""
    notes: Sequence[str] = ()
    """What a reader has to know."""

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "file": self.labels_file.file,
            "pairs": self.pairs,
            "topics": self.topics,
            "coverage": self.coverage,
            "out_of_range": self.labels_file.out_of_range(),
            "labels": _json(self.labels),
            "binarized": {str(cut): _json(figures) for cut, figures in self.binarized.items()},
            "confusion": self.confusion.tolist(),
            "hit_rates": {str(label): figure.json() for label, figure in self.hit_rates.items()},
            "topics_detail": {topic: _json(figures) for topic, figures in self.topics_detail.items()},
        }
        if self.systems is not None:
            found["systems"] = {measure: _json(figures) for measure, figures in self.systems.items()}
        return found | {"notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far some judges agree with the truth."""

    truth: LabelFile
    settings: LabelSettings
    judges: Mapping[str, JudgeAgreement]
    """By name, in the order given."""
    notes: Sequence[str] = field(default=())
    """What a reader has to know about the truth."""

    def json(self) -> dict[str, Any]:
        settings = self.settings
        truth = {"file": self.truth.file, "pairs": self.truth.pairs, "topics": len(self.truth.labels)}
        return {
            "truth": truth | {"out_of_range": self.truth.out_of_range(), "notes": list(self.notes)},
            "settings": {
                "scale": list(settings.scale),
                "out_of_range": self.truth.policy,
                "bootstrap": settings.bootstrap,
                "resample": settings.resample,
                "seed": settings.seed,
                "level": settings.level,
            },
            "judges": {name: judge.json() for name, judge in self.judges.items()},
        }


def agree_labels(
    truth: LabelFile,
    judges: Mapping[str, LabelFile],
    settings: LabelSettings,
    runs: Mapping[str, Run] | None = None,
) -> Agreement:
    """Compare each judge's labels with the true ones, over the pairs that both have labelled.

    truth, judges : files read on `settings.scale`.
    runs : by name; each is scored under every file's own labels, over all topics of the truth.
    """
    scores = None if runs is None else SystemScores(truth.labels, runs, settings.measures)
    found = {name: _judge(truth, judge, settings, scores) for name, judge in judges.items()}
    remark = truth.remark(settings.scale)
    return Agreement(truth, settings, found, (remark,) if remark else ())


def _judge(truth: LabelFile, judge: LabelFile, settings: LabelSettings, scores: SystemScores | None) -> JudgeAgreement:
    confusion = confusion_by_topic(truth.labels, judge.labels, settings.scale)
    pairs = int(confusion.total.sum())
    detail: dict[str, Figures] = {}
    if settings.topics_detail:
        for topic, counts in zip(truth.labels, confusion.counts, strict=True):
            detail[topic] = label_figures(Confusion(counts[None], confusion.labels), settings.resampling("pairs"))
    return JudgeAgreement(
        labels_file=judge,
        pairs=pairs,
        topics=int(np.count_nonzero(confusion.total)),
        coverage=pairs / truth.pairs if truth.pairs else 0.0,
        labels=label_figures(confusion, settings.resampling()),
        binarized=_binarized(confusion, settings),
        confusion=confusion.pooled().counts.astype(np.int64),
        hit_rates={round(label): rate for label, rate in hit_rate_figures(confusion, settings.resampling()).items()},
        topics_detail=detail,
        systems=None if scores is None else scores.figures(judge.labels, settings.resampling()),
        notes=_notes(truth, judge, confusion, settings),
    )


def confusion_by_topic(
    truth: Mapping[str, Mapping[str, int]], predicted: Mapping[str, Mapping[str, int]], scale: Scale
) -> Confusion:
    """Confusion counts of the pairs in both, a table for each topic of the truth in its order."""
    k = len(scale.labels)
    counts = np.zeros((len(truth), k, k))
    for place, (topic, grades) in enumerate(truth.items()):
        said = predicted.get(topic, {})
        both = [(grade, said[doc]) for doc, grade in grades.items() if doc in said]
        if both:
            rows, columns = np.array(both).T - scale.low
            counts[place] = np.bincount(rows * k + columns, minlength=k * k).reshape(k, k)
    return Confusion(counts, np.array(scale.labels, dtype=np.float64))


def _binarized(confusion: Confusion, settings: LabelSettings) -> dict[int, Figures]:
    cuts = sorted(set(settings.scale.cuts if settings.cuts is None else settings.cuts))
    found = binarized_figures(confusion, cuts, settings.resampling())
    return {cut: found[cut] for cut in cuts}


def _notes(truth: LabelFile, judge: LabelFile, confusion: Confusion, settings: LabelSettings) -> list[str]:
    pairs = int(confusion.total.sum())
    if pairs == 0:
        return [f"{judge.file} and {truth.file} have no pair in common: are the topic and document ids the same?"]
    notes = [
        judge.remark(settings.scale),
        _uncovered(pairs, truth.pairs),
        polarity(confusion, settings.resampling()),
        _one_label(confusion, list(truth.labels)),
    ]
    return [note for note in notes if note]


def _uncovered(pairs: int, wanted: int) -> str | None:
    if pairs == wanted:
        return None
    return f"{wanted - pairs} of the truth's {wanted} pairs have no predicted label and are left out"


def _one_label(confusion: Confusion, topics: Sequence[str]) -> str | None:
    """Where the judge gives one label only: over all, or in which topics of more than one pair."""
    columns = confusion.columns
    said = np.flatnonzero(columns.sum(0))
    if len(said) == 1:
        return f"the judge gives every pair the label {confusion.labels[said[0]]:.0f}"
    alike = (np.count_nonzero(columns, axis=1) == 1) & (confusion.total > 1)
    if not alike.any():
        return None
    named = [topic for topic, one in zip(topics, alike, strict=True) if one]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"topics in which the judge gives one label only ({len(named)}): {', '.join(named[:NAMED])}{more}"


def _json(figures: Figures) -> dict[str, Any]:
    return {name: figure.json() for name, figure in figures.items()}
