"""A session's ledger, summed up over time: so many steps to a point of a plot.

Shapes: ``P`` points, ``N`` examples of the pool.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Float64, Int64, UInt32

from curator.ledger import Ledger, StepRecord, is_skipped, losses

__all__ = ["Timeline", "read_timeline"]

_MAX_POINTS = 300
_BLOCK = 256
_SCORES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """What a session did.

    Attributes:
        num_steps: Steps that were read: those that are closed, and kept.
        num_open: Steps that are defined, and not closed yet.
        steps_per_point: How many steps a point is of.
        at: The first step of each point.
        scores: 5, 25, 50, 75 and 95 % of the scores of what was selected; NaN where
            nothing was scored.
        weights: Least, mean and greatest weight.
        staleness: Mean learner steps between the weights that scored a step and the
            step; NaN where no learner did.
        loss: Mean of what the trainer reported; NaN where nothing was.
        groups: Share of the examples of each group; empty without groups.
        stats: Sums of the steps' entries, by name.
        counts: How often each example was in a batch that was not skipped.
        num_chosen: The sum of these.
        num_late: Steps that were drawn uniformly because scorers were late.
        num_skipped: Steps that were skipped.
        num_weighted: Examples with a weight other than 1.
        epochs: The number of the first and of the last epoch.
    """

    num_steps: int
    num_open: int
    steps_per_point: int
    at: Int64[np.ndarray, " P"]
    scores: Float64[np.ndarray, "P 5"]
    weights: Float64[np.ndarray, "P 3"]
    staleness: Float64[np.ndarray, " P"]
    loss: Float64[np.ndarray, " P"]
    groups: Float64[np.ndarray, "P groups"]
    stats: Mapping[str, Float64[np.ndarray, " P"]]
    counts: UInt32[np.ndarray, " N"]
    num_chosen: int
    num_late: int
    num_skipped: int
    num_weighted: int
    epochs: tuple[int, int]


def read_timeline(
    ledger: Ledger,
    num_examples: int,
    group_of: Callable[[np.ndarray], np.ndarray] | None,
    num_groups: int,
) -> Timeline:
    """Reads a ledger once, in blocks.

    Args:
        ledger: Only read.
        num_examples: Of the pool; 4 bytes are held for each.
        group_of: Returns the group of each id, from 0; or None.
        num_groups: How many there are.

    Raises:
        StorageError: It cannot be read.
    """
    # Skipping may close steps that were never defined.
    first, num_defined = ledger.first_step(), ledger.num_defined()
    stop = min(ledger.next_step(), num_defined)
    size = max(-(-(stop - first) // _MAX_POINTS), 1)
    skips = ledger.skips()
    counts = np.zeros(num_examples, np.uint32)
    points: list[_Point] = []
    num_late = num_skipped = num_weighted = 0
    epochs: list[int] = []
    for record in _records(ledger, first, stop):
        if (record.step - first) % size == 0:
            points.append(_Point(record.step))
        point = points[-1]
        epochs.append(record.epoch)
        del epochs[1:-1]
        num_late += record.late
        skipped = is_skipped(skips, record.step)
        num_skipped += skipped
        num_weighted += int((record.weights != 1).sum())
        if not skipped:
            np.add.at(counts, record.ids, 1)
        groups = None if group_of is None else group_of(record.ids)
        point.add(record, losses(ledger, record), groups, num_groups)
    names = sorted({name for point in points for name in point.stats})
    return Timeline(
        num_steps=stop - first,
        num_open=num_defined - stop,
        steps_per_point=size,
        at=np.array([point.step for point in points], np.int64),
        scores=np.array([point.score_quantiles() for point in points]).reshape(-1, 5),
        weights=np.array([point.weight_range() for point in points]).reshape(-1, 3),
        staleness=np.array([_mean(point.staleness) for point in points]),
        loss=np.array([_mean(point.losses) for point in points]),
        groups=np.array([point.group_shares() for point in points]).reshape(
            len(points), num_groups
        ),
        stats={
            name: np.array([point.stats.get(name, 0.0) for point in points], np.float64)
            for name in names
        },
        counts=counts,
        num_chosen=int(counts.sum(dtype=np.int64)),
        num_late=num_late,
        num_skipped=num_skipped,
        num_weighted=num_weighted,
        epochs=(epochs[0], epochs[-1]) if epochs else (0, 0),
    )


class _Point:
    """Some consecutive steps."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.stats: collections.Counter[str] = collections.Counter()
        self.staleness: list[float] = []
        self.losses: list[float] = []
        self._scores: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []
        self._groups: np.ndarray | None = None

    def add(
        self,
        record: StepRecord,
        reported: np.ndarray | None,
        groups: np.ndarray | None,
        num_groups: int,
    ) -> None:
        for name, value in record.stats.items():
            self.stats[name] += value  # pyright: ignore[reportArgumentType] - floats add up
        if record.snapshot_step is not None:
            self.staleness.append(float(record.step - record.snapshot_step))
        if record.scores is not None:
            self._scores.append(record.scores[np.isfinite(record.scores)])
        self._weights.append(record.weights)
        if reported is not None:
            self.losses += reported[np.isfinite(reported)].tolist()
        if groups is not None:
            found = np.bincount(groups, minlength=num_groups)
            self._groups = found if self._groups is None else self._groups + found

    def score_quantiles(self) -> np.ndarray:
        values = np.concatenate(self._scores) if self._scores else np.empty(0)
        return np.quantile(values, _SCORES) if len(values) else np.full(5, np.nan)

    def weight_range(self) -> list[float]:
        values = np.concatenate(self._weights).astype(np.float64)
        if not len(values):
            return [np.nan] * 3  # of skipped steps alone
        return [float(values.min()), float(values.mean()), float(values.max())]

    def group_shares(self) -> np.ndarray:
        if self._groups is None:
            return np.empty(0)
        total = self._groups.sum()  # 0 where steps were skipped
        return self._groups / total if total else np.full(len(self._groups), np.nan)


def _records(ledger: Ledger, first: int, stop: int) -> Iterator[StepRecord]:
    for start in range(first, stop, _BLOCK):
        yield from ledger.steps(start, min(start + _BLOCK, stop))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
