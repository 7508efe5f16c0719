"""Pairwise contests in rounds: single elimination and the Swiss system."""

from __future__ import annotations

from collections.abc import Sequence

from llmrank.ask.base import Ask
from llmrank.rerank.aggregated import Match, aggregated
from llmrank.rerank.methods import Count, Item, Ranked, between, method


async def _played(items: Sequence[Item], ask: Ask, pairs: Sequence[tuple[int, int]]) -> list[Match]:
    told = await ask.comparisons([(items[a], items[b]) for a, b in pairs])
    return [(a, b, answer.share) for (a, b), answer in zip(pairs, told, strict=True)]


@method(
    question="compare",
    source="Varco Arena 2411.01281",
    template="pairwise/prefer",
    calls=lambda n, swap, aggregate: max(0, n - 1) * (1 + swap),
    rounds=lambda n, swap, aggregate: max(0, n - 1).bit_length(),
    formula=("2(n-1), half with swap=off", "ceil(log_2 n)"),
    shown=lambda n, **options: 2,
)
async def bracket(items: Sequence[Item], ask: Ask, *, swap: bool = True, aggregate: str = "bradley-terry") -> Ranked:
    """Single elimination: the loser of a pair is out, and scores are made from the log of all matches.

    2(n-1) calls, ceil(log2 n) rounds. In a round the first of those left, by first-stage order, meets the last, the
    second the last but one; where their number is no power of two the first have a bye. `aggregate` is any method of
    `llmrank aggregate`. With a perfect judge the best stands first (but by `counting`, where a bye costs a win); the
    rest is as good as the log tells. A tie or a failed pair is decided by first-stage order, and the log has the tie.
    """
    field, log = list(range(len(items))), list[Match]()
    while len(field) > 1:
        byes = (1 << (len(field) - 1).bit_length()) - len(field)
        playing = field[byes:]
        half = len(playing) // 2
        matches = await _played(items, ask, list(zip(playing[:half], playing[: half - 1 : -1], strict=True)))
        field = field[:byes] + sorted(b if share is not None and share < 0.5 else a for a, b, share in matches)
        log += matches
    return aggregated(items, log, aggregate)


def _swiss_rounds(n: int, rounds: int) -> Count:
    """The least and the most rounds that find pairs: any two items meet once."""
    return between(min(rounds, n // 2), min(rounds, n - 1 + n % 2)) if n > 1 else 0


def _swiss_calls(n: int, rounds: int, swap: bool) -> Count:
    if n < 2:
        return 0
    least, most = n // 2 * min(rounds, n // 2), min(n // 2 * rounds, n * (n - 1) // 2)
    return between(least * (1 + swap), most * (1 + swap))


@method(
    question="compare",
    source="the Swiss system",
    template="pairwise/prefer",
    calls=lambda n, rounds, swap: _swiss_calls(n, rounds, swap),
    rounds=lambda n, rounds, swap: _swiss_rounds(n, rounds),
    formula=("2 x rounds x floor(n/2), half with swap=off", "rounds"),
    shown=lambda n, **options: 2,
)
async def swiss(items: Sequence[Item], ask: Ask, *, rounds: int = 10, swap: bool = True) -> Ranked:
    """Pairs neighbours by wins so far, round by round, nobody twice; ranked by wins, then by the opponents' wins.

    2 x rounds x floor(n/2) calls in `rounds` rounds; fewer where n is so small that pairs run out. Equal wins are told
    apart by first-stage order for pairing, and for the ranking after the mean of their opponents' wins. The odd one out
    is the last who was not so before. A tie, a failed pair and a bye are half a win. With a perfect judge the best is
    first from ceil(log2 n) rounds on; the rest is measured.
    """
    n = len(items)
    wins, met = [0.0] * n, [list[int]() for _ in range(n)]
    rested: set[int] = set()
    for _ in range(min(rounds, n - 1 + n % 2)):
        standing = sorted(range(n), key=lambda i: -wins[i])
        idle = sorted(range(n) if n % 2 else (), key=lambda i: (i in rested, -standing.index(i)))
        pairs = _round(standing, idle, met)
        rested.update(set(range(n)) - {i for pair in pairs for i in pair})
        if not pairs:
            break
        for a, b, share in await _played(items, ask, pairs):
            wins[a] += 0.5 if share is None else share
            wins[b] += 0.5 if share is None else 1 - share
            met[a].append(b)
            met[b].append(a)
        for i in set(range(n)) - {i for pair in pairs for i in pair}:
            wins[i] += 0.5
    strength = [sum(wins[j] for j in opponents) / max(1, len(opponents)) for opponents in met]
    order = sorted(range(n), key=lambda i: (-wins[i], -strength[i]))
    return Ranked([items[i] for i in order], [wins[i] for i in order], "wins")


def _round(standing: list[int], idle: list[int], met: list[list[int]]) -> list[tuple[int, int]]:
    """The pairs of a round. `idle`: who may be the odd one out, by preference: the first without whom all pair."""
    out: list[int | None] = [*idle] or [None]
    for rest in out:
        pairs, alone = _neighbours([i for i in standing if i != rest], met)
        if not alone:
            return pairs
    pairs, alone = _neighbours([i for i in standing if i not in idle[:1]], met)
    while len(alone) > 1:
        one, two, *alone = alone
        opened = next((new for pair in reversed(pairs) if (new := _opened(pair, one, two, met))), None)
        if opened is not None:
            pairs = [pair for pair in pairs if pair[0] not in opened[0] + opened[1]] + opened
    return pairs


def _neighbours(standing: list[int], met: list[list[int]]) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs of neighbours who have not met, from the top down, and who is left over."""
    pairs, alone, left = list[tuple[int, int]](), list[int](), list(standing)
    while left:
        first = left.pop(0)
        other = next((i for i in left if i not in met[first]), None)
        if other is None:
            alone.append(first)
        else:
            left.remove(other)
            pairs.append((first, other))
    return pairs, alone


def _opened(pair: tuple[int, int], one: int, two: int, met: list[list[int]]) -> list[tuple[int, int]] | None:
    """The two pairs that a pair makes with two others, where none of these have met.

    While fewer than half of all rounds have been played, some pair can be opened for any two who have met.
    """
    for a, b in (pair, pair[::-1]):
        if one not in met[a] and two not in met[b]:
            return [(a, one), (b, two)]
    return None
