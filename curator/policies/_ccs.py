"""Coverage-centric selection: all difficulties but the hardest; also of a stream.

Shapes: ``B`` is the super-batch size, ``K`` the batch size, ``m`` the size of a chunk,
``G`` the number of strata.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt32

from curator.policies._allocation import first_of_groups, water_fill
from curator.policies._candidates import (
    Candidates,
    WeightsName,
    check_at_least,
    check_weights,
)
from curator.policies._embeddings import check_feature_name
from curator.policies._features import read_floats
from curator.rng import Noise, mix
from curator.types import Features, Selection

__all__ = ["CCS", "Chunks", "StreamedSelection"]

Chunks: TypeAlias = Callable[
    [], Iterable[tuple[Int64[np.ndarray, " m"], Float[np.ndarray, " m"]]]
]
"""Starts a pass over a pool: ids and values in chunks, the same ones every time."""

_HardName: TypeAlias = Literal["high", "low"]

# Candidates that are looked at together.
_CHUNK = 1 << 20

# Standard deviations of how many examples a draw brings that are drawn in excess.
_EXCESS = 8.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StreamedSelection:
    """What was chosen out of a stream.

    Attributes:
        ids: Example ids, in draw order.
        weights: Multiplier of each one's loss.
        scores: The value of each.
        stats: As of a :class:`curator.types.Selection`, ``num_topped_up`` being 0.
    """

    ids: Int64[np.ndarray, " K"]
    weights: Float32[np.ndarray, " K"]
    scores: Float64[np.ndarray, " K"]
    stats: dict[str, float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CCS:
    """Prefers no difficulty to another, but drops the hardest examples.

    The hardest ones are dropped, for they are where mislabelled examples are. The range
    of the others' values is cut into strata of equal width, K is divided among these as
    equally as their sizes allow, and examples are drawn uniformly inside each.

    Use it to prune a pool once, by a column of any name: AUM, EL2N, a loss, the count
    of forgettings. :class:`curator.policies.Stratified` is the same for the scores of a
    super-batch. It takes four passes, also over a stream, and O(K) memory there.
    Random.

    Source: Zheng et al. 2023, "Coverage-centric coreset selection for high pruning
    rates", arXiv 2210.15809.

    Attributes:
        by: The feature that says how hard an example is: one float each, compared as
            float32.
        hard: Whether ``high`` values of it are hard (a loss), or ``low`` ones (AUM).
        drop_hardest: The share of candidates to drop, in [0, 1), rounded to a whole
            number; fewer where K would not be left, or where equal values would be
            parted.
        num_strata: How many strata; K where that is less, so that each gets an example.
        weights: ``horvitz_thompson`` gives each example the size of its stratum over
            the number drawn from it, 1 in the mean; ``none`` is all 1.

    Stats: ``num_quarantined``, ``num_topped_up``, ``score_mean`` of the chosen;
    ``num_dropped``, and ``num_strata`` that were not empty.

    Example:
        >>> losses = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 9.0])
        >>> policy = CCS(drop_hardest=0.15, num_strata=2)
        >>> noise = Noise(seed=0, step=0)
        >>> chosen = policy.select(np.arange(7), {"learner.loss": losses}, 2, noise)
        >>> 5 in chosen.indices, 6 in chosen.indices
        (True, False)
    """

    name: ClassVar[str] = "ccs"

    by: str = "learner.loss"
    hard: _HardName = "high"
    drop_hardest: float = 0.3
    num_strata: int = 50
    weights: WeightsName = "none"

    def __post_init__(self) -> None:
        check_feature_name("by", self.by)
        check_at_least("num_strata", self.num_strata, 1)
        check_weights(self.weights)
        if self.hard not in get_args(_HardName):
            msg = f"hard must be 'high' or 'low'; got {self.hard!r}"
            raise ValueError(msg)
        if not 0 <= self.drop_hardest < 1:
            msg = f"drop_hardest must be in [0, 1); got {self.drop_hardest}"
            raise ValueError(msg)

    @property
    def needs(self) -> frozenset[str]:
        """The column of values."""
        return frozenset({self.by})

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns the examples, in random order.

        Raises:
            FeatureError: The values are missing, or not one float per candidate.
            ValueError: ``num_selected`` is out of range.
        """
        values = read_floats(features, self.by, ids)
        candidates = Candidates.of(ids, _is_usable(values), values, num_selected, noise)
        if candidates.num_drawn == 0:
            return candidates.select(np.empty(0, np.int64))

        def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for start in range(0, len(ids), _CHUNK):
                yield ids[start : start + _CHUNK], values[start : start + _CHUNK]

        drawn = self.stream(chunks, candidates.num_drawn, noise)
        order = np.argsort(candidates.ids)
        places = order[np.searchsorted(candidates.ids[order], drawn.ids)]
        names = ("num_dropped", "num_strata")
        return candidates.select(
            places,
            weights=drawn.weights.astype(np.float64),
            stats={name: drawn.stats[name] for name in names},
        )

    def stream(
        self, chunks: Chunks, num_selected: int, noise: Noise
    ) -> StreamedSelection:
        """Returns what :meth:`select` does, of a stream; however it is cut into chunks.

        Args:
            chunks: Starts a pass over ids and values; it is called four times.
            num_selected: K, at most the number of finite values: nothing is topped up.
            noise: The randomness.

        Raises:
            ValueError: ``num_selected`` is out of range.
        """
        sign = np.float32(1 if self.hard == "high" else -1)

        def passes() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for ids, values in chunks():
                usable = _is_usable(values)
                yield ids[usable], sign * values[usable].astype(np.float32)

        num_all = sum(len(ids) for ids, _ in chunks())
        span = _Span.of(passes, num_selected, self.drop_hardest)
        num_strata = min(self.num_strata, num_selected)
        sizes = np.zeros(num_strata, np.int64)
        for _, values in passes():
            strata = span.strata(values, num_strata)
            sizes += np.bincount(strata[strata >= 0], minlength=num_strata)
        occupied = np.flatnonzero(sizes)
        counts = np.zeros(num_strata, np.int64)
        ties = noise.uniform(occupied, chunk=2)
        counts[occupied] = water_fill(sizes[occupied], num_selected, ties)
        drawn, strata, values = _draw(passes, span, sizes, counts, noise)
        weights = np.ones(num_selected)
        if self.weights == "horvitz_thompson":
            share = num_selected / int(sizes.sum())
            weights = sizes[strata] / counts[strata] * share
        scores = (sign * values).astype(np.float64)
        return StreamedSelection(
            ids=drawn,
            weights=weights.astype(np.float32),
            scores=scores,
            stats={
                "num_quarantined": float(num_all - span.num_values),
                "num_topped_up": 0.0,
                "num_dropped": float(span.num_values - int(sizes.sum())),
                "num_strata": float(len(occupied)),
                "score_mean": float((scores / num_selected).sum()),
            },
        )


