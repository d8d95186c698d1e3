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

from curator.scores._pairwise import (
    PairModel,
    Remaining,
    logit_tiles,
    positive_logits,
)
from curator.types import PairRows

__all__ = ["SigmoidScores"]

# How many factors 1 + exp(z) are multiplied in float32; the products, at most 8 in a
# tile, then in float64. All fit where the sum of softplus(z) over 64 is below 88, and
# so wherever z <= 0: no factor exceeds 2 there.
_FACTORS_IN_FLOAT32 = 64


class SigmoidScores:
    """The score of every candidate given those added, for the sigmoid loss.

    Pair logits are float32, sums over them float64. Adding m of B candidates costs
    ``8 m B D`` floating point operations and ``4 m B`` exponentials for two models, and
    no memory that grows with ``m B``.
    """

    def __init__(
        self,
        models: Sequence[PairModel],
        places: Int64[np.ndarray, " B"] | None = None,
    ) -> None:
        """Args: places: Of each row of the models; see :class:`Remaining`."""
        self._models = models
        self._scores = np.zeros(len(models[0].queries))
        for model in models:
            self._scores += model.coefficient * np.logaddexp(0, -positive_logits(model))
        self._remaining = Remaining(models, places)

    def scores(self) -> Float64[np.ndarray, " B"]:
        """Returns the scores given the candidates added so far."""
        return self._scores.copy()

    def add(self, chunk: Int64[np.ndarray, " m"]) -> None:
        """Adds candidates, by position."""
        self.add_rows(self.take_rows(chunk))

    def take_rows(self, chunk: Int64[np.ndarray, " m"]) -> list[PairRows]:
        """Returns the embeddings of candidates, by model, and scores them no more."""
        return self._remaining.take(chunk)

    def add_rows(self, rows: Sequence[PairRows]) -> None:
        """Adds examples that are not scored here, or no more, by their embeddings."""
        for model, chunk in zip(self._models, rows, strict=True):
            for columns, *arrays in logit_tiles(model, chunk, self._remaining.blocks):
                logits, first, second = (
                    array.reshape(-1, len(columns)) for array in arrays
                )
                costs = _softplus_sums(logits, first, second)
                self._scores[columns] += model.coefficient * costs


def _softplus_sums(
    logits: Float32[np.ndarray, "m n"],
    excess: Float32[np.ndarray, "m n"],
    spare: Float32[np.ndarray, "m n"],
) -> Float64[np.ndarray, " n"]:
    """Returns the sum of ``softplus(z) = log(1 + exp(z))`` over rows.

    The sum of logarithms is the logarithm of a product: one logarithm is taken per
    column, not one per pair. Overwrites ``excess`` and ``spare``.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        product = _product(np.exp(logits, out=excess), spare)
        sums = np.log1p(product)
    overflown = ~np.isfinite(product)
    if overflown.any():  # rare: pairs that are all but positive, and many of them
        sums[overflown] = _large_softplus_sums(logits[:, overflown])
    return sums


def _large_softplus_sums(
    logits: Float32[np.ndarray, "m n"],
) -> Float64[np.ndarray, " n"]:
    """Returns the sum of ``softplus(z) = max(z, 0) + log(1 + exp(-|z|))`` over rows."""
    positive_parts = np.maximum(logits, 0).sum(axis=0, dtype=np.float64)
    excess = np.exp(-np.abs(logits))
    return positive_parts + np.log1p(_product(excess, np.empty_like(excess)))


def _product(
    excess: Float32[np.ndarray, "m n"], spare: Float32[np.ndarray, "m n"]
) -> Float64[np.ndarray, " n"]:
    """Returns what the product of ``1 + excess`` over rows exceeds 1 by.

    Overwrites both arguments.
    """
    num_groups = -(-len(excess) // _FACTORS_IN_FLOAT32)
    groups = _multiply(excess, spare, num_groups).astype(np.float64)
    (product,) = _multiply(groups, np.empty_like(groups), 1)
    return product


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
