"""Gathering rows out of many chunks, with one copy where the layout allows it.

``pyarrow.ChunkedArray.take`` is no help here: it joins all the chunks first, which
copies the pool (and overflows 32-bit offsets at 2 GiB). Three ways instead:

* small rows of one width without nulls: the address of each row is computed, and numpy
  copies the rows, wherever they lie, in one call that holds no lock;
* many small rows of another kind (strings, bits, nulls): ``take`` on each chunk that is
  touched, then one reordering;
* everything else (large rows, lists, structs): slices joined by ``concat_arrays``.

Shapes: ``n`` rows are asked for, of ``C`` chunks; ``S`` is ``C + 1``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt8

from curator.errors import PoolError
from curator.pools._request import check_columns, check_ids, empty_columns
from curator.pools._spans import RowMemory, RowSpans, from_bytes, row_bytes

__all__ = [
    "Chunks",
    "Column",
    "group_rows",
    "locate",
    "plain_schema",
    "starts_of",
    "take_column",
]

# Above this, joining slices is faster: pyarrow's allocator hands warm pages out again,
# and a microsecond per row no longer shows.
_MAX_GATHER_BYTES = 1 << 16
# Below this, gathering rows first costs less than handling them one by one.
_MIN_SPAN_BYTES = 1 << 12
# Where taking chunk by chunk and reordering (three copies, about ten microseconds per
# chunk) is cheaper than slicing (one copy, about one microsecond per row).
_MAX_REORDER_BYTES = 4096
_MIN_ROWS_PER_CHUNK = 8


class Column:
    """One column of a pool, in chunks.

    Attributes:
        type: Of what :meth:`take` returns: the chunks' own, without dictionaries.
    """

    def __init__(self, chunks: Sequence[pa.Array], dtype: pa.DataType) -> None:
        self.type = dtype
        self._chunks = chunks
        width = self._row_bytes = row_bytes(dtype)
        self._width = width if width and width <= _MAX_GATHER_BYTES else None

    def take(
        self, chunk_of: Int64[np.ndarray, " n"], row_of: Int64[np.ndarray, " n"]
    ) -> pa.Array:
        """Returns row ``row_of[i]`` of chunk ``chunk_of[i]``, for each i."""
        if not len(chunk_of):
            return pa.nulls(0, self.type)
        rows = self._gathered(chunk_of, row_of) if self._width else None
        if rows is not None:
            return from_bytes(self.type, len(rows), pa.py_buffer(rows))
        order, touched, starts = group_rows(chunk_of)
        if self._is_worth_reordering(len(chunk_of), touched):
            return self._take_by_chunk(order, touched, starts, row_of)
        return self._take_slices(chunk_of, row_of)

    def spans(
        self, chunk_of: Int64[np.ndarray, " n"], row_of: Int64[np.ndarray, " n"]
    ) -> list[memoryview[int]] | None:
        """Returns the memory of these rows, end to end; None for rows that vary."""
        width = self._row_bytes
        if not width or self._has_dictionaries:
            return None
        if width < _MIN_SPAN_BYTES:
            rows = self._gathered(chunk_of, row_of)
            return None if rows is None else [_view(rows)]
        if self._memory is None:
            return None
        starts = row_of * width
        where = zip(
            map(self._memory.__getitem__, chunk_of.tolist()),
            starts.tolist(),
            (starts + width).tolist(),
            strict=True,
        )
        return [memory[start:stop] for memory, start, stop in where]

    def _gathered(
        self, chunk_of: Int64[np.ndarray, " n"], row_of: Int64[np.ndarray, " n"]
    ) -> UInt8[np.ndarray, "n _"] | None:
        """Returns a copy of rows of one width; None where they cannot be addressed."""
        found = self._row_memory
        return None if found is None else found.take(chunk_of, row_of)

    @functools.cached_property
    def _memory(self) -> list[memoryview[int]] | None:
        """Each chunk's rows of fixed width as bytes; None where there are nulls."""
        memory = [_bytes_of(chunk) for chunk in self._chunks]
        found = [view for view in memory if view is not None]
        return found if len(found) == len(memory) else None

    @functools.cached_property
    def _row_memory(self) -> RowMemory | None:
        """Where rows lie that are gathered by their addresses."""
        if not self._width or self._has_dictionaries:
            return None
        return RowMemory(
            np.array([_address(chunk) for chunk in self._chunks], np.int64),
            np.array([len(chunk) for chunk in self._chunks], np.int64),
            self._width,
        )

    def _is_worth_reordering(self, num_rows: int, touched: list[int]) -> bool:
        """Tells whether to take chunk by chunk rather than slice row by row."""
        first = self._chunks[touched[0]]
        if pa.types.is_dictionary(first.type):
            return True  # one decoding per chunk, not per row
        return (
            _has_fast_take(first.type)
            and num_rows >= _MIN_ROWS_PER_CHUNK * len(touched)
            and first.nbytes <= _MAX_REORDER_BYTES * len(first)
        )

    def _take_by_chunk(
        self,
        order: Int64[np.ndarray, " n"],
        touched: list[int],
        starts: list[int],
        row_of: Int64[np.ndarray, " n"],
    ) -> pa.Array:
        rows = row_of[order]
        bounds = zip(touched, starts, [*starts[1:], len(rows)], strict=True)
        parts = self._decoded(
            self._chunks[c].take(pa.array(rows[a:b])) for c, a, b in bounds
        )
        if len(parts) == 1:
            return parts[0]
        return pa.concat_arrays(parts).take(pa.array(np.argsort(order)))

    def _take_slices(
        self, chunk_of: Int64[np.ndarray, " n"], row_of: Int64[np.ndarray, " n"]
    ) -> pa.Array:
        is_new = (np.diff(row_of) != 1) | (np.diff(chunk_of) != 0)
        runs = np.flatnonzero(np.concatenate([[True], is_new]))
        lengths = np.diff(runs, append=len(row_of))
        bounds = zip(
            chunk_of[runs].tolist(),
            row_of[runs].tolist(),
            lengths.tolist(),
            strict=True,
        )
        # Joined even where it is one slice: that would keep all of its chunk in memory.
        return pa.concat_arrays(
            self._decoded(self._chunks[c].slice(row, num) for c, row, num in bounds)
        )

    def _decoded(self, parts: Iterable[pa.Array]) -> list[pa.Array]:
        if self._has_dictionaries:
            return [part.cast(self.type) for part in parts]
        return list(parts)

    @functools.cached_property
    def _has_dictionaries(self) -> bool:
        return any(chunk.type != self.type for chunk in self._chunks)


