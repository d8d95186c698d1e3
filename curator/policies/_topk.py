"""The highest scores, each candidate on its own."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64, Int64

from curator.policies._features import check_num_selected, read_pairs, read_scores
from curator.policies._quarantine import complete
from curator.policies._ranking import highest
from curator.rng import Noise
from curator.scores import PAIR_SCORES, SCORES, ScoreName
from curator.types import Features, Selection

__all__ = ["TopK"]

_LOSSES = ("scalar", *sorted(PAIR_SCORES))


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
        loss: ``scalar`` reads losses (``learner.loss``, ``reference.loss``);
            ``sigmoid`` and ``softmax`` read embeddings and take the cost of each pair
            with itself.

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
    loss: Literal["scalar", "sigmoid", "softmax"] = "scalar"

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            msg = f"score must be one of {', '.join(SCORES)}; got {self.score!r}"
            raise ValueError(msg)
        if self.loss not in _LOSSES:
            msg = f"loss must be one of {', '.join(_LOSSES)}; got {self.loss!r}"
            raise ValueError(msg)

    @property
    def needs(self) -> frozenset[str]:
        """The loss, or the embeddings, of each model that the score is made of."""
        feature = "loss" if self.loss == "scalar" else "embeddings"
        return frozenset(f"{model}.{feature}" for model, _ in SCORES[self.score].terms)

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
        check_num_selected(ids, num_selected)
        scores = self._scores(ids, features)
        usable = np.isfinite(scores)
        keys = np.where(usable, scores, -np.inf)
        chosen = highest(keys, ids, min(num_selected, int(usable.sum())))
        return complete(
            chosen,
            scores[chosen],
            usable=usable,
            ids=ids,
            num_selected=num_selected,
            noise=noise,
            stats={},
        )

    def _scores(
        self, ids: Int64[np.ndarray, " B"], features: Features
    ) -> Float64[np.ndarray, " B"]:
        """Returns the score of each candidate, not finite where it has none."""
        if self.loss == "scalar":
            return read_scores(features, self.score, ids)
        rows, models = read_pairs(features, self.score, self.loss, ids)
        scores = np.full(len(ids), np.nan)
        scores[rows] = PAIR_SCORES[self.loss](models).scores()
        return scores
