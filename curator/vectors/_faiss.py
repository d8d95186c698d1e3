"""k-means by faiss, which is no dependency: where it is installed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float32

from curator.errors import MissingDependencyError

__all__ = ["centres_by_faiss", "faiss"]


def faiss() -> ModuleType | None:
    """Returns the package, if it is installed."""
    try:
        import faiss as package
    except ImportError:
        return None
    return package


def centres_by_faiss(
    rows: Float32[np.ndarray, "n D"], first: Float32[np.ndarray, "k D"], num_rounds: int
) -> Float32[np.ndarray, "k D"]:
    """Returns the centres that Lloyd's algorithm comes to.

    Args:
        rows: All of them are used.
        first: The centres to start from.
        num_rounds: How often centres are moved.

    Raises:
        MissingDependencyError: faiss is not installed.
    """
    package: Any = faiss()
    if package is None:
        msg = (
            "k_means = 'faiss' needs faiss, which is not installed: "
            "pip install 'batch-curator[faiss]', or use k_means = 'numpy'"
        )
        raise MissingDependencyError(msg)
    num_clusters, width = first.shape
    found = package.Kmeans(
        width,
        num_clusters,
        niter=num_rounds,
        # All rows, and no warning about how few they are.
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    found.train(np.ascontiguousarray(rows), init_centroids=first)
    return np.array(found.centroids, np.float32).reshape(first.shape)
