"""Rows of fixed width as memory: where they lie, copies, and Arrow arrays over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt8

__all__ = ["RowSpans", "from_bytes", "gather", "row_bytes", "zero_rows"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RowSpans:
    """Rows as the pieces of memory that they lie in.

    Attributes:
        schema: Their columns, all of fixed width and without nulls.
        num_rows: How many rows.
        columns: For each column, pieces that hold its rows, end to end.
    """

    schema: pa.Schema
    num_rows: int
    columns: Sequence[Sequence[memoryview]]


def zero_rows(schema: pa.Schema, num_rows: int) -> pa.RecordBatch:
    """Returns rows of zeros of columns of fixed width; takes no memory until read."""
    arrays = [
        from_bytes(
            field.type,
            num_rows,
            pa.py_buffer(np.zeros(num_rows * (row_bytes(field.type) or 0), np.uint8)),
        )
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def row_bytes(dtype: pa.DataType) -> int | None:
    """Returns the bytes of one row of a type whose rows are all as wide, else None."""
    if isinstance(dtype, pa.BaseExtensionType):
        return row_bytes(dtype.storage_type)
    if pa.types.is_fixed_size_list(dtype):
        width = row_bytes(dtype.value_type)
        return width and width * dtype.list_size
    if pa.types.is_dictionary(dtype) or dtype.num_fields:
        return None
    try:
        bits = dtype.bit_width
    except ValueError:
        return None
    return None if bits % 8 else bits // 8  # bool is one bit


def from_bytes(dtype: pa.DataType, num_rows: int, data: pa.Buffer) -> pa.Array:
    """Returns an array of fixed-width rows over ``data``, which is not copied."""
    if isinstance(dtype, pa.BaseExtensionType):
        storage = from_bytes(dtype.storage_type, num_rows, data)
        return pa.ExtensionArray.from_storage(dtype, storage)
    if pa.types.is_fixed_size_list(dtype):
        values = from_bytes(dtype.value_type, num_rows * dtype.list_size, data)
        return pa.FixedSizeListArray.from_arrays(values, type=dtype)
    return pa.Array.from_buffers(dtype, num_rows, [None, data])


def gather(
    addresses: Int64[np.ndarray, " n"], width: int
) -> UInt8[np.ndarray, "n {width}"] | None:
    """Returns a copy of the rows at ``addresses``; None where they lie too far apart.

    numpy indexes at most 2^63 bytes, and counts each overlapping row in full.
    """
    low = int(addresses.min())
    span = int(addresses.max()) - low + 1
    if span * width >= 1 << 62:
        return None
    starts = addresses - low
    # Rows at random wait for the page table as long as for their bytes. These waits
    # overlap where one byte of each is read first, and hardly where rows are copied.
    _elements(low, span, 1, starts)
    rows = _elements(low, span, width, starts)
    return rows.view(np.uint8).reshape(-1, width)


def _elements(
    address: int, span: int, width: int, starts: Int64[np.ndarray, " n"]
) -> np.ndarray:
    """Returns a copy of elements of ``width`` bytes, as one call that holds no lock."""
    return np.asarray(_Memory(address, span, width))[starts]


class _Memory:
    """All the elements of ``width`` bytes that start within a span of addresses.

    They overlap, one per byte, and most of them are nobody's: only those that addresses
    were computed for may be touched. Each is one opaque element: as a row of bytes it
    would be copied by slower code.
    """

    def __init__(self, address: int, span: int, width: int) -> None:
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (address, True),
            "typestr": f"|V{width}",
            "shape": (span,),
            "strides": (1,),
        }
