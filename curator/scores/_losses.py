"""The contrastive losses that joint scores exist for."""

from __future__ import annotations

from typing import Literal, TypeAlias

from curator.scores._sigmoid import SigmoidScores
from curator.scores._softmax import SoftmaxScores

__all__ = ["PAIR_SCORES", "PairLoss"]

PairLoss: TypeAlias = Literal["sigmoid", "softmax"]
"""A contrastive loss over the pairs of a batch."""

PAIR_SCORES: dict[PairLoss, type[SigmoidScores] | type[SoftmaxScores]] = {
    "sigmoid": SigmoidScores,
    "softmax": SoftmaxScores,
}
"""Joint scores by the name of their loss."""
