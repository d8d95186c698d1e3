"""Few of what there is a lot of: examples drawn by the inverse of their density.

Shapes: ``B`` is the super-batch size, ``n`` the number of candidates that have an
embedding, ``D`` its width, ``m`` the number of anchors.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int64

from curator.policies._allocation import draw_in_proportion
from curator.policies._candidates import WeightsName, check_weights
from curator.policies._embeddings import EmbeddedCandidates, check_feature_name
from curator.progress import Progress
from curator.rng import Noise
from curator.types import Features, Selection

__all__ = ["Density"]

# Kernels that are held at once.
_TILE = 1 << 22


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """Draws examples by the inverse of how many are like them.

    The density of an example is the sum of ``exp(-d^2 / (2 bandwidth^2))`` over all
    candidates, itself included, with ``d`` the distance of embeddings of length one: 1
    where it is alone, n where all are the same. Its chance to be drawn is in proportion
    to the inverse. A topic of a thousand examples is drawn about as often as one of
    ten.

    Use it to cover what there is evenly, where :class:`Dedup` would leave near copies
    out and keep the rest as unequal as it is. It looks at nothing but embeddings, and
    draws outliers, noise among them, with the highest chance. Costs O(n m D) for m
    anchors; no n x n memory. Random.

    Source: Sachdeva et al. 2024, "How to train data-efficient LLMs", arXiv 2402.09668,
    where densities are those of a hash of the rows; here they are sums over anchors
    drawn at random, exact with all of them.

    Attributes:
        embeddings: The feature that densities are of: rows, or pairs, which are both
            sides one after the other.
        bandwidth: How far from each other two examples are still alike: a distance of
            rows of length one. 0.3 is a cosine of 0.955.
        num_anchors: How many candidates densities are summed over; 0 is all.
        weights: ``none`` is all 1: what is rare counts for more. ``horvitz_thompson``
            gives each example ``K / (n q)``, q being its chance to be drawn: the batch
            mean of weighted losses is an unbiased estimate of the candidates' mean.

    Stats: ``num_quarantined``, ``num_topped_up``; ``score_mean`` of the chances of the
    chosen; ``density_mean`` of all candidates, ``density_chosen`` of the chosen.

    Example:
        >>> rows = np.array([[1.0, 0.0]] * 99 + [[0.0, 1.0]], np.float32)
        >>> policy = Density(embeddings="pool.vector")
        >>> noise = Noise(seed=0, step=0)
        >>> selection = policy.select(np.arange(100), {"pool.vector": rows}, 2, noise)
        >>> 99 in selection.indices
        True
    """

    name: ClassVar[str] = "density"

    embeddings: str = "reference.embeddings"
    bandwidth: float = 0.3
    num_anchors: int = 4096
    weights: WeightsName = "none"

    def __post_init__(self) -> None:
        check_feature_name("embeddings", self.embeddings)
        check_weights(self.weights)
        if not (self.bandwidth >= 1e-3 and math.isfinite(self.bandwidth)):
            msg = (
                "bandwidth must be a distance of at least 0.001; rows are of length "
                f"one, so none is above 2; got {self.bandwidth}"
            )
            raise ValueError(msg)
        if self.num_anchors < 0:
            msg = (
                "num_anchors must be at least 1, or 0 for all candidates; got "
                f"{self.num_anchors}"
            )
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
        """Returns the batch, in random order.

        Raises:
            FeatureError: The embeddings are missing, or not one row per candidate.
            ValueError: ``num_selected`` is out of range.
        """
        embedded = EmbeddedCandidates.of(
            self.embeddings, "cosine", ids, features, num_selected, noise
        )
        num_drawn = embedded.num_drawn
        if num_drawn == 0:
            return embedded.select(np.empty(0, np.int64), scores=np.empty(0))
        keys = noise.uniform(embedded.ids, chunk=3)
        # By number, so that with all of them sums are in the order of the ids.
        anchors = np.sort(np.argsort(keys)[: self.num_anchors or None])
        densities = _densities(embedded.rows, anchors, self.bandwidth)
        drawn, chances = draw_in_proportion(
            1 / densities, embedded.ids, num_drawn, noise
        )
        weights = num_drawn / (len(densities) * chances)
        return embedded.select(
            drawn,
            scores=chances,
            weights=weights if self.weights == "horvitz_thompson" else None,
            stats={
                "density_mean": float(densities.mean()),
                "density_chosen": float(densities[drawn].mean()),
            },
        )


def _densities(
    rows: Float32[np.ndarray, "n D"],
    anchors: Int64[np.ndarray, " m"],
    bandwidth: float,
) -> Float64[np.ndarray, " n"]:
    """Returns how many rows are like each, itself included; in [1, n].

    Args:
        rows: Of length one.
        anchors: Which of them the others are estimated by, increasing; at least one.
        bandwidth: Of the kernel.
    """
    size = len(rows)
    sums = np.empty(size)
    others = rows[anchors].T
    scale = np.float32(bandwidth**-2)
    block = max(_TILE // len(anchors), 1)
    with Progress("density", size, "examples") as progress:
        for start in range(0, size, block):
            kernels = rows[start : start + block] @ others
            kernels -= 1
            kernels *= scale
            # Rounding makes cosines of equal rows a little more than 1.
            np.minimum(kernels, 0, out=kernels)
            np.exp(kernels, out=kernels)
            # Each row itself is counted apart: exactly, and whether an anchor or not.
            edges = np.searchsorted(anchors, [start, start + block])
            here = np.arange(int(edges[0]), int(edges[1]))
            kernels[anchors[here] - start, here] = 0
            sums[start : start + block] = kernels.sum(axis=1, dtype=np.float64)
            progress.advance(len(kernels))
    num_others = np.full(size, len(anchors))
    num_others[anchors] -= 1
    return 1 + (size - 1) / np.maximum(num_others, 1) * sums
