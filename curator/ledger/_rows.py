"""Rows of the table ``steps``: what they hold, and whether they are whole."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curator.errors import StorageError
from curator.ledger._records import StepRecord

__all__ = ["array_of", "blob_of", "int_of", "step_from_row", "step_to_row"]


def step_to_row(record: StepRecord) -> tuple[object, ...]:
    """Returns the row of a step, with its checksum at the end."""
    row = (
        record.step,
        record.epoch,
        blob_of(record.ids, "<i8"),
        blob_of(record.weights, "<f4"),
        None if record.scores is None else blob_of(record.scores, "<f4"),
        record.snapshot_step,
        int(record.late),
        json.dumps(dict(record.stats)),
    )
    return *row, _checksum(row)


def step_from_row(row: Sequence[object], path: Path) -> StepRecord:
    """Returns the step of a row.

    Args:
        row: The row; its checksum is None where a version without them wrote it.
        path: The ledger, for the message.

    Raises:
        StorageError: The row is not what was written: SQLite checks its own structures,
            not what lies between them.
    """
    *values, checksum = row
    if checksum is not None and int_of(checksum) != _checksum(values):
        msg = (
            f"the ledger {str(path)!r} is damaged: step {values[0]} is not what was "
            "written. Restore a checkpoint of the state directory"
        )
        raise StorageError(msg)
    step, epoch, ids, weights, scores, snapshot_step, late, stats = values
    return StepRecord(
        step=int_of(step),
        epoch=int_of(epoch),
        ids=array_of(ids, "<i8"),
        weights=array_of(weights, "<f4"),
        scores=None if scores is None else array_of(scores, "<f4"),
        snapshot_step=None if snapshot_step is None else int_of(snapshot_step),
        late=bool(late),
        stats=json.loads(str(stats)),
    )


def _checksum(values: Sequence[object]) -> int:
    """Returns the CRC-32 of a row's values, one after the other."""
    checksum = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode()
        checksum = zlib.crc32(data, checksum)
    return checksum


def int_of(value: object) -> int:
    """Returns a number of a row."""
    return int(str(value))


def blob_of(array: np.ndarray, dtype: str) -> bytes:
    """Returns an array as the ledger keeps it."""
    return array.astype(dtype, copy=False).tobytes()


def array_of(blob: object, dtype: str) -> np.ndarray:
    """Returns an array that the ledger kept, one that owns its memory."""
    return np.frombuffer(bytes(blob), dtype).copy()  # pyright: ignore[reportArgumentType]
