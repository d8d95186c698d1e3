import os
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pool_tables
import pyarrow as pa
import pytest
from read_only import read_only

from curator.errors import PoolError
from curator.pools import ArrowPool, MemoryPool, ParquetPool, VirtualPool

TABLE = pool_tables.every_type(3000)
SMALL = pa.table({"a": list(range(20)), "b": [str(i) for i in range(20)]})
LONG_AGO = 10**18  # in 2001, in nanoseconds


def fingerprint(data):
    return MemoryPool(data).fingerprint


# -- of files


@pytest.fixture(params=["arrow", "parquet"])
def pool_of(request):
    return {"arrow": ArrowPool, "parquet": ParquetPool}[request.param]


@pytest.fixture
def folder(tmp_path, pool_of):
    made = tmp_path / "pool"
    made.mkdir()
    write, suffix = {
        ArrowPool: (pool_tables.write_arrow, ".arrow"),
        ParquetPool: (pool_tables.write_parquet, ".parquet"),
    }[pool_of]
    for i in range(3):
        write(made / f"{i}{suffix}", SMALL.slice(6 * i, 6))
    return made


def files_in(folder):
    return sorted(folder.iterdir())


def test_appended_file_changes_the_fingerprint(folder, pool_of):
    before = pool_of(folder).fingerprint
    last = files_in(folder)[-1]
    shutil.copy(last, last.with_stem("3"))

    assert pool_of(folder).fingerprint != before


def test_removed_file_changes_the_fingerprint(folder, pool_of):
    before = pool_of(folder).fingerprint
    files_in(folder)[-1].unlink()

    assert pool_of(folder).fingerprint != before


def test_rename_that_changes_the_order_changes_the_fingerprint(folder, pool_of):
    before = pool_of(folder).fingerprint
    first = files_in(folder)[0]
    first.rename(first.with_stem("9"))

    assert pool_of(folder).fingerprint != before


def test_rename_that_keeps_the_order_changes_nothing(folder, pool_of):
    before = pool_of(folder).fingerprint
    last = files_in(folder)[-1]
    last.rename(last.with_stem("9"))

    assert pool_of(folder).fingerprint == before


def test_one_byte_edited_in_place_changes_the_fingerprint(folder, pool_of, tmp_path):
    cache = tmp_path / "cache"
    file = files_in(folder)[1]
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    before = pool_of(folder, fingerprint_cache=cache).fingerprint
    content = bytearray(file.read_bytes())
    data = content.index(b"10", len(b"ARROW1"))  # of a value: the file stays readable
    content[data] ^= 1
    file.write_bytes(content)

    assert pool_of(folder).fingerprint != before
    assert pool_of(folder, fingerprint_cache=cache).fingerprint != before


def test_folder_and_time_do_not_matter(folder, pool_of, tmp_path):
    before = pool_of(folder).fingerprint
    shutil.copytree(folder, tmp_path / "copy")
    os.utime(files_in(tmp_path / "copy")[0], ns=(LONG_AGO, LONG_AGO))

    assert pool_of(tmp_path / "copy").fingerprint == before


def test_file_gone_before_it_is_hashed_is_named(folder, pool_of):
    pool = pool_of(folder)
    files_in(folder)[0].unlink()

    with pytest.raises(PoolError, match=r"cannot be read for its fingerprint: .*/0\."):
        _ = pool.fingerprint


# -- of files, from the cache


def digests(cache):
    connection = sqlite3.connect(cache)
    rows = connection.execute("SELECT file, digest FROM digests ORDER BY file")
    found = rows.fetchall()
    connection.close()
    return found


@pytest.fixture
def cached(folder, pool_of, tmp_path):
    """A cache that has the digests of a folder's files."""
    cache = tmp_path / "state" / "cache.sqlite"
    for file in files_in(folder):
        os.utime(file, ns=(LONG_AGO, LONG_AGO))
    assert pool_of(folder, fingerprint_cache=cache).fingerprint
    return cache


def test_digest_of_a_file_that_did_not_change_is_used_again(folder, pool_of, cached):
    true = pool_of(folder).fingerprint
    assert pool_of(folder, fingerprint_cache=cached).fingerprint == true

    connection = sqlite3.connect(cached)
    with connection:  # a wrong digest shows that it is the one that is used
        connection.execute("UPDATE digests SET digest = x'00'")
    connection.close()

    assert [name for name, _ in digests(cached)] == [str(f) for f in files_in(folder)]
    assert pool_of(folder, fingerprint_cache=cached).fingerprint != true


def test_edit_that_puts_the_time_back_is_seen(folder, pool_of, cached):
    before = pool_of(folder, fingerprint_cache=cached).fingerprint
    file = files_in(folder)[1]
    old = file.stat()
    content = bytearray(file.read_bytes())
    content[content.index(b"10", len(b"ARROW1"))] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    while file.stat().st_ctime_ns == old.st_ctime_ns:  # the clock's next tick
        os.utime(file, ns=(LONG_AGO, LONG_AGO))

    assert (old.st_size, old.st_mtime_ns) == (file.stat().st_size, LONG_AGO)
    assert pool_of(folder, fingerprint_cache=cached).fingerprint != before


