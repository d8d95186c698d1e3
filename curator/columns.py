"""Arrow columns as NumPy arrays or torch tensors, without copying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from curator.errors import PoolError

if TYPE_CHECKING:
    import torch

__all__ = ["column_to_numpy", "column_to_torch", "nulls_as_nan", "rows_from_numpy"]


def column_to_numpy(column: pa.Array) -> np.ndarray | list[Any]:
    """Returns a column as an array of shape ``[rows, ...]``, or as a list.

    Numbers, fixed-size lists of numbers and fixed-shape tensors come back as arrays
    that share the column's memory, read-only; booleans as an array that does not; all
    else (strings, binary, lists of varying length, anything with nulls) as a list.

    Raises:
        PoolError: The order of its tensors' axes is not certain, or Python has no such
            value: times of nanoseconds.
    """
    fixed = _without_nulls(column)
    if fixed is None:
        return _to_list(column)
    values, shape = fixed
    is_bits = pa.types.is_boolean(values.type)
    array = values.to_numpy(zero_copy_only=not is_bits).reshape(shape)
    return array.transpose(_axes(column, array.ndim))


def column_to_torch(column: pa.Array, device: str | None) -> torch.Tensor | list[Any]:
    """Returns a column as a tensor of shape ``[rows, ...]``, or as a list.

    As :func:`column_to_numpy`; on the CPU the tensor shares the column's memory.
    """
    import torch

    fixed = _without_nulls(column)
    if fixed is None:
        return _to_list(column)
    values, shape = fixed
    if len(values) == 0 or pa.types.is_boolean(values.type):
        tensor = torch.tensor(values.to_numpy(zero_copy_only=False))
    else:
        # Through DLPack, because torch warns of memory that NumPy marks read-only.
        tensor = torch.from_dlpack(values)
    tensor = tensor.reshape(shape)
    tensor = tensor.permute(_axes(column, tensor.ndim))
    return tensor if device is None else tensor.to(device)


def nulls_as_nan(column: pa.Array) -> np.ndarray | None:
    """Returns floating-point numbers of which some are null, with NaN for these.

    So that a column is of the same type whether or not its rows have nulls.

    Returns:
        An array of shape ``[rows, ...]``; None for a column that has no nulls, or holds
        something else than numbers.

    Raises:
        PoolError: It holds integers or booleans, of which none stands for a null.
    """
    if (fixed := _fixed_width(column)) is None:
        return None
    values, shape, is_valid = fixed
    if is_valid is None and not values.null_count:
        return None
    if not pa.types.is_floating(values.type):
        msg = (
            f"it has nulls, and no {values.type} stands for one: fill them in the "
            "pool, leave the column out (columns), or read batch.rows"
        )
        raise PoolError(msg)
    filled = np.array(values.to_numpy(zero_copy_only=False))
    if is_valid is not None:
        filled[~is_valid] = np.nan
    filled = filled.reshape(shape)
    return filled.transpose(_axes(column, filled.ndim))


def rows_from_numpy(array: np.ndarray) -> pa.Array:
    """Returns an array of shape ``[rows, width]`` as a column of fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(array).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _fixed_width(
    column: pa.Array,
) -> tuple[pa.Array, tuple[int, ...], Bool[np.ndarray, " n"] | None] | None:
    """Returns a column's numbers end to end, their shape, and which are in valid rows.

    None in the place of the last where all rows are valid, and instead of all where it
    holds no numbers, or the shape varies. A valid row's numbers may still be null.
    """
    shape: list[int] = [len(column)]
    values, is_valid = column, None
    if isinstance(values, pa.FixedShapeTensorArray):
        shape += values.type.shape
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    is_tensor = len(shape) > 1
    while pa.types.is_fixed_size_list(values.type):
        width = values.type.list_size
        if values.null_count:
            these = values.is_valid().to_numpy(zero_copy_only=False)
            is_valid = these if is_valid is None else these & is_valid
        if is_valid is not None:
            is_valid = np.repeat(is_valid, width)
        if not is_tensor:
            shape.append(width)
        # Not flatten(), which runs a kernel: this is but a slice, as rows are whole.
        values = values.values[values.offset * width :][: len(values) * width]
    kind = values.type
    is_number = (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
    )
    return (values, tuple(shape), is_valid) if is_number else None


def _to_list(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except ValueError as error:  # without pandas, which has types for these
        msg = (
            f"Python has no value for all of its {column.type}: cast it to "
            "microseconds in the pool, or read batch.rows"
        )
        raise PoolError(msg) from error


def _axes(column: pa.Array, num_axes: int) -> list[int]:
    """Returns the order of a column's axes, of which tensors may be stored in another.

    Raises:
        PoolError: It can be read in two ways: pyarrow writes the inverse of what
            Arrow's specification says, and reads neither (up to version 26 at least).
    """
    order = None
    if isinstance(column, pa.FixedShapeTensorArray):
        order = column.type.permutation
    if order is None:
        return list(range(num_axes))
    if [order[axis] for axis in order] != list(range(len(order))):
        msg = (
            f"its tensors have the permutation {list(order)}, which pyarrow writes in "
            "another way than Arrow defines it: write them without one, as of "
            "numpy.ascontiguousarray"
        )
        raise PoolError(msg)
    return [0, *(1 + axis for axis in order)]


def _without_nulls(column: pa.Array) -> tuple[pa.Array, tuple[int, ...]] | None:
    """Returns a column's numbers and their shape; None where it has nulls or none."""
    fixed = _fixed_width(column)
    if fixed is None or fixed[2] is not None or fixed[0].null_count:
        return None
    return fixed[:2]
