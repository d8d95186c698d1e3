"""Checks of what :meth:`Pool.take` is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curator.errors import PoolError

__all__ = ["check_columns", "check_ids", "empty_columns", "still_open"]

T = TypeVar("T")

_NUM_SHOWN = 3


def check_ids(ids: np.ndarray, num_examples: int) -> Int64[np.ndarray, " n"]:
    """Returns ``ids`` as int64.

    Raises:
        PoolError: They are not integers, not in one dimension, or not in the pool; the
            message names the first bad ones.
    """
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        msg = (
            "ids must be a one-dimensional array of integers; got shape "
            f"{ids.shape} of {ids.dtype}"
        )
        raise PoolError(msg)
    checked = ids.astype(np.int64, copy=False)
    # As unsigned numbers those below 0 are the largest of all.
    if ids.size and checked.view(np.uint64).max() >= num_examples:
        bad = ids[(ids < 0) | (ids >= num_examples)]
        shown = ", ".join(str(int(i)) for i in bad[:_NUM_SHOWN])
        more = f" and {bad.size - _NUM_SHOWN} more" if bad.size > _NUM_SHOWN else ""
        msg = (
            f"not in the pool: id {shown}{more}; the pool has {num_examples} examples, "
            f"ids 0 to {num_examples - 1}"
        )
        raise PoolError(msg)
    return checked


def check_columns(columns: Sequence[str] | None, schema: pa.Schema) -> list[str]:
    """Returns the names asked for, all of them for None.

    Raises:
        PoolError: A column is not in the pool (the message says which there are) or
            named twice.
    """
    known: list[str] = schema.names
    if columns is None:
        return known
    for name in columns:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            msg = f"no column {name!r}{hint}; the pool has {', '.join(known) or 'none'}"
            raise PoolError(msg)
    if len(set(columns)) != len(columns):
        msg = f"each column can be asked for once; got {', '.join(columns)}"
        raise PoolError(msg)
    return list(columns)


def empty_columns(num_rows: int) -> pa.RecordBatch:
    """Returns a record batch of ``num_rows`` rows and no columns."""
    # A record batch made from no arrays has no rows either; an empty struct has.
    rows = pa.StructArray.from_buffers(pa.struct([]), num_rows, [None])
    return pa.RecordBatch.from_struct_array(rows)


def still_open(contents: T | None) -> T:
    """Returns the contents of a pool, which are None once it is closed.

    Raises:
        PoolError: The pool is closed.
    """
    if contents is None:
        msg = "the pool is closed; open it again"
        raise PoolError(msg)
    return contents
