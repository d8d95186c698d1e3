"""A column against a number or a text of a condition, in the type of the column.

As in NumPy, what is written has no type of its own: ``loss == 0.1`` is true of the
float32 that is closest to a tenth. Integers are the exception, since nothing is closest
to ``length < 2.5``: they are compared exactly.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["compare", "compare_literal", "is_among", "plain"]

_pc: Any = pc  # the module has no types
Literal: TypeAlias = str | bool | int | float
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: _pc.equal,
    ast.NotEq: _pc.not_equal,
    ast.Lt: _pc.less,
    ast.LtE: _pc.less_equal,
    ast.Gt: _pc.greater,
    ast.GtE: _pc.greater_equal,
}
_FLIPPED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_BELOW_ALL = (ast.Gt, ast.GtE, ast.NotEq)  # true of every number that is greater
_ABOVE_ALL = (ast.Lt, ast.LtE, ast.NotEq)


def plain(column: pa.Array) -> pa.Array:
    """Returns a column as Arrow compares it; numbers that are not finite are null."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_binary_view(kind):
        return column.cast(pa.large_binary())
    if pa.types.is_floating(kind):
        # Arrow has hardly a function for halves; a float holds each of them.
        wide = column.cast(pa.float32()) if pa.types.is_float16(kind) else column
        return _pc.if_else(_pc.is_finite(wide), wide, None)
    return column


def compare(op: type[ast.cmpop], left: Any, right: Any) -> Any:
    """Compares what Arrow can compare.

    Raises:
        pa.ArrowException: It cannot.
    """
    return _COMPARISONS[op](left, right)


def compare_literal(
    op: type[ast.cmpop],
    column: pa.Array,
    kind: pa.DataType,
    value: Literal,
    *,
    is_left: bool = False,
) -> Any:
    """Compares a column with what is written.

    Args:
        op: How.
        column: As :func:`plain` returns it.
        kind: Its type before that.
        value: What is written.
        is_left: Whether that stands to the left.

    Raises:
        pa.ArrowException: They are not of a kind.
    """
    if is_left:
        op = _FLIPPED.get(op, op)
    if isinstance(value, str | bool):
        return compare(op, column, _scalar(value, kind))
    if pa.types.is_integer(kind):
        exact = _exact(op, value, *_range(kind))
        if isinstance(exact, bool):
            return _pc.if_else(_pc.is_valid(column), exact, None)
        op, value = exact
        return compare(op, column, pa.scalar(value, kind))
    if pa.types.is_decimal(kind):
        try:
            return compare(op, column, pa.scalar(Decimal(repr(value))))
        except pa.ArrowInvalid:  # more digits than Arrow has
            return compare(op, column.cast(pa.float64()), pa.scalar(float(value)))
    return compare(op, column, _scalar(value, kind))


def is_among(column: pa.Array, kind: pa.DataType, values: Sequence[Literal]) -> Any:
    """Returns where a column equals any of some literals; null where it is null.

    Raises:
        pa.ArrowException: They are not of a kind.
    """
    for value in {type(value): value for value in values}.values():
        compare_literal(ast.Eq, column.slice(0, 0), kind, value)  # of a kind?
    # By a hash, since a list of ids or of names can be long.
    if pa.types.is_integer(kind):
        limits = _range(kind)
        exact = [_exact(ast.Eq, cast("int | float", each), *limits) for each in values]
        wanted = [each[1] for each in exact if not isinstance(each, bool)]
        found = _pc.is_in(column, value_set=pa.array(wanted, kind))
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        found = _pc.is_in(column, value_set=pa.array(values, column.type))
    else:
        found = False
        for value in values:
            found = _pc.or_(found, compare_literal(ast.Eq, column, kind, value))
    return _pc.if_else(_pc.is_valid(column), found, None)


def _scalar(value: Literal, kind: pa.DataType) -> Any:
    """Returns what is written in the type of a column, where it is of that kind."""
    is_number = not isinstance(value, str | bool)
    if pa.types.is_floating(kind) and is_number:
        with np.errstate(over="ignore"):  # larger than all: infinity
            near = np.float64(value).astype(kind.to_pandas_dtype())
        return pa.scalar(
            float(near), pa.float64() if kind == pa.float64() else pa.float32()
        )
    if pa.types.is_temporal(kind) and isinstance(value, str):
        return _time(value, kind)
    return pa.scalar(value)


def _time(text: str, kind: pa.DataType) -> Any:
    """Returns a text as a time; without a zone of its own it is of UTC."""
    written = pa.scalar(text)
    try:
        return written.cast(kind)
    except pa.ArrowInvalid:
        if not (pa.types.is_timestamp(kind) and kind.tz):
            raise
        return written.cast(pa.timestamp(kind.unit)).cast(kind)


def _range(kind: pa.DataType) -> tuple[int, int]:
    info = np.iinfo(kind.to_pandas_dtype())
    return int(info.min), int(info.max)


def _exact(
    op: type[ast.cmpop],
    value: int | float,
    low: int,
    high: int,
) -> tuple[type[ast.cmpop], int] | bool:
    """Returns a comparison of integers in this range, or what it always is."""
    if low <= value <= high and value != math.floor(value):
        if op in (ast.Eq, ast.NotEq):
            return op is ast.NotEq
        return ast.LtE if op in (ast.Lt, ast.LtE) else ast.Gt, math.floor(value)
    if value > high:
        return op in _ABOVE_ALL
    if value < low:
        return op in _BELOW_ALL
    return op, int(value)
