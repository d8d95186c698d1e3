"""Draws without replacement whose chances are known, and the weights these give.

Every candidate has a random key of its own; the m first are drawn. Given the key of
the one that just missed, each of them was drawn with a chance that only its own law
decides: that of its key coming before. Weighing by the inverse makes a sum over those
drawn an unbiased estimate of the sum over all, whatever these laws are (Duffield, Lund,
Thorup, "Priority sampling", 2007; Vieira, "Estimating means in a finite universe",
2017).

Shapes: ``n`` is the number of candidates, ``m`` of those drawn.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float64, Int64

from curator.policies._candidates import WeightsName
from curator.policies._ranking import highest
from curator.rng import Noise

__all__ = ["Draw", "draw_by_logits", "fill"]

# No other draw has this noise; -1 is that of topping up.
_CHUNK = -2


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Candidates that were drawn.

    Attributes:
        positions: Which ones, in draw order.
        chances: Of each, given the key of the one that just missed; above 0.
    """

    positions: Int64[np.ndarray, " m"]
    chances: Float64[np.ndarray, " m"]

    def weights(
        self, kind: WeightsName, num_candidates: int
    ) -> Float64[np.ndarray, " m"] | None:
        """Returns weights for which the batch mean estimates the candidates' mean."""
        if kind == "none":
            return None
        return len(self.positions) / (num_candidates * self.chances)


def draw_by_logits(
    logits: Float64[np.ndarray, " n"],
    ids: Int64[np.ndarray, " n"],
    num_drawn: int,
    noise: Noise,
) -> Draw:
    """Draws without replacement, each time from the softmax of what is left.

    The highest of logits plus Gumbel noise are such a draw (Kool et al. 2019,
    arXiv 1903.06059), and nothing underflows in it.

    Args:
        logits: At most 0 or so: differences count, and large ones lose theirs to
            rounding. With -inf a candidate is drawn when no others are left.
        ids: Example ids of the candidates.
        num_drawn: In [0, n].
        noise: The randomness of this step.
    """
    possible = np.flatnonzero(logits > -np.inf)
    keys = logits[possible] + noise.gumbel(ids[possible])
    ranked = highest(keys, ids[possible], min(num_drawn + 1, len(possible)))
    drawn = ranked[:num_drawn]
    chances = np.ones(len(drawn))
    if len(ranked) > num_drawn:
        # 1 - exp(-x) for the tiny x of an example that had little chance.
        with np.errstate(over="ignore"):
            leads = np.exp(logits[possible[drawn]] - keys[ranked[-1]])
        chances = -np.expm1(-leads)
    return fill(Draw(possible[drawn], chances), possible, ids, num_drawn, noise)


def fill(
    draw: Draw,
    possible: Int64[np.ndarray, " _"],
    ids: Int64[np.ndarray, " n"],
    num_drawn: int,
    noise: Noise,
) -> Draw:
    """Returns a draw of all possible candidates, and uniformly of those with chance 0.

    Args:
        draw: Of the possible ones; where fewer than ``num_drawn``, all of them.
        possible: The positions of candidates with a chance above 0.
        ids: Example ids of the candidates.
        num_drawn: In [0, n].
        noise: The randomness of this step.
    """
    num_missing = num_drawn - len(draw.positions)
    if num_missing == 0:
        return draw
    impossible = np.delete(np.arange(len(ids)), possible)
    keys = noise.uniform(ids[impossible], chunk=_CHUNK)
    forced = impossible[highest(keys, ids[impossible], num_missing)]
    chances = np.full(num_missing, num_missing / len(impossible))
    return Draw(
        positions=np.concatenate([draw.positions, forced]),
        chances=np.concatenate([draw.chances, chances]),
    )
