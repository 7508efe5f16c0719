"""Comparisons to scores, rankings to a consensus, labels to a label: arrays in, small frozen results out, no I/O."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmrank.aggregate.comparisons import Comparisons
    from llmrank.aggregate.consensus import borda, combmnz, combsum, copeland_consensus, median_rank, rrf
    from llmrank.aggregate.counts import average_win_rate, copeland, counting, win_rate
    from llmrank.aggregate.covariates import Effect, Regression, bradley_terry_regression
    from llmrank.aggregate.diagnosis import Diagnosis, diagnose
    from llmrank.aggregate.labels import Labels, dawid_skene, glad, majority, mean_label, median_label, peer_rank
    from llmrank.aggregate.luce import plackett_luce
    from llmrank.aggregate.medians import Kemeny, disagreement, kemeny
    from llmrank.aggregate.methods import METHODS, scores
    from llmrank.aggregate.posterior import Posterior, trueskill
    from llmrank.aggregate.ratings import elo
    from llmrank.aggregate.results import Scores
    from llmrank.aggregate.spectral import eigenvector, pagerank, rank_centrality
    from llmrank.aggregate.strengths import bradley_terry, newman
    from llmrank.aggregate.tables import (
        equilibrium_ranking,
        most_disputed,
        table_consensus,
        table_rankings,
        table_strengths,
        triplet_ranking,
    )

__all__ = [
    "METHODS",
    "Comparisons",
    "Diagnosis",
    "Effect",
    "Kemeny",
    "Labels",
    "Posterior",
    "Regression",
    "Scores",
    "average_win_rate",
    "borda",
    "bradley_terry",
    "bradley_terry_regression",
    "combmnz",
    "combsum",
    "copeland",
    "copeland_consensus",
    "counting",
    "dawid_skene",
    "diagnose",
    "disagreement",
    "eigenvector",
    "elo",
    "equilibrium_ranking",
    "glad",
    "kemeny",
    "majority",
    "mean_label",
    "median_label",
    "median_rank",
    "most_disputed",
    "newman",
    "pagerank",
    "peer_rank",
    "plackett_luce",
    "rank_centrality",
    "rrf",
    "scores",
    "table_consensus",
    "table_rankings",
    "table_strengths",
    "triplet_ranking",
    "trueskill",
    "win_rate",
]

_WHERE = {
    "Comparisons": "comparisons",
    "borda": "consensus",
    "combmnz": "consensus",
    "combsum": "consensus",
    "copeland_consensus": "consensus",
    "median_rank": "consensus",
    "rrf": "consensus",
    "average_win_rate": "counts",
    "copeland": "counts",
    "counting": "counts",
    "win_rate": "counts",
    "Effect": "covariates",
    "Regression": "covariates",
    "bradley_terry_regression": "covariates",
    "Diagnosis": "diagnosis",
    "diagnose": "diagnosis",
    "Labels": "labels",
    "dawid_skene": "labels",
    "glad": "labels",
    "majority": "labels",
    "mean_label": "labels",
    "median_label": "labels",
    "peer_rank": "labels",
    "plackett_luce": "luce",
    "Kemeny": "medians",
    "disagreement": "medians",
    "kemeny": "medians",
    "METHODS": "methods",
    "scores": "methods",
    "Posterior": "posterior",
    "trueskill": "posterior",
    "elo": "ratings",
    "Scores": "results",
    "eigenvector": "spectral",
    "pagerank": "spectral",
    "rank_centrality": "spectral",
    "bradley_terry": "strengths",
    "newman": "strengths",
    "equilibrium_ranking": "tables",
    "most_disputed": "tables",
    "table_consensus": "tables",
    "table_rankings": "tables",
    "table_strengths": "tables",
    "triplet_ranking": "tables",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: scipy alone takes longer to import than the whole of the rest.
    if name in _WHERE:
        return getattr(import_module(f"llmrank.aggregate.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'llmrank.aggregate' has no attribute {name!r}")
