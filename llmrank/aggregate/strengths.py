"""Strengths by maximum likelihood: Bradley-Terry, Davidson and Newman's iteration for ties."""

from __future__ import annotations

from typing import Literal

import numpy as np

from llmrank.aggregate.comparisons import Comparisons
from llmrank.aggregate.diagnosis import limits
from llmrank.aggregate.fit import Fit, exists, fit, softmax
from llmrank.aggregate.intervals import analytic_interval, bca_interval
from llmrank.aggregate.refit import refits
from llmrank.aggregate.resample import check_level
from llmrank.aggregate.results import Floats, Scores, sentence
from llmrank.errors import InputError

WEAK_PRIOR = 0.1
"""Wins, and as many losses, of each item against one of average strength, where strengths need a prior to exist."""


def bradley_terry(
    comparisons: Comparisons,
    ties: Literal["half", "davidson"] = "half",
    bootstrap: int = 0,
    seed: int = 0,
    level: float = 0.95,
    prior: float = 0.0,
    analytic: bool = False,
) -> Scores:
    """Strengths of the Bradley-Terry model, which sum to 1.

    P(i beats j) = p_i / (p_i + p_j), by maximum likelihood. A tie counts half a win to each (`ties="half"`) or has a
    probability of its own (`"davidson"`): P(tie) = nu sqrt(p_i p_j) / (p_i + p_j + nu sqrt(p_i p_j)), nu fitted too;
    without ties both are the same. A share of the win between 0 and 1 counts as part win, part loss.

    `bootstrap` resamples comparisons (or clusters), refits each, and gives BCa intervals at `level` (plain percentiles
    of strengths cover too little in small samples); `analytic` gives them from the observed information instead, on
    the logit of the strength: the inverse information where outcomes are plain wins and losses or the tie model holds
    them, else its sandwich with the residuals' variance. Both ask for a handful of comparisons an item at least.

    The maximum exists only where chains of wins lead from every item to every other (Ford 1957). Elsewhere the values
    are those of highest posterior probability (MAP) under a weak prior, `WEAK_PRIOR` wins and losses of each item
    against an average one, and the note says so; `prior` asks for a prior of that kind in any case. Where every
    comparison is a tie, strengths are equal. No comparisons: no items.

    Sources: Bradley and Terry (1952); Davidson (1970); Newman (JMLR 24, 2023) for the iteration.
    """
    if ties not in ("half", "davidson"):
        raise InputError(f"ties is {ties!r}: it must be half or davidson")
    return _strengths("bradley-terry", comparisons, ties == "davidson", bootstrap, seed, level, prior, analytic)


def newman(
    comparisons: Comparisons,
    bootstrap: int = 0,
    seed: int = 0,
    level: float = 0.95,
    prior: float = 0.0,
    analytic: bool = False,
) -> Scores:
    """Strengths of Newman's model with ties, which sum to 1.

    P(i wins) = p_i / (p_i + p_j + 2 v sqrt(p_i p_j)) and P(tie) = 2 v sqrt(p_i p_j) / (the same), v fitted too: the
    model of Davidson with nu = 2v, so its maximum is that of `bradley_terry(ties="davidson")`. Everything else as
    there. Newman, "Efficient computation of rankings from pairwise comparisons", JMLR 24 (2023).
    """
    return _strengths("newman", comparisons, True, bootstrap, seed, level, prior, analytic)


def _strengths(
    method: str,
    comparisons: Comparisons,
    ties: bool,
    bootstrap: int,
    seed: int,
    level: float,
    prior: float,
    analytic: bool,
) -> Scores:
    check_level(level)
    if not (np.isfinite(prior) and prior >= 0):
        raise InputError(f"prior is {prior}: it is a number of wins and losses from 0 up")
    said = limits(comparisons)
    tally, items, n = comparisons.tally, comparisons.items, comparisons.n
    if not n:
        return Scores(method, (), np.zeros(0), None, None, 0, sentence(*said), comparisons=comparisons)
    if not (tally.won + tally.lost).any():
        equal = np.full(tally.size, 1 / tally.size)
        note = sentence(*said, "All strengths are equal, and there is no interval.")
        return Scores(method, items, equal, None, None, n, note, comparisons=comparisons)
    used = prior
    if prior:
        said.append(f"Values are MAP estimates: each item has {prior:g} wins and losses against an average one.")
    elif not exists(tally, ties):
        used = WEAK_PRIOR
        said.append(
            "Maximum-likelihood strengths do not exist: values are MAP estimates under a weak prior, "
            f"{used:g} wins and losses of each item against an average one."
        )
    best = fit(tally, ties, used)
    low = high = spread = None
    if bootstrap:
        low, high, spread, remark = _resampled(comparisons, best, used, bootstrap, seed, level)
        said.append(remark)
    elif analytic:
        low, high = analytic_interval(comparisons, best, used, level)
    return Scores(method, items, best.strengths, low, high, n, sentence(*said), spread, comparisons)


def _resampled(
    comparisons: Comparisons, best: Fit, prior: float, bootstrap: int, seed: int, level: float
) -> tuple[Floats, Floats, Floats, str]:
    theta, with_prior = refits(comparisons, best, prior, WEAK_PRIOR, bootstrap, seed)
    strengths = softmax(theta)
    low, high = bca_interval(comparisons, best, prior, strengths, level)
    remark = (
        f"In {with_prior} of {bootstrap} resamples the strengths do not exist; the weak prior was used there."
        if with_prior
        else ""
    )
    return low, high, np.asarray(strengths.std(axis=0)), remark
