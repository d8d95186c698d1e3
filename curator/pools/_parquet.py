"""A pool of Parquet files, decoded by row group."""

# pyarrow ships no types: what comes out of it is Unknown to pyright.
# pyright: basic

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64, Integer

from curator.errors import PoolError
from curator.pools._byte_cache import ByteCache
from curator.pools._files import check_same_schema, find_files, unreadable
from curator.pools._fingerprint import Once, files_fingerprint
from curator.pools._request import check_columns, check_ids, empty_columns, still_open
from curator.pools._take import (
    Column,
    group_rows,
    locate,
    plain_schema,
    starts_of,
    take_column,
)

__all__ = ["DEFAULT_CACHE_BYTES", "ParquetPool"]

_SUFFIXES = (".parquet", ".pq")

DEFAULT_CACHE_BYTES = 1 << 30
"""How much decoded data a pool keeps unless told otherwise: 1 GiB."""


class ParquetPool:
    """The rows of Parquet files, in the order of the files' names.

    To read one row its row group is decoded, of the columns asked for; what was used
    last is kept. Random access over more than fits the cache decodes a row group per
    row: such a pool is better converted to Arrow, see ``docs/pools.md``.

    Args:
        path: A file, a folder (its ``.parquet`` and ``.pq`` files) or a glob.
        cache_bytes: How much decoded data is kept. Besides it each thread holds the
            row group that it is reading.
        fingerprint_cache: Where the files' digests are kept, to hash them once only.

    Raises:
        PoolError: There is no such file, one cannot be read, or their schemas differ.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        fingerprint_cache: Path | None = None,
    ) -> None:
        files = find_files(path, _SUFFIXES)
        groups: list[_RowGroup] = []
        first: pa.Schema | None = None
        for file in files:
            raw_schema, of_file = _read_footer(file)
            schema = plain_schema(raw_schema)
            first = schema if first is None else first
            check_same_schema(files[0], first, file, schema)
            groups.extend(of_file)
        self._groups = groups
        self._starts = starts_of([group.num_rows for group in groups])
        if not self.num_examples:
            msg = f"{path}: a pool has at least one example; the files have no rows"
            raise PoolError(msg)
        self._schema = first
        self._cache: ByteCache[tuple[int, str], Column] | None = ByteCache(cache_bytes)
        self._fingerprint = Once(lambda: files_fingerprint(files, fingerprint_cache))

    @property
    def num_examples(self) -> int:
        """How many rows the files have together."""
        return int(self._starts[-1])

    @property
    def schema(self) -> pa.Schema:
        """The columns; of a dictionary column the type of its values."""
        return self._schema

    @property
    def fingerprint(self) -> str:
        """Digest of the files' bytes, computed when first asked for."""
        return self._fingerprint.get()

    def take(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """Returns rows by id, see :meth:`Pool.take`."""
        cache = still_open(self._cache)
        ids = check_ids(ids, self.num_examples)
        names = check_columns(columns, self._schema)
        if not names:
            return empty_columns(len(ids))
        fields = [self._schema.field(name) for name in names]
        arrays = self._gather(cache, ids, names)
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def close(self) -> None:
        """Drops what was decoded."""
        self._cache = None

    def _gather(
        self,
        cache: ByteCache[tuple[int, str], Column],
        ids: Int64[np.ndarray, " n"],
        names: list[str],
    ) -> list[pa.Array]:
        """Takes from one row group after the other, so that one is held at a time."""
        group_of, row_of = locate(self._starts, ids)
        order, touched, starts = group_rows(group_of)
        parts: list[list[pa.Array]] = [[] for _ in names]
        for group, start, stop in zip(
            touched, starts, [*starts[1:], len(ids)], strict=True
        ):
            rows = row_of[order[start:stop]]
            keys = [(group, name) for name in names]
            for name, column, part in zip(
                names, cache.get(keys, self._decode), parts, strict=True
            ):
                part.append(take_column(name, column, *column.locate(rows)))
        part_of = np.empty(len(ids), np.int64)
        ...
