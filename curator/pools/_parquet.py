"""A pool of Parquet files, decoded by row group."""

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
from curator.pools._files import common_schema, find_files, unreadable
from curator.pools._fingerprint import Once, files_fingerprint
from curator.pools._request import check_columns, check_ids, empty_columns, still_open
from curator.pools._take import (
    Column,
    group_rows,
    locate,
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
        footers = [_read_footer(file) for file in files]
        self._schema = common_schema(files, [schema for schema, _ in footers])
        self._groups = [group for _, groups in footers for group in groups]
        self._starts = starts_of([group.num_rows for group in self._groups])
        if not self.num_examples:
            msg = f"{path}: a pool has at least one example; the files have no rows"
            raise PoolError(msg)
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
        types = [self._schema.field(name).type for name in names]
        if not len(ids):
            return [pa.nulls(0, dtype) for dtype in types]
        group_of, row_of = locate(self._starts, ids)
        order, touched, starts = group_rows(group_of)
        stops = [*starts[1:], len(ids)]
        parts: list[list[pa.Array]] = [[] for _ in names]
        for group, start, stop in zip(touched, starts, stops, strict=True):
            keys = [(group, name) for name in names]
            decoded = cache.get(keys, self._decode)
            rows = row_of[order[start:stop]]
            for name, column, part in zip(names, decoded, parts, strict=True):
                part.append(take_column(name, column, *column.locate(rows)))
        if len(touched) == 1:
            return [part[0] for part in parts]
        num_of = np.subtract(stops, starts)
        part_of, row_in_part = np.empty_like(order), np.empty_like(order)
        part_of[order] = np.repeat(np.arange(len(touched)), num_of)
        row_in_part[order] = np.arange(len(ids)) - np.repeat(starts, num_of)
        return [
            take_column(name, Column(part, dtype), part_of, row_in_part)
            for name, dtype, part in zip(names, types, parts, strict=True)
        ]

    def _decode(self, keys: Sequence[tuple[int, str]]) -> list[tuple[Column, int]]:
        """Returns columns of one row group, and how many bytes each holds."""
        group = self._groups[keys[0][0]]
        names = [name for _, name in keys]
        try:
            # A reader of its own per call: readers are not made to be shared by
            # threads, and ten thousand files need not be open. The footer is known.
            with pq.ParquetFile(group.file, metadata=group.metadata) as reader:
                table = reader.read_row_group(group.index, columns=names)
        except (pa.ArrowException, OSError) as exc:
            raise unreadable(group.file, "the Parquet file it was", exc) from exc
        return [
            (
                Column(table.column(name).chunks, self._schema.field(name).type),
                table.column(name).get_total_buffer_size(),
            )
            for name in names
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class _RowGroup:
    """Where some of the rows lie: a row group of a file, and that file's footer."""

    file: Path
    metadata: pq.FileMetaData
    index: int
    num_rows: int


def _read_footer(file: Path) -> tuple[pa.Schema, list[_RowGroup]]:
    try:
        with pq.ParquetFile(file) as reader:
            metadata = reader.metadata
            groups = [
                _RowGroup(file, metadata, i, metadata.row_group(i).num_rows)
                for i in range(metadata.num_row_groups)
            ]
            return reader.schema_arrow, groups
    except (pa.ArrowException, OSError) as exc:
        raise unreadable(file, "a Parquet file", exc) from exc
