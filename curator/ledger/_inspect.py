"""Questions to a ledger that a training run does not ask: what, why, how often.

Shapes: ``K`` is the batch size. Everything is read in blocks of steps, so that memory
does not grow with the ledger.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int64

from curator.errors import StorageError
from curator.ledger._reading import connect_reading, state_of
from curator.ledger._records import StepRecord
from curator.ledger._sqlite import Ledger

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Appearance",
    "appearances",
    "copy_ledger",
    "is_skipped",
    "losses",
    "ranks",
    "step_tables",
]

_BLOCK = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Appearance:
    """One time that an example was in a batch.

    Attributes:
        step: The step.
        epoch: The sampler's epoch.
        position: Its row of the batch.
        weight: Multiplier of its loss.
        score: What it was ranked by; None where nothing was scored.
        rank: By score among the examples of that batch, 1 for the highest; None
            without a score, or where it is not a number.
        snapshot_step: Learner steps in the weights that scored it, or None.
        late: Whether the batch was drawn uniformly, because scorers were late.
        loss: What the trainer reported of it, NaN where it was not finite, or None.
        skipped: Whether the step was skipped: the batch was not trained on.
    """

    step: int
    epoch: int
    position: int
    weight: float
    score: float | None
    rank: int | None
    snapshot_step: int | None
    late: bool
    loss: float | None
    skipped: bool


def copy_ledger(source: Path, target: Path) -> None:
    """Writes a consistent copy of a ledger, also while a server writes to it.

    Args:
        source: The ledger; only read.
        target: Where there is no file yet.

    Raises:
        StorageError: One cannot be read, or the other not written.
    """
    try:
        while not _copied(source, target):
            pass  # a server has started meanwhile
    except (sqlite3.Error, OSError) as error:
        msg = f"cannot copy the ledger {str(source)!r} to {str(target)!r}: {error}"
        raise StorageError(msg) from error


def _copied(source: Path, target: Path) -> bool:
    """Copies a ledger; returns whether the copy is of one moment."""
    old, alone = connect_reading(source)
    with contextlib.closing(old), contextlib.closing(sqlite3.connect(target)) as new:
        before = state_of(source)
        try:
            # All pages at once: one read transaction, which in WAL mode holds nobody
            # up. In parts, it would begin again whenever the server writes.
            old.backup(new)
        except sqlite3.DatabaseError:
            if alone and state_of(source) != before:
                return False
            raise
        return not alone or state_of(source) == before


def is_skipped(skips: list[tuple[int, int]], step: int) -> bool:
    """Whether a step lies in one of :meth:`Ledger.skips`."""
    return any(start <= step < stop for start, stop in skips)


def losses(ledger: Ledger, record: StepRecord) -> Float32[np.ndarray, " K"] | None:
    """Returns what was reported of a step: NaN where nothing was, or nothing finite.

    Returns:
        None where no loss at all was reported.
    """
    reports = [r for r in ledger.reports(record.step) if r.losses is not None]
    if not reports:
        return None
    values = np.full(len(record.ids), np.nan, np.float32)
    for report in reports:
        values[report.start : report.stop] = report.losses
    return values


def ranks(scores: Float32[np.ndarray, " K"]) -> Int64[np.ndarray, " K"]:
    """Returns each example's rank by score: 1 is the highest, equal scores are equal.

    0 stands where the score is not a number.
    """
    usable = np.sort(scores[~np.isnan(scores)])
    higher = len(usable) - np.searchsorted(usable, scores, side="right")
    return np.where(np.isnan(scores), 0, higher + 1).astype(np.int64)


def _records(ledger: Ledger) -> Iterator[list[StepRecord]]:
    for start in range(ledger.first_step(), ledger.num_defined(), _BLOCK):
        yield ledger.steps(start, start + _BLOCK)


def appearances(ledger: Ledger, example_id: int) -> Iterator[Appearance]:
    """Yields every time that an example was in a batch, by step."""
    skips = ledger.skips()
    for records in _records(ledger):
        for record in records:
            for position in np.flatnonzero(record.ids == example_id).tolist():
                reported = losses(ledger, record)
                score, rank = None, None
                if record.scores is not None:
                    score = float(record.scores[position])
                    rank = int(ranks(record.scores)[position]) or None
                yield Appearance(
                    step=record.step,
                    epoch=record.epoch,
                    position=position,
                    weight=float(record.weights[position]),
                    score=score,
                    rank=rank,
                    snapshot_step=record.snapshot_step,
                    late=record.late,
                    loss=None if reported is None else float(reported[position]),
                    skipped=is_skipped(skips, record.step),
                )


def step_tables(ledger: Ledger) -> Iterator[pa.Table]:
    """Yields the whole ledger as tables, a row for each example of each step.

    Columns ``step``, ``epoch``, ``position``, ``example_id``, ``weight``, ``score``,
    ``snapshot_step``, ``late``, ``loss`` and ``skipped``. A score or loss that does
    not exist is null; one that is not finite is what it is.
    """
    # Here: whoever trains needs no Arrow from the ledger.
    import pyarrow as pa

    skips = ledger.skips()
    schema = pa.schema(
        [
            ("step", pa.int64()),
            ("epoch", pa.int64()),
            ("position", pa.int32()),
            ("example_id", pa.int64()),
            ("weight", pa.float32()),
            ("score", pa.float32()),
            ("snapshot_step", pa.int64()),
            ("late", pa.bool_()),
            ("loss", pa.float32()),
            ("skipped", pa.bool_()),
        ]
    )
    yield schema.empty_table()  # so that an empty ledger has columns, too
    for records in _records(ledger):
        parts: list[pa.Table] = []
        for record in records:
            size = len(record.ids)
            reported = losses(ledger, record)
            skipped = is_skipped(skips, record.step)
            columns = [
                pa.repeat(pa.scalar(record.step, pa.int64()), size),
                pa.repeat(pa.scalar(record.epoch, pa.int64()), size),
                pa.array(np.arange(size, dtype=np.int32)),
                pa.array(record.ids),
                pa.array(record.weights),
                _floats(record.scores, size),
                pa.repeat(pa.scalar(record.snapshot_step, pa.int64()), size),
                pa.repeat(pa.scalar(record.late, pa.bool_()), size),
                _floats(reported, size),
                pa.repeat(pa.scalar(skipped, pa.bool_()), size),
            ]
            parts.append(pa.Table.from_arrays(columns, schema=schema))
        if parts:
            yield pa.concat_tables(parts)


def _floats(values: np.ndarray | None, size: int) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(size, pa.float32()) if values is None else pa.array(values)
