"""Rows of the ledger's tables: what they hold, and whether they are whole.

Ids are int64, little-endian; where all are below 2^31, a byte and then int32. Weights
are float32, little-endian; where all are the same, a byte and then that one. The byte
makes the length odd, which is how the two are told apart. Half the bytes are half the
time of a large step.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curator.errors import StorageError
from curator.ledger._records import Report, StepRecord

__all__ = [
    "ids_of",
    "int_of",
    "memory_from_row",
    "memory_to_row",
    "report_from_row",
    "report_to_row",
    "step_from_row",
    "step_to_row",
]

_SHORT = b"\x01"


def step_to_row(record: StepRecord) -> tuple[object, ...]:
    """Returns the row of a step, with its checksum at the end."""
    return _with_checksum(
        record.step,
        record.epoch,
        _ids_blob(record.ids),
        _weights_blob(record.weights),
        None if record.scores is None else _blob(record.scores, "<f4"),
        record.snapshot_step,
        int(record.late),
        json.dumps(dict(record.stats)),
    )


def step_from_row(row: Sequence[object], path: Path) -> StepRecord:
    """Returns the step of a row.

    Args:
        row: The row; its checksum is None where a version without them wrote it.
        path: The ledger, for the message.

    Raises:
        StorageError: The row is not what was written.
    """
    _check_row(row, path)
    step, epoch, ids, weights, scores, snapshot_step, late, stats, _ = row
    unpacked = ids_of(ids)
    return StepRecord(
        step=int_of(step),
        epoch=int_of(epoch),
        ids=unpacked,
        weights=_weights_of(weights, len(unpacked)),
        scores=None if scores is None else _floats_of(scores),
        snapshot_step=None if snapshot_step is None else int_of(snapshot_step),
        late=bool(late),
        stats=json.loads(str(stats)),
    )


def report_to_row(report: Report) -> tuple[object, ...]:
    """Returns the row of a report, with its checksum at the end."""
    losses = None if report.losses is None else _blob(report.losses, "<f4")
    return _with_checksum(report.step, report.start, report.stop, losses)


def report_from_row(row: Sequence[object], path: Path) -> Report:
    """Returns the report of a row; arguments and errors as :func:`step_from_row`."""
    _check_row(row, path)
    step, start, stop, losses, _ = row
    return Report(
        step=int_of(step),
        start=int_of(start),
        stop=int_of(stop),
        losses=None if losses is None else _floats_of(losses),
    )


def memory_to_row(step: int, rows: np.ndarray) -> tuple[object, ...]:
    """Returns the row of what a policy remembers of a step, float32 [rows, width]."""
    return _with_checksum(step, rows.shape[1], _blob(rows, "<f4"))


def memory_from_row(row: Sequence[object], path: Path) -> tuple[int, np.ndarray]:
    """Returns the step and rows of a row; errors as :func:`step_from_row`."""
    _check_row(row, path)
    step, width, rows, _ = row
    return int_of(step), _floats_of(rows).reshape(-1, int_of(width))


def _with_checksum(*values: object) -> tuple[object, ...]:
    return *values, _checksum(values)


def _check_row(row: Sequence[object], path: Path) -> None:
    """Checks that a row is what was written.

    Raises:
        StorageError: It is not: SQLite checks its own structures, not what lies between
            them.
    """
    *values, checksum = row
    if checksum is not None and int_of(checksum) != _checksum(values):
        msg = (
            f"the ledger {str(path)!r} is damaged: step {values[0]} is not what was "
            "written. Restore a checkpoint of the state directory"
        )
        raise StorageError(msg)


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


def _blob(array: np.ndarray, dtype: str) -> bytes:
    return array.astype(dtype, copy=False).tobytes()


def _ids_blob(ids: np.ndarray) -> bytes:
    if len(ids) and ids.min() >= 0 and ids.max() < 2**31:
        return _SHORT + _blob(ids, "<i4")
    return _blob(ids, "<i8")


def _weights_blob(weights: np.ndarray) -> bytes:
    whole = _blob(weights, "<f4")
    first = whole[:4]
    is_constant = len(weights) > 1 and first * len(weights) == whole  # to the last bit
    return _SHORT + first if is_constant else whole


def ids_of(blob: object) -> np.ndarray:
    """Returns ids that the ledger kept, int64."""
    data = _bytes(blob)
    if len(data) % 2:
        return np.frombuffer(data, "<i4", offset=1).astype(np.int64)
    return np.frombuffer(data, "<i8").copy()


def _weights_of(blob: object, size: int) -> np.ndarray:
    data = _bytes(blob)
    if len(data) % 2:
        return np.repeat(np.frombuffer(data, "<f4", offset=1), size)
    return _floats_of(data)


def _floats_of(blob: object) -> np.ndarray:
    """Returns float32 numbers that the ledger kept, an array of their own."""
    return np.frombuffer(_bytes(blob), "<f4").copy()


def _bytes(blob: object) -> bytes:
    return bytes(blob)  # pyright: ignore[reportArgumentType] - SQLite has no types
