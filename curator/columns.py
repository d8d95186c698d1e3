"""Arrow columns as NumPy arrays or torch tensors, without copying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import torch

__all__ = ["column_to_numpy", "column_to_torch", "rows_from_numpy"]


def column_to_numpy(column: pa.Array) -> np.ndarray | list[Any]:
    """Returns a column as an array of shape ``[rows, ...]``, or as a list.

    Numbers, fixed-size lists of numbers and fixed-shape tensors come back as arrays
    that share the column's memory, read-only; booleans as an array that does not; all
    else (strings, binary, lists of varying length, anything with nulls) as a list.
    """
    fixed = _fixed_width(column)
    if fixed is None:
        return column.to_pylist()
    values, shape = fixed
    is_bits = pa.types.is_boolean(values.type)
    return values.to_numpy(zero_copy_only=not is_bits).reshape(shape)


def column_to_torch(column: pa.Array, device: str | None) -> torch.Tensor | list[Any]:
    """Returns a column as a tensor of shape ``[rows, ...]``, or as a list.

    As :func:`column_to_numpy`; on the CPU the tensor shares the column's memory.
    """
    import torch

    fixed = _fixed_width(column)
    if fixed is None:
        return column.to_pylist()
    values, shape = fixed
    if len(values) == 0 or pa.types.is_boolean(values.type):
        tensor = torch.tensor(values.to_numpy(zero_copy_only=False))
    else:
        # Through DLPack, because torch warns of memory that NumPy marks read-only.
        tensor = torch.from_dlpack(values)
    tensor = tensor.reshape(shape)
    return tensor if device is None else tensor.to(device)


def rows_from_numpy(array: np.ndarray) -> pa.Array:
    """Returns an array of shape ``[rows, width]`` as a column of fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(array).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _fixed_width(column: pa.Array) -> tuple[pa.Array, tuple[int, ...]] | None:
    """Returns a column's values end to end and their shape, None where they vary."""
    shape: list[int] = [len(column)]
    values = column
    if isinstance(values, pa.FixedShapeTensorArray):
        shape += values.type.shape
        order = values.type.permutation
        if order is not None and list(order) != list(range(len(order))):
            return None
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    is_tensor = len(shape) > 1
    while pa.types.is_fixed_size_list(values.type):
        if values.null_count:
            return None
        if not is_tensor:
            shape.append(values.type.list_size)
        # Not flatten(), which runs a kernel: without nulls it is but this slice.
        width = values.type.list_size
        values = values.values[values.offset * width :][: len(values) * width]
    kind = values.type
    is_number = (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
    )
    if values.null_count or not is_number:
        return None
    return values, tuple(shape)
