"""The contrastive losses that joint scores exist for."""

from __future__ import annotations

from typing import Literal, TypeAlias

from curator.scores._sigmoid import SigmoidCosts
from curator.scores._softmax import SoftmaxCosts

__all__ = ["PAIR_COSTS", "PairLoss"]

PairLoss: TypeAlias = Literal["sigmoid", "softmax"]
"""A contrastive loss over the pairs of a batch."""

PAIR_COSTS: dict[PairLoss, type[SigmoidCosts] | type[SoftmaxCosts]] = {
    "sigmoid": SigmoidCosts,
    "softmax": SoftmaxCosts,
}
"""What pairs cost, by the name of the loss."""
