"""How a subset differs from the whole in the columns of the pool."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64

from curator.config import did_you_mean
from curator.errors import ConfigError
from curator.offline._difference import (
    CategoryDifference,
    NumberDifference,
    compare_counts,
    compare_numbers,
)

__all__ = ["comparable", "compare_columns"]

# A label has no more values; what has more is a text, or a number.
_MAX_LABELS = 1000


def compare_columns(
    blocks: Iterable[pa.RecordBatch],
    is_chosen: Bool[np.ndarray, " N"],
    columns: Sequence[str],
) -> tuple[list[NumberDifference], list[CategoryDifference]]:
    """Returns how a subset differs in columns of the pool, which are read once.

    Integers, booleans and strings are labels while they have at most 1000 values. Other
    numbers are compared as such; of other strings, of lists and of bytes, the length is
    (``len(text)``).

    Args:
        blocks: The columns of all examples, in the order of ``is_chosen``.
        is_chosen: Which of them are the subset.
        columns: Names of columns that :func:`comparable` allows.
    """
    found = {name: _Column(name, len(is_chosen)) for name in columns}
    start = 0
    for block in blocks:
        stop = start + len(block)
        for name, column in found.items():
            column.add(start, block.column(name), is_chosen[start:stop])
        start = stop
    compared = [column.compare(is_chosen) for column in found.values()]
    return (
        [each for each in compared if isinstance(each, NumberDifference)],
        [each for each in compared if isinstance(each, CategoryDifference)],
    )


def comparable(schema: pa.Schema, columns: Sequence[str] | None = None) -> list[str]:
    """Returns the columns that can be compared, or checks that some can.

    Args:
        schema: Of the pool, or of what was copied from it.
        columns: By default all but bytes (pictures), and those without a length.

    Raises:
        ConfigError: There is no such column, or nothing to compare it by.
    """
    if columns is None:
        return [field.name for field in schema if _is_compared(field.type)]
    for name in columns:
        if name not in schema.names:
            msg = f"compare: no column {name!r}{did_you_mean(name, schema.names)}"
            raise ConfigError(msg)
        kind = schema.field(name).type
        if not (_is_compared(kind) or _is_bytes(kind)):
            msg = (
                f"compare: {name!r} is {kind}, which has neither values to count nor a "
                "length"
            )
            raise ConfigError(msg)
    return list(dict.fromkeys(columns))


class _Column:
    """A column on its way through the pool."""

    def __init__(self, name: str, num_examples: int) -> None:
        self._name = name
        self._num_examples = num_examples
        self._is_length = False
        # None once there are too many values for a label.
        self._counts: list[collections.Counter[object]] | None = None
        self._values: Float64[np.ndarray, " N"] | None = None

    def add(
        self, start: int, values: pa.Array, is_chosen: Bool[np.ndarray, " n"]
    ) -> None:
        """Takes the values of the next examples."""
        if start == 0:
            self._begin(values.type)
        if self._counts is not None:
            self._count(values, is_chosen)
        if self._values is not None:
            numbers = _lengths(values) if self._is_length else values
            numbers = numbers.cast(pa.float64(), safe=False)
            stop = start + len(values)
            self._values[start:stop] = numbers.to_numpy(zero_copy_only=False)

    def compare(
        self, is_chosen: Bool[np.ndarray, " N"]
    ) -> NumberDifference | CategoryDifference:
        """Returns the difference."""
        if self._counts is not None:
            return compare_counts(self._name, *self._counts)
        assert self._values is not None  # only booleans have none, and few values
        name = f"len({self._name})" if self._is_length else self._name
        return compare_numbers(name, self._values, is_chosen)

    def _begin(self, kind: pa.DataType) -> None:
        if _is_label(kind):
            self._counts = [collections.Counter(), collections.Counter()]
        self._is_length = not _is_number(kind)
        if not pa.types.is_boolean(kind):
            self._values = np.empty(self._num_examples)

    def _count(self, values: pa.Array, is_chosen: Bool[np.ndarray, " n"]) -> None:
        assert self._counts is not None
        for counts, part in zip(
            self._counts, (values, values.filter(pa.array(is_chosen))), strict=True
        ):
            found = pc.value_counts(part)
            counts.update(
                dict(
                    zip(
                        found.field("values").to_pylist(),
                        found.field("counts").to_pylist(),
                        strict=True,
                    )
                )
            )
        if len(self._counts[0]) > _MAX_LABELS:
            self._counts = None


def _is_compared(kind: pa.DataType) -> bool:
    return _is_number(kind) or _is_label(kind) or _is_list(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_label(kind: pa.DataType) -> bool:
    return (
        pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _lengths(values: pa.Array) -> pa.Array:
    if _is_list(values.type):
        return pc.list_value_length(values)
    if _is_bytes(values.type):
        return pc.binary_length(values)
    return pc.utf8_length(values)
