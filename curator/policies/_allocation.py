"""How many of each group: shares with caps, whole numbers, water-filling.

Shapes: ``G`` is the number of groups, ``n`` of candidates, ``m`` of those drawn.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from curator.policies._ranking import random_order
from curator.policies._systematic import draw_systematically
from curator.rng import Noise

__all__ = [
    "capped_shares",
    "draw_in_proportion",
    "first_of_groups",
    "round_shares",
    "water_fill",
]

# A share this close to a whole number is one: 3 - 1e-12 places are three.
_DECIMALS = 9


def capped_shares(
    shares: Float64[np.ndarray, " G"], caps: Float64[np.ndarray, " G"], total: float
) -> Float64[np.ndarray, " G"]:
    """Returns ``total`` split in proportion to ``shares``, none above its cap.

    What a cap cuts off goes to the others, in proportion again.

    Args:
        shares: Above 0, of any scale.
        caps: What each group takes at most.
        total: At most the sum of the caps.
    """
    split = np.zeros(len(shares))
    is_open = np.ones(len(shares), bool)
    while is_open.any():
        rest = total - caps[~is_open].sum()
        split[is_open] = rest * (shares[is_open] / shares[is_open].sum())
        over = is_open & (split >= caps)
        if not over.any():
            break
        split[over] = caps[over]
        is_open &= ~over
    return split


def draw_in_proportion(
    shares: Float64[np.ndarray, " n"],
    ids: Int64[np.ndarray, " n"],
    num_drawn: int,
    noise: Noise,
) -> tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """Returns distinct positions that are drawn, and the chance that each had.

    Args:
        shares: What chances are in proportion to, above 0; those that would be above 1
            are 1.
        ids: Example ids of the candidates.
        num_drawn: m, in [1, n].
        noise: The randomness of this step, of which chunks 1 and 2 are used.
    """
    chances = capped_shares(shares, np.ones(len(shares)), float(num_drawn))
    # Systematic draws in a random order: neighbours in it are not drawn together.
    order = random_order(ids, noise, chunk=1)
    (start,) = noise.uniform(np.zeros(1, np.int64), chunk=2)
    drawn = order[draw_systematically(chances[order], num_drawn, float(start))]
    return drawn, chances[drawn]


def round_shares(
    split: Float64[np.ndarray, " G"],
    total: int,
    order: Float64[np.ndarray, " G"],
    start: float,
) -> Int64[np.ndarray, " G"]:
    """Returns whole numbers with sum ``total``, each within 1 of its share.

    Over ``start`` each is its share in the mean. Rounding the largest remainders up,
    as Hamilton's method does, would leave a share below the others' remainders out for
    ever.

    Args:
        split: The sum is ``total`` up to rounding.
        total: The sum.
        order: Random: groups that come after each other in it are rarely both rounded
            up.
        start: Uniform on [0, 1).
    """
    split = np.round(split, _DECIMALS)
    counts = np.floor(split).astype(np.int64)
    groups = np.argsort(order)
    remainders = (split - counts)[groups]
    rounded_up = draw_systematically(remainders, total - int(counts.sum()), start)
    counts[groups[rounded_up]] += 1
    return counts


def water_fill(
    sizes: Int64[np.ndarray, " G"], total: int, ties: Float64[np.ndarray, " G"]
) -> Int64[np.ndarray, " G"]:
    """Returns how many of each group, as equally as the sizes allow.

    The smallest groups are served first; each gets its part of what is left, or all it
    has.

    Args:
        sizes: How many candidates each group has.
        total: The sum wanted, at most that of the sizes.
        ties: Of groups of equal size, the odd ones go to the highest of these.
    """
    counts = np.zeros(len(sizes), np.int64)
    left = total
    order = np.lexsort((ties, sizes))
    for rank, group in enumerate(order):
        counts[group] = min(int(sizes[group]), left // (len(order) - rank))
        left -= int(counts[group])
    return counts


def first_of_groups(
    groups: Int64[np.ndarray, " n"], counts: Int64[np.ndarray, " G"]
) -> Bool[np.ndarray, " n"]:
    """Returns which candidates are among the first ``counts[group]`` of their group.

    Args:
        groups: The group of each candidate, in the order of preference.
        counts: How many of each group.
    """
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups, minlength=len(counts))
    starts = np.cumsum(sizes) - sizes
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - starts[groups[order]]
    return ranks < counts[groups]
