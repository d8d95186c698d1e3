from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pool_formats
import pool_tables
import pyarrow as pa
import pytest
import webdataset

from curator.config import PoolSpec
from curator.errors import ConfigError
from curator.offline._subset import Subset
from curator.offline._subset_rows import row_format, write_rows
from curator.pools import MemoryPool, Pool, open_pool

TABLE = pool_formats.table()
IDS = np.array([0, 3, 4, 17, 30, 31, 59])
NAMES = {
    "arrow": ["rows.arrow", "rows.ipc"],
    "parquet": ["rows.parquet", "rows.pq"],
    "jsonl": ["rows.jsonl", "rows.ndjson", "rows.jsonl.gz", "rows.jsonl.zst"],
    "csv": ["rows.csv", "rows.csv.gz", "rows.csv.zst"],
    "webdataset": ["rows.tar"],
    "lance": ["rows.lance"],
}
NAMED = [(format, name) for format, names in NAMES.items() for name in names]

VIRTUAL = PoolSpec(format="virtual", num_examples=1)  # which has no format of its own

Written = Callable[..., Pool]


def subset_of(ids: Sequence[int] | np.ndarray) -> Subset:
    weights = np.ones(len(ids), np.float32)
    return Subset(np.asarray(ids, np.int64), weights, None, {"policy": "topk"})


def format_of(name: str) -> str:
    return next(format for format, found in NAMED if found == name)


