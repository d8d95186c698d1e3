"""Weighted examples that stand for the sum of all losses, from few of these.

Shapes: ``B`` is the super-batch size, ``n`` the number of usable candidates, ``K`` the
batch size.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from curator.policies._allocation import draw_in_proportion
from curator.policies._candidates import WeightsName, check_weights
from curator.policies._embeddings import (
    EmbeddedCandidates,
    MetricName,
    check_feature_name,
    check_metric,
)
from curator.policies._features import read_floats
from curator.rng import Noise
from curator.types import Features, Selection
from curator.vectors import k_means, nearest

__all__ = ["Sensitivity"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Draws what is costly or unlike the rest, with weights that make up for it.

    Embeddings are put into clusters. Where nearby examples have like losses, the loss
    of the example nearest to its centre stands for a cluster's, and what it leaves out
    is bounded by the distance from the centre. An example is drawn in proportion to
    both: the loss of its cluster, and a power of its distance.

    Use it for a weighted subset over which a training or an evaluation loss is to be
    estimated, where few losses are known or they are stale. Costs O(n k D) for k
    clusters. Random.

    Source: Axiotis et al. 2024, "Data-efficient learning via clustering-based
    sensitivity sampling: foundation models and beyond", arXiv 2402.17327. There
    examples are drawn with repeats; here each at most once, with the same chances up to
    those that would be above 1.

    Attributes:
        embeddings: The feature that is clustered: rows, or pairs, which are both sides
            one after the other.
        loss: The feature that holds the losses; at least 0. Of a cluster one is read.
        metric: ``cosine`` scales rows to length one first, ``euclidean`` does not.
        num_clusters: k; 0 is the root of the number of candidates.
        distance_share: Which part of all chances comes from distances, in [0, 1], the
            rest from losses. 0 draws by losses of clusters, 1 by distances.
        power: The power of a distance.
        weights: ``horvitz_thompson`` gives each example ``K / (n q)``, q being its
            chance to be drawn: the batch mean of weighted losses is an unbiased
            estimate of the candidates' mean. ``none`` is all 1.

    Stats: ``num_quarantined``, ``num_topped_up``; ``score_mean`` of the chances of the
    chosen; ``num_clusters`` that are not empty.

    Example:
        >>> rows = np.array([[0.0], [0.1], [5.0], [9.0]], np.float32)
        >>> features = {"pool.place": rows, "learner.loss": np.ones(4)}
        >>> policy = Sensitivity(
        ...     embeddings="pool.place", metric="euclidean", num_clusters=2
        ... )
        >>> len(policy.select(np.arange(4), features, 2, Noise(seed=0, step=0)).indices)
        2
    """

    name: ClassVar[str] = "sensitivity"

    embeddings: str = "reference.embeddings"
    loss: str = "learner.loss"
    metric: MetricName = "cosine"
    num_clusters: int = 0
    distance_share: float = 0.5
    power: float = 2.0
    weights: WeightsName = "horvitz_thompson"

    def __post_init__(self) -> None:
        check_feature_name("embeddings", self.embeddings)
        check_feature_name("loss", self.loss)
        check_metric(self.metric)
        check_weights(self.weights)
        if self.num_clusters < 0:
            msg = (
                "num_clusters must be at least 1, or 0 for the root of the number of "
                f"candidates; got {self.num_clusters}"
            )
            raise ValueError(msg)
        if not 0 <= self.distance_share <= 1:
            msg = f"distance_share must be in [0, 1]; got {self.distance_share}"
            raise ValueError(msg)
        if not 0 < self.power <= 8:
            msg = f"power must be above 0 and at most 8; got {self.power}"
            raise ValueError(msg)

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings and the losses."""
        return frozenset({self.embeddings, self.loss})

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns the batch, in random order.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape.
            ValueError: ``num_selected`` is out of range.
        """
        losses = read_floats(features, self.loss, ids)
        embedded = EmbeddedCandidates.of(
            self.embeddings,
            self.metric,
            ids,
            features,
            num_selected,
            noise,
            usable=np.isfinite(losses) & (losses >= 0),
        )
        num_drawn = embedded.num_drawn
        if num_drawn == 0:
            return embedded.select(np.empty(0, np.int64), scores=np.empty(0))
        shares, num_clusters = self._shares(embedded, losses[embedded.positions], noise)
        drawn, chances = draw_in_proportion(shares, embedded.ids, num_drawn, noise)
        weights = num_drawn / (len(shares) * chances)
        return embedded.select(
            drawn,
            scores=chances,
            weights=weights if self.weights == "horvitz_thompson" else None,
            stats={"num_clusters": float(num_clusters)},
        )

    def _shares(
        self,
        embedded: EmbeddedCandidates,
        losses: Float64[np.ndarray, " n"],
        noise: Noise,
    ) -> tuple[Float64[np.ndarray, " n"], int]:
        """Returns what chances are in proportion to, above 0, and how many clusters."""
        wanted = self.num_clusters or math.isqrt(len(losses))
        rows = embedded.rows
        if self.metric == "euclidean":
            rows = rows / (np.abs(rows).max(initial=0.0) or np.float32(1))
        clusters = k_means(rows, max(wanted, 1), noise.uniform(embedded.ids, chunk=3))
        nearest_rows, _ = nearest(clusters.centres, rows)
        proxies = losses[nearest_rows][clusters.labels]
        # Squared distances, whose root is taken with the power.
        spread = clusters.squared_distances.astype(np.float64) ** (self.power / 2)
        parts = np.stack([_normalised(proxies), _normalised(spread)])
        shares = np.array([1 - self.distance_share, self.distance_share]) @ parts
        # Nothing has no chance at all: such an example could not be weighed for.
        shares = np.maximum(shares, shares.max() * _LEAST_SHARE)
        return shares, len(np.unique(clusters.labels))


# Of the largest chance.
_LEAST_SHARE = 1e-3


def _normalised(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Returns values with sum 1; equal ones where all are 0."""
    largest = values.max()
    if largest == 0:
        return np.full(len(values), 1 / len(values))
    values = values / largest
    return values / values.sum()
