"""Near copies, by meaning: found inside clusters, and chosen last.

Shapes: ``n`` is the number of examples, ``D`` the width of an embedding, ``B`` the
super-batch size, ``m`` the number of examples of a cluster.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from curator.policies._embeddings import (
    EmbeddedCandidates,
    check_feature_name,
    unit_rows,
)
from curator.policies._ranking import highest
from curator.rng import Noise, mix
from curator.types import Features, Selection
from curator.vectors import KMeansName, k_means

__all__ = ["Dedup", "Duplicates", "KeepName", "find_duplicates"]

KeepName: TypeAlias = Literal["hard", "easy", "random"]
"""Which of two near copies stays: the one farther from the centre of their cluster, the
one nearer to it, or any."""

# How many examples a cluster has in the mean, where nobody says how many there are.
_CLUSTER_SIZE = 2048

# Rows of a cluster whose cosines are held at once.
_BLOCK = 512


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Duplicates:
    """Near copies among some rows.

    Attributes:
        kept: Which rows stay.
        group: The row that stays in the place of each; itself for one that stays. Rows
            of one group are near copies of each other.
        cluster: In which cluster each was looked for; -1 for a row without direction,
            which stays.
        similarity: The largest cosine of each to a row of its cluster that comes before
            it in the order of what stays; -1 for the first. A row stays if that is at
            most the threshold.
    """

    kept: Bool[np.ndarray, " n"]
    group: Int64[np.ndarray, " n"]
    cluster: Int64[np.ndarray, " n"]
    similarity: Float32[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dedup:
    """Prefers examples that are no near copies of others.

    Embeddings are put into clusters, and the examples of each in the order of ``keep``.
    The score of an example is 1 less its largest cosine to those before it: K examples
    of the highest scores are all examples up to some threshold, and ``max_similarity``
    says which one that was.

    Use it to take near copies out of a pool before anything else. It looks at nothing
    but embeddings. Copies that fall into different clusters are not found. Costs
    O(n k D) for k clusters and O(n m D) for m examples in each; no n x n memory. The
    clusters are random; equal scores are ordered by a hash of the example id.

    Source: Abbas et al. 2023, "SemDeDup: data-efficient learning at web-scale through
    semantic deduplication", arXiv 2303.09540. There the threshold is given, and K is
    what comes of it; :func:`find_duplicates` does that.

    Attributes:
        embeddings: The feature that cosines are of: rows, or pairs, which are both
            sides one after the other.
        keep: Which of near copies comes first: ``hard``, the one farthest from the
            centre, as published; ``easy``, the nearest; ``random``.
        num_clusters: k; 0 is one for every 2048 examples.
        k_means: Whose k-means makes the clusters: ``numpy``, ours, or ``faiss``, which
            has to be installed where policies run. They round otherwise, so some
            examples may be in another cluster.

    Stats: ``num_quarantined``, ``num_topped_up``, ``score_mean`` of the chosen;
    ``max_similarity``, the largest cosine of a chosen example to one before it;
    ``num_clusters`` that are not empty.

    Example:
        >>> rows = np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]])
        >>> policy = Dedup(embeddings="pool.vector")
        >>> noise = Noise(seed=0, step=0)
        >>> 2 in policy.select(np.arange(3), {"pool.vector": rows}, 2, noise).indices
        True
    """

    name: ClassVar[str] = "dedup"

    embeddings: str = "reference.embeddings"
    keep: KeepName = "hard"
    num_clusters: int = 0
    k_means: KMeansName = "numpy"

    def __post_init__(self) -> None:
        check_feature_name("embeddings", self.embeddings)
        _check(self.keep, self.num_clusters, self.k_means)

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings."""
        return frozenset({self.embeddings})

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns the examples that are least like others, those first.

        Raises:
            FeatureError: The embeddings are missing, or not one row per candidate.
            MissingDependencyError: faiss is asked for and not installed.
            ValueError: ``num_selected`` is out of range.
        """
        embedded = EmbeddedCandidates.of(
            self.embeddings, "cosine", ids, features, num_selected, noise
        )
        if embedded.num_drawn == 0:
            return embedded.select(np.empty(0, np.int64), scores=np.empty(0))
        found = _Neighbours.of(
            embedded.rows,
            embedded.ids,
            self.keep,
            self.num_clusters,
            self.k_means,
            noise,
        )
        novelty = 1 - found.similarity.astype(np.float64)
        drawn = highest(novelty, embedded.ids, embedded.num_drawn)
        return embedded.select(
            drawn,
            scores=novelty[drawn],
            stats={
                "max_similarity": float(found.similarity[drawn].max()),
                "num_clusters": float(len(np.unique(found.cluster))),
            },
        )


def find_duplicates(
    rows: Float[np.ndarray, "n D"],
    ids: Int64[np.ndarray, " n"],
    threshold: float,
    noise: Noise,
    *,
    keep: KeepName = "hard",
    num_clusters: int = 0,
    by: KMeansName = "numpy",
) -> Duplicates:
    """Returns which rows are near copies of others, and of which.

    Args:
        rows: Embeddings, of any length. Rows that are not finite, or of length 0, have
            no copies.
        ids: The example id of each, distinct.
        threshold: Rows whose cosine to one before them is above this do not stay, in
            [-1, 1]. 1 keeps all.
        noise: The randomness.
        keep: As of :class:`Dedup`.
        num_clusters: As of :class:`Dedup`; 1 finds all copies.
        by: Whose k-means, as of :class:`Dedup`.

    Raises:
        MissingDependencyError: faiss is asked for and not installed.
        ValueError: An argument is out of range.
    """
    _check(keep, num_clusters, by)
    if not -1 <= threshold <= 1:
        msg = f"threshold must be a cosine, in [-1, 1]; got {threshold}"
        raise ValueError(msg)
    scaled, usable = unit_rows(rows)
    places = np.flatnonzero(usable)
    places = places[np.argsort(ids[places])]
    group = np.arange(len(rows))
    cluster = np.full(len(rows), -1)
    similarity = np.full(len(rows), -1, np.float32)
    if len(places):
        found = _Neighbours.of(
            scaled[places], ids[places], keep, num_clusters, by, noise
        )
        cluster[places] = found.cluster
        similarity[places] = found.similarity
        group[places] = places[found.most_similar]
    kept = similarity <= threshold
    group[kept] = np.flatnonzero(kept)
    # One that goes stands for nobody: who stays in its place stands for its copies too.
    while not kept[group].all():
        group = group[group]
    return Duplicates(kept, group, cluster, similarity)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Neighbours:
    """Of each row the most similar one before it; itself, at -1, for the first."""

    cluster: Int64[np.ndarray, " n"]
    similarity: Float32[np.ndarray, " n"]
    most_similar: Int64[np.ndarray, " n"]

    @classmethod
    def of(
        cls,
        rows: Float32[np.ndarray, "n D"],
        ids: Int64[np.ndarray, " n"],
        keep: KeepName,
        num_clusters: int,
        by: KMeansName,
        noise: Noise,
    ) -> _Neighbours:
        """Looks for them.

        Args:
            rows: Of length one, in order of id; at least one.
            ids: Their ids.
            keep: What comes before what.
            num_clusters: 0 for one of every 2048 rows.
            by: Whose k-means.
            noise: The randomness.
        """
        wanted = num_clusters or -(-len(rows) // _CLUSTER_SIZE)
        clusters = k_means(rows, wanted, noise.uniform(ids, chunk=1), by)
        distances = clusters.squared_distances.astype(np.float64)
        firsts = {
            "hard": -distances,
            "easy": distances,
            "random": noise.uniform(ids, chunk=2),
        }
        order = np.lexsort((mix(ids.astype(np.uint64)), firsts[keep], clusters.labels))
        similarity = np.full(len(rows), -1, np.float32)
        most_similar = np.arange(len(rows))
        edges = np.cumsum(np.bincount(clusters.labels))
        for members in np.split(order, edges[:-1]):
            _look_back(rows, members, similarity, most_similar)
        return cls(clusters.labels, similarity, most_similar)


def _look_back(
    rows: Float32[np.ndarray, "n D"],
    members: Int64[np.ndarray, " m"],
    similarity: Float32[np.ndarray, " n"],
    most_similar: Int64[np.ndarray, " n"],
) -> None:
    """Fills in what is most similar to each member of a cluster among those before."""
    own = rows[members]
    for start in range(0, len(members), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(members)))
        cosines = own[block] @ own[: block.stop].T
        later = np.arange(block.stop) >= np.arange(start, block.stop)[:, None]
        cosines[later] = -2
        best = cosines.argmax(axis=1)
        found = cosines[np.arange(len(best)), best]
        has_any = found > -2
        places = members[block][has_any]
        similarity[places] = np.clip(found[has_any], -1, 1)
        most_similar[places] = members[best[has_any]]


def _check(keep: str, num_clusters: int, by: str) -> None:
    if keep not in get_args(KeepName):
        msg = f"keep must be one of {', '.join(get_args(KeepName))}; got {keep!r}"
        raise ValueError(msg)
    if by not in get_args(KMeansName):
        msg = f"k_means must be one of {', '.join(get_args(KMeansName))}; got {by!r}"
        raise ValueError(msg)
    if num_clusters < 0:
        msg = (
            "num_clusters must be at least 1, or 0 for one of every "
            f"{_CLUSTER_SIZE} examples; got {num_clusters}"
        )
        raise ValueError(msg)