class Chunks:
    """Record batches end to end, as one table of rows by position.

    Attributes:
        schema: The columns, without dictionaries and without metadata of the schema.
    """

    def __init__(self, batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> None:
        self.schema = plain_schema(schema)
        self._batches = batches
        self._starts = starts_of([len(batch) for batch in batches])
        self._columns: dict[str, Column] = {}
        self._schemas: dict[tuple[str, ...], pa.Schema] = {}

    @property
    def num_rows(self) -> int:
        """How many rows there are in all."""
        return int(self._starts[-1])

    def take(self, ids: np.ndarray, columns: Sequence[str] | None) -> pa.RecordBatch:
        """Returns rows by position, as :meth:`Pool.take` says."""
        ids = check_ids(ids, self.num_rows)
        names = check_columns(columns, self.schema)
        if not names:
            return empty_columns(len(ids))
        chunk_of, row_of = locate(self._starts, ids)
        arrays = [
            take_column(name, self._column(name), chunk_of, row_of) for name in names
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema_of(names))

    def spans(self, ids: np.ndarray, columns: Sequence[str] | None) -> RowSpans | None:
        """Returns rows where they lie, as :meth:`Pool.spans` says."""
        ids = check_ids(ids, self.num_rows)
        names = check_columns(columns, self.schema)
        if not (len(ids) and names):
            return None
        chunk_of, row_of = locate(self._starts, ids)
        spans: list[list[memoryview]] = []
        for name in names:
            found = self._column(name).spans(chunk_of, row_of)
            if found is None:
                return None
            spans.append(found)
        return RowSpans(self._schema_of(names), len(ids), spans)

    def _schema_of(self, names: Sequence[str]) -> pa.Schema:
        key = tuple(names)
        schema = self._schemas.get(key)
        if schema is None:
            fields = [self.schema.field(name) for name in names]
            schema = self._schemas[key] = pa.schema(fields)
        return schema

    def _column(self, name: str) -> Column:
        # Two threads may both make the column; either is as good, so no lock.
        column = self._columns.get(name)
        if column is None:
            field = self.schema.get_field_index(name)
            chunks = [batch.column(field) for batch in self._batches]
            column = self._columns[name] = Column(chunks, self.schema.field(name).type)
        return column


def take_column(
    name: str,
    column: Column,
    chunk_of: Int64[np.ndarray, " n"],
    row_of: Int64[np.ndarray, " n"],
) -> pa.Array:
    """Returns rows of a column.

    Raises:
        PoolError: The rows do not fit one array: 32-bit offsets end at 2 GiB.
    """
    try:
        return column.take(chunk_of, row_of)
    except pa.ArrowException as exc:
        msg = (
            f"column {name!r} ({column.type}): {len(row_of)} rows cannot be gathered: "
            f"{exc}. Ask for fewer rows; beyond 2 GiB use large_binary, large_string "
            "or large_list"
        )
        raise PoolError(msg) from exc


def starts_of(lengths: Sequence[int]) -> Int64[np.ndarray, " S"]:
    """Returns the position at which each of the chunks starts, and the end of all."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def locate(
    starts: Int64[np.ndarray, " S"], positions: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Returns for each position its chunk, and its row there; chunks may be empty."""
    chunk_of = starts.searchsorted(positions, side="right") - 1
    return chunk_of, positions - starts[chunk_of]


def group_rows(
    chunk_of: Int64[np.ndarray, " n"],
) -> tuple[Int64[np.ndarray, " n"], list[int], list[int]]:
    """Returns the order that brings rows of a chunk together, and where each starts.

    Returns:
        The order; the chunks that occur, ascending; where each starts in the order.
    """
    order = np.argsort(chunk_of, kind="stable")
    touched, starts = np.unique(chunk_of[order], return_index=True)
    return order, touched.tolist(), starts.tolist()


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Returns the schema without its metadata, dictionaries replaced by their values.

    A dictionary belongs to a file. Rows of several files would need a dictionary per
    record batch, so that the client would decode what costs less to decode here.

    Raises:
        PoolError: Two columns have one name.
    """
    names: list[str] = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"two columns of one name: {', '.join(twice)}; rename one"
        raise PoolError(msg)
    return pa.schema([f.with_type(_plain_type(f.type)) for f in schema])


def _plain_type(dtype: pa.DataType) -> pa.DataType:
    def plain(field: pa.Field) -> pa.Field:
        return field.with_type(_plain_type(field.type))

    types = pa.types
    if types.is_dictionary(dtype):
        return _plain_type(dtype.value_type)
    if types.is_list(dtype):
        return pa.list_(plain(dtype.value_field))
    if types.is_large_list(dtype):
        return pa.large_list(plain(dtype.value_field))
    if types.is_fixed_size_list(dtype):
        return pa.list_(plain(dtype.value_field), dtype.list_size)
    if types.is_struct(dtype):
        return pa.struct([plain(dtype.field(i)) for i in range(dtype.num_fields)])
    return dtype


def _has_fast_take(dtype: pa.DataType) -> bool:
    """Tells where pyarrow's own take copies rows, and not one element at a time."""
    types = pa.types
    return (
        row_bytes(dtype) is not None
        or types.is_boolean(dtype)
        or types.is_binary(dtype)
        or types.is_string(dtype)
        or types.is_large_binary(dtype)
        or types.is_large_string(dtype)
    )


def _address(array: pa.Array) -> int:
    """Returns where the first row of a fixed-width array lies; -1 if any is null."""
    found = _buffer_of(array)
    return -1 if found is None else found[0].address + found[1]


def _bytes_of(array: pa.Array) -> memoryview[int] | None:
    """Returns the memory from an array's first row on, None if any row is null."""
    found = _buffer_of(array)
    return None if found is None else _view(found[0])[found[1] :]


def _view(memory: Any) -> memoryview[int]:
    """Returns contiguous memory as bytes."""
    return memoryview(memory).cast("B")


def _buffer_of(array: pa.Array) -> tuple[pa.Buffer, int] | None:
    """Returns the buffer of a fixed-width array, and where in it the rows begin."""
    if array.null_count:
        return None
    if isinstance(array.type, pa.BaseExtensionType):
        return _buffer_of(array.storage)
    start = array.offset * (row_bytes(array.type) or 0)
    if pa.types.is_fixed_size_list(array.type):
        # `values` are those of the whole array that this one is a slice of.
        found = _buffer_of(array.values)
        return None if found is None else (found[0], found[1] + start)
    data = array.buffers()[1]
    return None if data is None else (data, start)
