"""What a query's comparisons say of each document: a strength with an interval, and how surely it is in the top k."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, cast

from llmrank.ask.base import agreed, mirrored
from llmrank.questions import Answer, Choice, Order, Preference, Question

LEVEL = 0.95
SPREAD = 2**0.5  # of a skill before anything is known, as TrueSkill has it


class Belief(NamedTuple):
    """What is known of one document against the query's others."""

    strength: float
    """Mean of the posterior of its skill; the difference of two skills is in units of one comparison's noise."""
    low: float
    high: float
    """The central 95% of the posterior."""
    p_top: float
    """The probability that it is among the k best."""
    comparisons: float
    """The weight of what was heard of it: a pair counts one, a set of m counts 2/m for each of its pairs."""

    def json(self) -> dict[str, float]:
        return {name: round(value, 6) for name, value in self._asdict().items()}


def beliefs(
    items: Sequence[Hashable], answers: Mapping[Question, Answer], k: int, seed: int = 0
) -> dict[Hashable, Belief]:
    """The belief about each item, by a method's answers to `compare`, `choose`, `order`; first-stage order has no say.

    Skills have a Gaussian posterior as in TrueSkill (`llmrank.aggregate.trueskill`); P(top k) is a share of 2,000
    seeded draws of all skills. An item of which nothing was heard keeps the prior. The pairs of one answered set are
    no independent votes: each counts 2/m of a comparison, so that an order of m items weighs m-1. What is not
    modelled is that a model errs the same way twice, so the intervals are those of a judge whose errors are its own
    each time.
    """
    matches = list(_matches(answers))
    # Not at the top: scipy takes longer to load than all else, and most jobs do without.
    import numpy as np
    from scipy.special import ndtri

    from llmrank.aggregate.comparisons import Comparisons
    from llmrank.aggregate.posterior import Posterior, trueskill

    place = {item: i for i, item in enumerate(items)}
    known = [(place[a], place[b], share, weight) for a, b, share, weight in matches if a in place and b in place]
    n = len(items)
    mean, covariance, heard = np.zeros(n), SPREAD**2 * np.eye(n), np.zeros(n)
    if known:
        left, right, share, weight = (np.array(column) for column in zip(*known, strict=True))
        posterior = trueskill(Comparisons(left, right, share, weight))
        assert posterior.value is not None
        assert posterior.covariance is not None
        at = np.array(posterior.items, dtype=np.int64)
        mean[at], covariance[np.ix_(at, at)] = posterior.value, posterior.covariance
        np.add.at(heard, left, weight)
        np.add.at(heard, right, weight)
    whole = Posterior("trueskill", tuple(range(n)), mean, None, None, len(known), None, covariance=covariance)
    p_top = whole.in_top(min(k, n), seed=seed) if n else mean
    half = float(ndtri((1 + LEVEL) / 2)) * np.sqrt(covariance.diagonal())
    rows = zip(mean, mean - half, mean + half, p_top, heard, strict=True)
    return {item: Belief(*map(float, row)) for item, row in zip(items, rows, strict=True)}


def pairs(answers: Mapping[Question, Answer]) -> Iterator[tuple[Hashable, Hashable, Preference]]:
    """Each pair that was compared, with what both orders of it said, told from the side first shown."""
    told = {q.items: cast(Preference, a) for q, a in answers.items() if q.kind == "compare"}
    done: set[tuple[Hashable, ...]] = set()
    for shown, answer in told.items():
        turned = shown[::-1]
        if turned in done:
            continue
        done.add(shown)
        other = told.get(turned)
        left, right = shown
        yield left, right, answer if other is None else agreed(answer, mirrored(other))


def _matches(answers: Mapping[Question, Answer]) -> Iterator[tuple[Hashable, Hashable, float, float]]:
    """(winner's side, other side, share of the first, weight) of all that was heard."""
    for left, right, preference in pairs(answers):
        if preference.share is not None:
            yield left, right, preference.share, 1.0
    for question, answer in answers.items():
        items = question.items
        if isinstance(answer, Choice) and answer.index is not None:
            for i, other in enumerate(items):
                if i != answer.index:
                    yield items[answer.index], other, 0.0 if question.worst else 1.0, 2 / len(items)
        elif isinstance(answer, Order) and answer.permutation is not None:
            tier = {i: t for t, tied in enumerate(answer.ties or ()) for i in tied}
            for a, b in combinations(answer.permutation, 2):
                tied = a in tier and tier[a] == tier.get(b)
                yield items[a], items[b], 0.5 if tied else 1.0, 2 / len(items)
