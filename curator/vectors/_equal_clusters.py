"""Clusters of exactly equal size.

Shapes: ``n`` is the number of rows, ``D`` their width, ``k`` the number of clusters.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int64

from curator.vectors._k_means import KMeansName, k_means
from curator.vectors._neighbours import nearest

__all__ = ["equal_clusters"]

# What is left after so many rounds goes wherever there is room.
_NUM_ROUNDS = 32


def equal_clusters(
    rows: Float32[np.ndarray, "n D"],
    size: int,
    keys: Float64[np.ndarray, " n"],
    by: KMeansName = "numpy",
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "k D"]]:
    """Returns clusters of ``size`` rows each, the last one of what is left over.

    k-means, and then in rounds: each free row asks the nearest centre that has room,
    which takes the nearest of those that ask. Costs O(n k D), mostly in the first few
    rounds.

    Args:
        rows: Finite; at least one.
        size: At least 1.
        keys: A random number of each row, as for :func:`curator.vectors.k_means`.
        by: Whose k-means.

    Returns:
        The cluster of each row, and the centres they were taken by.
    """
    num_clusters = -(-len(rows) // size)
    found = k_means(rows, num_clusters, keys, by)
    room = np.full(num_clusters, size)
    # The short one is the one that would be the smallest anyway.
    smallest = np.argmin(np.bincount(found.labels, minlength=num_clusters))
    room[smallest] = len(rows) - (num_clusters - 1) * size
    clusters = np.full(len(rows), -1)
    wanted, distances = found.labels, found.squared_distances
    free = np.arange(len(rows))
    for turn in range(_NUM_ROUNDS):
        if turn:
            is_open = np.flatnonzero(room)
            near, distances = nearest(rows[free], found.centres[is_open])
            wanted = is_open[near]
        order = np.lexsort((keys[free], distances, wanted))
        asked = wanted[order]
        starts = np.searchsorted(asked, np.arange(num_clusters))
        is_taken = np.arange(len(order)) - starts[asked] < room[asked]
        taken = free[order[is_taken]]
        clusters[taken] = asked[is_taken]
        room -= np.bincount(asked[is_taken], minlength=num_clusters)
        free = np.sort(free[order[~is_taken]])
        if not len(free):
            break
    clusters[free] = np.repeat(np.arange(num_clusters), room)
    return clusters, found.centres
