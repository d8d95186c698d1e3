"""Optimal k-means of numbers: the groups with the least sum of squared distances.

Shapes: ``n`` is a number of losses, ``P`` of points that are grouped;
``stops`` is P + 1.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Float64, Int64

__all__ = ["group_starts"]

_MAX_POINTS = 1 << 16


def group_starts(
    losses: Float32[np.ndarray, " n"], num_groups: int, max_points: int = _MAX_POINTS
) -> Float32[np.ndarray, " groups"]:
    """Returns the least loss of each group, in ascending order.

    Exact for up to ``max_points`` distinct losses. More are first put into at most that
    many bins, none with more than ``4 / max_points`` of the losses unless they are
    equal, nor with more than that share of their range; the result is then the best one
    that parts no bin. Equal losses are never parted, so there are fewer groups where
    there are fewer distinct losses. Costs a sort, and O(k P log P).

    Args:
        losses: Finite; at least one.
        num_groups: How many groups (k).
        max_points: How many points are grouped (P).
    """
    ordered = np.sort(losses)
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    if len(starts) > max_points:
        starts = _bins(ordered, max_points)
    sizes = np.diff(starts, append=len(ordered))
    # About the median, which one huge loss does not move.
    values = ordered.astype(np.float64) - float(ordered[len(ordered) // 2])
    points = _Points.of(sizes, np.add.reduceat(values, starts))
    return ordered[starts[_best_starts(points, min(num_groups, len(starts)))]]


def _bins(
    ordered: Float32[np.ndarray, " n"], max_points: int
) -> Int64[np.ndarray, " P"]:
    """Returns where bins start: so that they are equally full, and equally wide."""
    num_edges = max_points // 4
    full = ordered[np.arange(num_edges) * len(ordered) // num_edges]
    wide = np.linspace(float(ordered[0]), float(ordered[-1]), num_edges)
    edges = np.union1d(full, wide.astype(np.float32))
    # All losses equal to an edge are in one bin, alone.
    starts = [np.searchsorted(ordered, edges, side) for side in ("left", "right")]
    starts = np.unique(starts)
    return starts[starts < len(ordered)]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """Points in ascending order, by running sums over them.

    Sums run from the middle outwards. From one end on, a huge loss at that end would be
    part of every sum, and take the digits of all others.
    """

    sizes: Float64[np.ndarray, " stops"]
    sums: Float64[np.ndarray, " stops"]
    squares: Float64[np.ndarray, " stops"]

    @classmethod
    def of(
        cls, sizes: Int64[np.ndarray, " P"], sums: Float64[np.ndarray, " P"]
    ) -> _Points:
        return cls(_running(sizes), _running(sums), _running(sums**2 / sizes))

    def cost(
        self, start: Int64[np.ndarray, " n"], stop: Int64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " n"]:
        """Returns the cost of the groups of points ``start`` to ``stop``.

        The sum of the squared distances of a group's points to its mean; that within a
        point is the same in any group. A group of one point, or of none, is free.
        """
        sums = self.sums[stop] - self.sums[start]
        squares = self.squares[stop] - self.squares[start]
        sizes = np.maximum(1.0, self.sizes[stop] - self.sizes[start])
        return np.where(stop - start > 1, np.maximum(0.0, squares - sums**2 / sizes), 0)


def _running(values: np.ndarray) -> Float64[np.ndarray, " stops"]:
    """Returns sums whose differences are those of any points in a row."""
    middle = len(values) // 2
    below = np.cumsum(values[:middle][::-1], dtype=np.float64)[::-1]
    above = np.cumsum(values[middle:], dtype=np.float64)
    return np.concatenate([-below, [0.0], above])


def _best_starts(points: _Points, num_groups: int) -> Int64[np.ndarray, " groups"]:
    """Returns the first point of each of the best groups.

    ``costs[i]`` is the least cost of points 0 to i in so many groups. The best start of
    the last group does not go down as i goes up.
    """
    num_points = len(points.sizes) - 1
    stops = np.arange(num_points + 1)
    costs = points.cost(np.zeros_like(stops), stops)
    starts: list[np.ndarray] = []
    for _ in range(num_groups - 1):
        costs, best = _add_group(points, costs)
        starts.append(best)
    chosen, stop = {0}, num_points
    for best in reversed(starts):
        stop = int(best[stop])
        chosen.add(stop)
    # A group of none is as good as another only where rounding says so.
    return np.array(sorted(chosen - {num_points}))


def _add_group(
    points: _Points, costs: Float64[np.ndarray, " stops"]
) -> tuple[Float64[np.ndarray, " stops"], Int64[np.ndarray, " stops"]]:
    """Returns costs with one group more, and the start of the last group.

    Divide and conquer over the stop, all stops of a level at once: between two stops
    whose best starts are known, the best start is between those.
    """
    size = len(costs)
    best = np.zeros(size, np.int64)
    least = np.zeros(size)
    stride = 1 << ((size - 1).bit_length() - 1)
    while stride:
        stops = np.arange(stride, size, 2 * stride)
        low = best[stops - stride]
        after = stops + stride
        high = np.where(after < size, best[np.minimum(after, size - 1)], stops)
        high = np.minimum(high, stops)
        lengths = high - low + 1
        first = np.cumsum(lengths) - lengths
        owner = np.repeat(np.arange(len(stops)), lengths)
        start = np.arange(len(owner)) - first[owner] + low[owner]
        cost = costs[start] + points.cost(start, stops[owner])
        least[stops] = np.minimum.reduceat(cost, first)
        is_best = np.flatnonzero(cost == least[stops][owner])
        # Of equally good ones the first.
        owners, firsts = np.unique(owner[is_best], return_index=True)
        best[stops[owners]] = start[is_best[firsts]]
        stride //= 2
    return least, best
