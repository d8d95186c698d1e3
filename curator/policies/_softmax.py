"""Draws in proportion to the exponential of the score."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from curator.policies._candidates import (
    LossName,
    WeightsName,
    check_at_least,
    check_score,
    check_weights,
    score_candidates,
    score_needs,
)
from curator.policies._draws import draw_by_logits
from curator.rng import Noise
from curator.scores import ScoreName
from curator.types import Features, Selection

__all__ = ["Softmax"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Softmax:
    """Prefers high scores, by difference: chances are the softmax of ``beta * score``.

    Use it for any score, learnability too, whose differences mean the same all through
    training; otherwise take :class:`curator.policies.SoftRank`. Invariant under adding
    to all scores. Costs O(B + K log K), random.

    Source: Kirsch et al. 2021, "Stochastic batch acquisition: a simple baseline for
    deep active learning", arXiv 2106.12059, section 3.

    Attributes:
        score: What is drawn by.
        loss: What the score is made of, as for :class:`curator.policies.TopK`.
        beta: What scores are multiplied by: 0 is uniform, large ones take the highest.
            1 is the paper's; scores of a size of 0.01 need more.
        weights: ``horvitz_thompson`` makes the batch mean of weighted losses an
            unbiased estimate of the candidates' mean; ``none`` is all 1, and
            leans towards what is preferred.

    Stats: ``num_quarantined``, ``num_topped_up``, and ``score_mean`` of the chosen.
    """

    name: ClassVar[str] = "softmax"

    score: ScoreName = "learnability"
    loss: LossName = "scalar"
    beta: float = 1.0
    weights: WeightsName = "none"

    def __post_init__(self) -> None:
        check_score(self.score, self.loss)
        check_at_least("beta", self.beta, 0)
        check_weights(self.weights)

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
        """Returns a draw without replacement, in draw order.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape.
            ValueError: ``num_selected`` is out of range.
        """
        candidates, scores = score_candidates(
            self.score, self.loss, ids, features, num_selected, noise
        )
        with np.errstate(over="ignore"):
            logits = self.beta * (scores - scores.max(initial=-np.inf))
        draw = draw_by_logits(logits, candidates.ids, candidates.num_drawn, noise)
        return candidates.select(
            draw.positions, weights=draw.weights(self.weights, len(scores))
        )
