"""Gradient-norm importance sampling, switched on only where it pays."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from curator.policies._allocation import capped_shares
from curator.policies._candidates import (
    LossName,
    check_at_least,
    check_score,
    non_negative,
    score_candidates,
    score_needs,
)
from curator.policies._features import read_memory
from curator.policies._ranking import random_order
from curator.policies._systematic import draw_systematically
from curator.rng import Noise
from curator.scores import ScoreName
from curator.types import Features, Selection

__all__ = ["Importance"]

_DECAY = 0.9
# Of the mean over all steps, a thousandth is older than this.
_MEMORY_ROWS = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Prefers large gradients, and takes the preference back by weights.

    The weighted batch mean is an unbiased estimate of the candidates' mean gradient,
    with less variance than a uniform batch where the score is close to the norm of the
    gradient. So it changes how fast training goes and not where it goes to. It pays
    only where scores differ widely, which ``tau`` measures: where its mean over steps
    is below what scoring costs, the batch *is* uniform.

    Use it with ``learner.grad_norm``, where scoring is cheap. Not to clean a noisy
    pool: an unbiased estimate of noise is noise. Costs O(B log B), random.

    Source: Katharopoulos, Fleuret 2018, "Not all samples are created equal: deep
    learning with importance sampling", arXiv 1803.00942. They draw with replacement;
    this draws systematically, with the same expectations.

    Attributes:
        backward_ratio: What a backward pass of the trainer costs, in forward passes;
            measure it (1.4 and 2 are both common).
        score: What chances are in proportion to; at least 0.
        loss: What the score is made of, as for :class:`curator.policies.TopK`.
        uniform_share: The share of all chances that is spread equally, in (0, 1]. No
            weight is above its inverse.

    Stats: ``num_quarantined``, ``num_topped_up``, ``score_mean`` of the chosen; ``tau``
    of this step, ``tau_mean`` over steps, ``tau_threshold``; ``is_importance``, 1 where
    the mean is above the threshold.
    """

    name: ClassVar[str] = "importance"

    backward_ratio: float
    score: ScoreName = "grad_norm"
    loss: LossName = "scalar"
    uniform_share: float = 0.001

    def __post_init__(self) -> None:
        check_score(self.score, self.loss, needs_non_negative=True)
        check_at_least("backward_ratio", self.backward_ratio, 0)
        if not 0 < self.uniform_share <= 1:
            msg = (
                "uniform_share must be above 0, without which weights have no limit, "
                f"and at most 1; got {self.uniform_share}"
            )
            raise ValueError(msg)

    @property
    def needs(self) -> frozenset[str]:
        """The features of the score, and the ``tau`` of steps before."""
        return score_needs(self.score, self.loss) | {"memory"}

    @property
    def memory_rows(self) -> int:
        """How many steps the mean of ``tau`` looks back."""
        return _MEMORY_ROWS

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns a batch drawn in proportion to the scores, or uniformly.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape, or a score
                is below 0.
            ValueError: ``num_selected`` is out of range.
        """
        candidates, scores = score_candidates(
            self.score, self.loss, ids, features, num_selected, noise
        )
        past = read_memory(features)
        num_drawn, num_candidates = candidates.num_drawn, len(scores)
        order = random_order(candidates.ids, noise)
        if num_candidates == 0:
            return candidates.select(order, remember=np.empty((0, 1), np.float32))
        scores = non_negative(scores[order], self.score)
        shares = mixed_shares(scores, self.uniform_share)
        tau = tau_of(shares)
        tau_mean = decayed_mean(np.append(past, tau)[-_MEMORY_ROWS:])
        threshold = 1 + len(ids) / (num_selected * (1 + self.backward_ratio))
        is_importance = tau_mean > threshold
        drawn, weights = order[:num_drawn], None
        if is_importance:
            chances = capped_shares(shares, np.ones(num_candidates), float(num_drawn))
            (start,) = noise.uniform(np.zeros(1, np.int64), chunk=1)
            found = draw_systematically(chances, num_drawn, float(start))
            drawn = order[found]
            weights = num_drawn / (num_candidates * chances[found])
        return candidates.select(
            drawn,
            weights=weights,
            stats={
                "tau": tau,
                "tau_mean": tau_mean,
                "tau_threshold": threshold,
                "is_importance": float(is_importance),
            },
            remember=np.full((1, 1), tau, np.float32),
        )


def mixed_shares(
    scores: Float64[np.ndarray, " n"], uniform_share: float
) -> Float64[np.ndarray, " n"]:
    """Returns shares in proportion to the scores, a part of each uniform; sum 1.

    Args:
        scores: At least 0; where all are 0, everything is uniform.
        uniform_share: The part.
    """
    uniform = np.full(len(scores), 1 / len(scores))
    highest = scores.max()
    if highest == 0:
        return uniform
    relative = scores / highest  # so that the sum is in the range of floats
    return (1 - uniform_share) * relative / relative.sum() + uniform_share * uniform


def tau_of(shares: Float64[np.ndarray, " n"]) -> float:
    """Returns tau: 1 for equal shares, ``sqrt(n)`` where one has everything.

    Its square is the second moment of the estimated gradient under a uniform draw, over
    that under these shares, where they are in proportion to the gradients' norms. The
    paper takes tau itself for the factor by which a uniform batch would have to grow.

    Its ``1 / sqrt(1 - sum((p - 1/n)^2) / sum(p^2))`` is ``sqrt(n sum(p^2))``
    where the p sum to 1, without the difference of nearly equal numbers.
    """
    return math.sqrt(len(shares) * float((shares * shares).sum()))


def decayed_mean(
    values: Float64[np.ndarray, " n"],
) -> float:
    """Returns the exponentially decayed mean, the last value weighing most.

    The weights sum to 1 from the first step on, so it starts at the first value and not
    at 0.
    """
    factors = _DECAY ** np.arange(len(values) - 1, -1, -1, dtype=np.float64)
    return float((factors * values).sum() / factors.sum())
