"""Draws evenly over the range of scores, not over the candidates."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from curator.policies._allocation import first_of_groups, water_fill
from curator.policies._candidates import (
    LossName,
    WeightsName,
    check_at_least,
    check_score,
    check_weights,
    score_candidates,
    score_needs,
)
from curator.policies._ranking import random_order
from curator.rng import Noise
from curator.scores import ScoreName
from curator.types import Features, Selection

__all__ = ["Stratified", "strata_of"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stratified:
    """Prefers what is rare among scores: every part of their range gets its share.

    The highest scores are dropped, for they are where mislabelled examples are. The
    range of the others is cut into strata of equal width, the batch is divided among
    these as equally as their sizes allow, and drawn uniformly inside each.

    Use it where most candidates are discarded (80 % and more) and the highest scores
    alone would make training collapse. Costs O(B log B), random.

    Source: Zheng et al. 2023, "Coverage-centric coreset selection for high pruning
    rates", arXiv 2210.15809. There the pool is pruned once, by a score of past
    training; here each super-batch is.

    Attributes:
        score: What the strata are cut from.
        loss: What the score is made of, as for :class:`curator.policies.TopK`.
        drop_highest: The share of candidates with the highest scores to drop, in
            [0, 1), rounded to a whole number; fewer where K would not be left.
        num_strata: How many strata; K where that is less, so that each gets an example.
        weights: ``horvitz_thompson`` gives each example the size of its stratum over
            the number drawn from it: the batch mean of weighted losses is an unbiased
            estimate of the mean of the candidates that were not dropped. ``none`` is
            all 1, and leans towards rare scores.

    Stats: ``num_quarantined``, ``num_topped_up``, ``score_mean`` of the chosen;
    ``num_dropped``, and ``num_strata`` that were not empty.

    Example:
        >>> losses = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.9])
        >>> policy = Stratified(score="loss", drop_highest=0.0, num_strata=2)
        >>> noise = Noise(seed=0, step=0)
        >>> 5 in policy.select(np.arange(6), {"learner.loss": losses}, 2, noise).indices
        True
    """

    name: ClassVar[str] = "stratified"

    score: ScoreName = "learnability"
    loss: LossName = "scalar"
    drop_highest: float = 0.2
    num_strata: int = 50
    weights: WeightsName = "none"

    def __post_init__(self) -> None:
        check_score(self.score, self.loss)
        check_at_least("num_strata", self.num_strata, 1)
        check_weights(self.weights)
        if not 0 <= self.drop_highest < 1:
            msg = f"drop_highest must be in [0, 1); got {self.drop_highest}"
            raise ValueError(msg)

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
        """Returns a batch drawn uniformly inside each stratum, in random order.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape.
            ValueError: ``num_selected`` is out of range.
        """
        candidates, scores = score_candidates(
            self.score, self.loss, ids, features, num_selected, noise
        )
        num_drawn = candidates.num_drawn
        # Rounded, not cut off: 0.29 * 100 is 28.999999999999996.
        num_dropped = round(self.drop_highest * len(scores))
        num_dropped = min(num_dropped, len(scores) - num_drawn)
        # Noise of its own breaks ties here: the order of the draw must not.
        ascending = random_order(candidates.ids, noise, chunk=1)
        ascending = ascending[np.argsort(scores[ascending], kind="stable")]
        kept = ascending[: len(scores) - num_dropped]
        kept = kept[random_order(candidates.ids[kept], noise)]
        if num_drawn == 0:
            return candidates.select(kept)
        strata = strata_of(scores[kept], min(self.num_strata, num_drawn))
        occupied, strata = np.unique(strata, return_inverse=True)
        sizes = np.bincount(strata)
        counts = water_fill(sizes, num_drawn, noise.uniform(occupied, chunk=2))
        is_drawn = first_of_groups(strata, counts)
        drawn_from = strata[is_drawn]
        weights = sizes[drawn_from] / counts[drawn_from] * (num_drawn / len(kept))
        return candidates.select(
            kept[is_drawn],
            weights=weights if self.weights == "horvitz_thompson" else None,
            stats={
                "num_dropped": float(num_dropped),
                "num_strata": float(len(occupied)),
            },
        )


def strata_of(
    scores: Float64[np.ndarray, " n"], num_strata: int
) -> Int64[np.ndarray, " n"]:
    """Returns the stratum of each score, from 0, of equal width over their range.

    The highest score is in the highest stratum whatever its sign: no upper edge is
    computed that it could fall on the wrong side of. Equal scores are one stratum.

    Args:
        scores: At least one.
        num_strata: How many parts the range has; some may be empty.
    """
    largest = np.abs(scores).max()
    if largest == 0:
        return np.zeros(len(scores), np.int64)
    relative = scores / largest  # the range of these is at most 2, not beyond floats
    lowest, highest = relative.min(), relative.max()
    if lowest == highest:
        return np.zeros(len(scores), np.int64)
    places = (relative - lowest) / (highest - lowest)
    return np.minimum((places * num_strata).astype(np.int64), num_strata - 1)
