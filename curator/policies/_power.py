"""Draws in proportion to a power of the score."""

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
    non_negative,
    score_candidates,
    score_needs,
)
from curator.policies._draws import draw_by_logits
from curator.rng import Noise
from curator.scores import ScoreName
from curator.types import Features, Selection

__all__ = ["Power"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Prefers high scores, by ratio: each draw has chance ``score ** beta / sum``.

    Use it where the score has a zero that means something (a loss, a gradient norm) and
    the highest scores alone would be outliers or copies of each other. Scores must be
    at least 0; one of 0 is chosen only when nothing else is left. Invariant under
    multiplying all scores. Costs O(B + K log K), random.

    Source: Kirsch et al. 2021, "Stochastic batch acquisition: a simple baseline for
    deep active learning", arXiv 2106.12059, section 3.

    Attributes:
        score: What is drawn by.
        loss: What the score is made of, as for :class:`curator.policies.TopK`.
        beta: The power: 0 is uniform, large ones take the highest; 1 is the paper's.
        weights: ``horvitz_thompson`` makes the batch mean of weighted losses an
            unbiased estimate of the candidates' mean (those
            of score 0 apart, which have no chance); ``none`` is all 1, and
            leans towards what is preferred.

    Stats: ``num_quarantined``, ``num_topped_up``, and ``score_mean`` of the chosen.
    """

    name: ClassVar[str] = "power"

    score: ScoreName = "loss"
    loss: LossName = "scalar"
    beta: float = 1.0
    weights: WeightsName = "none"

    def __post_init__(self) -> None:
        check_score(self.score, self.loss, needs_non_negative=True)
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
            FeatureError: A needed feature is missing or of the wrong shape,
                or a score is below 0.
            ValueError: ``num_selected`` is out of range.
        """
        candidates, scores = score_candidates(
            self.score, self.loss, ids, features, num_selected, noise
        )
        scores = non_negative(scores, self.score)
        logits = np.zeros(len(scores))
        if self.beta > 0:  # 0 to the power of 0 is 1, but 0 times log 0 is not a number
            highest = scores.max(initial=0.0)
            relative = scores / highest if highest > 0 else np.ones(len(scores))
            with np.errstate(divide="ignore", over="ignore"):
                logits = self.beta * np.log(relative)
        draw = draw_by_logits(logits, candidates.ids, candidates.num_drawn, noise)
        return candidates.select(
            draw.positions, weights=draw.weights(self.weights, len(scores))
        )
