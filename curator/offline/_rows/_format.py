"""What a format that rows are written in has to say and do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curator.errors import ConfigError

__all__ = ["RowFormat", "Rows", "is_text", "is_whole", "not_kept"]

_PIECE = 256  # rows that are Python objects at a time


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows to write, block after block.

    Attributes:
        schema: Their columns; its metadata is that of the subset.
        blocks: The rows with the ids of their examples; can be gone through once.
    """

    schema: pa.Schema
    blocks: Iterator[tuple[Int64[np.ndarray, " n"], pa.RecordBatch]]

    def pieces(self) -> Iterator[tuple[list[int], pa.RecordBatch]]:
        """Yields the blocks cut small, for what makes Python objects of them."""
        for ids, block in self.blocks:
            for start in range(0, len(ids), _PIECE):
                yield ids[start : start + _PIECE].tolist(), block.slice(start, _PIECE)


@dataclasses.dataclass(frozen=True, slots=True)
class RowFormat:
    """A format that rows can be written in.

    Attributes:
        name: As a pool of it has it.
        suffixes: How the names of its files end.
        problem: Returns why a column of this name and type cannot be kept, or None.
        write: Writes the rows to a path where nothing is, whole or not at all.
    """

    name: str
    suffixes: tuple[str, ...]
    problem: Callable[[pa.Field], str | None]
    write: Callable[[Path, Rows], None]


def not_kept(column: str, problem: str) -> ConfigError:
    """Returns the error for a value that would be another one when it is read."""
    return ConfigError(f"rows: column {column!r} {problem}: write .parquet or .arrow")


def is_text(dtype: pa.DataType) -> bool:
    """Tells whether all values are strings."""
    types = pa.types
    return (
        types.is_string(dtype)
        or types.is_large_string(dtype)
        or types.is_string_view(dtype)
    )


def is_whole(dtype: pa.DataType) -> bool:
    """Tells whether all values are whole numbers of at most 64 bits with a sign."""
    return pa.types.is_integer(dtype) and not pa.types.is_uint64(dtype)
