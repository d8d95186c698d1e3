"""Rows of fixed width as memory: where they lie, copies, and Arrow arrays over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt8

__all__ = ["RowMemory", "RowSpans", "from_bytes", "row_bytes", "zero_rows"]

_CACHE_LINE = 64


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
        return pa.Array.from_buffers(dtype, num_rows, [None], children=[values])
    return pa.Array.from_buffers(dtype, num_rows, [None, data])


class RowMemory:
    """Rows of one width in several pieces of memory, which numpy gathers in one call.

    The memory is the caller's to keep. Nothing is read before :meth:`take`.
    """

    def __init__(
        self,
        addresses: Int64[np.ndarray, " C"],
        lengths: Int64[np.ndarray, " C"],
        width: int,
    ) -> None:
        """Finds the span of addresses that the rows lie in.

        Args:
            addresses: Of each piece's first row; -1 for a piece that cannot be read so.
            lengths: How many rows each piece has.
            width: Bytes of a row.
        """
        # An empty piece may lie anywhere, at address 0 too.
        has_rows = lengths > 0
        is_known = has_rows & (addresses >= 0)
        self._is_all_known = bool((is_known == has_rows).all())
        self._width = width
        low = int(addresses.min(where=is_known, initial=1 << 62))
        last = addresses + (lengths - 1) * width
        span = int(last.max(where=is_known, initial=low)) - low + 1
        self._starts = np.where(is_known, addresses - low, -1)
        # numpy indexes at most 2^63 bytes, and counts each overlapping row in full.
        self._can_index = bool(is_known.any()) and span * width < 1 << 62
        if self._can_index:
            self._bytes = np.asarray(_Memory(low, span, 1))
            self._rows = np.asarray(_Memory(low, span, width))

    def take(
        self, piece_of: Int64[np.ndarray, " n"], row_of: Int64[np.ndarray, " n"]
    ) -> UInt8[np.ndarray, "n width"] | None:
        """Returns a copy of row ``row_of[i]`` of piece ``piece_of[i]``, for each i.

        None where one cannot be read so, or they all lie too far apart. Holds no lock
        while it copies.
        """
        starts = self._starts[piece_of]
        if not (self._can_index and (self._is_all_known or starts.min() >= 0)):
            return None
        starts += row_of * self._width
        if self._width > _CACHE_LINE:
            # Rows at random wait for the page table as long as for their bytes. These
            # waits overlap where one byte of each is read first, and hardly where rows
            # are copied.
            self._bytes[starts]
        return self._rows[starts].view(np.uint8).reshape(-1, self._width)


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
