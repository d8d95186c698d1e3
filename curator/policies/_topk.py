"""The highest scores, each candidate on its own."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from curator.policies._candidates import (
    LossName,
    check_score,
    score_candidates,
    score_needs,
)
from curator.policies._ranking import highest
from curator.rng import Noise
from curator.scores import ScoreName
from curator.types import Features, Selection

__all__ = ["TopK"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """Prefers the candidates with the highest score, whatever else is in the batch.

    Use it where a loss belongs to one example (classification, language modelling:
    with ``learnability`` this is RHO-LOSS), or as the cheap form of
    :class:`curator.policies.Joint`. Not for pools with many near-duplicates: it takes
    all copies of a high score. Costs O(B + K log K), for embeddings O(B D), and is
    deterministic; equal scores are ordered by a hash of the example id.

    Source: Mindermann et al. 2022, "Prioritized training on points that are learnable,
    worth learning, and not yet learnt", arXiv 2206.07137.

    Attributes:
        score: What is ranked by.
        loss: ``scalar`` reads one float per feature of the score (``learner.loss``,
            ``reference.loss`` ...); ``sigmoid`` and ``softmax`` read embeddings and
            take the cost of each pair with itself.

    Stats: ``num_quarantined``, ``num_topped_up``, and ``score_mean`` of the chosen.

    Example:
        >>> ids, losses = np.arange(4), np.array([0.1, 0.9, 0.4, 0.6])
        >>> policy = TopK(score="hard_learner")
        >>> noise = Noise(seed=0, step=0)
        >>> policy.select(ids, {"learner.loss": losses}, 2, noise).indices
        array([1, 3])
    """

    name: ClassVar[str] = "topk"

    score: ScoreName = "learnability"
    loss: LossName = "scalar"

    def __post_init__(self) -> None:
        check_score(self.score, self.loss)

    @property
    def needs(self) -> frozenset[str]:
        """The features, or embeddings, that the score is made of."""
        return score_needs(self.score, self.loss)

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns the candidates with the highest scores, highest first.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape.
            ValueError: ``num_selected`` is out of range.
        """
        candidates, scores = score_candidates(
            self.score, self.loss, ids, features, num_selected, noise
        )
        return candidates.select(highest(scores, candidates.ids, candidates.num_drawn))
