"""What scores are like: everything a report says of a number, in three readings.

Shapes: ``n`` examples of a block, ``N`` of all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64

from curator.report._blocks import Block
from curator.report._groups import Groups
from curator.report._statistics import (
    GroupCounts,
    Histogram,
    Kept,
    Nearest,
    Quantiles,
    Survey,
    sample_of,
)

__all__ = ["SHARES", "Number", "Numbers", "read_numbers"]

SHARES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
_SAMPLE = 50_000  # examples of which relations between numbers are shown
_NUM_BINS = 64
_HEAVY = 30.0  # a tail: the 99.9 % quantile over the median


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Number:
    """One score over all examples.

    Attributes:
        name: Its name.
        survey: Counts, mean, extremes, and the examples at them.
        quantiles: The number at each of ``SHARES``; NaN where none is finite.
        histogram: How many lie where.
        is_log: Whether it is shown on a logarithmic axis.
        borderline: The examples nearest to the median.
        not_finite: The first of those for which it is not finite.
        groups: The quantiles of groups, or None.
    """

    name: str
    survey: Survey
    quantiles: Mapping[float, float]
    histogram: Histogram
    is_log: bool
    borderline: Kept
    not_finite: Int64[np.ndarray, " n"]
    groups: GroupCounts | None

    @property
    def median(self) -> float:
        """The middle one."""
        return self.quantiles[0.5]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """All scores.

    Attributes:
        each: By name.
        num_examples: How many examples were read.
        sample: Numbers of the same examples, by name: all of them, or some by chance.
        groups: The domains, or None.
    """

    each: Mapping[str, Number]
    num_examples: int
    sample: Mapping[str, Float32[np.ndarray, " n"]]
    groups: Groups | None


def read_numbers(
    read: Callable[[], Iterator[Block]],
    names: Sequence[str],
    num_examples: int,
    num_kept: int,
    groups: Groups | None,
    *,
    must_group: bool,
) -> Numbers:
    """Reads scores three times.

    Args:
        read: Yields them, the same every time.
        names: Of the scores.
        num_examples: How many examples there are.
        num_kept: How many of the highest, lowest and borderline are wanted.
        groups: By what they are grouped, or None.
        must_group: Whether the user asked for it: then it is an error if he cannot be
            obeyed.

    Raises:
        ConfigError: The domain has too many values.
        PoolError: The pool cannot be read.
        StorageError: The scores cannot be read.
    """
    surveys = {name: Survey(num_kept) for name in names}
    not_finite = {name: np.empty(0, np.int64) for name in names}
    chosen = sample_of(num_examples, _SAMPLE)
    sample: dict[str, list[np.ndarray]] = {name: [] for name in names}
    is_few = True
    for block in read():
        if groups is not None and is_few:
            is_few = groups.count(block.ids)
        rows = slice(block.start, block.start + len(block.ids))
        for name, values in block.numbers.items():
            surveys[name].add(block.ids, values)
            sample[name].append(values if chosen is None else values[chosen[rows]])
            if len(not_finite[name]) < num_kept:
                bad = block.ids[~np.isfinite(values)]
                not_finite[name] = np.concatenate([not_finite[name], bad])[:num_kept]
    if groups is not None and not groups.check_few(
        is_asked_for=must_group, is_few=is_few
    ):
        groups = None
    quantiles = {name: Quantiles(surveys[name]) for name in names}
    for each in quantiles.values():
        each.want(*SHARES)
    for block in read():
        for name, values in block.numbers.items():
            quantiles[name].add(values)
    found = {
        name: {share: each.at(share) for share in SHARES}
        for name, each in quantiles.items()
    }
    third = {
        name: _Third(surveys[name], found[name], num_kept, groups) for name in names
    }
    for block in read():
        codes = None if groups is None else groups.codes(block.ids)
        for name, values in block.numbers.items():
            third[name].add(block.ids, values, codes)
    return Numbers(
        each={
            name: Number(
                name=name,
                survey=surveys[name],
                quantiles=found[name],
                histogram=third[name].histogram,
                is_log=third[name].is_log,
                borderline=third[name].nearest.nearest,
                not_finite=not_finite[name],
                groups=third[name].groups,
            )
            for name in names
        },
        num_examples=num_examples,
        sample={
            name: np.concatenate(parts) if parts else np.empty(0, np.float32)
            for name, parts in sample.items()
        },
        groups=groups,
    )


class _Third:
    """What the third reading of a score fills."""

    def __init__(
        self,
        survey: Survey,
        quantiles: Mapping[float, float],
        num_kept: int,
        groups: Groups | None,
    ) -> None:
        self.is_log = is_heavy(survey.minimum, quantiles)
        self.histogram = Histogram(edges_of(survey, quantiles, log=self.is_log))
        self.nearest = Nearest(quantiles[0.5], num_kept)
        self.groups = None
        if groups is not None and survey.count:
            low, high = quantiles[0.001], quantiles[0.999]
            if self.is_log:
                low, high = np.log10(low), np.log10(high)
            self.groups = GroupCounts(float(low), float(high), len(groups))

    def add(
        self, ids: np.ndarray, values: np.ndarray, codes: np.ndarray | None
    ) -> None:
        self.histogram.add(values)
        self.nearest.add(ids, values)
        if self.groups is not None and codes is not None:
            if self.is_log:  # only of scores that are all above zero
                values = np.log10(values)
            self.groups.add(codes, values)


def is_heavy(minimum: float, quantiles: Mapping[float, float]) -> bool:
    """Whether a score is above zero and spread so far that only logarithms show it."""
    return minimum > 0 and quantiles[0.999] > _HEAVY * quantiles[0.5]


def edges_of(
    survey: Survey, quantiles: Mapping[float, float], *, log: bool
) -> Float64[np.ndarray, " edges"]:
    """Returns the edges of a histogram's bins.

    From the least to the greatest number; where a few lie far out, without them.
    """
    if not survey.count:
        return np.array([0.0, 1.0])
    low, high = survey.minimum, survey.maximum
    if log:
        edges = np.geomspace(low, high, _NUM_BINS + 1)
        edges[0], edges[-1] = survey.minimum, survey.maximum  # rounding loses none
        return edges
    inner_low, inner_high = quantiles[0.001], quantiles[0.999]
    reach = 0.25 * (inner_high - inner_low)
    if low < inner_low - reach:
        low = inner_low
    if high > inner_high + reach:
        high = inner_high
    if low == high:
        pad = 0.5 * max(abs(low), 1.0)
        low, high = low - pad, high + pad
    num_bins = min(_NUM_BINS, max(8, round(2 * survey.count ** (1 / 3))))
    whole = low == round(low) and high == round(high) and high - low < _NUM_BINS
    if whole and high - low >= 8:
        return np.arange(low - 0.5, high + 1)
    return np.linspace(low, high, num_bins + 1)
