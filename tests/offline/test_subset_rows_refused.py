from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pool_formats
import pyarrow as pa
import pytest
from small_disk import small_disk

from curator.config import PoolSpec
from curator.errors import (
    ConfigError,
    MissingDependencyError,
    PoolError,
    StorageError,
)
from curator.offline._subset import Subset
from curator.offline._subset_rows import row_format, write_rows
from curator.pools import MemoryPool, Pool

TABLE = pool_formats.table()
VIRTUAL = PoolSpec(format="virtual", num_examples=1)  # which has no format of its own
NAMES = [
    *(("arrow", "rows.arrow"), ("parquet", "rows.parquet"), ("lance", "rows.lance")),
    *(("jsonl", "rows.jsonl"), ("jsonl", "rows.jsonl.gz"), ("jsonl", "rows.jsonl.zst")),
    *(("csv", "rows.csv"), ("csv", "rows.csv.zst"), ("webdataset", "rows.tar")),
]


def write(path: Path, pool: Pool, ids: Sequence[int]) -> None:
    format = row_format(path, pool, VIRTUAL)
    weights = np.ones(len(ids), np.float32)
    write_rows(path, format, pool, Subset(np.array(ids, np.int64), weights, None, {}))


# --- what cannot be kept ---


TENSOR = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        (
            "rows.jsonl",
            {"x": [1, 2], "picture": [b"a", b"b"]},
            (
                "rows: column 'picture' is binary, and JSON lines have no binary. What "
                "keeps all columns of this pool: .parquet, .arrow$"
            ),
        ),
        ("rows.jsonl.gz", {"x": [{"a": [b"x"]}] * 2}, "JSON lines have no binary"),
        ("rows.jsonl", {"x": TENSOR}, "'x' is extension<arrow.fixed_shape_tensor"),
        ("rows.jsonl", {"x": pa.array([1, 2], pa.uint64())}, "'x' is uint64, and JSON"),
        ("rows.jsonl", {"x": pa.array([1, 2], pa.date32())}, r"is date32\[day\], and"),
        ("rows.jsonl", {"x": pa.array([1, 2], pa.timestamp("s"))}, "is timestamp"),
        ("rows.jsonl", {"x": pa.array([1, 2], pa.decimal128(5))}, "is decimal128"),
        ("rows.jsonl", {"x": pa.array([[]], pa.map_("string", "int8"))}, "is map<"),
        ("rows.csv", {"x": [b"a", b"b"]}, "'x' is binary, and CSV has booleans, int"),
        (
            "rows.csv.gz",
            {"x": [[1], [2]]},
            (
                "'x' is list<item: int64>, and .* text only. What keeps all columns of "
                "this pool: .parquet, .arrow, .jsonl$"
            ),
        ),
        ("rows.csv", {"x": TENSOR}, "'x' is extension<arrow.fixed_shape_tensor"),
        ("rows.csv", {"x": pa.array([1, 2], pa.date32())}, "'x' is date32"),
        ("rows.csv", {"x": pa.nulls(2)}, "'x' is null, and CSV"),
        (
            "rows.tar",
            {"caption": ["a", "b"]},
            "'caption' is string, and a member of a tar file with that name is bytes",
        ),
        ("rows.tar", {"txt": [b"a"]}, "'txt' is binary, and .* that name is text"),
        ("rows.tar", {"a.cls": [0.5]}, "'a.cls' is double, .* that name is an int64"),
        ("rows.tar", {"JPG": [b"a"]}, "'JPG' does not name a member of a tar file"),
        ("rows.tar", {"a/b": [b"a"]}, "'a/b' does not name a member of a tar file"),
        ("rows.tar", {"__key__": [1], "txt": ["a"]}, "'__key__' is int64, and a sam"),
        ("rows.lance", {"a.b": [1]}, r"'a.b' is int64, which Lance does not take \("),
        (
            "rows.lance",
            {"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())},
            r"'x' is month_day_nano_interval, which Lance does not take \(",
        ),
        (
            "rows.parquet",
            {"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())},
            "'x' is month_day_nano_interval, which Parquet does not have .* .arrow$",
        ),
    ],
)
def test_columns_that_cannot_be_kept_are_told_before(
    tmp_path: Path, name: str, table: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        row_format(tmp_path / name, MemoryPool(pa.table(table)), VIRTUAL)


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        (
            "rows.csv",
            {"n": [1, 2, 3], "maybe": ["a", "b", None]},
            (
                "rows: column 'maybe' is null for example 2, and would be read as "
                "empty text: write .parquet or .arrow"
            ),
        ),
        (
            "rows.csv.zst",
            {"code": ["12", "13", "0x"], "n": [1, 2, 3]},
            "'code' is text, and in these rows all of it reads int64: write",
        ),
        (
            "rows.csv.gz",
            {"x": pa.array([None, None, 1.0]), "n": [1, 2, 3]},
            "'x' is null in all of these rows, and would be read as empty text",
        ),
        (
            "rows.csv",
            {"text": ["é" * (3 << 20), "b", "c"]},
            "example 0 is a line of 6,291,459 bytes, and CSV has at most 4,194,304",
        ),
        (
            "rows.tar",
            {"jpg": [b"a", None, b"c"]},
            "'jpg' is null for example 1, and samples have all members: write",
        ),
        (
            "rows.tar",
            {"jpg": [b"a"] * 3, "__key__": ["x", "x", "y"]},
            "'__key__' is 'x' for example 1 and for one before, of another shard",
        ),
        (
            "rows.tar",
            {"jpg": [b"a"] * 3, "__key__": ["x", "x.y", "y"]},
            "'__key__' is 'x.y' for example 1, which does not name a sample",
        ),
        ("rows.tar", {"__key__": ["x", "z", "y"]}, "needs a column beside '__key__'"),
    ],
)
def test_values_that_cannot_be_kept_leave_nothing(
    tmp_path: Path, name: str, table: dict[str, Any], message: str
) -> None:
    pool = MemoryPool(pa.table(table))
    ids = [0, 1] if "x" in table or "code" in table else [0, 1, 2]

    with pytest.raises(ConfigError, match=message):
        write(tmp_path / name, pool, ids)

    assert list(tmp_path.iterdir()) == []


