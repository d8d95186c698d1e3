"""Statistics of numbers that are read in blocks, several times, and never held.

A float32 is an integer that sorts as the number does. Counting the upper sixteen bits
of it while reading once, and the lower ones of those that matter while reading again,
gives every quantile exactly, in a megabyte.

Shapes: ``n`` numbers of a block, ``G`` groups, ``H`` bins.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt32

__all__ = [
    "GroupCounts",
    "Histogram",
    "Kept",
    "Nearest",
    "Quantiles",
    "Survey",
    "sample_of",
]

_HALF = 1 << 16
_SEED = 6  # of the sample; any number, and always the same


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Some examples, in order of rank.

    Attributes:
        ids: Example ids.
        values: What they were ranked by.
    """

    ids: Int64[np.ndarray, " n"]
    values: Float32[np.ndarray, " n"]


class _Best:
    """The examples with the least keys, of equal ones those with the least ids."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._ids: np.ndarray = np.empty(0, np.int64)
        self._values: np.ndarray = np.empty(0, np.float32)
        self._keys: np.ndarray = np.empty(0, np.float64)

    def add(self, ids: np.ndarray, values: np.ndarray, keys: np.ndarray) -> None:
        if len(self._keys) == self._count:
            near = keys <= self._keys[-1]
            ids, values, keys = ids[near], values[near], keys[near]
        ids = np.concatenate([self._ids, ids])
        values = np.concatenate([self._values, values])
        keys = np.concatenate([self._keys, keys])
        order = np.lexsort((ids, keys))[: self._count]
        self._ids, self._values, self._keys = ids[order], values[order], keys[order]

    @property
    def kept(self) -> Kept:
        return Kept(self._ids, self._values)


class Survey:
    """The first reading: how many, how large, which are the highest and lowest.

    Attributes:
        count: Numbers that are finite.
        num_nan: Numbers that are not numbers.
        num_infinite: Numbers that are infinite.
    """

    def __init__(self, num_kept: int) -> None:
        """Starts with nothing read.

        Args:
            num_kept: How many of the highest, and of the lowest, are kept.
        """
        self.count = self.num_nan = self.num_infinite = 0
        self._mean = self._squares = 0.0
        self._low, self._high = _Best(num_kept), _Best(num_kept)
        self._minimum, self._maximum = np.inf, -np.inf
        self.coarse: Int64[np.ndarray, " 65536"] = np.zeros(_HALF, np.int64)

    def add(
        self, ids: Int64[np.ndarray, " n"], values: Float32[np.ndarray, " n"]
    ) -> None:
        """Reads a block."""
        finite = np.isfinite(values)
        num_nan = int(np.isnan(values).sum())
        self.num_nan += num_nan
        self.num_infinite += len(values) - int(finite.sum()) - num_nan
        ids, values = ids[finite], values[finite]
        if not len(values):
            return
        np.add.at(self.coarse, _keys(values) >> 16, 1)
        wide = values.astype(np.float64)
        self._low.add(ids, values, wide)
        self._high.add(ids, values, -wide)
        self._minimum = min(self._minimum, float(values.min()))
        self._maximum = max(self._maximum, float(values.max()))
        # Chan, Golub & LeVeque 1983: means of blocks, put together without cancelling.
        total, mean = self.count + len(wide), float(wide.mean())
        gap = mean - self._mean
        self._squares += float(np.square(wide - mean).sum())
        self._squares += gap * gap * self.count * len(wide) / total
        self._mean += gap * len(wide) / total
        self.count = total

    @property
    def mean(self) -> float:
        """Of the finite ones."""
        return self._mean

    @property
    def deviation(self) -> float:
        """The standard deviation of the finite ones."""
        return (self._squares / self.count) ** 0.5 if self.count else 0.0

    @property
    def minimum(self) -> float:
        """The lowest finite one; infinite if there is none."""
        return self._minimum

    @property
    def maximum(self) -> float:
        """The highest finite one; minus infinity if there is none."""
        return self._maximum

    @property
    def lowest(self) -> Kept:
        """From the lowest on."""
        return self._low.kept

    @property
    def highest(self) -> Kept:
        """From the highest down."""
        return self._high.kept


class Quantiles:
    """The second reading: exact quantiles."""

    def __init__(self, survey: Survey) -> None:
        """Takes up what the first reading has counted."""
        self._count = survey.count
        self._sums = np.cumsum(survey.coarse)
        self._fine: dict[int, np.ndarray] = {}

    def want(self, *shares: float) -> None:
        """Says which quantiles will be asked for, before the second reading."""
        for share in shares:
            self._fine.setdefault(self._bin(self._rank(share)), np.zeros(_HALF, int))

    def add(self, values: Float32[np.ndarray, " n"]) -> None:
        """Reads a block."""
        keys = _keys(values[np.isfinite(values)])
        upper = keys >> 16
        for number, counts in self._fine.items():
            np.add.at(counts, keys[upper == number] & (_HALF - 1), 1)

    def at(self, share: float) -> float:
        """Returns the least number that ``share`` of all are at or below.

        NaN if there are none.
        """
        if not self._count:
            return float("nan")
        rank = self._rank(share)
        number = self._bin(rank)
        before = int(self._sums[number - 1]) if number else 0
        lower = int(np.searchsorted(np.cumsum(self._fine[number]), rank - before + 1))
        return _value(number << 16 | lower)

    def _rank(self, share: float) -> int:
        return max(int(np.ceil(share * self._count)) - 1, 0)

    def _bin(self, rank: int) -> int:
        return min(int(np.searchsorted(self._sums, rank + 1)), _HALF - 1)


class Histogram:
    """How many numbers lie between edges."""

    def __init__(self, edges: Float64[np.ndarray, " H_plus_1"]) -> None:
        """Starts with nothing read; the last edge belongs to the last bin."""
        self.edges = edges
        self.counts: Int64[np.ndarray, " H"] = np.zeros(len(edges) - 1, np.int64)
        self.num_outside = 0

    def add(self, values: Float32[np.ndarray, " n"]) -> None:
        """Reads a block."""
        finite = values[np.isfinite(values)].astype(np.float64)
        self.counts += np.histogram(finite, self.edges)[0]
        inside = (finite >= self.edges[0]) & (finite <= self.edges[-1])
        self.num_outside += len(finite) - int(inside.sum())


class GroupCounts:
    """How many numbers of each group lie between edges that are close to each other.

    Quantiles of groups come from it, as fine as the edges are: for plots.
    """

    NUM_BINS = 512

    def __init__(self, low: float, high: float, num_groups: int) -> None:
        """Starts with nothing read; what is lower or higher counts to the ends."""
        self._low, self._high = low, high
        self._counts = np.zeros((num_groups, self.NUM_BINS), np.int64)

    def add(
        self, groups: Int64[np.ndarray, " n"], values: Float32[np.ndarray, " n"]
    ) -> None:
        """Reads a block; groups below zero are none."""
        inside = np.isfinite(values) & (groups >= 0)
        groups, values = groups[inside], values[inside]
        width = (self._high - self._low) / self.NUM_BINS or 1.0
        bins = np.floor((values.astype(np.float64) - self._low) / width)
        bins = np.clip(bins, 0, self.NUM_BINS - 1).astype(np.int64)
        flat = np.bincount(groups * self.NUM_BINS + bins, minlength=self._counts.size)
        self._counts += flat.reshape(self._counts.shape)

    @property
    def sizes(self) -> Int64[np.ndarray, " G"]:
        """How many of each group were read and finite."""
        return self._counts.sum(axis=1)

    def quantiles(self, *shares: float) -> Float64[np.ndarray, "G shares"]:
        """Returns quantiles of each group, NaN for empty ones."""
        centres = self._low + (np.arange(self.NUM_BINS) + 0.5) * (
            (self._high - self._low) / self.NUM_BINS
        )
        found = np.full((len(self._counts), len(shares)), np.nan)
        for row, counts in enumerate(self._counts):
            sums = np.cumsum(counts)
            if sums[-1]:
                ranks = np.maximum(np.ceil(np.array(shares) * sums[-1]), 1)
                found[row] = centres[np.searchsorted(sums, ranks)]
        return found


class Nearest:
    """The examples whose numbers lie nearest to one."""

    def __init__(self, value: float, num_kept: int) -> None:
        """Starts with nothing read."""
        self._value = value
        self._best = _Best(num_kept)

    def add(
        self, ids: Int64[np.ndarray, " n"], values: Float32[np.ndarray, " n"]
    ) -> None:
        """Reads a block."""
        finite = np.isfinite(values)
        ids, values = ids[finite], values[finite]
        self._best.add(ids, values, np.abs(values.astype(np.float64) - self._value))

    @property
    def nearest(self) -> Kept:
        """In order of their numbers."""
        found = self._best.kept
        order = np.lexsort((found.ids, found.values))
        return Kept(found.ids[order], found.values[order])


def sample_of(num_examples: int, size: int) -> Bool[np.ndarray, " N"] | None:
    """Returns which rows are in a sample that is the same every time.

    None where all of them are: that many fit.
    """
    if num_examples <= size:
        return None
    chosen = np.zeros(num_examples, np.bool_)
    rng = np.random.default_rng(_SEED)
    chosen[rng.choice(num_examples, size, replace=False, shuffle=False)] = True
    return chosen


def _keys(values: Float32[np.ndarray, " n"]) -> UInt32[np.ndarray, " n"]:
    """Returns integers that sort as the numbers do."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0.0 and 0.0 are the same
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value(key: int) -> float:
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.array(bits, np.uint32).view(np.float32))
