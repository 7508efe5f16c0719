"""Judges' preferences against true ones: comparisons files read, matched and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmrank.agree.preferences import PreferenceAgreement, agree_on_preferences
from llmrank.agree.resampling import Resampling
from llmrank.data.comparisons import ComparisonTable


@dataclass(frozen=True, slots=True)
class PreferencesAgreement:
    """How far some judges' preferences agree with the truth."""

    truth: ComparisonTable
    tables: Mapping[str, ComparisonTable]
    judges: Mapping[str, PreferenceAgreement]
    """By name, in the order given."""
    settings: Resampling
    notes: Sequence[str] = ()
    """What a reader has to know about the truth."""

    def json(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "truth": {"file": str(self.truth.path), **_size(self.truth), "notes": list(self.notes)},
            "settings": {
                "scale": None,
                "out_of_range": None,
                "bootstrap": settings.replicates,
                "resample": settings.resample,
                "seed": settings.seed,
                "level": settings.level,
            },
            "judges": {name: self._judge(name) for name in self.judges},
        }

    def _judge(self, name: str) -> dict[str, Any]:
        judge = self.judges[name]
        return {
            "file": str(self.tables[name].path),
            "pairs": judge.pairs,
            "topics": judge.topics,
            "coverage": judge.coverage,
            "preferences": {name: figure.json() for name, figure in judge.figures.items()},
            "notes": list(judge.notes),
        }


def agree_preferences(
    truth: ComparisonTable, judges: Mapping[str, ComparisonTable], settings: Resampling
) -> PreferencesAgreement:
    """Compare each judge's preferences with the true ones, over the pairs that both have compared."""
    found = {}
    for name, table in judges.items():
        agreement = agree_on_preferences(truth, table, settings)
        skipped = _skipped(table)
        notes = (skipped, *agreement.notes) if skipped else agreement.notes
        found[name] = PreferenceAgreement(
            agreement.pairs, agreement.truth_pairs, agreement.topics, agreement.figures, notes
        )
    remark = _skipped(truth)
    return PreferencesAgreement(truth, judges, found, settings, (remark,) if remark else ())


def _size(table: ComparisonTable) -> dict[str, int | None]:
    keys = {(query, frozenset(pair)) for query, *pair in zip(table.query_id, table.left, table.right, strict=True)}
    queries = {query for query, items in keys if len(items) == 2}
    return {
        "pairs": sum(len(items) == 2 for _, items in keys),
        "topics": None if None in queries else len(queries),
    }


def _skipped(table: ComparisonTable) -> str | None:
    if not table.skipped:
        return None
    return f"{len(table.skipped)} rows of {table.path} have no winner and are left out"
