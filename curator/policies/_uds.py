"""Utility and diversity: large logits, unlike what was trained on lately (UDS).

Shapes: ``B`` is the super-batch size, ``K`` the batch size, ``D`` the width of a
projection, ``M`` the rows of memory, ``n`` the number of usable candidates.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from curator.errors import FeatureError
from curator.policies._features import (
    check_num_selected,
    read_feature,
    wrong_feature,
)
from curator.policies._quarantine import complete
from curator.policies._ranking import highest
from curator.rng import Noise
from curator.types import Features, Selection

__all__ = ["UDS"]

_MODES = ("faithful", "greedy")

# The published code pads or fails to this many positions, whatever it is configured to.
_OFFICIAL_POSITIONS = 512

# Candidates whose distances to memory are held at once.
_BLOCK = 256

# Below this part of ||x||^2 + ||y||^2 little is left of their difference's digits.
_CANCELLED = 1e-10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UDS:
    """Prefers examples with large logits, unlike those that were chosen lately.

    The score is ``u + alpha * v``: u is the nuclear norm of the example's logits over
    its supervised positions, v the mean Euclidean distance of their projection from
    those of the last ``buffer_size`` examples that were trained on, 0 while there are
    none.

    Use it for fine-tuning a language model on a mixed pool with repetitive parts and no
    reference model. Not for noisy pools: labels are not looked at, and confident logits
    score high. Without ``length_normalised`` it prefers long examples: compare it with
    random examples of the same lengths. Costs O(B M D), and O(K B D) more in mode
    ``greedy``. Deterministic; equal scores are ordered by a hash of the example id.

    Source: Zou et al. 2025, "Utility-diversity aware online batch selection for LLM
    supervised fine-tuning", arXiv 2510.16882.

    Attributes:
        mode: ``faithful`` takes the K highest scores, each candidate on its own, as the
            paper; ``greedy`` takes one after the other and counts those already taken
            as trained on, so it takes only one of two equal novel candidates.
        alpha: What a distance is worth, where squared distances are, in expectation,
            squared Frobenius norms of logits. The default is what 1.5e-3, of the
            published script, comes to at 512 positions and 152 064 entries of
            vocabulary; that code's default, 2.5e-3, comes to 11.0.
        buffer_size: Rows of memory. The default is the published script's.
        length_normalised: Divide u by the number of supervised positions, and
            projections by its root.
        official_vocabulary: V of the model; ``alpha`` is then the published code's
            (1.5e-3 or 2.5e-3), whose distances are ``sqrt(512 V) / 2`` times as large.

    Stats: ``num_quarantined``, ``num_topped_up``; ``score_mean``, of the chosen, as
    they were ranked; ``utility_std`` and ``diversity_std``, the spread of u and of
    ``alpha * v`` over the candidates before the first is taken: the larger one decides.

    Example:
        >>> ids = np.arange(3)
        >>> features = {
        ...     "learner.nuclear_norm": np.array([4.0, 4.5, 5.0]),
        ...     "learner.projection": np.array([[0.0, 3.0], [0.0, 0.0], [0.0, 0.0]]),
        ...     "memory": np.zeros((1, 2), np.float32),
        ... }
        >>> policy = UDS(alpha=1.0)
        >>> policy.select(ids, features, 2, Noise(seed=0, step=0)).indices
        array([0, 2])
    """

    name: ClassVar[str] = "uds"

    mode: Literal["faithful", "greedy"] = "faithful"
    alpha: float = 6.6
    buffer_size: int = 1024
    length_normalised: bool = False
    official_vocabulary: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            msg = f"mode must be one of {', '.join(_MODES)}; got {self.mode!r}"
            raise ValueError(msg)
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            msg = f"alpha must be finite and at least 0; got {self.alpha}"
            raise ValueError(msg)
        if self.buffer_size < 1:
            msg = f"buffer_size must be at least 1; got {self.buffer_size}"
            raise ValueError(msg)
        if self.official_vocabulary is not None and self.official_vocabulary < 1:
            msg = (
                "official_vocabulary must be the size of the model's vocabulary, at "
                f"least 1; got {self.official_vocabulary}"
            )
            raise ValueError(msg)

    @property
    def needs(self) -> frozenset[str]:
        """Nuclear norms, projections and memory; lengths where they are divided by."""
        lengths = ["learner.num_tokens"] if self.length_normalised else []
        return frozenset(
            ["learner.nuclear_norm", "learner.projection", "memory", *lengths]
        )

    @property
    def memory_rows(self) -> int:
        """The last ``buffer_size`` examples that were trained on."""
        return self.buffer_size

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns the candidates with the highest scores, in the order they are taken.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape.
            ValueError: ``num_selected`` is out of range.
        """
        check_num_selected(ids, num_selected)
        utilities, projections = self._read(features, len(ids))
        memory = self._read_memory(features, projections.shape[1])
        usable = np.isfinite(utilities) & np.isfinite(projections).all(axis=1)
        # In order of id: then rounding does not depend on how the super-batch was
        # shuffled, and neither does the choice.
        order = np.argsort(ids)
        rows = order[usable[order]]
        candidates, memory = _around_their_mean(projections[rows], memory)
        sums = _sums_of_distances(candidates, memory)
        worth = self._worth_of_distance()
        diversities = worth * sums / max(len(memory.rows), 1)
        chosen, scores = _take(
            utilities[rows],
            candidates,
            sums,
            len(memory.rows),
            worth=worth,
            ids=ids[rows],
            num_taken=min(num_selected, len(rows)),
            one_by_one=self.mode == "greedy",
        )
        selection = complete(
            rows[chosen],
            scores,
            usable=usable,
            ids=ids,
            num_selected=num_selected,
            noise=noise,
            stats=_spreads(utilities[rows], diversities),
        )
        remember = projections[selection.indices]
        # A row that is not finite would make every distance of later steps so, too.
        remember = remember[np.isfinite(remember).all(axis=1)]
        return dataclasses.replace(selection, remember=remember)

    def _worth_of_distance(self) -> float:
        """Returns what a distance is multiplied by."""
        if self.official_vocabulary is None:
            return self.alpha
        # Its Fourier transforms are not normalised and only real parts are kept, so
        # that the expectation of ||q||^2 is T V / 4 times ||Z||_F^2.
        inflation = math.sqrt(_OFFICIAL_POSITIONS * self.official_vocabulary) / 2.0
        return self.alpha * inflation

    def _read(
        self, features: Features, num_candidates: int
    ) -> tuple[Float64[np.ndarray, " B"], Float32[np.ndarray, "B D"]]:
        """Returns utilities and projections; not finite where there are none."""
        scalar = f"one float per candidate, shape ({num_candidates},)"
        norms = _read_array(features, "learner.nuclear_norm")
        _require(
            norms.shape == (num_candidates,), "learner.nuclear_norm", norms, scalar
        )
        projections = _read_array(features, "learner.projection")
        _require(
            projections.ndim == 2 and len(projections) == num_candidates,
            "learner.projection",
            projections,
            f"one row of floats per candidate, shape ({num_candidates}, D)",
        )
        lengths = np.ones(num_candidates)
        if self.length_normalised:
            lengths = _read_array(features, "learner.num_tokens")
            _require(
                lengths.shape == (num_candidates,),
                "learner.num_tokens",
                lengths,
                f"one number per candidate, shape ({num_candidates},)",
            )
        lengths = np.where(lengths > 0, lengths, np.nan).astype(np.float64)
        # In float32, as they are remembered: a copy of a remembered example is then
        # at a distance of exactly 0.
        with np.errstate(over="ignore"):
            scaled = (projections / np.sqrt(lengths)[:, None]).astype(np.float32)
        return norms / lengths, scaled

    def _read_memory(
        self, features: Features, width: int
    ) -> Float32[np.ndarray, "M D"]:
        """Returns the newest rows of memory, at most ``buffer_size``."""
        memory = _read_array(features, "memory")
        _require(
            memory.ndim == 2 and (len(memory) == 0 or memory.shape[1] == width),
            "memory",
            memory,
            f"rows as wide as learner.projection, shape (rows, {width})",
        )
        if not np.isfinite(memory).all():
            msg = "feature 'memory' must be finite, as what this policy remembers is"
            raise FeatureError(msg)
        newest = memory[-self.buffer_size :].reshape(-1, width)
        return newest.astype(np.float32)


