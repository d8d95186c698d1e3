"""The values that pass between the steps of the pipeline; numpy only.

Shapes: ``B`` is the super-batch size, ``K`` the batch size, ``D`` the embedding width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

__all__ = [
    "Feature",
    "Features",
    "JointFeatures",
    "PairEmbeddings",
    "PairRows",
    "Selection",
    "ShardedPairs",
    "SuperBatch",
]


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


PairRows: TypeAlias = Float32[np.ndarray, "2 _ _"]
"""Queries and targets of m examples, rows of length one, from one model of any width:
shape (2, m, D)."""


@runtime_checkable
class ShardedPairs(Protocol):
    """Pair embeddings of a super-batch that stay where they were made, in shards.

    It is the feature of every model that it holds, in the place of
    :class:`PairEmbeddings`. The joint policy asks it for what little has to travel:
    scores of the candidates, the embeddings of those it drew. Every call goes to all
    shards, which may answer at the same time, and returns when all have answered.

    Scores are asked for where they matter only. Of the other candidates bounds are
    known, which no score is above; see :class:`curator.scores.PairScores`.

    Constraints:
        * a policy starts before all other calls, and may start again at any time;
        * lists are by shard; positions are rows of that shard, which are in order of
          id. With the shards of :func:`curator.scores.shard_rows` and equal processors
          the scores are those of one device to the last bit; else they differ by
          rounding.
    """

    @property
    def rows(self) -> Sequence[Int64[np.ndarray, " _"]]:
        """Which candidates each shard holds, by position in the super-batch."""
        ...

    @property
    def logits(self) -> Mapping[str, tuple[float, float | None]]:
        """The logit scale and bias of each model, by the name of the feature."""
        ...

    def start(
        self,
        loss: Literal["sigmoid", "softmax"],
        coefficients: Mapping[str, float],
    ) -> list[Float64[np.ndarray, " _"]]:
        """Returns the scores of all candidates given nothing; NaN for unusable ones.

        Args:
            loss: The contrastive loss of the models.
            coefficients: What each model's costs are multiplied by, by the name of
                the feature.
        """
        ...

    def take(self, chunks: Sequence[Int64[np.ndarray, " _"]]) -> list[list[PairRows]]:
        """Returns the embeddings of candidates, by model; their scores are final."""
        ...

    def add(self, rows: Sequence[PairRows]) -> list[Float64[np.ndarray, " _"]]:
        """Returns the bounds of all candidates given these examples too; NaN as before.

        Args:
            rows: What :meth:`take` returned, of all shards, by model.
        """
        ...

    def settle(
        self, chunks: Sequence[Int64[np.ndarray, " _"]]
    ) -> list[Float64[np.ndarray, " _"]]:
        """Returns the scores of candidates, which are their bounds from now on."""
        ...


Feature: TypeAlias = "PairEmbeddings | np.ndarray"
"""One feature of a super-batch: embeddings, one value per candidate (shape B), or one
row per candidate (shape B, D)."""

Features: TypeAlias = Mapping[str, Feature]
"""Features by name.

Of a model: ``learner.embeddings``, ``reference.loss``, ``learner.grad_norm`` and so on;
of the pool: ``pool.COLUMN``, one value per candidate; of the policy's own past:
``memory``, the rows it asked to remember, oldest first.
"""

JointFeatures: TypeAlias = "Mapping[str, Feature | ShardedPairs]"
"""Features of the joint policy, whose embeddings may be sharded."""


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
