"""What the policies that draw by one score per candidate share.

Each has the fields ``score`` and ``loss``, reads the same features, sets the same
candidates aside, and is otherwise its own way to draw from the rest.

Shapes: ``B`` is the super-batch size, ``n`` the number of candidates with a score,
``m`` of those drawn from them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from curator.errors import FeatureError
from curator.policies._features import check_num_selected, read_pairs, read_scores
from curator.policies._quarantine import complete
from curator.rng import Noise
from curator.scores import (
    SCORES,
    PairScoreName,
    PairScores,
    ScoreName,
)
from curator.types import Features, Selection

__all__ = [
    "Candidates",
    "LossName",
    "WeightsName",
    "check_at_least",
    "check_score",
    "check_weights",
    "non_negative",
    "read_any_score",
    "score_candidates",
    "score_needs",
]

LossName: TypeAlias = Literal["scalar", "sigmoid", "softmax"]
"""What scores are made of: one float per candidate, or a contrastive loss of pairs."""

WeightsName: TypeAlias = Literal["none", "horvitz_thompson"]
"""All weights 1, or the inverse of each one's chance of being drawn."""

# Entropies of certain predictions round to a little below 0.
_ROUNDED_BELOW_ZERO = 1e-6


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The candidates of one step that can be drawn, and what becomes of a draw.

    Attributes:
        positions: Where each is in the super-batch.
        ids: The example id of each.
        scores: Finite; None where nothing is scored.
        num_drawn: How many to draw of them: K, or all where there are fewer.
        super_batch_ids: Those of all candidates.
        usable: Which of all candidates are among these.
        num_selected: K.
        noise: The randomness of this step.
    """

    positions: Int64[np.ndarray, " n"]
    ids: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"] | None
    num_drawn: int
    super_batch_ids: Int64[np.ndarray, " B"]
    usable: Bool[np.ndarray, " B"]
    num_selected: int
    noise: Noise

    @classmethod
    def of(
        cls,
        ids: Int64[np.ndarray, " B"],
        usable: Bool[np.ndarray, " B"],
        scores: Float64[np.ndarray, " B"] | None,
        num_selected: int,
        noise: Noise,
    ) -> Candidates:
        """Returns the usable ones of a super-batch.

        Raises:
            ValueError: ``num_selected`` is out of range.
        """
        check_num_selected(ids, num_selected)
        positions = np.flatnonzero(usable)
        return cls(
            positions=positions,
            ids=ids[positions],
            scores=None if scores is None else scores[positions],
            num_drawn=min(num_selected, len(positions)),
            super_batch_ids=ids,
            usable=usable,
            num_selected=num_selected,
            noise=noise,
        )

    def select(
        self,
        drawn: Int64[np.ndarray, " m"],
        *,
        weights: Float64[np.ndarray, " m"] | None = None,
        stats: Mapping[str, float] | None = None,
        remember: Float32[np.ndarray, "rows width"] | None = None,
    ) -> Selection:
        """Returns the selection of those drawn, topped up where there are too few.

        Args:
            drawn: Which of these candidates, ``num_drawn`` of them, in draw order.
            weights: Of those drawn; None where all are 1.
            stats: Diagnostics of the policy.
            remember: What the policy wants to see again.
        """
        return complete(
            self.positions[drawn],
            None if self.scores is None else self.scores[drawn],
            usable=self.usable,
            ids=self.super_batch_ids,
            num_selected=self.num_selected,
            noise=self.noise,
            stats=stats or {},
            weights=weights,
            remember=remember,
        )


def check_score(score: str, loss: str, *, needs_non_negative: bool = False) -> None:
    """Raises ValueError unless a policy can draw by this score of this loss.

    Args:
        score: What is ranked by, a :data:`curator.scores.ScoreName`.
        loss: What it is made of, a :data:`LossName`.
        needs_non_negative: Whether scores below 0 make no sense to the policy.
    """
    if loss not in get_args(LossName):
        msg = f"loss must be one of {', '.join(get_args(LossName))}; got {loss!r}"
        raise ValueError(msg)
    of_pairs = get_args(PairScoreName)
    allowed: list[ScoreName] = list(SCORES)
    if loss != "scalar":
        allowed = [name for name in SCORES if name in of_pairs]
    if score not in allowed:
        msg = (
            f"score must be one of {', '.join(allowed)} where loss is {loss!r}; "
            f"got {score!r}"
        )
        raise ValueError(msg)
    if not needs_non_negative:
        return
    if loss == "softmax":
        msg = (
            "loss must be 'scalar' or 'sigmoid' where examples are drawn in proportion "
            "to a score; got 'softmax', whose costs of single pairs are below 0. "
            "Policies softmax and softrank take any score"
        )
        raise ValueError(msg)
    allowed = [name for name in allowed if not SCORES[name].may_be_negative]
    if score not in allowed:
        msg = (
            f"score must be one of {', '.join(allowed)} where examples are drawn in "
            f"proportion to it; got {score!r}, which can be below 0. Policies softmax "
            "and softrank take any score"
        )
        raise ValueError(msg)


def check_weights(weights: str) -> None:
    """Raises ValueError for an unknown way to weigh."""
    if weights not in get_args(WeightsName):
        allowed = ", ".join(get_args(WeightsName))
        msg = f"weights must be one of {allowed}; got {weights!r}"
        raise ValueError(msg)


def check_at_least(field: str, value: float | int, least: int) -> None:
    """Raises ValueError unless a field is finite and at least ``least``."""
    if not (math.isfinite(value) and value >= least):
        msg = f"{field} must be finite and at least {least}; got {value}"
        raise ValueError(msg)


def score_needs(score: ScoreName, loss: LossName) -> frozenset[str]:
    """Returns the names of the features that a score is made of."""
    if loss == "scalar":
        return frozenset(name for name, _ in SCORES[score].terms)
    return frozenset(f"{model}.embeddings" for model, _ in SCORES[score].models)


def read_any_score(
    score: ScoreName,
    loss: LossName,
    ids: Int64[np.ndarray, " B"],
    features: Features,
) -> Float64[np.ndarray, " B"]:
    """Returns the score of each candidate, not finite where it has none.

    Raises:
        FeatureError: A needed feature is missing or of the wrong shape.
    """
    if loss == "scalar":
        return read_scores(features, score, ids)
    rows, models = read_pairs(features, score, loss, ids)
    scores = np.full(len(ids), np.nan)
    scores[rows] = PairScores(loss, models).bounds()
    return scores


def score_candidates(
    score: ScoreName,
    loss: LossName,
    ids: Int64[np.ndarray, " B"],
    features: Features,
    num_selected: int,
    noise: Noise,
) -> tuple[Candidates, Float64[np.ndarray, " n"]]:
    """Returns the candidates with a finite score, and these scores.

    Raises:
        FeatureError: A needed feature is missing or of the wrong shape.
        ValueError: ``num_selected`` is out of range.
    """
    scores = read_any_score(score, loss, ids, features)
    candidates = Candidates.of(ids, np.isfinite(scores), scores, num_selected, noise)
    return candidates, scores[candidates.positions]


def non_negative(
    scores: Float64[np.ndarray, " n"], score: ScoreName
) -> Float64[np.ndarray, " n"]:
    """Returns scores to draw in proportion to; those rounded below 0 are 0.

    Raises:
        FeatureError: A score is really below 0.
    """
    lowest = float(scores.min(initial=0.0))
    if lowest < -_ROUNDED_BELOW_ZERO:
        msg = (
            f"score {score!r} must be at least 0 where examples are drawn in "
            f"proportion to it; got {lowest}. Policies softmax and softrank take any "
            "score"
        )
        raise FeatureError(msg)
    return np.maximum(scores, 0)