class _Points(NamedTuple):
    """Points to measure distances between, in float64."""

    rows: Float64[np.ndarray, "n D"]
    squares: Float64[np.ndarray, " n"]

    def slice(self, start: int, stop: int) -> _Points:
        return _Points(self.rows[start:stop], self.squares[start:stop])


def _around_their_mean(
    candidates: Float32[np.ndarray, "n D"], memory: Float32[np.ndarray, "M D"]
) -> tuple[_Points, _Points]:
    """Returns both with the origin at their mean, which changes no distance.

    Fewer digits cancel there, and fewer distances are computed twice; none, if all
    rows are copies of one. Rounded to float32 the mean of copies is exactly that one.
    """
    rows = np.concatenate([candidates, memory])
    origin = (rows.sum(axis=0, dtype=np.float64) / max(len(rows), 1)).astype(np.float32)
    rows = rows.astype(np.float64) - origin
    points = _Points(rows, np.einsum("ij,ij->i", rows, rows))
    return points.slice(0, len(candidates)), points.slice(len(candidates), len(rows))


def _take(
    utilities: Float64[np.ndarray, " n"],
    candidates: _Points,
    sums: Float64[np.ndarray, " n"],
    num_summed: int,
    *,
    worth: float,
    ids: Int64[np.ndarray, " n"],
    num_taken: int,
    one_by_one: bool,
) -> tuple[Int64[np.ndarray, " K"], Float64[np.ndarray, " K"]]:
    """Returns which candidates are taken, in order, and their scores when they were.

    Args:
        utilities: u of each candidate.
        candidates: Their projections.
        sums: Sum of each candidate's distances to memory.
        num_summed: How many distances that is.
        worth: What the mean distance is multiplied by.
        ids: Example ids, which break ties.
        num_taken: In [0, n].
        one_by_one: Count those taken as memory when the next one is.
    """
    if not one_by_one:
        scores = utilities + worth * sums / max(num_summed, 1)
        chosen = highest(scores, ids, num_taken)
        return chosen, scores[chosen]
    chosen = np.empty(num_taken, np.int64)
    scores_when_taken = np.empty(num_taken)
    free = np.ones(len(ids), bool)
    for turn in range(num_taken):
        scores = utilities + worth * sums / max(num_summed + turn, 1)
        taken = int(highest(np.where(free, scores, -np.inf), ids, 1)[0])
        chosen[turn], scores_when_taken[turn] = taken, scores[taken]
        free[taken] = False
        sums = sums + _distances(candidates, candidates.slice(taken, taken + 1))[:, 0]
    return chosen, scores_when_taken


