"""Greedy choice by keys that only fall as others are chosen, mostly by matrix products.

Updating all keys after every choice reads all embeddings K times, at the speed of the
memory. Here only a few candidates, those with the highest keys, are kept up to date
after each choice. All others are brought up to date for many choices at once, by one
matrix product, and not before one of them could be the best: a key that is out of date
is an upper bound. The choice is that of updating all of them.

Shapes: ``n`` is the number of candidates, ``D`` the width of an embedding, ``K`` how
many are chosen, ``m`` of those looked at.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64

from curator.policies._embeddings import coarse, coarse_one
from curator.progress import Progress

__all__ = ["FallingKeys", "highest", "take_greedily"]

# How many candidates are kept up to date, at least, and how long a run of choices among
# them is to be.
_MIN_ACTIVE = 512
_SHORT_RUN, _LONG_RUN = 8, 64

# Keys that are cut off to equal ones differ by less than this part of them.
_NEXT_TO = 1e-4


@runtime_checkable
class FallingKeys(Protocol):
    """What makes keys fall: the choices so far, in order."""

    def choose(self, row: Float32[np.ndarray, " D"]) -> None:
        """Adds a choice."""
        ...

    def lower(
        self,
        rows: Float32[np.ndarray, "m D"],
        keys: Float64[np.ndarray, " m"],
        start: int,
        stop: int,
    ) -> None:
        """Lowers the keys of some candidates, in place, for choices start to stop."""
        ...


def take_greedily(
    falling: FallingKeys,
    rows: Float32[np.ndarray, "n D"],
    keys: Float64[np.ndarray, " n"],
    ranks: Int64[np.ndarray, " n"],
    num_taken: int,
    progress: Progress,
    *,
    first: int | None = None,
    num_skipped: int = 0,
) -> tuple[Int64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
    """Returns the candidates taken, each the one with the highest key when it was.

    Args:
        falling: Nothing chosen yet; afterwards, all that was taken.
        rows: The embeddings.
        keys: At first, at least 0. Afterwards those given all that was taken, and
            minus infinity for what was taken.
        ranks: Of equal keys the lowest of these is taken.
        num_taken: K, in [0, n].
        progress: Of the K choices.
        first: What is taken first; the highest key if None.
        num_skipped: Take the candidate with the highest key but that many.

    Returns:
        The candidates in the order they were taken, and the key each had then.
    """
    taken = np.empty(num_taken, np.int64)
    keys_when_taken = np.empty(num_taken)
    num_active = _MIN_ACTIVE + 2 * num_skipped
    turn = num_counted = 0

    def take(candidate: int, key: float) -> None:
        taken[turn], keys_when_taken[turn] = candidate, key
        falling.choose(rows[candidate])
        keys[candidate] = -np.inf
        progress.advance(1)

    while turn < num_taken:
        falling.lower(rows, keys, num_counted, turn)
        num_counted = turn
        best = _best(keys, ranks, num_skipped) if turn or first is None else first
        take(best, float(keys[best]))
        turn += 1
        active, bound = highest(keys, num_active)
        run = _Active(rows[active], keys[active], ranks[active])
        run_start = turn
        while turn < num_taken and len(active):
            falling.lower(run.rows, run.keys, turn - 1, turn)
            best = _best(run.keys, run.ranks, num_skipped)
            # Outside some could be equal, and come first.
            key = float(run.keys[best])
            if key == -np.inf or coarse_one(key) <= bound:
                break
            take(int(active[best]), key)
            run.keys[best] = -np.inf
            turn += 1
        if turn - run_start < _SHORT_RUN:
            num_active *= 2
        elif turn - run_start > _LONG_RUN:
            num_active = max(num_active // 2, _MIN_ACTIVE + 2 * num_skipped)
    falling.lower(rows, keys, num_counted, turn)
    return taken, keys_when_taken


class _Active:
    """The candidates that are kept up to date."""

    def __init__(
        self,
        rows: Float32[np.ndarray, "m D"],
        keys: Float64[np.ndarray, " m"],
        ranks: Int64[np.ndarray, " m"],
    ) -> None:
        self.rows, self.keys, self.ranks = rows, keys, ranks


def highest(
    keys: Float64[np.ndarray, " n"], num_wanted: int
) -> tuple[Int64[np.ndarray, " m"], float]:
    """Returns the candidates with the highest keys, and the highest of the others'."""
    if num_wanted >= len(keys):
        return np.arange(len(keys)), -np.inf
    order = np.argpartition(keys, len(keys) - num_wanted - 1)
    cut = len(keys) - num_wanted
    return np.sort(order[cut:]), float(coarse(keys[order[cut - 1 : cut]])[0])


def _best(
    keys: Float64[np.ndarray, " n"], ranks: Int64[np.ndarray, " n"], num_skipped: int
) -> int:
    """Returns the candidate with the highest key but some, the first of equal ones."""
    if num_skipped:
        num_skipped = min(num_skipped, int((keys > -np.inf).sum()) - 1)
        place = len(keys) - 1 - max(num_skipped, 0)
        highest = float(np.partition(keys, place)[place])
    else:
        highest = float(keys.max())
    # Most are told by two comparisons.
    equal = np.flatnonzero(
        (keys >= highest * (1 - _NEXT_TO)) & (keys <= highest * (1 + _NEXT_TO))
    )
    cut_off = coarse(keys[equal])
    equal = equal[
        cut_off == (coarse_one(highest) if math.isfinite(highest) else highest)
    ]
    return int(equal[np.argmin(ranks[equal])])
