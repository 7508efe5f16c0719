"""Block designs: which items are shown together, so that every item meets others often and evenly."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from math import isqrt

from llmrank.errors import InputError

Blocks = tuple[tuple[int, ...], ...]
"""Positions from 0, rising within a block; no block comes twice."""


@lru_cache(maxsize=256)
def design(name: str, n: int, block_size: int, repeats: int) -> Blocks:
    """The blocks of the design of this name. The same for all seeds: who stands at a position is drawn elsewhere."""
    problem = design_problem(name, n, repeats)
    if problem:
        raise InputError(problem)
    if n < 2:
        return ()
    blocks = DESIGNS[name](n, block_size, repeats)
    return tuple(dict.fromkeys(tuple(sorted(block)) for block in blocks if len(block) > 1))


def design_problem(name: str, n: int, repeats: int) -> str | None:
    """Why there is no such design for n items, in a sentence; None where there is one."""
    if n < 2 or name == "equireplicate":
        return None
    side = isqrt(n)
    if name == "triangular":
        edge = (isqrt(8 * n + 1) - 1) // 2
        if edge * (edge + 1) // 2 == n:
            return None
        below, above = edge * (edge + 1) // 2, (edge + 1) * (edge + 2) // 2
        return _lacks(name, n, f"a triangular number of candidates, such as {below} or {above}")
    if side * side != n:
        return _lacks(name, n, f"a square number of candidates, such as {side**2} or {(side + 1) ** 2}")
    most = _least_factor(side) + 1
    if repeats > most:
        return f"the design {name} shows {n} candidates at most {most} times each, not {repeats}: lower repeats"
    return None


def _lacks(name: str, n: int, needed: str) -> str:
    return f"the design {name} needs {needed}, not {n}: set --depth to such a number, or take design=equireplicate"


def _equireplicate(n: int, block_size: int, repeats: int) -> list[list[int]]:
    """Drawn permutations one after the other, cut into blocks that are as even as can be."""
    if n <= block_size:
        return [list(range(n))]
    count = -(-n * repeats // block_size)
    sizes = [n * repeats // count + (i < n * repeats % count) for i in range(count)]
    draw = random.Random(f"{n} {block_size} {repeats}")
    blocks: list[list[int]] = [[]]
    for _ in range(repeats):
        order = draw.sample(range(n), n)
        # A block that runs over from one permutation to the next must not hold anybody twice.
        fresh = [item for item in order if item not in blocks[-1]][: sizes[len(blocks) - 1] - len(blocks[-1])]
        for item in [*fresh, *(item for item in order if item not in fresh)]:
            blocks[-1].append(item)
            if len(blocks[-1]) == sizes[len(blocks) - 1] and len(blocks) < count:
                blocks.append([])
    return blocks


def _latin_square(n: int, block_size: int, repeats: int) -> list[list[int]]:
    """Rows, columns and letters of Latin squares over a square of all items: two items meet at most once."""
    side = isqrt(n)
    cells = [(row, column) for row in range(side) for column in range(side)]
    keys: list[list[int]] = [[row for row, _ in cells], [column for _, column in cells]]
    keys += [[(step * row + column) % side for row, column in cells] for step in range(1, repeats - 1)]
    return [[i for i in range(n) if key[i] == block] for key in keys[:repeats] for block in range(side)]


def _triangular(n: int, block_size: int, repeats: int) -> list[list[int]]:
    """Items are the pairs of b + 1 points; a block is all pairs of one point. Two items meet at most once."""
    points = (isqrt(8 * n + 1) + 1) // 2
    pairs = [(a, b) for a in range(points) for b in range(a)]
    return [[i for i, pair in enumerate(pairs) if point in pair] for point in range(points)]


DESIGNS: dict[str, Callable[[int, int, int], list[list[int]]]] = {
    "equireplicate": _equireplicate,
    "latin-square": _latin_square,
    "triangular": _triangular,
}


def _least_factor(number: int) -> int:
    """The least prime factor: so many steps less one make Latin squares that fit together (are orthogonal)."""
    return next((factor for factor in range(2, isqrt(number) + 1) if number % factor == 0), number)
