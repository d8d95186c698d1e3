"""Diverse and good: the greedy mode of a determinantal point process.

Shapes: ``n`` is the number of usable candidates, ``D`` the width of an embedding, ``K``
the batch size, ``m`` the number of rows looked at.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int64

from curator.policies._candidates import check_score, score_needs
from curator.policies._embeddings import EmbeddedCandidates, check_feature_name
from curator.policies._features import read_scores
from curator.policies._greedy import take_greedily
from curator.progress import Progress
from curator.rng import Noise
from curator.scores import ScoreName
from curator.types import Features, Selection

__all__ = ["LogDet"]

# Below this, what float32 rounds off is no longer small beside what is left.
_MIN_RIDGE = 1e-4

# Standard deviations from the mean that quality counts, at most, and what one adds to a
# gain, at most. The exponential of their product is in the range of float32.
_MAX_DEVIATIONS = 8.0
_MAX_WEIGHT = 10.0

# Scores that differ by less than this part of the largest are equal.
_EQUAL = 1e-12

# Numbers of a block that are held at once.
_TILE = 1 << 19


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogDet:
    """Prefers examples whose embeddings span a large volume, and that score high.

    Of all batches one with a large ``log det(L_S)``, where ``L_ij = q_i q_j C_ij`` and
    C is the matrix of cosines with ``ridge`` added on its diagonal. The candidate that
    adds most to it is taken, one after the other.

    Use it for a batch without near copies: given a copy an example adds nothing but
    ``log(ridge)``. With a score it trades that off against quality. Costs O(n K D) at
    the speed of matrix products, O(n D) memory. Deterministic; equal gains, of which
    the first ones are without a score, are ordered by a hash of the example id.

    Source: Chen, Zhang, Zhou 2018, "Fast greedy MAP inference for determinantal point
    process to improve recommendation diversity", arXiv 1709.05135. Its Cholesky factor
    is kept here as rows of width D in the place of rows of width K, which is the same
    where L is made of embeddings, and cheaper where K is above D.

    Attributes:
        embeddings: The feature that cosines are of: rows, or pairs, which are both
            sides one after the other.
        score: What quality is made of, of scalar losses; None for diversity alone.
        quality: What one standard deviation of the score adds to a gain, in [0, 10]:
            q_i is ``exp(quality * z_i / 2)``, z_i being the score less its mean, in
            standard deviations, at most 8 of them.
        ridge: What is added to the diagonal, in [1e-4, 1]. It keeps batches of more
            than D examples meaningful: what is left of an example when the others are
            known is never less than this part of it.

    Stats: ``num_quarantined``, ``num_topped_up``; ``score_mean`` of the gains;
    ``log_det`` of the whole.

    Example:
        >>> rows = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], np.float32)
        >>> policy = LogDet(embeddings="pool.vector")
        >>> noise = Noise(seed=0, step=0)
        >>> 2 in policy.select(np.arange(3), {"pool.vector": rows}, 2, noise).indices
        True
    """

    name: ClassVar[str] = "logdet"

    embeddings: str = "reference.embeddings"
    score: ScoreName | None = None
    quality: float = 1.0
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        check_feature_name("embeddings", self.embeddings)
        if self.score is not None:
            check_score(self.score, "scalar")
        if not 0 <= self.quality <= _MAX_WEIGHT:
            msg = f"quality must be in [0, {_MAX_WEIGHT:g}]; got {self.quality}"
            raise ValueError(msg)
        if not _MIN_RIDGE <= self.ridge <= 1:
            msg = f"ridge must be in [{_MIN_RIDGE:g}, 1]; got {self.ridge}"
            raise ValueError(msg)

    @property
    def needs(self) -> frozenset[str]:
        """The embeddings, and the features of the score."""
        own = frozenset({self.embeddings})
        return own if self.score is None else own | score_needs(self.score, "scalar")

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns the batch, in the order it is taken.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape.
            ValueError: ``num_selected`` is out of range.
        """
        scores = (
            np.zeros(len(ids))
            if self.score is None
            else read_scores(features, self.score, ids)
        )
        embedded = EmbeddedCandidates.of(
            self.embeddings,
            "cosine",
            ids,
            features,
            num_selected,
            noise,
            usable=np.isfinite(scores),
        )
        # Of the logarithm of q^2 nothing but its differences count.
        log_qualities = np.zeros(len(embedded.ids))
        rows = embedded.rows
        if self.score is not None:
            deviations = _deviations(scores[embedded.positions])
            log_qualities = self.quality * deviations
            rows = rows * np.exp(log_qualities / 2).astype(np.float32)[:, None]
        posterior = _Posterior(rows.shape[1], embedded.num_drawn, self.ridge)
        with Progress(self.name, embedded.num_drawn, "choices") as progress:
            taken, _ = take_greedily(
                posterior,
                rows,
                (1 + self.ridge) * np.exp(log_qualities),
                embedded.hashes(),
                embedded.num_drawn,
                progress,
            )
        gains = np.log(posterior.variances) + log_qualities[taken]
        return embedded.select(
            taken, scores=gains, stats={"log_det": float(gains.sum())}
        )


def _deviations(scores: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Returns scores less their mean, in standard deviations; 0 where all are equal."""
    if not len(scores):
        return scores
    # Divided first, so that neither sums nor squares are out of range.
    scores = scores / (np.abs(scores).max() or 1.0)
    centred = scores - scores.mean()
    spread = float(centred.std())
    if spread <= _EQUAL:
        return np.zeros(len(scores))
    return np.clip(centred / spread, -_MAX_DEVIATIONS, _MAX_DEVIATIONS)


class _Posterior:
    """What is left of each candidate's variance when the chosen ones are known.

    With x the rows, of length one, and A the chosen ones, ``C_ij - C_iA C_AA^-1 C_Aj``
    is ``x_i M x_j`` for i other than j, and ``M = I - sum of w w^T`` over one w for
    each choice: ``w = M x_j / d_j``, with M and d_j as they were before it. That is
    Chen's recursion, multiplied by the rows. Keys are variances times q^2, and rows x
    times q.

    Attributes:
        variances: What was left of each choice when it was made.
    """

    def __init__(self, width: int, num_choices: int, ridge: float) -> None:
        self._directions = np.empty((num_choices, width))
        self._single = np.empty((num_choices, width), np.float32)
        self._ridge = ridge
        self._num_chosen = 0
        self.variances = np.empty(num_choices)

    def choose(self, row: Float32[np.ndarray, " D"]) -> None:
        turn = self._num_chosen
        exact = row.astype(np.float64)
        exact /= np.linalg.norm(exact)
        known = self._directions[:turn]
        rest = exact - known.T @ (known @ exact)
        variance = self._ridge + max(float(exact @ rest), 0.0)
        self._directions[turn] = self._single[turn] = rest / math.sqrt(variance)
        self.variances[turn] = variance
        self._num_chosen += 1

    def lower(
        self,
        rows: Float32[np.ndarray, "m D"],
        keys: Float64[np.ndarray, " m"],
        start: int,
        stop: int,
    ) -> None:
        if start == stop:
            return
        directions = self._single[start:stop]
        size = max(_TILE // len(directions), 1)
        for at in range(0, len(rows), size):
            block = slice(at, at + size)
            parts = rows[block] @ directions.T
            keys[block] -= np.einsum("ij,ij->i", parts, parts)
