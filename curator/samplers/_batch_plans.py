"""Whole batches planned ahead, of clusters that are hard for a contrastive loss (B3).

Shapes: ``N`` is the number of examples, ``D`` the width of an embedding, ``K`` the
batch size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Float32, Int64

from curator.rng import Noise, generator
from curator.samplers._batch_graph import (
    balance,
    metis,
    mutual_graph,
    part_by_growing,
    part_by_metis,
)
from curator.vectors import KMeansName, equal_clusters

__all__ = ["BatchPlan", "PartitionerName", "b3_plan", "cluster_plan"]

PartitionerName: TypeAlias = Literal["auto", "metis", "numpy"]
"""What parts the graph: METIS, greedy growing, or METIS where it is installed."""

# Rows that are scaled at once.
_BLOCK = 4096


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchPlan:
    """The batches of an epoch, each made of whole clusters.

    Attributes:
        batches: Examples of each batch, shape (number of batches, K); none is in it
            twice.
        leftover: Examples that are in no batch of this epoch.
        clusters: The cluster of each example; all but one have ``cluster_size``.
        batch_size: K.
        cluster_size: How many examples a cluster has.
        seed: What the order of the clusters is drawn from.
        epoch: Which epoch this is.
        stats: Of the clusters: ``num_clusters``, and more by how they were made.
    """

    batches: Int64[np.ndarray, "num_batches K"]
    leftover: Int64[np.ndarray, " _"]
    clusters: Int64[np.ndarray, " N"]
    batch_size: int
    cluster_size: int
    seed: int
    epoch: int
    stats: Mapping[str, float]

    @classmethod
    def of(
        cls,
        clusters: Int64[np.ndarray, " N"],
        *,
        batch_size: int,
        cluster_size: int,
        seed: int,
        epoch: int,
        stats: Mapping[str, float],
    ) -> BatchPlan:
        """Draws the batches of an epoch: full clusters in random order."""
        order = np.argsort(clusters, kind="stable")
        sizes = np.bincount(clusters)
        full = np.flatnonzero(sizes == cluster_size)
        starts = (np.cumsum(sizes) - sizes)[full]
        random = generator(seed, "batch_plan", epoch=epoch)
        starts = random.permutation(starts)
        per_batch = batch_size // cluster_size
        num_batches = len(starts) // per_batch
        chosen = starts[: num_batches * per_batch]
        batches = order[chosen[:, None] + np.arange(cluster_size)]
        is_left = np.ones(len(clusters), bool)
        is_left[batches] = False
        return cls(
            batches=batches.reshape(num_batches, batch_size),
            leftover=np.flatnonzero(is_left),
            clusters=clusters,
            batch_size=batch_size,
            cluster_size=cluster_size,
            seed=seed,
            epoch=epoch,
            stats={"num_clusters": float(len(sizes)), **stats},
        )

    def for_epoch(self, epoch: int) -> BatchPlan:
        """Returns the batches of another epoch: the same clusters, shuffled anew."""
        return BatchPlan.of(
            self.clusters,
            batch_size=self.batch_size,
            cluster_size=self.cluster_size,
            seed=self.seed,
            epoch=epoch,
            stats=self.stats,
        )


def b3_plan(
    queries: Float[np.ndarray, "N D"],
    targets: Float[np.ndarray, "M D"],
    *,
    batch_size: int,
    cluster_size: int = 32,
    skip: int = 30,
    window: int = 100,
    labels: Int64[np.ndarray, " N"] | None = None,
    partitioner: PartitionerName = "auto",
    seed: int = 0,
    epoch: int = 0,
) -> BatchPlan:
    """Returns batches of clusters of examples that are hard negatives of each other.

    A graph has an edge between two examples if the target of each is among the
    ``window`` next ones, after the ``skip`` most similar, to the query of the other. It
    is parted into clusters with as many edges inside as possible. Costs O(N^2 D), and
    O(N (skip + window)) memory.

    Source: Thirukovalluru et al. 2025, "Breaking the batch barrier (B3) of contrastive
    learning via smart batch mining", arXiv 2505.11293.

    Args:
        queries: A teacher's embeddings; scaled to length one here.
        targets: Those of the right answers, as many.
        batch_size: K, a multiple of ``cluster_size`` and at most N.
        cluster_size: How many examples a cluster has. It and the window have to fit the
            natural size of neighbourhoods: see ``within_fraction``.
        skip: How many ranks are left out as likely right answers.
        window: How many ranks after those are hard negatives.
        labels: Examples of one label are no negatives of each other.
        partitioner: ``metis`` needs the package ``pymetis``; ``numpy`` is greedy.
            ``auto`` is METIS where it is installed: results differ.
        seed: Of all that is random.
        epoch: Which epoch's order of the clusters.

    Returns:
        The plan. Its stats: ``num_edges``; ``num_isolated``, examples without an edge;
        ``within_fraction``, the share of edges inside clusters.

    Raises:
        ValueError: An argument is out of range, embeddings are not finite or of length
            0, or METIS is asked for and not installed.
    """
    _check_sizes(len(queries), batch_size, cluster_size)
    if targets.shape != queries.shape:
        msg = (
            "queries and targets must have one shape (N, D); got "
            f"{queries.shape} and {targets.shape}"
        )
        raise ValueError(msg)
    if skip < 0 or window < 1:
        msg = f"skip must be at least 0 and window at least 1; got {skip} and {window}"
        raise ValueError(msg)
    if partitioner not in get_args(PartitionerName):
        allowed = ", ".join(get_args(PartitionerName))
        msg = f"partitioner must be one of {allowed}; got {partitioner!r}"
        raise ValueError(msg)
    if partitioner == "metis" and metis() is None:
        msg = (
            "partitioner 'metis' needs the package pymetis, which is not installed: "
            "pip install 'batch-curator[metis]', or use partitioner 'numpy'"
        )
        raise ValueError(msg)
    graph = mutual_graph(
        _unit("queries", queries),
        _unit("targets", targets),
        skip=skip,
        window=window,
        labels=labels,
    )
    num_clusters = -(-len(queries) // cluster_size)
    if partitioner == "numpy" or metis() is None:
        parts = part_by_growing(graph, cluster_size, seed)
    else:
        parts = part_by_metis(graph, num_clusters, seed)
    clusters = balance(graph, parts, cluster_size)
    return BatchPlan.of(
        clusters,
        batch_size=batch_size,
        cluster_size=cluster_size,
        seed=seed,
        epoch=epoch,
        stats={
            "num_edges": len(graph.neighbours) / 2,
            "num_isolated": float((np.diff(graph.starts) == 0).sum()),
            "within_fraction": graph.within(clusters),
        },
    )


def cluster_plan(
    rows: Float[np.ndarray, "N D"],
    *,
    batch_size: int,
    cluster_size: int | None = None,
    k_means: KMeansName = "numpy",
    seed: int = 0,
    epoch: int = 0,
) -> BatchPlan:
    """Returns batches of clusters of like examples, by k-means with equal sizes.

    Costs O(N k D) for k clusters, several times over.

    Source: Morris and Rush 2024, "Contextual document embeddings", arXiv 2410.02525.
    There clusters have any size, and batches straddle their edges.

    Args:
        rows: Embeddings, of a query and its target side by side; scaled to length one
            here.
        batch_size: K, a multiple of ``cluster_size`` and at most N.
        cluster_size: How many examples a cluster has; K by default.
        k_means: Whose k-means; ``faiss`` needs the package.
        seed: Of all that is random.
        epoch: Which epoch's order of the clusters.

    Returns:
        The plan. Its stats: ``similarity``, the mean cosine of an example and the
        centre of its cluster.

    Raises:
        MissingDependencyError: faiss is asked for and not installed.
        ValueError: An argument is out of range, or embeddings are not finite or of
            length 0.
    """
    if cluster_size is None:
        cluster_size = batch_size
    _check_sizes(len(rows), batch_size, cluster_size)
    scaled = _unit("rows", rows)
    keys = Noise(seed, 0, "cluster_plan").uniform(np.arange(len(rows)))
    clusters, centres = equal_clusters(scaled, cluster_size, keys, k_means)
    lengths = np.maximum(np.linalg.norm(centres, axis=1), 1e-12)
    cosines = np.einsum("ij,ij->i", scaled, centres[clusters]) / lengths[clusters]
    return BatchPlan.of(
        clusters,
        batch_size=batch_size,
        cluster_size=cluster_size,
        seed=seed,
        epoch=epoch,
        stats={"similarity": float(cosines.mean(dtype=np.float64))},
    )


def _check_sizes(num_examples: int, batch_size: int, cluster_size: int) -> None:
    if cluster_size < 1 or batch_size < 1 or batch_size % cluster_size:
        msg = (
            "batch_size must be a multiple of cluster_size, both at least 1; got "
            f"batch_size={batch_size}, cluster_size={cluster_size}"
        )
        raise ValueError(msg)
    if batch_size > num_examples:
        msg = (
            "batch_size must be at most the number of examples; got "
            f"batch_size={batch_size} for {num_examples}"
        )
        raise ValueError(msg)


def _unit(name: str, rows: Float[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
    """Returns rows at length one.

    Raises:
        ValueError: One is not finite, or of length 0.
    """
    scaled = np.empty(rows.shape, np.float32)
    num_bad, first = 0, -1
    # In blocks, so that all rows are never there as float64 too.
    for start in range(0, len(rows), _BLOCK):
        exact = rows[start : start + _BLOCK].astype(np.float64)
        lengths = np.linalg.norm(exact, axis=1)
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(bad):
            first = start + int(bad[0]) if num_bad == 0 else first
            num_bad += len(bad)
            continue
        scaled[start : start + _BLOCK] = exact / lengths[:, None]
    if num_bad:
        msg = (
            f"{name} must be finite and not of length 0; {num_bad} rows are not, row "
            f"{first} the first. Take these examples out first"
        )
        raise ValueError(msg)
    return scaled
