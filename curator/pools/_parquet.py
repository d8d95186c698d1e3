"""A pool of Parquet files, decoded by row group."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64, Integer

from curator.errors import PoolError
from curator.pools._byte_cache import ByteCache
from curator.pools._changes import check_unchanged
from curator.pools._files import PoolFile, common_schema, find_files, unreadable
from curator.pools._fingerprint import Once, files_fingerprint
from curator.pools._request import check_columns, check_ids, empty_columns, still_open
from curator.pools._take import (
    Column,
    locate,
    starts_of,
    take_column,
)

__all__ = ["DEFAULT_CACHE_BYTES", "ParquetPool"]

DEFAULT_CACHE_BYTES = 1 << 30
"""How much decoded data a pool keeps unless told otherwise: 1 GiB."""


class ParquetPool:
    """The rows of Parquet files, in the order of the files' names.

    To read one row its row group is decoded, of the columns asked for; what was used
    last is kept. Random access over more than fits the cache decodes a row group per
    row: such a pool is better converted to Arrow, see ``docs/pools.md``.

    Args:
        path: A file, a folder (its ``.parquet`` and ``.pq`` files) or a glob.
        cache_bytes: How much decoded data is kept. A thread that reads what does not
            fit may hold as much again, and at least one row group.
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
        files = find_files(path, "parquet")
        footers = [_read_footer(file) for file in files]
        self._schema = common_schema(files, [schema for schema, _ in footers])
        self._groups = [group for _, groups in footers for group in groups]
        self._starts = starts_of([group.num_rows for group in self._groups])
        if not self.num_examples:
            msg = f"{path}: a pool has at least one example; the files have no rows"
            raise PoolError(msg)
        self._cache_bytes = cache_bytes
        self._cache: ByteCache[tuple[int, str], _Decoded] | None = ByteCache(
            cache_bytes
        )
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

    def spans(
        self, ids: Integer[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> None:
        """Returns None: the rows lie nowhere."""

    def close(self) -> None:
        """Drops what was decoded."""
        self._cache = None

    def _gather(
        self,
        cache: ByteCache[tuple[int, str], _Decoded],
        ids: Int64[np.ndarray, " n"],
        names: list[str],
    ) -> list[pa.Array]:
        """Returns columns; in one copy where what they come from fits in the cache."""
        types = [self._schema.field(name).type for name in names]
        group_of, row_of = locate(self._starts, ids)
        part_of, row_in_part = np.empty_like(ids), np.empty_like(ids)
        parts = [list[pa.Array]() for _ in names]
        wanted: list[int] = np.unique(group_of).tolist()
        for groups, chunks in self._decoded(cache, wanted, names):
            here = np.flatnonzero((group_of >= groups[0]) & (group_of <= groups[-1]))
            starts = starts_of([self._groups[group].num_rows for group in groups])
            rows = starts[np.searchsorted(groups, group_of[here])] + row_of[here]
            part_of[here] = len(parts[0])
            row_in_part[here] = np.arange(len(here))
            for part, name, dtype, column in zip(
                parts, names, types, chunks, strict=True
            ):
                at = locate(starts_of([len(chunk) for chunk in column]), rows)
                part.append(take_column(name, Column(column, dtype), *at))
        if not wanted:
            return [pa.nulls(0, dtype) for dtype in types]
        if len(parts[0]) == 1:
            return [part[0] for part in parts]
        return [
            take_column(name, Column(part, dtype), part_of, row_in_part)
            for name, dtype, part in zip(names, types, parts, strict=True)
        ]

    def _decoded(
        self,
        cache: ByteCache[tuple[int, str], _Decoded],
        wanted: list[int],
        names: list[str],
    ) -> Generator[tuple[list[int], list[list[pa.Array]]]]:
        """Yields row groups and the chunks of their columns, as many as are held."""
        groups: list[int] = []
        chunks = [list[pa.Array]() for _ in names]
        num_bytes = 0
        for group in wanted:
            decoded = cache.get([(group, name) for name in names], self._decode)
            groups.append(group)
            for column, entry in zip(chunks, decoded, strict=True):
                column.extend(entry.chunks)
                num_bytes += entry.num_bytes
            if num_bytes > self._cache_bytes or group == wanted[-1]:
                yield groups, chunks
                groups, chunks, num_bytes = [], [list[pa.Array]() for _ in names], 0

    def _decode(self, keys: Sequence[tuple[int, str]]) -> list[tuple[_Decoded, int]]:
        """Returns columns of one row group, and how many bytes each holds."""
        group = self._groups[keys[0][0]]
        names = [name for _, name in keys]
        try:
            # A reader of its own per call: readers are not made to be shared by
            # threads, and ten thousand files need not be open. The footer is known.
            with (
                group.file.open_random() as source,
                pq.ParquetFile(source, metadata=group.metadata) as reader,
            ):
                table = reader.read_row_group(group.index, columns=names)
        except (pa.ArrowException, OSError) as exc:
            with contextlib.suppress(OSError):
                check_unchanged(group.file)
            raise unreadable(group.file, "the Parquet file it was", exc) from exc
        # Afterwards: what changed meanwhile may have been read.
        with contextlib.suppress(OSError):  # removed, but read before
            check_unchanged(group.file)
        columns = [table.column(name) for name in names]
        sizes = [column.get_total_buffer_size() for column in columns]
        return [
            (_Decoded(column.chunks, size), size)
            for column, size in zip(columns, sizes, strict=True)
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class _Decoded:
    """One column of one row group."""

    chunks: list[pa.Array]
    num_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class _RowGroup:
    """Where some of the rows lie: a row group of a file, and that file's footer."""

    file: PoolFile
    metadata: pq.FileMetaData
    index: int
    num_rows: int


def _read_footer(file: PoolFile) -> tuple[pa.Schema, list[_RowGroup]]:
    try:
        with file.open_random() as source, pq.ParquetFile(source) as reader:
            metadata = reader.metadata
            groups = [
                _RowGroup(file, metadata, i, metadata.row_group(i).num_rows)
                for i in range(metadata.num_row_groups)
            ]
            return reader.schema_arrow, groups
    except (pa.ArrowException, OSError) as exc:
        raise unreadable(file, "a Parquet file", exc) from exc
