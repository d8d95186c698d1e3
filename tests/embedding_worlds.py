"""Embeddings to select from, and plain oracles of greedy choices over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pair_worlds import unit

from curator.rng import mix


def clustered(
    num: int, width: int = 16, *, seed: int = 0, topics: int = 8
) -> np.ndarray:
    """Rows of length one around a few directions, some of them much more common."""
    rng = np.random.default_rng(seed)
    directions = unit(rng.standard_normal((topics, width)))
    shares = 1 / np.arange(1, topics + 1)
    of = rng.choice(topics, size=num, p=shares / shares.sum())
    noise = unit(rng.standard_normal((num, width)))
    return unit(directions[of] + 0.6 * noise).astype(np.float32)


def similarities(rows: np.ndarray) -> np.ndarray:
    """(1 + cosine) / 2 of all pairs, in float64."""
    exact = unit(rows.astype(np.float64))
    return (1 + exact @ exact.T) / 2


def coverage(rows: np.ndarray, chosen: np.ndarray) -> float:
    """The objective of facility location, divided by the number of rows."""
    return float(similarities(rows)[chosen].max(axis=0).mean())


def naive_greedy(
    num: int, ids: np.ndarray, num_taken: int, gain: Callable[[list[int], int], float]
) -> tuple[list[int], list[float]]:
    """Takes what gains most, given what was taken; the plain definition."""
    hashes = mix(ids.astype(np.uint64))
    taken: list[int] = []
    gains: list[float] = []
    for _ in range(num_taken):
        free = [i for i in range(num) if i not in taken]
        found = {i: gain(taken, i) for i in free}
        best = min(free, key=lambda i: (-found[i], hashes[i]))
        taken.append(best)
        gains.append(found[best])
    return taken, gains
