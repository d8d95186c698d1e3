"""The values that pass between the steps of the pipeline; numpy only.

Shapes: ``B`` is the super-batch size, ``K`` the batch size, ``D`` the embedding width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Float32, Int64

__all__ = ["Feature", "Features", "PairEmbeddings", "Selection", "SuperBatch"]


@dataclasses.dataclass(frozen=True, slots=True)
class SuperBatch:
    """The candidates of one step.

    Attributes:
        step: The learner's global step, from 0.
        epoch: The sampler's pass over the pool, from 0.
        ids: Example ids in the sampler's order, without repeats.
        weights: The sampler's weight of each; None where all are 1.
    """

    step: int
    epoch: int
    ids: Int64[np.ndarray, " B"]
    weights: Float32[np.ndarray, " B"] | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PairEmbeddings:
    """What a two-tower model says of pairs: an embedding of each side.

    Attributes:
        queries: Image (or query) embeddings, L2-normalised, any float dtype.
        targets: Text (or target) embeddings, L2-normalised; row i pairs with
            ``queries[i]``.
        logit_scale: The positive multiplier of similarities (not its logarithm).
        logit_bias: What is added to the scaled similarity; None for a model trained
            with a softmax loss, which has none.
    """

    queries: Float[np.ndarray, "B D"]
    targets: Float[np.ndarray, "B D"]
    logit_scale: float
    logit_bias: float | None = None


Feature: TypeAlias = "PairEmbeddings | np.ndarray"
"""One feature of a super-batch: embeddings, one value per candidate (shape B), or one
row per candidate (shape B, D)."""

Features: TypeAlias = Mapping[str, Feature]
"""Features by name.

Of a model: ``learner.embeddings``, ``reference.loss``, ``learner.grad_norm`` and so on;
of the pool: ``pool.COLUMN``, one value per candidate; of the policy's own past:
``memory``, the rows it asked to remember, oldest first.
"""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The sub-batch that a policy chose.

    Attributes:
        indices: Positions into the super-batch, without repeats, in draw order.
        weights: Multiplier of each chosen example's loss.
        scores: What each was ranked by when it was drawn, or None where the policy
            ranks by nothing. NaN for an example that was topped up.
        stats: Counts and diagnostics of this selection, by name
            (``num_quarantined``, ``num_topped_up`` ...).
        remember: Rows that the policy wants to see again as the feature ``memory``
            once the step has been trained on; None for a policy without memory.
    """

    indices: Int64[np.ndarray, " K"]
    weights: Float32[np.ndarray, " K"]
    scores: Float[np.ndarray, " K"] | None = None
    stats: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    remember: Float32[np.ndarray, "rows width"] | None = None
