"""The table of methods that turn comparisons into scores, by their names on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.counts import average_win_rate, copeland, counting, win_rate
from llmrank.aggregate.posterior import trueskill
from llmrank.aggregate.ratings import elo
from llmrank.aggregate.results import Scores
from llmrank.aggregate.spectral import eigenvector, pagerank, rank_centrality
from llmrank.aggregate.strengths import bradley_terry, newman
from llmrank.errors import InputError

METHODS: dict[str, Callable[..., Scores]] = {
    "bradley-terry": bradley_terry,
    "newman": newman,
    "trueskill": trueskill,
    "pagerank": pagerank,
    "eigenvector": eigenvector,
    "rank-centrality": rank_centrality,
    "counting": counting,
    "win-rate": win_rate,
    "average-win-rate": average_win_rate,
    "copeland": copeland,
    "elo": elo,
}
"""Each takes comparisons, and by name `bootstrap`, `seed` and `level`; the first is the default of the command."""


def scores(method: str, comparisons: Comparisons) -> Scores:
    """The scores of the comparisons by the method of this name, without intervals."""
    return method_named(method)(comparisons)


def method_named(method: str) -> Callable[..., Scores]:
    """The method of this name."""
    if method not in METHODS:
        near = difflib.get_close_matches(method.lower(), METHODS, n=1)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(METHODS)}"
        raise InputError(f"there is no aggregation method {method!r}; {known}")
    return METHODS[method]
