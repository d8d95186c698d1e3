"""The encodings of MDS columns, and the Arrow types that they become."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curator.columns import column_to_numpy
from curator.errors import PoolError

__all__ = ["MdsColumn", "mds_columns"]

_NUMBERS = {
    "uint8": "u1",
    "uint16": "<u2",
    "uint32": "<u4",
    "uint64": "<u8",
    "int8": "i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
    "int": "<i8",
}
_BYTES = ("bytes", "jpeg", "png")
_TEXT = ("str", "json", "str_decimal")
_WRITTEN_OUT = ("str_int", "str_float")
_KNOWN = (*_BYTES, *_TEXT, *_NUMBERS, *_WRITTEN_OUT, "ndarray:DTYPE:SHAPE")


@dataclasses.dataclass(frozen=True, slots=True)
class MdsColumn:
    """A column of MDS shards.

    Attributes:
        name: Its name.
        encoding: How its cells are stored.
        type: What its cells become.
        size: Bytes of a cell; None where they vary.
        decode: Returns cells as an array of ``type``.
    """

    name: str
    encoding: str
    type: pa.DataType
    size: int | None
    decode: Callable[[list[bytes]], Any]

    def encode(self, cells: pa.Array) -> list[bytes]:
        """Returns the cells of an array of ``type``, as they are stored."""
        if self.encoding in _TEXT:
            return [text.encode() for text in cells.to_pylist()]
        if self.encoding in _WRITTEN_OUT:
            return [str(number).encode() for number in cells.to_pylist()]
        values = column_to_numpy(cells)
        return [v if isinstance(v, bytes) else v.tobytes() for v in values]


def mds_columns(
    where: str, shards: Sequence[tuple[list[str], list[str], list[int | None]]]
) -> list[MdsColumn]:
    """Returns the columns of shards, which all have the same.

    Args:
        where: What messages call the index.
        shards: Names, encodings and sizes of each shard's columns.

    Raises:
        PoolError: There are no shards, they have different columns, or a column has an
            encoding that is not known.
    """
    if not shards:
        msg = f"{where}: a pool has at least one example; the index has no shards"
        raise PoolError(msg)
    names, encodings, sizes = shards[0]
    for i, (other_names, other_encodings, _) in enumerate(shards):
        if (other_names, other_encodings) != (names, encodings):
            ours = dict(zip(names, encodings, strict=True))
            theirs = dict(zip(other_names, other_encodings, strict=True))
            msg = (
                f"{where}: the shards of a pool need the same columns: the first has "
                f"{ours}, shard {i} has {theirs}"
            )
            raise PoolError(msg)
    columns: list[MdsColumn] = []
    for name, encoding, size in zip(names, encodings, sizes, strict=True):
        found = _decoder(encoding)
        if found is None:
            msg = (
                f"{where}: column {name!r} is encoded as {encoding!r}, which cannot be "
                f"read; those that can: {', '.join(_KNOWN)}. Write it as one of these"
            )
            raise PoolError(msg)
        columns.append(MdsColumn(name, encoding, found[0], size, found[1]))
    return columns


def _decoder(
    encoding: str,
) -> tuple[pa.DataType, Callable[[list[bytes]], pa.Array]] | None:
    """Returns the type of an encoding, and what decodes it; None if it is unknown."""
    if encoding in _BYTES:
        return pa.binary(), lambda cells: pa.array(cells, pa.binary())
    if encoding in _TEXT:
        return pa.string(), lambda cells: pa.array(_texts(cells), pa.string())
    if encoding == "str_int":
        return pa.int64(), lambda cells: pa.array(list(map(int, cells)), pa.int64())
    if encoding == "str_float":
        floats = pa.float64()
        return floats, lambda cells: pa.array(list(map(float, cells)), floats)
    if encoding in _NUMBERS:
        dtype = np.dtype(_NUMBERS[encoding])
        return pa.from_numpy_dtype(dtype), lambda cells: pa.array(
            _numbers(cells, dtype)
        )
    kind, _, rest = encoding.partition(":")
    name, _, shape = rest.partition(":")
    if kind == "ndarray" and name in _NUMBERS and shape:
        return _tensor(np.dtype(_NUMBERS[name]), [int(n) for n in shape.split(",")])
    return None


def _tensor(
    dtype: np.dtype, shape: list[int]
) -> tuple[pa.DataType, Callable[[list[bytes]], pa.Array]]:
    width = math.prod(shape)
    storage = pa.list_(pa.from_numpy_dtype(dtype), width)
    tensor = pa.fixed_shape_tensor(storage.value_type, shape)

    def decode(cells: list[bytes]) -> pa.Array:
        values = pa.array(_numbers(cells, dtype))
        rows = pa.FixedSizeListArray.from_arrays(values, type=storage)
        return pa.ExtensionArray.from_storage(tensor, rows)

    return tensor, decode


def _numbers(cells: list[bytes], dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(b"".join(cells), dtype)


def _texts(cells: list[bytes]) -> list[str]:
    return [cell.decode() for cell in cells]
