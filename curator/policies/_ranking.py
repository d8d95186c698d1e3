"""The highest of some keys, with ties broken fairly; and orders without any keys.

Shapes: ``B`` is the number of keys, ``K`` of those wanted.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from curator.rng import Noise, mix

__all__ = ["highest", "mean_ranks", "random_order"]


def highest(
    keys: Float64[np.ndarray, " B"], ids: Int64[np.ndarray, " B"], num_wanted: int
) -> Int64[np.ndarray, " K"]:
    """Returns the positions of the highest keys, highest first, in O(B + K log K).

    Equal keys are ordered by a hash of the example id: by position, the candidates
    that come first in a super-batch would be favoured.

    Args:
        keys: Not NaN.
        ids: The example id of each key.
        num_wanted: In [0, B].
    """
    if num_wanted == 0:
        return np.empty(0, np.int64)
    threshold = np.partition(keys, len(keys) - num_wanted)[len(keys) - num_wanted]
    contenders = np.flatnonzero(keys >= threshold)
    order = np.argsort(-keys[contenders])
    ranked = keys[contenders[order]]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    if len(same):  # only these are sorted by two keys, which takes three times as long
        tied = np.union1d(same, same + 1)
        rows = contenders[order[tied]]
        hashes = mix(ids[rows].astype(np.uint64))
        order[tied] = order[tied][np.lexsort((hashes, -keys[rows]))]
    return contenders[order[:num_wanted]]


def random_order(
    ids: Int64[np.ndarray, " B"], noise: Noise, *, chunk: int = 0
) -> Int64[np.ndarray, " B"]:
    """Returns all positions in an order that belongs to the ids, not to the positions.

    All orders are equally likely. Sums taken in it round alike however the candidates
    were shuffled.
    """
    return highest(noise.uniform(ids, chunk=chunk), ids, len(ids))


def mean_ranks(scores: Float64[np.ndarray, " B"]) -> Float64[np.ndarray, " B"]:
    """Returns ranks, 1 for the highest; equal scores share the mean of theirs."""
    _, values, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[values]
