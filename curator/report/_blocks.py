"""Scores in blocks: what a report reads several times and never holds.

Shapes: ``n`` examples of a block, ``N`` of all, ``D`` numbers of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from curator.offline import Scores

__all__ = ["Block", "blocks", "rows_of"]

_ROWS_OF_LISTS = 4096


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive rows.

    Attributes:
        start: How many rows come before.
        ids: Example ids.
        numbers: Numbers by name; NaN for a null.
    """

    start: int
    ids: Int64[np.ndarray, " n"]
    numbers: Mapping[str, Float32[np.ndarray, " n"]]


def blocks(scores: Scores, names: list[str]) -> Iterator[Block]:
    """Yields some of the outputs that are one number for each example.

    Raises:
        CuratorError: A file cannot be read.
    """
    start = 0
    for batch in scores.blocks(["example_id", *names]):
        numbers = {name: _floats(batch.column(name)) for name in names}
        ids = batch.column("example_id").to_numpy(zero_copy_only=False)
        yield Block(start, ids.astype(np.int64), numbers)
        start += len(ids)


def rows_of(
    scores: Scores, names: list[str]
) -> Iterator[tuple[Int64[np.ndarray, " n"], list[Float32[np.ndarray, "n D"]]]]:
    """Yields ids and outputs that are a row for each example.

    Raises:
        CuratorError: A file cannot be read.
    """
    for batch in scores.blocks(["example_id", *names], _ROWS_OF_LISTS):
        ids = batch.column("example_id").to_numpy(zero_copy_only=False)
        found: list[np.ndarray] = []
        for name in names:
            column = batch.column(name)
            width = column.type.list_size
            rows = np.full((len(column), width), np.nan, np.float32)
            present = column.is_valid().to_numpy(zero_copy_only=False)
            flat = _floats(column.drop_null().flatten())
            rows[present] = flat.reshape(-1, width)
            found.append(rows)
        yield ids.astype(np.int64), found


def _floats(column: pa.Array) -> Float32[np.ndarray, " n"]:
    values = column.to_numpy(zero_copy_only=False)  # a null becomes NaN
    with np.errstate(over="ignore"):  # infinite, which is counted
        return values.astype(np.float32)
