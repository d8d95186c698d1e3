"""Keeps each candidate with a chance that grows with its loss's percentile."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int64

from curator.policies._candidates import (
    LossName,
    WeightsName,
    check_at_least,
    check_score,
    check_weights,
    score_candidates,
    score_needs,
)
from curator.policies._draws import Draw, fill
from curator.policies._features import read_memory
from curator.policies._ranking import random_order
from curator.rng import Noise
from curator.scores import ScoreName
from curator.types import Features, Selection

__all__ = ["SelectiveBackprop", "draw_in_passes", "percentiles"]

# More than any chance above 0 takes; infinity would not be a statistic.
_MAX_PASSES = 1e300
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SelectiveBackprop:
    """Prefers losses that are high beside those of the last steps.

    Each candidate is kept with chance ``max(p_min, percentile ** beta)``, its
    percentile being that among the last ``ring_size`` scores. The candidates are gone
    through in random order, again and again, until K are kept.

    Use it as the classic loss-based baseline: only the rank of a loss counts, and over
    time, not only in the super-batch. Not on a noisy pool. Costs O(B log B +
    R log R), random.

    Source: Jiang et al. 2019, "Accelerating deep learning by focusing on the biggest
    losers", arXiv 1910.00762; the defaults are those of the published code. There,
    what one pass keeps is saved up until a batch is full; here every super-batch gives
    its K, if need be in several passes.

    Attributes:
        score: What percentiles are taken of.
        loss: What the score is made of, as for :class:`curator.policies.TopK`.
        beta: The power: a pass keeps about ``1 / (beta + 1)`` of the candidates.
        p_min: The least chance; 0 never keeps the lowest while there are others.
        ring_size: Of how many scores percentiles are taken, in candidates.
        weights: ``horvitz_thompson`` makes the batch mean of weighted losses an
            unbiased estimate of the candidates' mean (those of chance 0 apart); where
            one pass is enough, they are in proportion to ``1 / chance``. ``none`` is
            the paper's.

    Stats: ``num_quarantined``, ``num_topped_up``, ``score_mean`` of the chosen;
    ``keep_mean``, the mean chance; ``num_passes``, how many it took to keep K (those
    of chance 0 that were forced apart).
    """

    name: ClassVar[str] = "selective_backprop"

    score: ScoreName = "loss"
    loss: LossName = "scalar"
    beta: float = 3.0
    p_min: float = 0.0
    ring_size: int = 1024
    weights: WeightsName = "none"

    def __post_init__(self) -> None:
        check_score(self.score, self.loss)
        check_at_least("beta", self.beta, 0)
        check_at_least("ring_size", self.ring_size, 1)
        check_weights(self.weights)
        if not 0 <= self.p_min <= 1:
            msg = f"p_min must be in [0, 1]; got {self.p_min}"
            raise ValueError(msg)

    @property
    def needs(self) -> frozenset[str]:
        """The features of the score, and the scores of steps before."""
        return score_needs(self.score, self.loss) | {"memory"}

    @property
    def memory_rows(self) -> int:
        """The size of the ring."""
        return self.ring_size

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns a batch in the order in which it was kept.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape.
            ValueError: ``num_selected`` is out of range.
        """
        candidates, scores = score_candidates(
            self.score, self.loss, ids, features, num_selected, noise
        )
        order = random_order(candidates.ids, noise)
        # Scores come back as float32: only as such do equal ones compare as equal.
        current = np.clip(scores[order], -_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32)
        ring = np.concatenate([read_memory(features), current])[-self.ring_size :]
        chances = np.maximum(percentiles(current, ring) ** self.beta, self.p_min)
        draw, num_passes = draw_in_passes(
            chances, candidates.ids[order], candidates.num_drawn, noise
        )
        # The mean over those that may be kept; over all where the others are, too.
        num_possible = np.count_nonzero(chances)
        num_meant = (
            num_possible if num_possible >= candidates.num_drawn else len(scores)
        )
        stats = {"num_passes": num_passes}
        if len(chances):
            stats["keep_mean"] = float(chances.mean())
        return candidates.select(
            order[draw.positions],
            weights=draw.weights(self.weights, int(num_meant)),
            stats=stats,
            remember=current[-self.ring_size :, None],
        )


def percentiles(
    values: Float32[np.ndarray, " n"], ring: Float32[np.ndarray, " R"]
) -> Float64[np.ndarray, " n"]:
    """Returns the share of the ring that is strictly below each value."""
    return np.searchsorted(np.sort(ring), values, side="left") / max(len(ring), 1)


def draw_in_passes(
    chances: Float64[np.ndarray, " n"],
    ids: Int64[np.ndarray, " n"],
    num_drawn: int,
    noise: Noise,
) -> tuple[Draw, float]:
    """Keeps each candidate with its chance, pass after pass, until enough are kept.

    In which pass a candidate is kept is geometric, so one draw says it: no pass is
    really made, and a chance of 1e-9 takes no longer. Within a pass, candidates come in
    random order.

    Args:
        chances: In [0, 1]; those of 0 are drawn when no others are left.
        ids: Example ids of the candidates.
        num_drawn: In [0, n].
        noise: The randomness of this step.

    Returns:
        The draw, and the number of passes it took.
    """
    possible = np.flatnonzero(chances > 0)
    possible = possible[random_order(ids[possible], noise, chunk=1)]
    chances = chances[possible]
    with np.errstate(divide="ignore", over="ignore"):
        log_missed = np.log1p(-chances)
        passes = np.floor(np.log(noise.uniform(ids[possible], chunk=2)) / log_missed)
    passes = np.minimum(passes, _MAX_PASSES)
    ranked = np.argsort(passes, kind="stable")
    drawn = ranked[:num_drawn]
    inclusion = np.ones(len(drawn))
    if len(ranked) > num_drawn:
        # Kept before the one that just missed: in a pass before its, or in the same one
        # and earlier in the order, which has the descending order of uniform numbers.
        missed = ranked[num_drawn]
        (drawn_number,) = noise.uniform(ids[possible[[missed]]], chunk=1)
        with np.errstate(divide="ignore"):
            log_kept_late = np.log1p(-chances[drawn] * (1 - drawn_number))
        if passes[missed] > 0:
            log_kept_late += passes[missed] * log_missed[drawn]
        inclusion = -np.expm1(log_kept_late)
    num_passes = float(passes[drawn[-1]]) + 1 if len(drawn) else 0.0
    draw = fill(Draw(possible[drawn], inclusion), possible, ids, num_drawn, noise)
    return draw, num_passes
