"""Means, and paired differences with their 95 % confidence intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

__all__ = ["Difference", "paired", "t_quantile"]

LEVEL = 0.95


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """The mean of paired differences and its confidence interval.

    Attributes:
        mean: Of the differences.
        low: Lower end of the interval; minus infinity for a single pair.
        high: Upper end.
        count: How many pairs there are.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def above_zero(self) -> bool:
        """Whether the interval is above zero."""
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        """Whether the interval is below zero."""
        return self.high < 0

    def within(self, margin: float) -> bool:
        """Returns whether the interval is within plus or minus a margin."""
        return -margin <= self.low and self.high <= margin

    def text(self, scale: float = 1.0, digits: int = 2) -> str:
        """Returns it as ``+0.12 [-0.03, +0.27]``."""
        mean, low, high = (f"{scale * v:+.{digits}f}" for v in self._values)
        return f"{mean} [{low}, {high}]" if self.count > 1 else mean

    @property
    def _values(self) -> tuple[float, float, float]:
        return self.mean, self.low, self.high


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Returns the mean of ours minus theirs, pair by pair, with its t interval.

    Raises:
        ValueError: There are no pairs, or not as many of one as of the other.
    """
    if len(ours) != len(theirs) or not len(ours):
        msg = f"expected as many of ours as of theirs; got {len(ours)}, {len(theirs)}"
        raise ValueError(msg)
    differences = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    count, mean = len(differences), float(differences.mean())
    if count == 1:
        return Difference(mean, -math.inf, math.inf, 1)
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    half = t_quantile(0.5 + LEVEL / 2, count - 1) * error
    return Difference(mean, mean - half, mean + half, count)


def t_quantile(probability: float, freedom: int) -> float:
    """Returns a quantile of Student's t distribution, to six digits.

    Bisection of the distribution function, which has a closed form for whole degrees
    of freedom (Abramowitz & Stegun, 26.7.3 and 26.7.4).

    Raises:
        ValueError: The probability is not in [0.5, 1), or the freedom below 1.
    """
    if not 0.5 <= probability < 1 or freedom < 1:
        msg = f"expected 0.5 <= p < 1 and freedom >= 1; got {probability}, {freedom}"
        raise ValueError(msg)
    low, high = 0.0, 1.0
    while _t_distribution(high, freedom) < probability:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        if _t_distribution(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return high


def _t_distribution(t: float, freedom: int) -> float:
    """Returns P(T <= t) for t >= 0."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    term = cosine if freedom % 2 else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(3 if freedom % 2 else 2, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    within = sine * total
    if freedom % 2:
        within = 2 / math.pi * (angle + within)
    return 0.5 + within / 2
