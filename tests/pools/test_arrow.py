import os

import numpy as np
import pool_tables
import pyarrow as pa
import pyarrow.feather
import pytest

from curator.errors import PoolChangedError, PoolError
from curator.pools import ArrowPool
from curator.pools._changes import MappedFiles

TABLE = pa.table({"a": list(range(20)), "b": [str(i) for i in range(20)]})


def test_files_follow_each_other_by_name(tmp_path):
    pool_tables.write_arrow(tmp_path / "b.arrow", TABLE.slice(12))
    pool_tables.write_stream(tmp_path / "a.ipc", TABLE.slice(0, 12))
    (tmp_path / "_SUCCESS").touch()

    pool = ArrowPool(tmp_path)

    assert pool.take(np.arange(20)).to_pylist() == TABLE.to_pylist()


def test_uncompressed_feather_is_read(tmp_path):
    file = str(tmp_path / "a.feather")
    pyarrow.feather.write_feather(TABLE, file, compression="uncompressed")

    assert ArrowPool(file).take(np.array([3])).to_pylist() == [{"a": 3, "b": "3"}]


@pytest.mark.parametrize("columns", [["a"], ["b"]])
def test_compressed_file_is_refused(tmp_path, columns):
    file = str(tmp_path / "a.feather")
    pyarrow.feather.write_feather(TABLE.select(columns), file, compression="zstd")

    with pytest.raises(PoolError, match=r"a\.feather: compressed, .* or use Parquet"):
        ArrowPool(file)


def test_compressed_tensors_are_refused(tmp_path):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((9, 2, 2)))
    file = str(tmp_path / "a.feather")
    pyarrow.feather.write_feather(pa.table({"a": tensors}), file, compression="lz4")

    with pytest.raises(PoolError, match="compressed"):
        ArrowPool(file)


def test_opening_and_reading_does_not_load_the_file(tmp_path):
    image = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((200, 1 << 15)))
    file = pool_tables.write_arrow(tmp_path / "a.arrow", pa.table({"image": image}))
    del image
    before = pa.total_allocated_bytes()

    pool = ArrowPool(file)
    rows = pool.take(np.array([7, 100, 3]))

    assert file.stat().st_size > 50 << 20
    assert pa.total_allocated_bytes() - before < 2 << 20
    assert rows.num_rows == 3


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (b"PAR1 and so on", "b'PAR1 a'"),
        (b"ARROW1\0\0 and so on", "b'ARROW1'"),
        (b"", "b''"),
    ],
    ids=["parquet", "cut-short", "empty"],
)
def test_file_that_is_not_arrow_is_named(tmp_path, content, start):
    pool_tables.write_arrow(tmp_path / "a.arrow", TABLE)
    (tmp_path / "b.arrow").write_bytes(content)

    message = rf"b\.arrow: not an Arrow IPC file or stream, or damaged: .*{start}"
    with pytest.raises(PoolError, match=message):
        ArrowPool(tmp_path)


def test_file_that_was_cut_short_is_named(tmp_path):
    file = pool_tables.write_arrow(tmp_path / "a.arrow", TABLE)
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(PoolError, match=r"a\.arrow: not an Arrow IPC file"):
        ArrowPool(tmp_path)


def test_schemas_that_differ_name_both_files(tmp_path):
    pool_tables.write_arrow(tmp_path / "a.arrow", TABLE)
    pool_tables.write_arrow(tmp_path / "b.arrow", TABLE.select(["a"]))

    with pytest.raises(PoolError, match=r"a\.arrow has 'b', .*b\.arrow has not"):
        ArrowPool(tmp_path)


def test_files_without_rows_are_refused(tmp_path):
    pool_tables.write_arrow(tmp_path / "a.arrow", TABLE.slice(0, 0))

    with pytest.raises(PoolError, match="the files have no rows"):
        ArrowPool(tmp_path)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(PoolError, match="absent: no such file or folder"):
        ArrowPool(tmp_path / "absent")


@pytest.mark.parametrize("read", [ArrowPool.take, ArrowPool.spans])
def test_a_file_that_is_written_to_is_told(tmp_path, monkeypatch, read):
    monkeypatch.setattr(MappedFiles, "SECONDS_BETWEEN_CHECKS", 0.0)
    numbers = TABLE.select(["a"])
    pool_tables.write_arrow(tmp_path / "a.arrow", numbers)
    file = pool_tables.write_arrow(tmp_path / "b.arrow", numbers)
    pool = ArrowPool(tmp_path)
    read(pool, np.array([0]))

    content = file.read_bytes()
    with file.open("r+b") as written:
        written.write(content)
    os.utime(file, (0, 0))  # two writes may be within a tick of the clock

    with pytest.raises(PoolChangedError, match=r"b\.arrow: changed since the pool was"):
        read(pool, np.array([0]))


def test_files_that_are_replaced_or_removed_are_still_read(tmp_path, monkeypatch):
    monkeypatch.setattr(MappedFiles, "SECONDS_BETWEEN_CHECKS", 0.0)
    files = [
        pool_tables.write_arrow(tmp_path / f"{name}.arrow", TABLE) for name in "ab"
    ]
    pool = ArrowPool(tmp_path)

    pool_tables.write_arrow(tmp_path / "other", TABLE[::-1]).replace(files[0])
    files[1].unlink()

    expected = TABLE.to_pylist() * 2
    assert pool.take(np.arange(40)).to_pylist() == expected
