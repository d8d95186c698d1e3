"""Nearest rows, exact, by blocks of inner products.

Shapes: ``n`` and ``N`` are numbers of rows, ``D`` their width, ``k`` the number of
neighbours of each.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

__all__ = ["nearest", "top_neighbours"]

# Inner products that are held at once.
_TILE = 1 << 22


def nearest(
    rows: Float32[np.ndarray, "n D"], centres: Float32[np.ndarray, "N D"]
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Returns the nearest centre of each row, and the squared distance to it.

    Of equally near ones, up to rounding, the first.
    """
    halves = np.einsum("ij,ij->i", centres, centres) / 2
    labels = np.empty(len(rows), np.int64)
    distances = np.empty(len(rows), np.float32)
    size = max(_TILE // max(len(centres), 1), 1)
    for at in range(0, len(rows), size):
        block = rows[at : at + size]
        products = block @ centres.T
        products -= halves
        best = products.argmax(axis=1)
        labels[at : at + size] = best
        squares = np.einsum("ij,ij->i", block, block)
        closeness = 2 * products[np.arange(len(block)), best]
        distances[at : at + size] = np.maximum(squares - closeness, 0)
    return labels, distances


def top_neighbours(
    queries: Float32[np.ndarray, "n D"],
    targets: Float32[np.ndarray, "N D"],
    num_wanted: int,
) -> Int64[np.ndarray, "n k"]:
    """Returns the targets with the largest inner product with each query, best first.

    Equal ones are in order of their place.

    Args:
        queries: Rows to find neighbours of.
        targets: Rows to find them among.
        num_wanted: k, in [0, N].
    """
    found = np.empty((len(queries), num_wanted), np.int64)
    if num_wanted == 0:
        return found
    size = max(_TILE // max(len(targets), 1), 1)
    cut = len(targets) - num_wanted
    for at in range(0, len(queries), size):
        products = queries[at : at + size] @ targets.T
        if cut:
            places = np.sort(np.argpartition(products, cut, axis=1)[:, cut:], axis=1)
        else:
            places = np.broadcast_to(np.arange(num_wanted), products.shape)
        values = np.take_along_axis(products, places, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        found[at : at + size] = np.take_along_axis(places, order, axis=1)
    return found
