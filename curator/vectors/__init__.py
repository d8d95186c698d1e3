"""Arithmetic of many vectors: clusters and neighbours; numpy, and faiss if asked for.

Everything is a product of two blocks of rows, reduced before the next one is made, so
that no matrix of all pairs is ever held.
"""

from __future__ import annotations

from curator.vectors._equal_clusters import equal_clusters
from curator.vectors._faiss import faiss
from curator.vectors._k_means import Clusters, KMeansName, k_means
from curator.vectors._neighbours import nearest, top_neighbours

__all__ = [
    "Clusters",
    "KMeansName",
    "equal_clusters",
    "faiss",
    "k_means",
    "nearest",
    "top_neighbours",
]
