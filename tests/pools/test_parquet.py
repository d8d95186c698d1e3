import os
import threading

import numpy as np
import pool_tables
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator.errors import PoolChangedError, PoolError
from curator.pools import ParquetPool

TABLE = pa.table({"a": list(range(20)), "b": [str(i) for i in range(20)]})


@pytest.fixture
def read_groups(monkeypatch):
    """What is read from files by the real reader: (row group, columns)."""
    read = []
    read_row_group = pq.ParquetFile.read_row_group

    def recording(self, i, columns):
        read.append((i, *columns))
        return read_row_group(self, i, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", recording)
    return read


def test_files_follow_each_other_by_name(tmp_path):
    pool_tables.write_parquet(tmp_path / "b.pq", TABLE.slice(12))
    pool_tables.write_parquet(tmp_path / "a.parquet", TABLE.slice(0, 12))

    assert ParquetPool(tmp_path).take(np.arange(20)).to_pylist() == TABLE.to_pylist()


def test_only_what_is_asked_for_is_decoded_and_once(tmp_path, read_groups):
    pool = ParquetPool(pool_tables.write_parquet(tmp_path / "a.parquet", TABLE))

    pool.take(np.array([15, 0, 1]), ["b"])
    assert read_groups == [(0, "b"), (2, "b")]
    pool.take(np.array([2]), ["a", "b"])
    assert read_groups[2:] == [(0, "a")]
    pool.take(np.array([16, 3]), ["b"])
    assert len(read_groups) == 3


def test_without_a_cache_each_take_decodes(tmp_path, read_groups):
    file = pool_tables.write_parquet(tmp_path / "a.parquet", TABLE)
    pool = ParquetPool(file, cache_bytes=0)

    pool.take(np.array([0]))
    pool.take(np.array([0]))

    assert read_groups == [(0, "a", "b")] * 2


def test_one_row_group_is_held_at_a_time_and_none_afterwards(tmp_path, monkeypatch):
    row_bytes, num_groups = 1 << 18, 6
    rows = [bytes([i]) * row_bytes for i in range(10 * num_groups)]
    table = pa.table({"image": rows})
    file = pool_tables.write_parquet(tmp_path / "a.parquet", table, rows_per_group=10)
    pool = ParquetPool(file, cache_bytes=0)
    del table
    before = pa.total_allocated_bytes()
    held = []
    read_row_group = pq.ParquetFile.read_row_group

    def recording(self, i, columns):
        held.append(pa.total_allocated_bytes() - before)
        # Arrow's threads let go of what they decoded a little after they return it.
        return read_row_group(self, i, columns=columns, use_threads=False)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", recording)

    taken = pool.take(np.arange(0, len(rows), 10))
    after = pa.total_allocated_bytes() - before

    assert taken.column(0).to_pylist() == rows[::10]
    assert len(held) == num_groups
    assert max(held) < 20 * row_bytes
    assert after < 10 * row_bytes
    one = pool.take(np.array([3]))
    assert one.column(0).to_pylist() == rows[3:4]
    assert pa.total_allocated_bytes() - before - after < 5 * row_bytes


def test_threads_that_want_one_row_group_decode_it_once(tmp_path, read_groups):
    pool = ParquetPool(pool_tables.write_parquet(tmp_path / "a.parquet", TABLE))
    start = threading.Barrier(8)

    def take():
        start.wait()
        pool.take(np.arange(20))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # One thread may decode a column's row group while another decodes the next one.
    decoded = [(group, name) for group, *names in read_groups for name in names]
    assert sorted(decoded) == [(g, name) for g in range(3) for name in "ab"]


def test_nested_column_is_read_by_its_name(tmp_path):
    table = pa.table({"a": [{"b": 1}, {"b": 2}], "a.b": [3, 4]})
    pool = ParquetPool(pool_tables.write_parquet(tmp_path / "a.parquet", table))

    assert pool.take(np.array([1]), ["a"]).to_pylist() == [{"a": {"b": 2}}]
    assert pool.take(np.array([1])).to_pylist() == [{"a": {"b": 2}, "a.b": 4}]


def test_pandas_metadata_does_not_matter(tmp_path):
    for i, name in enumerate(["a", "b"]):
        table = TABLE.replace_schema_metadata({"pandas": f'{{"index": {i}}}'})
        pool_tables.write_parquet(tmp_path / f"{name}.parquet", table)

    assert ParquetPool(tmp_path).num_examples == 40


@pytest.mark.parametrize("content", [b"ARROW1 and so on", b""], ids=["arrow", "empty"])
def test_file_that_is_not_parquet_is_named(tmp_path, content):
    (tmp_path / "b.parquet").write_bytes(content)

    with pytest.raises(PoolError, match=r"b\.parquet: not a Parquet file, or damaged"):
        ParquetPool(tmp_path)


def test_file_that_is_damaged_or_gone_later_is_named(tmp_path):
    file = pool_tables.write_parquet(tmp_path / "a.parquet", TABLE)
    pool = ParquetPool(file)
    content, kept = file.read_bytes(), file.rename(tmp_path / "kept")

    file.write_bytes(content[:4] + bytes(len(content) - 4))
    times = kept.stat().st_atime_ns, kept.stat().st_mtime_ns
    os.utime(file, ns=times)  # as a bad disk leaves it
    with pytest.raises(PoolError, match=r"a\.parquet: not the Parquet file it was"):
        pool.take(np.array([0]))
    file.unlink()
    with pytest.raises(PoolError, match=r"a\.parquet: cannot be read: .*No such"):
        pool.take(np.array([0]))
    kept.rename(file)
    assert pool.take(np.array([0])).to_pylist() == [{"a": 0, "b": "0"}]


@pytest.mark.parametrize("num_rows", [20, 12])
def test_a_file_that_was_replaced_is_told_and_not_read(tmp_path, num_rows):
    """By one whose columns lie in the same places, or do not."""
    file = pool_tables.write_parquet(tmp_path / "a.parquet", TABLE)
    pool = ParquetPool(file, cache_bytes=0)
    pool.take(np.array([0]))

    other = pa.table({"a": list(range(1, 1 + num_rows)), "b": TABLE["b"][:num_rows]})
    replacement = pool_tables.write_parquet(tmp_path / "other", other)
    os.utime(replacement, (0, 0))  # two writes may be within a tick of the clock
    replacement.replace(file)

    with pytest.raises(PoolChangedError, match=r"a\.parquet: changed since the pool"):
        pool.take(np.array([0]))


def test_schemas_that_differ_name_both_files(tmp_path):
    pool_tables.write_parquet(tmp_path / "a.parquet", TABLE)
    other = TABLE.set_column(0, "a", TABLE["a"].cast(pa.int8()))
    pool_tables.write_parquet(tmp_path / "b.parquet", other)

    with pytest.raises(
        PoolError, match=r"'a' is int64 in .*a\.par.* and int8 in .*b\.pa"
    ):
        ParquetPool(tmp_path)


def test_files_without_rows_are_refused(tmp_path):
    pool_tables.write_parquet(tmp_path / "a.parquet", TABLE.slice(0, 0))

    with pytest.raises(PoolError, match="the files have no rows"):
        ParquetPool(tmp_path)
