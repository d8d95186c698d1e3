"""What the policies that choose by embeddings share: rows to measure distances between.

Shapes: ``B`` is the super-batch size, ``D`` the width of an embedding, ``n`` the number
of candidates that have one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from curator.policies._candidates import Candidates
from curator.policies._features import read_feature, wrong_feature
from curator.rng import Noise, mix
from curator.types import Features, PairEmbeddings, Selection

__all__ = [
    "EmbeddedCandidates",
    "MetricName",
    "check_feature_name",
    "check_metric",
    "coarse",
    "coarse_one",
    "read_rows",
    "unit_rows",
]

MetricName: TypeAlias = Literal["cosine", "euclidean"]
"""Distances of rows scaled to length one, or of rows as they are."""

_SOURCES = ("learner.", "reference.", "pool.")

# Bits of a key that count when it is compared: what sums of hundreds of float32
# products agree on, however they are added up.
_BITS = 18
_DROPPED = np.uint64(53 - _BITS)


def check_feature_name(field: str, name: str) -> None:
    """Raises ValueError unless a field names a feature that something can compute."""
    if not name.startswith(_SOURCES) or name in _SOURCES:
        msg = (
            f"{field} must be the name of a feature, which starts with "
            f"{', '.join(_SOURCES)}; got {name!r}"
        )
        raise ValueError(msg)


def check_metric(metric: str) -> None:
    """Raises ValueError for an unknown metric."""
    if metric not in get_args(MetricName):
        allowed = ", ".join(get_args(MetricName))
        msg = f"metric must be one of {allowed}; got {metric!r}"
        raise ValueError(msg)


def read_rows(
    features: Features, name: str, num_candidates: int
) -> Float[np.ndarray, "B D"]:
    """Returns the embedding of each candidate; of pairs both sides, in a row.

    With both sides at length one, the cosine of two such rows is the mean of the
    cosines of their queries and of their targets.

    Raises:
        FeatureError: The feature is missing, or not one row of floats per candidate.
    """
    value = read_feature(features, name)
    is_pairs = isinstance(value, PairEmbeddings)
    sides = [value.queries, value.targets] if is_pairs else [value]
    for side in sides:
        if (
            side.ndim != 2
            or len(side) != num_candidates
            or side.shape[1] == 0
            or not np.issubdtype(side.dtype, np.floating)
        ):
            wanted = (
                "PairEmbeddings, or one row of floats per candidate, shape "
                f"({num_candidates}, D)"
            )
            raise wrong_feature(name, side, wanted)
    if not is_pairs:
        return sides[0]
    return np.concatenate([unit_rows(side)[0] for side in sides], axis=1)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EmbeddedCandidates:
    """The candidates that have an embedding, in order of id.

    In that order rounding does not depend on how the super-batch was shuffled, and
    neither does the choice.

    Attributes:
        candidates: What becomes of a draw.
        order: Where each is among ``candidates``.
        ids: The example id of each, ascending.
        rows: Their embeddings: of length one for ``cosine``, else as they are.
        num_drawn: How many to draw of them.
    """

    candidates: Candidates
    order: Int64[np.ndarray, " n"]
    ids: Int64[np.ndarray, " n"]
    rows: Float32[np.ndarray, "n D"]
    num_drawn: int

    @classmethod
    def of(
        cls,
        name: str,
        metric: MetricName,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
        *,
        usable: Bool[np.ndarray, " B"] | None = None,
    ) -> EmbeddedCandidates:
        """Reads the embeddings of a super-batch.

        Args:
            name: The feature.
            metric: Whether lengths are dropped.
            ids: Example ids of the candidates.
            features: At least the one of that name.
            num_selected: K.
            noise: The randomness of this step.
            usable: Which candidates have all else that the policy needs.

        Raises:
            FeatureError: The feature is missing, or not one row of floats per
                candidate.
            ValueError: ``num_selected`` is out of range.
        """
        rows = read_rows(features, name, len(ids))
        if metric == "cosine":
            rows, has_row = unit_rows(rows)
        else:
            with np.errstate(over="ignore"):
                rows = rows.astype(np.float32)
            has_row = np.asarray(np.isfinite(rows).all(axis=1))
        if usable is not None:
            has_row = has_row & usable
        candidates = Candidates.of(ids, has_row, None, num_selected, noise)
        order = np.argsort(candidates.ids)
        return cls(
            candidates=candidates,
            order=order,
            ids=candidates.ids[order],
            rows=rows[candidates.positions[order]],
            num_drawn=candidates.num_drawn,
        )

    @property
    def positions(self) -> Int64[np.ndarray, " n"]:
        """Where each is in the super-batch."""
        return self.candidates.positions[self.order]

    def hashes(self) -> Int64[np.ndarray, " n"]:
        """Returns the place of each in the order that breaks ties: that of a hash."""
        ranks = np.empty(len(self.ids), np.int64)
        ranks[np.argsort(mix(self.ids.astype(np.uint64)))] = np.arange(len(self.ids))
        return ranks

    def select(
        self,
        drawn: Int64[np.ndarray, " m"],
        *,
        scores: Float64[np.ndarray, " m"] | None = None,
        weights: Float64[np.ndarray, " m"] | None = None,
        stats: Mapping[str, float] | None = None,
    ) -> Selection:
        """Returns the selection of those drawn, topped up where there are too few.

        Args:
            drawn: Which of these candidates, ``num_drawn`` of them, in draw order.
            scores: What each was ranked by; None where by nothing.
            weights: Of those drawn; None where all are 1.
            stats: Diagnostics of the policy.
        """
        drawn = self.order[drawn]
        candidates = self.candidates
        if scores is not None:
            of_all = np.zeros(len(self.ids))
            of_all[drawn] = scores
            candidates = dataclasses.replace(candidates, scores=of_all)
        return candidates.select(drawn, weights=weights, stats=stats)


def coarse(keys: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Returns keys cut off to the digits that rounding leaves alone, for ties.

    Equal examples get keys that differ in the last bits, by where in a matrix product
    they were; they are to be ordered by their ids all the same.

    Args:
        keys: At least 0, or infinite.
    """
    return ((keys.view(np.uint64) >> _DROPPED) << _DROPPED).view(np.float64)


def coarse_one(key: float) -> float:
    """Returns what :func:`coarse` does, of one finite key, in a tenth of the time."""
    mantissa, exponent = math.frexp(key)
    return math.ldexp(math.floor(math.ldexp(mantissa, _BITS)), exponent - _BITS)


def unit_rows(
    rows: Float[np.ndarray, "B D"],
) -> tuple[Float32[np.ndarray, "B D"], Bool[np.ndarray, " B"]]:
    """Returns rows at length one, and which can be: finite ones, not of length 0.

    Others are NaN.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        largest = np.abs(rows).max(axis=1, initial=0).astype(np.float64)
        usable = np.isfinite(largest) & (largest > 0)
        # By the largest number first: squares of large or small ones are out of range.
        scaled = (rows / np.where(usable, largest, np.nan)[:, None]).astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", scaled, scaled, dtype=np.float64))
        scaled /= lengths.astype(np.float32)[:, None]
    return scaled, usable
