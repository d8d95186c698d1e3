"""The rows of a subset, as a pool of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curator.errors import ConfigError
from curator.offline._files import replacing
from curator.offline._subset import Subset
from curator.pools import Pool

__all__ = ["check_rows_path", "write_rows"]

_PARQUET = (".parquet", ".pq")
_ARROW = (".arrow", ".ipc", ".feather")
# A row group of Parquet is decoded whole: enough for a scan, little for one row.
_MAX_BYTES, _MAX_ROWS = 1 << 25, 8192
_FIRST_ROWS = 64


def check_rows_path(path: Path, pool: Pool) -> None:
    """Checks that rows can be written.

    Raises:
        ConfigError: The name does not say in which format, or the pool has no data.
    """
    if path.suffix not in (*_PARQUET, *_ARROW):
        msg = (
            f"rows: a name that ends in {', '.join((*_PARQUET, *_ARROW))} says the "
            f"format; got {str(path)!r}"
        )
        raise ConfigError(msg)
    if not pool.schema.names:
        msg = "rows: the pool is virtual, it has ids and no data; leave this out"
        raise ConfigError(msg)


def write_rows(path: Path, pool: Pool, subset: Subset) -> None:
    """Writes the rows of a subset in the order of their ids, whole or not at all.

    All columns of the pool and no others, in Parquet or in Arrow's IPC format by the
    file's name: what reads the pool reads the subset. A block is in memory at a time.

    Raises:
        PoolError: The pool cannot be read.
        StorageError: The disk is full or fails.
    """
    text = json.dumps(subset.metadata, sort_keys=True)
    schema = pool.schema.with_metadata({Subset.KEY: text})
    with replacing(path) as file:
        if path.suffix in _PARQUET:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                for block in _blocks(pool, subset):
                    table = pa.Table.from_batches([block])
                    writer.write_table(table.replace_schema_metadata(schema.metadata))
        else:
            with pa.ipc.new_file(file, schema) as writer:
                for block in _blocks(pool, subset):
                    writer.write_batch(block)


def _blocks(pool: Pool, subset: Subset) -> Iterator[pa.RecordBatch]:
    """Yields rows, as many at a time as the first ones let fit."""
    start, size = 0, _FIRST_ROWS
    while start < len(subset.ids):
        block = pool.take(subset.ids[start : start + size])
        yield block
        start += len(block)
        if size == _FIRST_ROWS:
            fit = _MAX_BYTES * len(block) // max(block.nbytes, 1)
            size = min(max(fit, 1), _MAX_ROWS)
