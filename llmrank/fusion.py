"""Fusion of runs: several runs of the same topics become one, by ranks or by scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from llmrank.aggregate import Scores, combmnz, combsum, rrf
from llmrank.data.run import ScoredDoc
from llmrank.errors import InputError

Run = Mapping[str, Sequence[ScoredDoc]]
Lists = list[Sequence[ScoredDoc]]


def _by_rank(lists: Lists, weights: Sequence[float]) -> Scores:
    return rrf([[doc.doc_id for doc in docs] for docs in lists], weight=weights)


def _by_score(combine: Callable[..., Scores], normalization: str) -> Callable[[Lists, Sequence[float]], Scores]:
    def fused(lists: Lists, weights: Sequence[float]) -> Scores:
        return combine([{doc.doc_id: doc.score for doc in docs} for docs in lists], normalization, weight=weights)

    return fused


METHODS: dict[str, Callable[[Lists, Sequence[float]], Scores]] = {
    "rrf": _by_rank,
    "combsum": _by_score(combsum, "minmax"),
    "combmnz": _by_score(combmnz, "minmax"),
    "zscore": _by_score(combsum, "zscore"),
}
"""rrf: the sum of 1 / (60 + rank); combsum and combmnz: of scores brought to 0..1; zscore: of standardised scores."""


def fuse(
    runs: Sequence[Run], method: str = "rrf", weights: Sequence[float] | None = None
) -> Iterator[tuple[str, list[str], list[float]]]:
    """Each topic of any run with its documents, best first, and their fused scores.

    Topics stand in the order of their first appearance; equal scores in the order in which the runs first list the
    documents. A run that lacks a topic or a document has no say in it. Raises InputError for an unknown method, no
    runs, or weights that are not one for each run.
    """
    if method not in METHODS:
        raise InputError(f"--method {method}: there is no such fusion; there are {', '.join(METHODS)}")
    if not runs:
        raise InputError("name at least one run to fuse")
    weighed = [1.0] * len(runs) if weights is None else list(weights)
    if len(weighed) != len(runs):
        raise InputError(f"{len(runs)} runs have {len(weighed)} weights; give --weight once for each run")
    for topic in dict.fromkeys(topic for run in runs for topic in run):
        told = [(run[topic], weight) for run, weight in zip(runs, weighed, strict=True) if run.get(topic)]
        scores = METHODS[method]([docs for docs, _ in told], [weight for _, weight in told])
        value = dict(zip(scores.items, scores.value.tolist(), strict=True)) if scores.value is not None else {}
        listed = dict.fromkeys(doc.doc_id for docs, _ in told for doc in docs)
        best = sorted(listed, key=lambda doc_id: -value[doc_id])
        yield topic, best, [value[doc_id] for doc_id in best]
