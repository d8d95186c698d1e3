"""Joint scores of the sigmoid contrastive loss (SigLIP, arXiv 2303.15343).

The cost of query i with target j is ``softplus(-y z)`` with the logit ``z = scale *
similarity + bias``, and ``y`` +1 for a pair of its own, -1 otherwise. A score's matrix
S adds the costs of both models, each with its coefficient. The score of j given A is
``S_jj + sum over x in A of (S_xj + S_jx)`` (JEST, arXiv 2406.17711, algorithm 1).

Shapes: ``B`` is the super-batch size, ``m`` rows and ``n`` columns make a tile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from curator.scores._pairwise import PairModel, logit_tiles, positive_logits

__all__ = ["SigmoidScores"]

# Every factor 1 + exp(-|z|) is at most 2: a product of 64 is far from the end of
# float32, and one of the at most 512 rows of a tile from the end of float64.
_FACTORS_IN_FLOAT32 = 64


class SigmoidScores:
    """The score of every candidate given those added, for the sigmoid loss.

    Pair logits are float32, sums over them float64. Adding m of B candidates costs
    ``8 m B D`` floating point operations and ``4 m B`` exponentials for two models, and
    no memory that grows with ``m B``.
    """

    def __init__(self, models: Sequence[PairModel]) -> None:
        self._models = models
        self._scores = np.zeros(len(models[0].queries))
        for model in models:
            self._scores += model.coefficient * np.logaddexp(0, -positive_logits(model))
        self._added = np.zeros(len(self._scores), bool)

    def scores(self) -> Float64[np.ndarray, " B"]:
        """Returns the scores given the candidates added so far."""
        return self._scores.copy()

    def add(self, chunk: Int64[np.ndarray, " m"]) -> None:
        """Adds candidates, by position."""
        self._added[chunk] = True
        others = np.flatnonzero(~self._added)
        for model in self._models:
            for columns, logits, spare in logit_tiles(model, chunk, others):
                flat = (-1, len(columns))
                costs = _softplus_sums(logits.reshape(flat), spare.reshape(flat))
                self._scores[columns] += model.coefficient * costs


def _softplus_sums(
    logits: Float32[np.ndarray, "m n"], spare: Float32[np.ndarray, "m n"]
) -> Float64[np.ndarray, " n"]:
    """Returns the sum of ``softplus(z) = max(z, 0) + log(1 + exp(-|z|))`` over rows.

    The sum of logarithms is the logarithm of a product: one logarithm is taken per
    column, not one per pair. Overwrites both arguments.
    """
    positive_part = np.zeros(logits.shape[1], np.float32)
    if logits.max() > 0:  # rare while the bias outweighs the scale
        magnitudes = np.abs(logits, out=spare)
        logits += magnitudes  # exactly twice the positive part
        positive_part = logits.sum(axis=0) / 2
        logits, spare = np.negative(magnitudes, out=magnitudes), logits
    factors = np.exp(logits, out=logits)
    num_groups = -(-len(factors) // _FACTORS_IN_FLOAT32)
    groups = _multiply(factors, spare, num_groups).astype(np.float64)
    (product,) = _multiply(groups, np.empty_like(groups), 1)
    return positive_part + np.log1p(product)


def _multiply(
    excess: Float[np.ndarray, "m n"], spare: Float[np.ndarray, "m n"], num_rows: int
) -> Float[np.ndarray, "num_rows n"]:
    """Multiplies the factors ``1 + excess`` of a column, in place, down to few rows.

    ``(1 + a) (1 + b) = 1 + (a + b + a b)``: the 1 is never added, so that the tiny
    excess of a far negative is not lost beside it.

    Args:
        excess: What each factor exceeds 1 by, at least 0.
        spare: Overwritten.
        num_rows: How many rows of products to leave.
    """
    num_left = len(excess)
    while num_left > num_rows:
        half = num_left // 2
        first, second = excess[:half], excess[num_left - half : num_left]
        both = np.multiply(first, second, out=spare[:half])
        both += second
        first += both
        num_left -= half
    return excess[:num_rows]
