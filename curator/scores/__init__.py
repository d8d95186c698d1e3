"""What a policy ranks by: scores of losses, alone and jointly over pairs; numpy only.

Higher is wanted more. Shapes: ``B`` is the super-batch size, ``D`` the embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from curator.scores._pairwise import JointScores, PairModel, usable_rows
from curator.scores._scores import SCORES, PairScoreName, Score, ScoreName
from curator.scores._sigmoid import SigmoidScores
from curator.scores._softmax import SoftmaxScores

__all__ = [
    "PAIR_SCORES",
    "SCORES",
    "JointScores",
    "PairLoss",
    "PairModel",
    "PairScoreName",
    "Score",
    "ScoreName",
    "SigmoidScores",
    "SoftmaxScores",
    "usable_rows",
]

PairLoss: TypeAlias = Literal["sigmoid", "softmax"]
"""A contrastive loss over the pairs of a batch."""

PAIR_SCORES: dict[PairLoss, Callable[[Sequence[PairModel]], JointScores]] = {
    "sigmoid": SigmoidScores,
    "softmax": SoftmaxScores,
}
"""Joint scores by the name of their loss."""