def _sums_of_distances(points: _Points, others: _Points) -> Float64[np.ndarray, " n"]:
    """Returns the sum of each point's distances to others; 0 where there are none."""
    sums = np.zeros(len(points.rows))
    for start in range(0, len(sums), _BLOCK):
        block = points.slice(start, start + _BLOCK)
        sums[start : start + _BLOCK] = _distances(block, others).sum(axis=1)
    return sums


def _distances(points: _Points, others: _Points) -> Float64[np.ndarray, "n M"]:
    """Returns Euclidean distances; those of nearly equal points by subtraction."""
    scales = points.squares[:, None] + others.squares
    squared = scales - 2.0 * points.rows @ others.rows.T
    cancelled: Bool[np.ndarray, "n M"] = squared < _CANCELLED * scales
    left, right = np.nonzero(cancelled)
    for start in range(0, len(left), _BLOCK):
        i, j = left[start : start + _BLOCK], right[start : start + _BLOCK]
        differences = points.rows[i] - others.rows[j]
        squared[i, j] = np.einsum("ij,ij->i", differences, differences)
    return np.sqrt(squared)


def _spreads(
    utilities: Float64[np.ndarray, " n"], diversities: Float64[np.ndarray, " n"]
) -> dict[str, float]:
    """Returns the diagnostics; none where there are no candidates."""
    if not len(utilities):
        return {}
    return {
        "utility_std": float(utilities.std()),
        "diversity_std": float(diversities.std()),
    }


def _read_array(features: Features, name: str) -> np.ndarray:
    value = read_feature(features, name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        raise wrong_feature(name, value, "an array of numbers")
    return value


def _require(condition: bool, name: str, value: np.ndarray, wanted: str) -> None:
    if not condition:
        raise wrong_feature(name, value, wanted)
