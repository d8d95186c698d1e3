"""What a loss has to be below to be a low one.

Shapes: ``n`` is a number of losses; NaN stands for an example without one.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

from curator.samplers._checks import exact

__all__ = ["mean_threshold", "percentile_thresholds"]

_BLOCK = 1 << 20
# Equal losses must never be below their own mean. The mean of a few is wrong in the
# 16th digit, and the threshold is rounded to the eighth.
_TOLERANCE = 1e-6


def mean_threshold(losses: Float32[np.ndarray, " n"]) -> list[np.float32]:
    """Returns what a loss has to be below to be below the mean; nothing for none.

    The mean of the losses that are not NaN, in float64, less a tolerance: the float32
    mean of 50,000 times ln 10 is above ln 10, so a pool of equal losses was pruned.
    """
    total, count = 0.0, 0
    for start in range(0, len(losses), _BLOCK):
        block = losses[start : start + _BLOCK]
        seen = block[~np.isnan(block)]
        total += float(seen.sum(dtype=np.float64))
        count += len(seen)
    if not count:
        return []
    mean = total / count
    return [np.float32(mean - _TOLERANCE * max(1.0, abs(mean)))]


def percentile_thresholds(
    losses: Float32[np.ndarray, " n"], percentiles: list[float]
) -> list[np.float32]:
    """Returns percentiles of the losses that are not NaN, linearly interpolated."""
    seen = losses[~np.isnan(losses)]
    if not len(seen):
        return []
    ranks = [exact(q) / 100 * (len(seen) - 1) for q in percentiles]
    around = sorted({int(rank) for rank in ranks} | {math.ceil(rank) for rank in ranks})
    seen.partition(around)
    thresholds: list[np.float32] = []
    for rank in ranks:
        low, high = float(seen[int(rank)]), float(seen[math.ceil(rank)])
        thresholds.append(np.float32(low + (high - low) * float(rank % 1)))
    return thresholds
