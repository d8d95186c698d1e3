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

from curator.scores._pairwise import PairModel, Tiles, positive_logits
from curator.types import PairRows

__all__ = ["SigmoidCosts"]

# How many factors 1 + exp(z) are multiplied in float32; the products, at most 16 in a
# tile, then in float64. All fit where the sum of softplus(z) over 64 is below 44, and
# so wherever z < 0: no factor reaches 2 there.
_FACTORS_IN_FLOAT32 = 64


class SigmoidCosts:
    """What its pairs with those added cost each candidate, for the sigmoid loss.

    Pair logits are float32, sums over them float64. Adding m examples to n candidates
    costs ``4 m n D`` floating point operations and ``2 m n`` exponentials.

    Attributes:
        values: The costs. They only grow.
    """

    def __init__(self, model: PairModel) -> None:
        """Starts with the cost of each candidate alone."""
        self.values: Float64[np.ndarray, " B"] = np.logaddexp(
            0, -positive_logits(model)
        )
        self._tiles = Tiles(model)

    def add(self, rows: PairRows, blocks: Sequence[Int64[np.ndarray, " _"]]) -> None:
        """Adds examples to the candidates of some blocks; see :meth:`Tiles.between`."""
        for columns, *arrays in self._tiles.between(rows, blocks):
            logits, first, second = (
                array.reshape(-1, len(columns)) for array in arrays
            )
            self.values[columns] += _softplus_sums(logits, first, second)

    def leave_alone(self, candidates: Int64[np.ndarray, " n"]) -> None:
        """Makes costs alone bounds of those given others, which they are already."""


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