def test_a_name_that_says_no_format_is_told(tmp_path: Path) -> None:
    message = "rows: a name that ends in .parquet, .pq, .*, .lance says the format; got"
    with pytest.raises(ConfigError, match=message):
        row_format(tmp_path / "rows.json", MemoryPool(TABLE), VIRTUAL)


# --- whole or not at all ---


class Broken(MemoryPool):
    """A pool whose later rows cannot be read."""

    def take(self, ids: Any, columns: Any = None) -> pa.RecordBatch:
        if ids[0] > 0:
            msg = "the disk fell out"
            raise PoolError(msg)
        return super().take(ids, columns)


@pytest.mark.parametrize(("format", "name"), NAMES)
def test_a_pool_that_fails_leaves_nothing(
    tmp_path: Path, format: str, name: str
) -> None:
    rows = TABLE.select(pool_formats.KINDS[format][3])
    pool = Broken(pa.concat_tables([rows, rows]))

    with pytest.raises(PoolError, match=r"^the disk fell out$"):
        write(tmp_path / name, pool, range(120))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("format", "name"), NAMES)
def test_a_full_disk_leaves_nothing(tmp_path: Path, format: str, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 1 << 62, (4000, 2))
    table = pa.table({"id": noise[:, 0], "count": noise[:, 1]})
    with small_disk(tmp_path / "disk", "32k") as disk:
        with pytest.raises(StorageError, match=r"no space left to write '.*rows\."):
            write(disk / name, MemoryPool(table), range(4000))

        assert list(disk.iterdir()) == []


def test_what_a_crash_left_is_written_over(tmp_path: Path) -> None:
    left = tmp_path / ".rows.lance.part" / "data"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")

    write(tmp_path / "rows.lance", MemoryPool(TABLE), [0, 1, 59])

    assert os.listdir(tmp_path) == ["rows.lance"]
    assert not list(tmp_path.rglob("half"))


def test_a_folder_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(StorageError, match=r"cannot write '.*lance': Input/output err"):
        write(tmp_path / "rows.lance", MemoryPool(TABLE), [0, 1, 59])

    assert list(tmp_path.iterdir()) == []


def test_lance_that_is_not_installed_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)

    with pytest.raises(MissingDependencyError, match=r"pip install 'batch-curator\[la"):
        row_format(tmp_path / "rows.lance", MemoryPool(TABLE), VIRTUAL)
