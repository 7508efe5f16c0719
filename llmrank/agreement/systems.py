"""Runs scored under true and under predicted labels: what goes into the agreement of system rankings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from llmrank.agree.confusion import Array
from llmrank.agree.resampling import Resampling
from llmrank.agree.results import Figure
from llmrank.agree.systems import judged, system_figures
from llmrank.agreement.files import Labels
from llmrank.evaluation import Run, parse_measures, score


class SystemScores:
    """Some runs, ready to be scored under any labels over the topics of the truth."""

    def __init__(self, truth: Labels, runs: Mapping[str, Run], measures: Sequence[str]) -> None:
        """measures : as people write them, `nDCG@10`."""
        self.topics = list(truth)
        # In the order of their names, which is how ties between systems are broken.
        self.runs = {name: runs[name] for name in sorted(runs)}
        self.measures = [str(measure) for measure in parse_measures(measures)]
        self.tops: dict[int, dict[str, list[list[str | None]]]] = {}
        self.truth = {measure: self.scores(truth, measure) for measure in self.measures}

    def figures(self, predicted: Labels, settings: Resampling) -> dict[str, dict[str, Figure]]:
        """Every figure of the agreement of system rankings, by measure."""
        return {
            measure: system_figures(self.truth[measure], self.scores(predicted, measure), settings)
            | {"judged": self._judged(predicted, measure)}
            for measure in self.measures
        }

    def scores(self, labels: Labels, measure: str) -> Array:
        """Shape (systems, topics): a topic that a run or the labels lack counts 0."""
        plain = re.fullmatch(r"nDCG@(\d+)", measure)
        if plain:
            return self._ndcg(labels, int(plain[1]))
        wanted = {topic: labels.get(topic, {}) for topic in self.topics}
        values = score(wanted, self.runs, [measure])
        rows = [[values[name][measure][topic] for topic in self.topics] for name in self.runs]
        return np.array(rows, dtype=np.float64).reshape(len(self.runs), len(self.topics))

    def _ndcg(self, labels: Labels, k: int) -> Array:
        """nDCG as trec_eval's `ndcg_cut` has it, many runs at once: linear gains, grades below 0 as 0."""
        discount = 1 / np.log2(np.arange(2, k + 2))
        tops = self._tops(k)
        found = np.zeros((len(self.runs), len(self.topics)))
        for place, topic in enumerate(self.topics):
            grades = labels.get(topic, {})
            ideal = np.array(sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k])
            if len(ideal):
                gains = [[max(0, grades.get(doc, 0)) if doc else 0 for doc in row] for row in tops[topic]]
                found[:, place] = np.array(gains) @ discount / (ideal @ discount[: len(ideal)])
        return found

    def _tops(self, k: int) -> dict[str, list[list[str | None]]]:
        """By topic the first k documents of every run, filled up with None; made once for all labels."""
        if k not in self.tops:
            found: dict[str, list[list[str | None]]] = {topic: [] for topic in self.topics}
            for run in self.runs.values():
                for topic, rows in found.items():
                    documents: list[str | None] = [document.doc_id for document in run.get(topic, ())[:k]]
                    rows.append(documents + [None] * (k - len(documents)))
            self.tops[k] = found
        return self.tops[k]

    def _judged(self, predicted: Labels, measure: str) -> Figure:
        """The share of what the runs retrieved, down to the measure's cutoff, that has a predicted label."""
        cutoff = re.search(r"@(\d+)$", measure)
        shares = []
        for run in self.runs.values():
            for topic in self.topics:
                grades = predicted.get(topic, {})
                top = [document.doc_id in grades for document in run.get(topic, ())]
                seen = judged(np.where(top, 0.0, np.nan), int(cutoff[1]) if cutoff else None)
                shares += [float(seen)] if top else []
        if not shares:
            return Figure(None, None, None, len(self.runs), "the runs have no documents for these topics")
        return Figure(float(np.mean(shares)), None, None, len(self.runs))