_Passes: TypeAlias = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Span:
    """The range of the values that are kept.

    Attributes:
        lowest: The lowest value.
        highest: The highest one that is kept.
        num_values: How many values there are, dropped ones included.
    """

    lowest: float
    highest: float
    num_values: int

    @classmethod
    def of(cls, passes: _Passes, num_selected: int, drop_highest: float) -> _Span:
        """Finds it, by counting the leading and then the trailing bits of values.

        Raises:
            ValueError: There are fewer values than are to be selected.
        """
        leading = np.zeros(1 << 16, np.int64)
        lowest = np.inf
        for _, values in passes():
            leading += np.bincount(_ordered(values) >> 16, minlength=1 << 16)
            lowest = min(lowest, float(values.min(initial=np.inf)))
        num_values = int(leading.sum())
        if not 1 <= num_selected <= num_values:
            msg = (
                "num_selected must be in [1, number of finite values]; got "
                f"{num_selected} for {num_values} values"
            )
            raise ValueError(msg)
        num_dropped = round(drop_highest * num_values)
        num_kept = num_values - min(num_dropped, num_values - num_selected)
        upper = int(np.searchsorted(np.cumsum(leading), num_kept))
        num_below = int(leading[:upper].sum())
        trailing = np.zeros(1 << 16, np.int64)
        for _, values in passes():
            bits = _ordered(values)
            bits = bits[bits >> 16 == upper] & 0xFFFF
            trailing += np.bincount(bits, minlength=1 << 16)
        lower = int(np.searchsorted(np.cumsum(trailing), num_kept - num_below))
        highest = _value_of(np.uint32((upper << 16) + lower))
        return cls(lowest, highest, num_values)

    def strata(
        self, values: Float32[np.ndarray, " m"], num_strata: int
    ) -> Int64[np.ndarray, " m"]:
        """Returns the stratum of each value, from 0; -1 for those that are dropped."""
        exact = values.astype(np.float64)
        width = self.highest - self.lowest  # of float32, so it is in range
        if width == 0:
            strata = np.zeros(len(values), np.int64)
        else:
            places = (exact - self.lowest) / width * num_strata
            strata = np.clip(places, 0, num_strata - 1).astype(np.int64)
        strata[exact > self.highest] = -1
        return strata


def _draw(
    passes: _Passes,
    span: _Span,
    sizes: Int64[np.ndarray, " G"],
    counts: Int64[np.ndarray, " G"],
    noise: Noise,
) -> tuple[Int64[np.ndarray, " K"], Int64[np.ndarray, " K"], Float32[np.ndarray, " K"]]:
    """Returns ids, strata and values of a uniform draw from each stratum.

    The examples of the lowest noise are drawn, so that chunks do not matter. About how
    low it has to be is known ahead; so few more are kept than are drawn.
    """
    excess = _EXCESS * (np.sqrt(counts) + _EXCESS)
    limits = (counts + excess) / np.maximum(sizes, 1)
    while True:
        found = [_below(chunk, span, limits, noise) for chunk in passes()]
        ids, keys, strata, values = (
            np.concatenate(part) for part in zip(*found, strict=True)
        )
        order = np.lexsort((mix(ids.astype(np.uint64)), keys))
        ids, strata, values = ids[order], strata[order], values[order]
        kept = first_of_groups(strata, counts)
        if kept.sum() == counts.sum():
            return ids[kept], strata[kept], values[kept]
        limits = np.ones(len(counts))


def _below(
    chunk: tuple[Int64[np.ndarray, " m"], Float32[np.ndarray, " m"]],
    span: _Span,
    limits: Float64[np.ndarray, " G"],
    noise: Noise,
) -> tuple[np.ndarray, ...]:
    """Returns ids, noise, strata and values of what has noise below its limit."""
    ids, values = chunk
    strata = span.strata(values, len(limits))
    keys = noise.uniform(ids, chunk=1)
    kept = (strata >= 0) & (keys <= limits[strata])
    return ids[kept], keys[kept], strata[kept], values[kept]


def _is_usable(values: Float[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    with np.errstate(over="ignore"):
        return np.isfinite(values.astype(np.float32))


def _ordered(values: Float32[np.ndarray, " m"]) -> UInt32[np.ndarray, " m"]:
    """Returns integers in the order of the values."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0.0 is 0.0
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))


def _value_of(ordered: np.uint32) -> float:
    """Returns the value of such an integer."""
    bits = ordered ^ np.uint32(1 << 31) if ordered >> 31 == 1 else ~ordered
    return float(np.array([bits], np.uint32).view(np.float32)[0])
