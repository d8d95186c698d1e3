"""Ways to plan whole batches, by the names and fields that a user has for them.

Shapes: ``N`` is the number of examples, ``D`` the width of an embedding.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64

from curator.samplers._batch_graph import metis
from curator.samplers._batch_plans import (
    BatchPlan,
    PartitionerName,
    b3_plan,
    cluster_plan,
)
from curator.vectors import KMeansName, faiss

__all__ = ["B3Batches", "BatchPlanner", "ClusterBatches"]

_EMBEDDINGS = "reference.embeddings"


@runtime_checkable
class BatchPlanner(Protocol):
    """Plans whole batches from embeddings that are known before training."""

    name: ClassVar[str]

    @property
    def embeddings(self) -> str:
        """The feature that says which examples are alike."""
        ...

    @property
    def label(self) -> str | None:
        """The column of the pool that says which examples are no negatives."""
        ...

    def settled(self, batch_size: int) -> BatchPlanner:
        """Returns this with nothing left open: what a plan says that it is of.

        Raises:
            ValueError: It has no batches of that size.
        """
        ...

    def plan(
        self,
        queries: Float[np.ndarray, "N D"],
        targets: Float[np.ndarray, "N D"],
        *,
        batch_size: int,
        labels: Int64[np.ndarray, " N"] | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> BatchPlan:
        """Returns the batches of an epoch.

        Args:
            queries: Embeddings, finite and not of length 0.
            targets: Those of the right answers; ``queries`` itself where an example
                has one embedding.
            batch_size: K, at most N.
            labels: Numbers of what the column says, if there is one.
            seed: Of all that is random.
            epoch: Which epoch.

        Raises:
            ValueError: An argument is out of range.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class B3Batches:
    """Batches of clusters of hard negatives, see :func:`curator.samplers.b3_plan`.

    Attributes:
        embeddings: A teacher's; pairs, or one row per example.
        label: A column of the pool; examples of one label are no negatives of each
            other.
        cluster_size: How many examples a cluster has.
        skip: How many ranks are left out as likely right answers.
        window: How many ranks after those are hard negatives.
        partitioner: What parts the graph; ``auto`` is METIS where it is installed.
    """

    name: ClassVar[str] = "b3"

    embeddings: str = _EMBEDDINGS
    label: str | None = None
    cluster_size: int = 32
    skip: int = 30
    window: int = 100
    partitioner: PartitionerName = "auto"

    def __post_init__(self) -> None:
        _check_cluster_size(self.cluster_size)
        if self.skip < 0 or self.window < 1:
            msg = (
                "skip must be at least 0 and window at least 1; got "
                f"skip={self.skip}, window={self.window}"
            )
            raise ValueError(msg)

    def settled(self, batch_size: int) -> B3Batches:
        """Returns this with the partitioner that ``auto`` is here.

        Raises:
            ValueError: ``batch_size`` is no multiple of the cluster size.
        """
        _check_multiple(batch_size, self.cluster_size)
        if self.partitioner != "auto":
            return self
        found: PartitionerName = "numpy" if metis() is None else "metis"
        return dataclasses.replace(self, partitioner=found)

    def plan(
        self,
        queries: Float[np.ndarray, "N D"],
        targets: Float[np.ndarray, "N D"],
        *,
        batch_size: int,
        labels: Int64[np.ndarray, " N"] | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> BatchPlan:
        """Returns the batches of an epoch; see :class:`BatchPlanner`."""
        return b3_plan(
            queries,
            targets,
            batch_size=batch_size,
            cluster_size=self.cluster_size,
            skip=self.skip,
            window=self.window,
            labels=labels,
            partitioner=self.partitioner,
            seed=seed,
            epoch=epoch,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClusterBatches:
    """Batches of clusters of like examples, see :func:`curator.samplers.cluster_plan`.

    Attributes:
        embeddings: What is clustered; of pairs both sides, each at length one.
        cluster_size: How many examples a cluster has; by default a whole batch.
        k_means: Whose k-means; ``auto`` is that of faiss where it is installed.
    """

    name: ClassVar[str] = "clusters"

    embeddings: str = _EMBEDDINGS
    cluster_size: int | None = None
    k_means: Literal["auto", "numpy", "faiss"] = "auto"

    def __post_init__(self) -> None:
        if self.cluster_size is not None:
            _check_cluster_size(self.cluster_size)

    @property
    def label(self) -> None:
        """None: like examples are together, whatever their label."""

    def settled(self, batch_size: int) -> ClusterBatches:
        """Returns this with the cluster size and the k-means that there will be.

        Raises:
            ValueError: ``batch_size`` is no multiple of the cluster size.
        """
        size = batch_size if self.cluster_size is None else self.cluster_size
        _check_multiple(batch_size, size)
        return dataclasses.replace(self, cluster_size=size, k_means=self._by)

    @property
    def _by(self) -> KMeansName:
        if self.k_means != "auto":
            return self.k_means
        return "numpy" if faiss() is None else "faiss"

    def plan(
        self,
        queries: Float[np.ndarray, "N D"],
        targets: Float[np.ndarray, "N D"],
        *,
        batch_size: int,
        labels: Int64[np.ndarray, " N"] | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> BatchPlan:
        """Returns the batches of an epoch; see :class:`BatchPlanner`."""
        rows = queries
        if targets is not queries:
            rows = np.concatenate([_unit(queries), _unit(targets)], axis=1)
        return cluster_plan(
            rows,
            batch_size=batch_size,
            cluster_size=self.cluster_size,
            k_means=self._by,
            seed=seed,
            epoch=epoch,
        )


def _unit(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _check_cluster_size(cluster_size: int) -> None:
    if cluster_size < 1:
        msg = f"cluster_size must be at least 1; got {cluster_size}"
        raise ValueError(msg)


def _check_multiple(batch_size: int, cluster_size: int) -> None:
    if batch_size % cluster_size:
        msg = (
            "batch_size must be a multiple of cluster_size; got "
            f"batch_size={batch_size}, cluster_size={cluster_size}"
        )
        raise ValueError(msg)
