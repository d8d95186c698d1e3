"""Tables, files and pools of every kind, for the tests of pools."""

import datetime as dt
import decimal
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curator.pools import ArrowPool, MemoryPool, ParquetPool

NUM_ROWS = 60


def every_type(num_rows=NUM_ROWS):
    """Returns a table with a column of each type that pools are made of."""
    rows = range(num_rows)
    grid = np.arange(num_rows * 6, dtype=np.float32).reshape(num_rows, 2, 3)
    flat = pa.array(grid.reshape(-1))
    pairs = pa.FixedSizeListArray.from_arrays(flat, 3)
    return pa.table(
        {
            "int8": pa.array([i % 100 for i in rows], pa.int8()),
            "int64": pa.array([i * 10**12 for i in rows]),
            "float16": pa.array(np.arange(num_rows, dtype=np.float16)),
            "float32": pa.array(np.arange(num_rows, dtype=np.float32)),
            "bool": [i % 3 == 0 for i in rows],
            "date": [dt.date(2000, 1, 1) + dt.timedelta(i) for i in rows],
            "decimal": [decimal.Decimal(i) / 4 for i in rows],
            "bytes4": pa.array([b"%04d" % i for i in rows], pa.binary(4)),
            "vector": pa.FixedSizeListArray.from_arrays(flat, 6),
            "matrix": pa.FixedSizeListArray.from_arrays(pairs, 2),
            "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(grid),
            "string": ["x" * (i % 7) + str(i) for i in rows],
            "large_string": pa.array([str(i) for i in rows], pa.large_string()),
            "binary": [bytes(range(i % 5)) for i in rows],
            "large_rows": [b"%d" % i * 5000 for i in rows],
            "list": [list(range(i % 4)) for i in rows],
            "nested": [[[str(i)], ["a", None]] for i in rows],
            "struct": [{"a": i, "b": [str(i)]} for i in rows],
            "map": pa.array(
                [[(str(i), i)] for i in rows], pa.map_(pa.string(), pa.int64())
            ),
            "category": pa.array([f"c{i % 5}" for i in rows]).dictionary_encode(),
            "null_int": [None if i % 4 == 1 else i for i in rows],
            "null_bool": [None if i % 4 == 1 else i % 3 == 0 for i in rows],
            "null_string": [None if i % 4 == 1 else str(i) for i in rows],
            "null_list": [None if i % 4 == 1 else [i, None] for i in rows],
            "null_vector": pa.array(
                [None if i % 4 == 1 else [i, i] for i in rows], pa.list_(pa.int32(), 2)
            ),
            "vector_of_null": pa.array(
                [[i, None if i % 4 == 1 else i] for i in rows], pa.list_(pa.int32(), 2)
            ),
            "null_struct": [None if i % 4 == 1 else {"a": i} for i in rows],
            # Without nulls in the first half, with nulls in the second.
            "late_null": [None if i == num_rows - 2 else i for i in rows],
            "nothing": pa.nulls(num_rows),
        }
    )


def write_arrow(path, table, rows_per_batch=7):
    """Writes an Arrow IPC file of several record batches."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table, max_chunksize=rows_per_batch)
    return path


def write_stream(path, table, rows_per_batch=7):
    """Writes an Arrow IPC stream, as Hugging Face datasets does."""
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table, max_chunksize=rows_per_batch)
    return path


def write_parquet(path, table, rows_per_group=7):
    """Writes a Parquet file of several row groups."""
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def parts(table, num_parts=3):
    """Returns a table cut into parts of different lengths, one of them empty."""
    bounds = [0, 0, table.num_rows // 5, table.num_rows * 3 // 5, table.num_rows]
    cuts = [table.slice(a, b - a) for a, b in itertools.pairwise(bounds)]
    assert len(cuts) == num_parts + 1
    return cuts


def _folder(write, suffix):
    def make(folder, table):
        for i, part in enumerate(parts(table)):
            write(folder / f"part-{i}{suffix}", part)
        return folder

    return make


_arrow_folder = _folder(write_arrow, ".arrow")
_parquet_folder = _folder(write_parquet, ".parquet")

KINDS = {
    "memory": lambda folder, table: MemoryPool(table.combine_chunks()),
    "memory-batch": lambda folder, table: MemoryPool(
        table.combine_chunks().to_batches()[0]
    ),
    "memory-chunks": lambda folder, table: MemoryPool(
        pa.concat_tables(parts(pa.concat_tables(parts(table))))
    ),
    "arrow-file": lambda folder, table: ArrowPool(
        write_arrow(folder / "a.arrow", table)
    ),
    "arrow-stream": lambda folder, table: ArrowPool(
        write_stream(folder / "a.arrow", table)
    ),
    "arrow-folder": lambda folder, table: ArrowPool(_arrow_folder(folder, table)),
    "parquet-file": lambda folder, table: ParquetPool(
        write_parquet(folder / "a.parquet", table)
    ),
    "parquet-folder": lambda folder, table: ParquetPool(_parquet_folder(folder, table)),
    "parquet-small-cache": lambda folder, table: ParquetPool(
        _parquet_folder(folder, table), cache_bytes=5000
    ),
    "parquet-no-cache": lambda folder, table: ParquetPool(
        _parquet_folder(folder, table), cache_bytes=0
    ),
}
"""Functions of an empty folder and a table, by the kind of pool that they return."""
