"""Covers the space of embeddings: each example is the one farthest from those before.

Shapes: ``n`` is the number of usable candidates, ``D`` the width of an embedding, ``K``
the batch size, ``m`` the number of rows looked at.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int64

from curator.policies._embeddings import (
    EmbeddedCandidates,
    MetricName,
    check_feature_name,
    check_metric,
)
from curator.policies._greedy import take_greedily
from curator.policies._ranking import highest
from curator.progress import Progress
from curator.rng import Noise
from curator.types import Features, Selection

__all__ = ["KCenter"]

# Below this part of ||x||^2 little is left of the digits of ||x - y||^2 in float32.
_CANCELLED = np.float32(2e-2)

# Numbers that are held at once: distances of a block, differences of pairs.
_TILE = 1 << 19


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KCenter:
    """Prefers what is far from everything that was chosen before.

    The first example is drawn uniformly; then, each time, the candidate is taken whose
    distance to the nearest chosen one is the largest. No choice of K has a covering
    radius, the largest distance of a candidate to the nearest chosen one, below half of
    this one's.

    Use it to cover a pool whose dense parts are repetitive. Not for pools with
    outliers, which are what it takes first: see ``trim``. It looks at no score. Costs
    O(n K D) at the speed of matrix products, O(n D) memory. The first example is
    random; equal distances are ordered by a hash of the example id.

    Source: Gonzalez 1985, "Clustering to minimize the maximum intercluster distance";
    Sener and Savarese 2018, "Active learning for convolutional neural networks: a
    core-set approach", arXiv 1708.00489.

    Attributes:
        embeddings: The feature that distances are between: rows, or pairs, which are
            both sides one after the other.
        metric: ``cosine`` scales rows to length one first, ``euclidean`` does not.
        trim: That share of the candidates, the farthest ones, is passed over each time,
            in [0, 1): with 0.01 the candidate at the 99th percentile is taken.

    Stats: ``num_quarantined``, ``num_topped_up``; ``score_mean`` of the distances of
    the chosen to the nearest before them (of the first: to the farthest candidate);
    ``radius``, the largest distance of a candidate to the nearest chosen one.

    Example:
        >>> rows = np.array([[0.0], [1.0], [9.0], [10.0]], np.float32)
        >>> policy = KCenter(embeddings="pool.place", metric="euclidean")
        >>> chosen = policy.select(
        ...     np.arange(4), {"pool.place": rows}, 2, Noise(seed=0, step=0)
        ... )
        >>> bool(abs(rows[chosen.indices[0]] - rows[chosen.indices[1]])[0] >= 9)
        True
    """

    name: ClassVar[str] = "kcenter"

    embeddings: str = "reference.embeddings"
    metric: MetricName = "cosine"
    trim: float = 0.0

    def __post_init__(self) -> None:
        check_feature_name("embeddings", self.embeddings)
        check_metric(self.metric)
        if not 0 <= self.trim < 1:
            msg = f"trim must be in [0, 1); got {self.trim}"
            raise ValueError(msg)

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
        """Returns the centres, in the order they are taken.

        Raises:
            FeatureError: The embeddings are missing, or not one row per candidate.
            ValueError: ``num_selected`` is out of range.
        """
        embedded = EmbeddedCandidates.of(
            self.embeddings, self.metric, ids, features, num_selected, noise
        )
        if embedded.num_drawn == 0:
            return embedded.select(np.empty(0, np.int64), scores=np.empty(0))
        rows, unit = _around_their_mean(embedded.rows)
        start = highest(noise.uniform(embedded.ids), embedded.ids, 1)
        squared = np.full(len(rows), np.inf)
        with Progress(self.name, embedded.num_drawn, "choices") as progress:
            taken, when_taken = take_greedily(
                _Distances(rows.shape[1], embedded.num_drawn),
                rows,
                squared,
                embedded.hashes(),
                embedded.num_drawn,
                progress,
                first=int(start[0]),
                num_skipped=int(self.trim * len(rows)),
            )
        # Of the first one: how far its farthest candidate is, if there is another.
        first = rows - rows[taken[:1]]
        when_taken[0] = np.einsum("ij,ij->i", first, first, dtype=np.float64).max()
        radius = float(np.sqrt(squared.max(initial=0.0))) * unit
        return embedded.select(
            taken, scores=np.sqrt(when_taken) * unit, stats={"radius": radius}
        )


def _around_their_mean(
    rows: Float32[np.ndarray, "n D"],
) -> tuple[Float32[np.ndarray, "n D"], float]:
    """Returns rows about their mean, none longer than one, and what one stands for.

    Distances stay what they are, up to that unit; fewer of their digits cancel.
    """
    largest = float(np.abs(rows).max(initial=0.0)) or 1.0
    rows = rows / np.float32(largest)
    rows -= rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    longest = float(np.sqrt(squares.max(initial=0.0))) or 1.0
    rows /= np.float32(longest)
    return rows, largest * longest


class _Distances:
    """Squared distances to the nearest choice."""

    def __init__(self, width: int, num_choices: int) -> None:
        self._chosen = np.empty((num_choices, width), np.float32)
        self._num_chosen = 0

    def choose(self, row: Float32[np.ndarray, " D"]) -> None:
        self._chosen[self._num_chosen] = row
        self._num_chosen += 1

    def lower(
        self,
        rows: Float32[np.ndarray, "m D"],
        keys: Float64[np.ndarray, " m"],
        start: int,
        stop: int,
    ) -> None:
        if start == stop:
            return
        chosen = self._chosen[start:stop]
        squares = np.einsum("ij,ij->i", chosen, chosen)
        size = max(_TILE // len(chosen), 1)
        for at in range(0, len(rows), size):
            block = slice(at, at + size)
            distances = _squared_distances(rows[block], chosen, squares)
            np.minimum(keys[block], distances.min(axis=1), out=keys[block])


def _squared_distances(
    rows: Float32[np.ndarray, "m D"],
    others: Float32[np.ndarray, "k D"],
    squares: Float32[np.ndarray, " k"],
) -> Float32[np.ndarray, "m k"]:
    """Returns squared distances; those of nearly equal rows by subtraction."""
    own = np.einsum("ij,ij->i", rows, rows)
    distances = rows @ others.T
    distances *= -2
    distances += squares
    distances += own[:, None]
    left, right = np.nonzero(distances < _CANCELLED * own[:, None])
    size = max(_TILE // rows.shape[1], 1)
    for at in range(0, len(left), size):
        i, j = left[at : at + size], right[at : at + size]
        differences = rows[i] - others[j]
        distances[i, j] = np.einsum("ij,ij->i", differences, differences)
    return distances
