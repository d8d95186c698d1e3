"""k-means, the same on every run: what is random in it belongs to the rows.

Shapes: ``n`` is the number of rows, ``D`` their width, ``k`` the number of clusters.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Int64

from curator.progress import Progress
from curator.vectors._faiss import centres_by_faiss
from curator.vectors._neighbours import nearest

__all__ = ["Clusters", "KMeansName", "k_means"]

KMeansName: TypeAlias = Literal["numpy", "faiss"]
"""Whose k-means: ours, which is the same wherever NumPy is, or that of faiss."""

_NUM_ROUNDS = 20

# As many rows per cluster are enough to find its centre.
_ROWS_PER_CLUSTER = 256


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """What rows were grouped into.

    Attributes:
        centres: The mean of each cluster's rows, as of the last round.
        labels: The nearest centre of each row.
        squared_distances: To that centre.
    """

    centres: Float32[np.ndarray, "k D"]
    labels: Int64[np.ndarray, " n"]
    squared_distances: Float32[np.ndarray, " n"]


def k_means(
    rows: Float32[np.ndarray, "n D"],
    num_clusters: int,
    keys: Float64[np.ndarray, " n"],
    by: KMeansName = "numpy",
) -> Clusters:
    """Returns clusters of rows with small squared distances to their means.

    Lloyd's algorithm from rows drawn at random, over at most 256 rows per cluster, and
    one last assignment of all rows; a cluster that loses all its rows starts again at
    the row that is farthest from its centre. Costs O(n k D).

    Args:
        rows: Finite; at least one.
        num_clusters: k; n where that is less.
        keys: A random number of each row: centres start at those with the lowest ones.
            With the rows in an order of their own (by id) the result is a function of
            rows and keys.
        by: Whose k-means moves the centres; with ``faiss`` a cluster that loses all
            its rows becomes half of a large one instead.

    Raises:
        MissingDependencyError: faiss is asked for and not installed.
    """
    num_clusters = min(num_clusters, len(rows))
    sample = rows
    order = np.argsort(keys, kind="stable")
    if len(rows) > num_clusters * _ROWS_PER_CLUSTER:
        kept = np.sort(order[: num_clusters * _ROWS_PER_CLUSTER])
        sample = rows[kept]
    centres = rows[order[:num_clusters]]
    if by == "faiss":
        centres = centres_by_faiss(sample, centres, _NUM_ROUNDS)
    else:
        centres = _moved(sample, centres)
    return Clusters(centres, *nearest(rows, centres))


def _moved(
    rows: Float32[np.ndarray, "n D"], centres: Float32[np.ndarray, "k D"]
) -> Float32[np.ndarray, "k D"]:
    """Returns the centres that Lloyd's algorithm comes to."""
    previous = None
    with Progress("k-means", _NUM_ROUNDS, "rounds") as progress:
        for _ in range(_NUM_ROUNDS):
            labels, distances = nearest(rows, centres)
            if previous is not None and np.array_equal(labels, previous):
                break
            previous = labels
            centres = _means(rows, labels, distances, len(centres))
            progress.advance(1)
    return centres


def _means(
    rows: Float32[np.ndarray, "n D"],
    labels: Int64[np.ndarray, " n"],
    distances: Float32[np.ndarray, " n"],
    num_clusters: int,
) -> Float32[np.ndarray, "k D"]:
    """Returns the mean of each cluster, and rows far from theirs for empty ones."""
    sizes = np.bincount(labels, minlength=num_clusters)
    occupied = np.flatnonzero(sizes)
    starts = (np.cumsum(sizes) - sizes)[occupied]
    grouped = rows[np.argsort(labels, kind="stable")]
    centres = np.empty((num_clusters, rows.shape[1]), np.float32)
    sums = np.add.reduceat(grouped, starts, axis=0)
    centres[occupied] = sums / sizes[occupied, None].astype(np.float32)
    empty = np.flatnonzero(sizes == 0)
    if len(empty):
        farthest = np.argsort(-distances, kind="stable")[: len(empty)]
        centres[empty] = rows[farthest]
    return centres
