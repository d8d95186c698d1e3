"""The rows of a subset, as a pool of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curator.config import PoolSpec
from curator.errors import ConfigError
from curator.offline._rows import FOLDERS, FORMATS, RowFormat, Rows
from curator.offline._subset import Subset
from curator.pools import Pool

__all__ = ["row_format", "write_rows"]

# A row group of Parquet is decoded whole: enough for a scan, little for one row.
_MAX_BYTES, _MAX_ROWS = 1 << 25, 8192
_FIRST_ROWS = 64


def row_format(path: Path, pool: Pool, spec: PoolSpec) -> RowFormat:
    """Returns the format that rows are to be written in, and checks that they can be.

    Args:
        path: Its name says the format; without an ending it is that of the pool, if
            that is a folder.
        pool: Whose rows.
        spec: What it was opened with.

    Raises:
        ConfigError: The name does not say in which format, the pool has no data, or
            the format cannot keep one of its columns.
        MissingDependencyError: The format's package is not installed.
        PoolError: The pool cannot be read.
    """
    format = _format_of(path, spec)
    if not pool.schema.names:
        msg = "rows: the pool is virtual, it has ids and no data; leave this out"
        raise ConfigError(msg)
    for field in pool.schema:
        problem = format.problem(field)
        if problem is not None:
            msg = (
                f"rows: column {field.name!r} {problem}. What keeps all columns of "
                f"this pool: {', '.join(_that_keep(pool.schema, spec))}"
            )
            raise ConfigError(msg)
    return format


def write_rows(path: Path, format: RowFormat, pool: Pool, subset: Subset) -> None:
    """Writes the rows of a subset in the order of their ids, whole or not at all.

    All columns of the pool: what reads the pool reads the subset. A block is in memory
    at a time.

    Raises:
        ConfigError: The format cannot keep one of the values.
        PoolError: The pool cannot be read.
        StorageError: The disk is full or fails.
    """
    text = json.dumps(subset.metadata, sort_keys=True)
    schema = pool.schema.with_metadata({Subset.KEY: text})
    format.write(path, Rows(schema, _blocks(pool, subset)))


def _format_of(path: Path, spec: PoolSpec) -> RowFormat:
    for format in FORMATS:
        if path.name.endswith(format.suffixes):
            return format
    if spec.path is not None and spec.format in FOLDERS and not path.suffix:
        return FOLDERS[spec.format](spec.path)
    suffixes = [suffix for format in FORMATS for suffix in format.suffixes]
    msg = (
        f"rows: a name that ends in {', '.join(suffixes)} says the format"
        f"{_own_folder(spec)}; got {str(path)!r}"
    )
    raise ConfigError(msg)


def _own_folder(spec: PoolSpec) -> str:
    if spec.format not in FOLDERS:
        return ""
    return f", and one without an ending that of the pool ({spec.format})"


def _that_keep(schema: pa.Schema, spec: PoolSpec) -> list[str]:
    """Returns the endings of the formats that keep all columns."""
    own = [f"no ending ({spec.format})"] if spec.format in FOLDERS else []
    return own + [
        format.suffixes[0]
        for format in FORMATS
        # Lance may not be installed.
        if format.name != "lance" and not any(map(format.problem, schema))
    ]


def _blocks(
    pool: Pool, subset: Subset
) -> Iterator[tuple[Int64[np.ndarray, " n"], pa.RecordBatch]]:
    """Yields ids and rows, as many at a time as the first ones let fit."""
    start, size = 0, _FIRST_ROWS
    while start < len(subset.ids):
        ids = subset.ids[start : start + size]
        block = pool.take(ids)
        yield ids, block
        start += len(block)
        if size == _FIRST_ROWS:
            fit = _MAX_BYTES * len(block) // max(block.nbytes, 1)
            size = min(max(fit, 1), _MAX_ROWS)