def test_digest_of_a_file_written_just_now_is_not_kept(folder, pool_of, tmp_path):
    first = files_in(folder)[0]
    os.utime(first, ns=(LONG_AGO, LONG_AGO))
    for file in files_in(folder)[1:]:
        os.utime(file)
    cache = tmp_path / "cache"

    assert pool_of(folder, fingerprint_cache=cache).fingerprint
    assert [name for name, _ in digests(cache)] == [str(first)]


def test_cache_that_is_something_else_is_named(folder, pool_of, tmp_path):
    cache = tmp_path / "cache"
    cache.write_bytes(b"something else, and long enough to be looked at" * 100)

    message = r"the fingerprint cache .*/cache cannot be used: .* It can be deleted"
    with pytest.raises(PoolError, match=message):
        _ = pool_of(folder, fingerprint_cache=cache).fingerprint


def test_what_is_known_is_used_where_nothing_may_be_written(folder, pool_of, tmp_path):
    for file in files_in(folder):
        os.utime(file, ns=(LONG_AGO, LONG_AGO))
    cache = tmp_path / "state" / "cache"
    true = pool_of(folder, fingerprint_cache=cache).fingerprint
    known = digests(cache)
    with closing(sqlite3.connect(cache)) as connection, connection:
        connection.execute("UPDATE digests SET digest = zeroblob(32)")

    with read_only(cache.parent):
        assert pool_of(folder, fingerprint_cache=cache).fingerprint != true
        # What it does not know is found out.
        os.utime(files_in(folder)[0])
        assert pool_of(folder, fingerprint_cache=cache).fingerprint
        elsewhere = cache.parent / "made" / "cache"
        assert pool_of(folder, fingerprint_cache=elsewhere).fingerprint == true

    assert [name for name, _ in digests(cache)] == [name for name, _ in known]


# -- of tables


def test_chunks_and_slices_do_not_matter():
    whole = TABLE.combine_chunks()
    cut = pa.Table.from_batches(whole.to_batches(max_chunksize=17))
    padded = pa.concat_tables([TABLE.slice(2000), TABLE, TABLE.slice(0, 5)])
    sliced = padded.slice(1000, TABLE.num_rows)

    assert fingerprint(whole) == fingerprint(cut) == fingerprint(sliced)


def test_metadata_and_dictionaries_do_not_matter():
    plain = pa.table({"a": ["x", "y", "x"]})

    assert fingerprint(plain) == fingerprint(plain.replace_schema_metadata({"a": "b"}))
    assert fingerprint(plain) == fingerprint(
        pa.table({"a": plain["a"].dictionary_encode()})
    )


def test_what_lies_under_a_null_does_not_matter():
    valid = pa.py_buffer(bytes([0b101]))
    arrays = [
        pa.Array.from_buffers(pa.int8(), 3, [valid, pa.py_buffer(bytes([1, under, 3]))])
        for under in (0, 77)
    ]

    assert fingerprint(pa.table({"a": arrays[0]})) == fingerprint(
        pa.table({"a": arrays[1]})
    )


@pytest.mark.parametrize("column", TABLE.column_names)
def test_any_value_of_any_type_matters(column):
    data = TABLE.select([column]).slice(0, 60)
    last = data.slice(59)
    others = [data.slice(i, 1) for i in range(4)]
    changes = {
        fingerprint(pa.concat_tables([data.slice(0, 59), other]))
        for other in others
        if other.to_pylist() != last.to_pylist()
    }

    if column == "nothing":
        assert changes == set()  # there is one null, and no other
    else:
        assert changes
        assert fingerprint(data) not in changes


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (pa.array([127, *range(7)], pa.int8()), pa.array([None, *range(7)], pa.int8())),
        (pa.array(["ab", "c"]), pa.array(["a", "bc"])),
        (pa.array([[1], [2, 3]]), pa.array([[1, 2], [3]])),
        (pa.array([["a"], []]), pa.array([[], ["a"]])),
        (pa.array([[], None]), pa.array([None, []], pa.list_(pa.null()))),
        (pa.array([{"a": None}]), pa.array([None], pa.struct([("a", pa.null())]))),
        (pa.array([0.0]), pa.array([-0.0])),
        (pa.array([1, 2], pa.int16()), pa.array([1, 2], pa.uint16())),
        (pa.array([b"a"]), pa.array(["a"])),
        (pa.array([True, False]), pa.array([True, True])),
    ],
)
def test_values_that_look_alike_are_told_apart(a, b):
    assert fingerprint(pa.table({"a": a})) != fingerprint(pa.table({"a": b}))


def test_columns_are_told_apart():
    one, two = np.array([1, 2]), np.array([3, 4])
    tables = [
        pa.table({"a": one, "b": two}),
        pa.table({"b": one, "a": two}),
        pa.table({"a": two, "b": one}),
        pa.table({"b": two, "a": one}),
        pa.table({"a": one}),
        pa.table(
            [one, two], pa.schema([pa.field("a", pa.int64(), False), ("b", "int64")])
        ),
    ]

    assert len({fingerprint(table) for table in tables}) == len(tables)


def test_kinds_of_pools_are_told_apart(tmp_path):
    table = pa.table({"a": [1]})
    file = pool_tables.write_arrow(tmp_path / "a.arrow", table)

    pools = [MemoryPool(table), ArrowPool(file), VirtualPool(1)]

    assert len({pool.fingerprint for pool in pools}) == 3
