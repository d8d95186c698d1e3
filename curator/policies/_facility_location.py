"""Represents the pool: every candidate is to have something like it in the batch.

Shapes: ``n`` is the number of usable candidates, ``D`` the width of an embedding, ``K``
the batch size, ``m`` the number of candidates looked at.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from curator.policies._coverage import Coverage
from curator.policies._embeddings import EmbeddedCandidates, check_feature_name
from curator.rng import Noise
from curator.types import Features, Selection

__all__ = ["FacilityLocation"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FacilityLocation:
    """Prefers examples that many candidates are like, and like none chosen before.

    The similarity of two examples is ``(1 + cosine) / 2``. The batch is to maximise the
    sum over all candidates of the similarity to the most similar chosen one; the
    candidate that adds most to it is taken, one after the other. That is at least 63 %
    of what the best batch has.

    Use it for a small subset that stands for a large pool; dense parts get more
    examples than sparse ones, and outliers come last, unlike with
    :class:`curator.policies.KCenter`. Costs one product of each pair, O(n^2 D), and
    what that costs again for each choice that a sample does not foresee; memory O(n D)
    and up to 2 GiB beside it for large n. Deterministic; equal gains are ordered by a
    hash of the example id.

    Source: Mirzasoleiman, Bilmes, Leskovec 2020, "Coresets for data-efficient training
    of machine learning models", arXiv 1906.01827; the lazy evaluation is that of Minoux
    1978, "Accelerated greedy algorithms for maximizing submodular set functions".

    Attributes:
        embeddings: The feature that cosines are of: rows, or pairs, which are both
            sides one after the other.

    Stats: ``num_quarantined``, ``num_topped_up``; ``score_mean`` of the gains, each
    divided by n; ``coverage``, the mean similarity of a candidate to the chosen one
    that is most like it.

    Example:
        >>> rows = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0]])
        >>> policy = FacilityLocation(embeddings="pool.vector")
        >>> noise = Noise(seed=0, step=0)
        >>> policy.select(np.arange(4), {"pool.vector": rows}, 2, noise).indices
        array([1, 3])
    """

    name: ClassVar[str] = "facility_location"

    embeddings: str = "reference.embeddings"

    def __post_init__(self) -> None:
        check_feature_name("embeddings", self.embeddings)

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
        """Returns the batch, in the order it is taken.

        Raises:
            FeatureError: The embeddings are missing, or not one row per candidate.
            ValueError: ``num_selected`` is out of range.
        """
        embedded = EmbeddedCandidates.of(
            self.embeddings, "cosine", ids, features, num_selected, noise
        )
        if embedded.num_drawn == 0:
            return embedded.select(np.empty(0, np.int64), scores=np.empty(0))
        coverage = Coverage(embedded.rows, embedded.hashes())
        taken, gains = coverage.take(embedded.num_drawn)
        return embedded.select(
            taken,
            scores=gains / len(embedded.rows),
            stats={"coverage": float(coverage.current.mean(dtype=np.float64))},
        )
