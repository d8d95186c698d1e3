"""How a subset differs from the whole that it was selected from; numpy only.

Shapes: ``N`` examples of the whole, ``K`` of the subset.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Num, Shaped

__all__ = [
    "CategoryDifference",
    "Difference",
    "NumberDifference",
    "Summary",
    "compare_categories",
    "compare_counts",
    "compare_numbers",
]

_QUANTILES = (1, 5, 25, 50, 75, 95, 99)
# What lies further out is in the outermost bins, which would have all bins else.
_TAIL = 0.005
_NONE = "(none)"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a number is like over some examples; None where it is nowhere finite.

    Attributes:
        num_finite: For how many it is finite.
        num_not_finite: For how many it is not; all else leaves them out.
        mean: Its mean.
        std: Its standard deviation.
        min: The least.
        max: The greatest.
        quantiles: By name: ``1%``, ``5%``, ``25%``, ``50%``, ``75%``, ``95%``, ``99%``.
    """

    num_finite: int
    num_not_finite: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    quantiles: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NumberDifference:
    """A number over the whole and over the subset.

    Attributes:
        name: Of the number.
        whole: Over all examples.
        subset: Over those that were selected.
        edges: Of the bins of both histograms, one more than bins; empty where nothing
            is finite.
        whole_counts: Examples in each bin; the outermost have all beyond them.
        subset_counts: The same, of the subset.
    """

    name: str
    whole: Summary
    subset: Summary
    edges: list[float]
    whole_counts: list[int]
    subset_counts: list[int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CategoryDifference:
    """A label over the whole and over the subset.

    Attributes:
        name: Of the label.
        values: The most frequent ones of the whole, the first most; ``(none)`` for
            null.
        whole_counts: Examples of each.
        subset_counts: The same, of the subset.
        num_values: How many values there are, shown or not.
        whole_rest: Examples with a value that is not shown.
        subset_rest: The same, of the subset.
    """

    name: str
    values: list[str]
    whole_counts: list[int]
    subset_counts: list[int]
    num_values: int
    whole_rest: int
    subset_rest: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How a subset differs from the whole.

    Attributes:
        num_examples: Of the whole.
        num_selected: Of the subset.
        numbers: What is a number.
        categories: What is a label.
    """

    num_examples: int
    num_selected: int
    numbers: list[NumberDifference]
    categories: list[CategoryDifference]


def compare_numbers(
    name: str,
    values: Num[np.ndarray, " N"],
    is_chosen: Bool[np.ndarray, " N"],
    *,
    num_bins: int = 40,
) -> NumberDifference:
    """Returns how a number differs.

    Args:
        name: Of the number.
        values: Of all examples.
        is_chosen: Which of them are the subset.
        num_bins: Of the histograms, all of one width.
    """
    chosen = values[is_chosen]
    finite = values[np.isfinite(values)]
    edges = np.empty(0)
    counts = [np.empty(0, np.int64)] * 2
    if len(finite):
        low, high = np.quantile(finite, [_TAIL, 1 - _TAIL]).tolist()
        if low == high:
            low, high = float(finite.min()), float(finite.max())
        if low == high:  # one value: some room above it, that floats can divide
            high = low + max(1.0, abs(low) / 1000)
        edges = np.linspace(low, high, num_bins + 1)
        inside = (edges[0], edges[-1])
        counts = [
            np.histogram(np.clip(part, *inside), edges)[0]
            for part in (finite, chosen[np.isfinite(chosen)])
        ]
    whole_counts, subset_counts = counts
    return NumberDifference(
        name=name,
        whole=_summary(values),
        subset=_summary(chosen),
        edges=edges.tolist(),
        whole_counts=whole_counts.tolist(),
        subset_counts=subset_counts.tolist(),
    )


def compare_categories(
    name: str,
    values: Shaped[np.ndarray, " N"],
    is_chosen: Bool[np.ndarray, " N"],
    *,
    max_values: int = 20,
) -> CategoryDifference:
    """Returns how a label differs.

    Args:
        name: Of the label.
        values: Of all examples: integers, strings, or objects, None for a null.
        is_chosen: Which of them are the subset.
        max_values: How many values are told apart.
    """
    counts = [
        collections.Counter[object](part.tolist())
        for part in (values, values[is_chosen])
    ]
    return compare_counts(name, counts[0], counts[1], max_values=max_values)


def compare_counts(
    name: str,
    whole: Mapping[object, int],
    subset: Mapping[object, int],
    *,
    max_values: int = 20,
) -> CategoryDifference:
    """Returns how a label differs, from the examples of each value."""
    # Equal counts in the order of their names: reports of equal runs are equal.
    ranked = sorted(whole, key=lambda value: (-whole[value], str(value)))
    shown = ranked[:max_values]
    whole_counts = [whole[value] for value in shown]
    subset_counts = [subset.get(value, 0) for value in shown]
    return CategoryDifference(
        name=name,
        values=[_NONE if value is None else str(value) for value in shown],
        whole_counts=whole_counts,
        subset_counts=subset_counts,
        num_values=len(ranked),
        whole_rest=sum(whole.values()) - sum(whole_counts),
        subset_rest=sum(subset.values()) - sum(subset_counts),
    )


def _summary(values: Num[np.ndarray, " n"]) -> Summary:
    finite = values[np.isfinite(values)]
    num_not_finite = len(values) - len(finite)
    if not len(finite):
        return Summary(
            num_finite=0,
            num_not_finite=num_not_finite,
            mean=None,
            std=None,
            min=None,
            max=None,
            quantiles={},
        )
    found = np.quantile(finite, np.array(_QUANTILES) / 100).tolist()
    return Summary(
        num_finite=len(finite),
        num_not_finite=num_not_finite,
        mean=float(finite.mean(dtype=np.float64)),
        std=_std(finite),
        min=float(finite.min()),
        max=float(finite.max()),
        quantiles={f"{q}%": v for q, v in zip(_QUANTILES, found, strict=True)},
    )


def _std(finite: Num[np.ndarray, " n"]) -> float:
    # Squares of numbers beyond 1e154 are infinite; then so is this, and that is said.
    with np.errstate(over="ignore"):
        return float(finite.std(dtype=np.float64))
