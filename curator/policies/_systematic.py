"""Systematic sampling: distinct examples, each with exactly the chance it should have.

Shapes: ``n`` is the number of candidates, ``m`` of those drawn.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

__all__ = ["draw_systematically"]


def draw_systematically(
    chances: Float64[np.ndarray, " n"], num_drawn: int, start: float
) -> Int64[np.ndarray, " m"]:
    """Returns ``num_drawn`` distinct positions; each has its chance over ``start``.

    Candidates are laid end to end, each as long as its chance, and those are drawn that
    the points ``start``, ``start + 1`` ... fall on (Madow, "On the theory of systematic
    sampling", 1949). Candidates of chance 1 are drawn in any case, and come first.

    Args:
        chances: In [0, 1]; the sum is ``num_drawn`` up to rounding.
        num_drawn: In [0, n].
        start: Uniform on [0, 1).
    """
    certain = np.flatnonzero(chances >= 1)
    others = np.flatnonzero(chances < 1)
    num_points = num_drawn - len(certain)
    places = np.arange(num_points)
    found = np.searchsorted(np.cumsum(chances[others]), start + places, side="right")
    # Lengths are below 1, and rounding keeps order: no candidate is hit twice. But the
    # sum may round to less than the number of points: the last then hit nothing.
    found = np.minimum(found, len(others) - num_points + places)
    return np.concatenate([certain, others[found]])