def write(
    path: Path,
    pool: Pool,
    ids: Sequence[int] | np.ndarray,
    spec: PoolSpec = VIRTUAL,
) -> None:
    write_rows(path, row_format(path, pool, spec), pool, subset_of(ids))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Returns a function that writes rows and opens them as a pool."""

    def opened(pool: Pool | pa.Table, name: str, ids: Sequence[int] | None = None):
        if not isinstance(pool, Pool):
            pool = MemoryPool(pool)
        path = tmp_path / name
        write(path, pool, range(pool.num_examples) if ids is None else ids)
        assert os.listdir(tmp_path) == [name]  # nothing is left beside it
        cache = tmp_path / "state" / "f.sqlite"
        return open_pool(format_of(name), path, fingerprint_cache=cache)

    return opened


def all_rows(pool: Pool) -> pa.RecordBatch:
    return pool.take(np.arange(pool.num_examples))


# --- what comes back ---


@pytest.mark.parametrize(("format", "name"), NAMED)
def test_rows_of_a_pool_of_the_format_come_back_as_they_are(
    written: Written, tmp_path_factory: pytest.TempPathFactory, format: str, name: str
) -> None:
    folder = tmp_path_factory.mktemp("source")
    path = folder / "data"
    if format == "webdataset":  # one shard, as those of several have the same names
        path = pool_formats.write_tar(folder / "data.tar", TABLE)
    else:
        pool_formats.write(format, path, TABLE)
    source = open_pool(format, path, fingerprint_cache=folder / "state" / "f.sqlite")

    pool = written(source, name, IDS)

    assert all_rows(pool).equals(source.take(IDS))
    assert pool.schema.equals(source.schema)


@pytest.mark.parametrize(("format", "name"), NAMED)
def test_rows_of_another_format_have_the_same_values(
    written: Written, format: str, name: str
) -> None:
    table = TABLE.select(pool_formats.KINDS[format][3])

    found = all_rows(written(table, name, IDS))

    expected = table.take(IDS)
    assert set(table.column_names) <= set(found.schema.names)
    assert found.select(table.column_names).to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("name", ["rows.arrow", "rows.parquet", "rows.lance"])
def test_every_type_comes_back(written: Written, name: str) -> None:
    source = MemoryPool(pool_tables.every_type())

    pool = written(source, name, IDS)

    assert all_rows(pool).equals(source.take(IDS))
    assert pool.schema.equals(source.schema)


@pytest.mark.parametrize(
    "name", [name for _, name in NAMED if not name.endswith(".lance")]
)
def test_equal_rows_give_equal_bytes(tmp_path: Path, name: str) -> None:
    table = TABLE.select(pool_formats.KINDS[format_of(name)][3])
    paths = [tmp_path / "a" / name, tmp_path / "b" / f"other-{name}"]
    for path in paths:
        path.parent.mkdir()
        write(path, MemoryPool(table), IDS)

    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.tar", "rows.lance"])
def test_more_rows_than_a_block_are_all_there(written: Written, name: str) -> None:
    num_rows = 1200
    numbers = {"id": np.arange(num_rows), "count": np.arange(num_rows) * 3}
    ids = np.arange(0, num_rows, 2)

    found = all_rows(written(pa.table(numbers), name, ids))

    assert found.column("id").to_numpy().tolist() == ids.tolist()
    assert found.column("count").to_numpy().tolist() == (ids * 3).tolist()


# --- JSON lines ---


def test_jsonl_keeps_what_json_readers_like_to_change(written: Written) -> None:
    rows = {
        "code": ["001", "2020-01-01", "2020-01-01T00:00:00Z", "true"],
        "text": ["", None, 'a "b"\n\r\u2028\0 é 😀', "null"],
        "large": [2**53 + 1, -(2**63), 2**63 - 1, None],
        "real": [5e-324, 1.7976931348623157e308, -0.0, 1e22],
        "whole": [1.0, 2.0, None, 1e15],
        "odd": [float("inf"), None, float("-inf"), 0.1],
        "flag": [True, None, False, True],
        "lists": [[[1, None], []], None, [None], [[2]]],
        "things": [{"a": None, "b": []}, None, {"a": 1, "b": ["x"]}, {}],
        "": [None, None, 1, None],
        "nothing": [None] * 4,
    }
    table = pa.table(rows)

    pool = written(table, "rows.jsonl")

    assert pool.schema.equals(table.schema)
    assert repr(all_rows(pool).to_pylist()) == repr(table.to_pylist())


def test_jsonl_keeps_nan(written: Written) -> None:
    found = all_rows(written(pa.table({"x": [1.5, float("nan"), None]}), "rows.jsonl"))

    assert repr(found.column("x").to_pylist()) == "[1.5, nan, None]"


def test_jsonl_widens_what_json_has_in_one_size(written: Written) -> None:
    table = pa.table(
        {
            "small": pa.array([1, None], pa.uint8()),
            "single": pa.array([0.1, 1.0], pa.float32()),
            "half": pa.array(np.array([0.1, 2.0], np.float16)),
            "text": pa.array(["x", ""], pa.large_string()),
            "pair": pa.array([[1, 2], None], pa.list_(pa.int16(), 2)),
        }
    )

    pool = written(table, "rows.jsonl")

    assert all_rows(pool).to_pylist() == table.to_pylist()
    assert [str(field.type) for field in pool.schema] == [
        *("int64", "double", "double", "string"),
        "list<item: int64>",
    ]


# --- CSV ---


def test_csv_keeps_text_and_numbers_of_every_look(written: Written) -> None:
    rows = {
        "code": ["001", "12", "7", ""],
        "text": ["", 'a "b", c', "x\ry\r\nz\n", " é😀\0 "],
        "date": ["2020-01-01", "", "NA", "null"],
        "empty": [""] * 4,
        "a,\n": [1, None, -(2**63), 2**63 - 1],
        "real": [1.0, None, 1234567890123456.0, 5e-324],
        "more": [float("inf"), float("-inf"), 1.7976931348623157e308, -1e15],
        "flag": [True, None, False, True],
    }
    table = pa.table(rows)

    pool = written(table, "rows.csv")

    assert all_rows(pool).to_pylist() == table.to_pylist()
    assert pool.schema.equals(table.schema)


def test_csv_keeps_rows_of_one_empty_cell(written: Written) -> None:
    assert all_rows(written(pa.table({"a": [1, None, 2]}), "rows.csv")).to_pydict() == {
        "a": [1, None, 2]
    }


def test_csv_keeps_nan(written: Written) -> None:
    found = all_rows(written(pa.table({"x": [1.5, float("nan"), None]}), "rows.csv"))

    assert repr(found.column("x").to_pylist()) == "[1.5, nan, None]"


@pytest.mark.parametrize(
    "cells",
    [
        *(["1", ""], ["-0", "5"], ["1", "1.5"], ["1", "01"], ["1", "true"], ["TRUE"]),
        *(["true", "False"], ["1e5"], [".5", "5."], ["nan"], ["NaN", "1"], ["NAN"]),
        *(["inf", "-Infinity"], ["+1"], [" 1"], ["9" * 18], ["9" * 19], ["9" * 40]),
        *(["1e999"], ["123456789012345.5"], ["1234567890123456.5"], ["0x10"], ["1_0"]),
        *(["\u0661"], ["1\n"], ["tRUE"], ["", ""], ["5", "x"], ["-"], ["."], ["1,5"]),
    ],
    ids=repr,
)
def test_csv_text_is_written_where_the_reader_leaves_it_text(
    tmp_path: Path, cells: list[str]
) -> None:
    table = pa.table({"text": cells, "n": range(len(cells))})
    lines = "".join(f'"{cell}",{i}\n' for i, cell in enumerate(cells))
    plain, rows = tmp_path / "plain.csv", tmp_path / "rows.csv"
    plain.write_text(f"text,n\n{lines}", newline="")
    cache = tmp_path / "state" / "f.sqlite"
    dtype = open_pool("csv", plain, fingerprint_cache=cache).schema.field("text").type

    if dtype == pa.string():
        write(rows, MemoryPool(table), range(len(cells)))
        assert rows.exists()
    else:
        message = f"'text' is text, and in these rows all of it reads {dtype}: write "
        with pytest.raises(ConfigError, match=message):
            write(rows, MemoryPool(table), range(len(cells)))


# --- tar files ---


def test_a_tar_is_what_webdataset_reads(tmp_path: Path, written: Written) -> None:
    table = TABLE.select(["jpg", "txt", "cls"])
    pool = written(table, "rows.tar", IDS)

    library: Any = webdataset.tariterators
    with (tmp_path / "rows.tar").open("rb") as file:
        shard = {"url": "rows.tar", "stream": file}
        samples = list(library.group_by_keys(library.tar_file_expander([shard])))

    expected = table.take(IDS).to_pylist()
    assert [sample["__key__"] for sample in samples] == [f"{i:012d}" for i in IDS]
    assert [sample["jpg"] for sample in samples] == [row["jpg"] for row in expected]
    assert [sample["txt"].decode() for sample in samples] == [
        row["txt"] for row in expected
    ]
    assert all_rows(pool).column("__key__").to_pylist() == [f"{i:012d}" for i in IDS]
    with tarfile.open(tmp_path / "rows.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            assert (member.uname, member.gname, member.mode) == ("", "", 0o644)


def test_a_tar_keeps_long_and_foreign_names(written: Written) -> None:
    names = ["a/b/" + "x" * 300, "é😀/y", "c\nd"]
    table = pa.table(
        {"__key__": names, "seg.mask.png": [b"", b"1", b"22"], ".json": ["", "[]", "x"]}
    )

    found = all_rows(written(table, "rows.tar"))

    assert found.select(table.column_names).to_pylist() == table.to_pylist()


# --- Lance ---


def test_lance_keeps_the_metadata(tmp_path: Path) -> None:
    import lance

    write(tmp_path / "rows.lance", MemoryPool(TABLE), IDS)

    found = lance.dataset(str(tmp_path / "rows.lance")).schema.metadata
    assert found[Subset.KEY] == b'{"policy": "topk"}'
