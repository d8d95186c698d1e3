"""Candidates with unusable features: chosen only when nothing else is left.

One NaN embedding would spoil the scores of all candidates, so such rows are set aside
before anything is scored. A batch must be full all the same: when too few are usable,
the rest is a uniform draw from those set aside, and ``stats`` says so.

Shapes: ``B`` is the super-batch size, ``K`` the batch size, ``n`` how many were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from curator.policies._ranking import highest
from curator.rng import Noise
from curator.types import Selection

__all__ = ["complete"]

# No chunk of a joint policy: the draw shares its noise with nothing else.
_CHUNK = -1


def complete(
    chosen: Int64[np.ndarray, " n"],
    scores: Float64[np.ndarray, " n"] | None,
    *,
    usable: Bool[np.ndarray, " B"],
    ids: Int64[np.ndarray, " B"],
    num_selected: int,
    noise: Noise,
    stats: Mapping[str, float],
    weights: Float64[np.ndarray, " n"] | None = None,
    remember: Float32[np.ndarray, "rows width"] | None = None,
) -> Selection:
    """Returns the selection of chosen candidates, topped up to ``num_selected``.

    Args:
        chosen: Positions of the candidates that the policy chose.
        scores: What they were ranked by; None where by nothing.
        usable: Which candidates could be chosen at all.
        ids: Example ids of the candidates.
        num_selected: K.
        noise: The randomness of this step.
        stats: Diagnostics of the policy. ``num_quarantined`` and ``num_topped_up`` are
            added, and ``score_mean`` over ``scores`` where there are any.
        weights: Of the chosen; None where all are 1, as those of topped-up ones are.
        remember: Passed on.
    """
    unusable = np.flatnonzero(~usable)
    num_missing = num_selected - len(chosen)
    keys = noise.uniform(ids[unusable], chunk=_CHUNK)
    topped_up = unusable[highest(keys, ids[unusable], num_missing)]
    stats = {
        "num_quarantined": float(len(unusable)),
        "num_topped_up": float(num_missing),
        **stats,
    }
    if scores is not None:
        if len(scores):
            # Divided before they are added, so that large ones stay in range.
            stats["score_mean"] = float((scores / len(scores)).sum())
        scores = np.concatenate([scores, np.full(num_missing, np.nan)])
    all_weights = np.ones(num_selected, np.float32)
    if weights is not None:
        all_weights[: len(weights)] = weights
    return Selection(
        indices=np.concatenate([chosen, topped_up]),
        weights=all_weights,
        scores=scores,
        stats=stats,
        remember=remember,
    )
