"""Domains and labels: which example is of which.

Shapes: ``n`` examples of a block.
"""

from __future__ import annotations

import collections
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from curator.errors import ConfigError
from curator.pools import Pool
from curator.report._words import clean

__all__ = ["MAX_GROUPS", "Groups"]

MAX_GROUPS = 1000
_MAX_SHOWN = 20
_MAX_NAME = 120  # characters


class Groups:
    """The values of a column of the pool, and who has them."""

    def __init__(self, pool: Pool, column: str) -> None:
        """Takes a pool and a column of words or whole numbers."""
        self._pool = pool
        self._codes: dict[object, int] = {}
        self._sizes: collections.Counter[int] = collections.Counter()
        self.column = column

    def count(self, ids: Int64[np.ndarray, " n"]) -> bool:
        """Reads a block for the first time; False once there are too many values.

        Raises:
            PoolError: It cannot be read.
        """
        for entry in pc.value_counts(self._values(ids)):
            value = _key(entry["values"].as_py())
            code = self._codes.setdefault(value, len(self._codes))
            self._sizes[code] += entry["counts"].as_py()
        return len(self._codes) <= MAX_GROUPS

    def codes(self, ids: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the group of each example, as a number below ``len(self)``.

        Raises:
            PoolError: The pool cannot be read.
        """
        column = self._values(ids).dictionary_encode(null_encoding="encode")
        values = column.dictionary.to_pylist()
        table = [self._codes.get(_key(value), -1) for value in values]
        table.append(self._codes.get(None, -1))
        indices = column.indices.fill_null(len(table) - 1)
        return np.array(table, np.int64)[indices.to_numpy(zero_copy_only=False)]

    def _values(self, ids: Int64[np.ndarray, " n"]) -> Any:
        """Returns the values of a block; text as bytes, which need not be UTF-8."""
        column = self._pool.take(ids, [self.column]).column(self.column)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type):
            return column.cast(pa.binary())
        if pa.types.is_large_string(column.type):
            return column.cast(pa.large_binary())
        return column

    def __len__(self) -> int:
        return len(self._codes)

    def largest(self) -> list[tuple[int, str]]:
        """Returns number and name of the largest groups, the largest first."""
        names = {code: _name(value) for value, code in self._codes.items()}
        ranked = sorted(names, key=lambda code: (-self._sizes[code], names[code]))
        return [(code, names[code]) for code in ranked[:_MAX_SHOWN]]

    def check_few(self, *, is_asked_for: bool, is_few: bool) -> bool:
        """Whether examples can be grouped by it.

        Raises:
            ConfigError: They cannot, and the user has asked for it.
        """
        if not is_few and is_asked_for:
            msg = (
                f"--domain: column {self.column!r} has over {MAX_GROUPS} values; "
                "expected one that many examples share"
            )
            raise ConfigError(msg)
        return is_few


def _key(value: object) -> object:
    """Returns what a value is found by: NaN, which equals nothing, counts as null."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _name(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "(null)"
    return clean(str(value), _MAX_NAME) or "(empty)"
