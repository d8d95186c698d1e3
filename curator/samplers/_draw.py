"""A random subset of a given size.

Shapes: ``N`` is a number of examples, of which some may be drawn.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from curator.rng import generator

__all__ = ["draw"]

_NUM_KEYS = 1 << 8
# Counting converts to 64 bits; in parts, so that this stays in the cache.
_BLOCK = 1 << 14


def draw(
    num_drawn: int,
    members: Bool[np.ndarray, " N"],
    seed: int,
    purpose: str,
    *,
    epoch: int,
) -> Bool[np.ndarray, " N"]:
    """Returns ``num_drawn`` of the members, any so many of them as likely.

    Those with the smallest random keys: each has 8 bits, which are counted rather than
    sorted, and those equal to the largest drawn are told apart by 64 bits more. A key
    belongs to the position, so draws from groups that share no member may share them.
    """
    bits = generator(seed, purpose, epoch=epoch).bit_generator
    words = bits.random_raw(-(-len(members) // 8)).astype("<u8", copy=False)
    keys = words.view(np.uint8)[: len(members)]
    counts = _count(keys, members)
    totals = np.cumsum(counts)
    edge = int(np.searchsorted(totals, num_drawn))
    drawn = keys < edge
    drawn &= members
    tied = np.flatnonzero(keys == edge)
    tied = tied[members[tied]]
    num_missing = num_drawn - int(totals[edge] - counts[edge])
    order = np.argsort(bits.random_raw(len(tied)), kind="stable")
    drawn[tied[order[:num_missing]]] = True
    return drawn


def _count(
    keys: UInt8[np.ndarray, " N"], members: Bool[np.ndarray, " N"]
) -> Int64[np.ndarray, " keys"]:
    """Returns how many members have each key."""
    counts = np.zeros(2 * _NUM_KEYS, np.int64)
    for start in range(0, len(keys), _BLOCK):
        part = slice(start, start + _BLOCK)
        # Those that are not members are counted apart, which is faster than picking.
        apart = (~members[part]).astype(np.uint16) * np.uint16(_NUM_KEYS)
        counts += np.bincount(keys[part] | apart, minlength=2 * _NUM_KEYS)
    return counts[:_NUM_KEYS]
