"""Rows in the format of a pool that is a folder: Hugging Face datasets and MDS."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pool_formats
import pyarrow as pa
import pytest
from small_disk import small_disk

from curator.config import PoolSpec
from curator.errors import ConfigError, StorageError
from curator.offline._rows import _mds
from curator.offline._subset import Subset
from curator.offline._subset_rows import row_format, write_rows
from curator.pools import Pool, open_pool

DATA = Path(__file__).parents[1] / "pools" / "data"
FOLDERS = {"hf": "huggingface", "hf_selected": "huggingface"} | {
    "mds": "mds",
    "mds_zstd": "mds",
}


def opened(format: str, path: str | Path, state: Path) -> Pool:
    return open_pool(format, path, fingerprint_cache=state / "state" / "f.sqlite")


def write(
    out: Path, format: str, source: str | Path, ids: np.ndarray, state: Path
) -> Pool:
    """Writes rows of a pool in its own format, and returns that pool."""
    pool = opened(format, source, state)
    subset = Subset(ids, np.ones(len(ids), np.float32), None, {"policy": "topk"})
    chosen = row_format(out, pool, PoolSpec(format=format, path=str(source)))  # pyright: ignore[reportArgumentType]
    write_rows(out, chosen, pool, subset)
    return pool


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("name", "format"), FOLDERS.items())
def test_rows_come_back_as_they_are(tmp_path: Path, name: str, format: str) -> None:
    ids = np.array([0, 2])

    source = write(tmp_path / "rows", format, DATA / name, ids, tmp_path)

    pool = opened(format, tmp_path / "rows", tmp_path)
    assert pool.schema.equals(source.schema)
    assert pool.num_examples == 2
    assert pool.take(np.arange(2)).equals(source.take(ids))


@pytest.mark.parametrize(("name", "format"), FOLDERS.items())
def test_equal_rows_give_equal_bytes(tmp_path: Path, name: str, format: str) -> None:
    for out in ("a", "b"):
        write(tmp_path / out, format, DATA / name, np.array([1, 2]), tmp_path)
    write(tmp_path / "c", format, DATA / name, np.array([0, 2]), tmp_path)

    assert files(tmp_path / "a") == files(tmp_path / "b") != files(tmp_path / "c")


@pytest.mark.parametrize(("name", "format"), FOLDERS.items())
def test_the_pool_may_lie_elsewhere(tmp_path: Path, name: str, format: str) -> None:
    import fsspec  # pyright: ignore[reportMissingTypeStubs]

    system: Any = fsspec.filesystem("memory")
    system.put(str(DATA / name), f"/pools/{name}", recursive=True)
    ids = np.array([0, 2])

    write(tmp_path / "rows", format, f"memory://pools/{name}", ids, tmp_path)
    write(tmp_path / "expected", format, DATA / name, ids, tmp_path)

    assert files(tmp_path / "rows") == files(tmp_path / "expected")


# --- Hugging Face datasets ---


def test_a_dataset_is_what_datasets_saves(tmp_path: Path) -> None:
    """Compares all but the data, which may be cut otherwise, with the real thing."""
    write(tmp_path / "rows", "huggingface", DATA / "hf", np.array([3, 5]), tmp_path)

    found, real = files(tmp_path / "rows"), files(DATA / "hf_selected")
    assert found.keys() == real.keys()
    assert json.loads(found["dataset_info.json"]) == json.loads(
        real["dataset_info.json"]
    )
    state = json.loads(found["state.json"])
    digest = hashlib.sha256(found["data-00000-of-00001.arrow"]).hexdigest()
    expected = json.loads(real["state.json"]) | {"_fingerprint": digest[:16]}
    assert state == expected
    schemas = [
        pa.ipc.open_stream(folder["data-00000-of-00001.arrow"]).schema
        for folder in (found, real)
    ]
    assert schemas[0].equals(schemas[1])
    assert schemas[0].metadata[b"huggingface"] == schemas[1].metadata[b"huggingface"]
    assert schemas[0].metadata[Subset.KEY] == b'{"policy": "topk"}'


def test_pictures_are_stored_as_datasets_stores_them(tmp_path: Path) -> None:
    write(tmp_path / "rows", "huggingface", DATA / "hf", np.array([3, 5]), tmp_path)

    data = tmp_path / "rows" / "data-00000-of-00001.arrow"
    pictures = pa.ipc.open_stream(data.read_bytes()).read_all()["image"].to_pylist()
    assert pictures[0]["bytes"].startswith(b"\x89PNG")
    assert pictures[0]["path"] is None
    assert pictures[1] is None


def test_licence_is_kept_and_what_is_of_other_rows_is_not(tmp_path: Path) -> None:
    source = shutil.copytree(DATA / "hf", tmp_path / "hf")
    info = json.loads((source / "dataset_info.json").read_text())
    more = {"license": "cc0", "description": "d", "splits": {}, "dataset_size": 7}
    (source / "dataset_info.json").write_text(json.dumps(info | more))

    write(tmp_path / "rows", "huggingface", source, np.array([0]), tmp_path)

    found = json.loads((tmp_path / "rows" / "dataset_info.json").read_text())
    assert found == info | {"license": "cc0", "description": "d"}


def test_features_of_lists_and_structs_have_no_type_of_their_own(
    tmp_path: Path,
) -> None:
    value = {"_type": "Value", "dtype": "int64"}
    features = {"x": [value], "y": {"a": value}, "z": {**value, "dtype": "binary"}}
    table = pa.table({"x": [[1, 2]], "y": [{"a": 1}], "z": [b"plain"]})
    source = pool_formats.write_huggingface(tmp_path / "hf", [table], features)

    write(tmp_path / "rows", "huggingface", source, np.array([0]), tmp_path)

    pool = opened("huggingface", tmp_path / "rows", tmp_path)
    assert pool.take(np.array([0])).to_pylist() == table.to_pylist()
    info = json.loads((tmp_path / "rows" / "dataset_info.json").read_text())
    assert info["features"] == features


def test_features_that_are_not_of_the_columns_are_left_out(tmp_path: Path) -> None:
    table = pool_formats.table()
    source = pool_formats.write_huggingface(tmp_path / "hf", [table])
    feature = {"other": {"_type": "Value", "dtype": "int64"}}
    (source / "dataset_info.json").write_text(json.dumps({"features": feature}))

    write(tmp_path / "rows", "huggingface", source, np.array([4]), tmp_path)

    found = json.loads((tmp_path / "rows" / "dataset_info.json").read_text())
    assert "features" not in found
    pool = opened("huggingface", tmp_path / "rows", tmp_path)
    assert pool.take(np.array([0])).to_pylist() == table.slice(4, 1).to_pylist()


# --- MDS ---


def test_shards_are_what_mosaicml_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mds, "_SHARD_BYTES", 1500)  # as the real ones have it

    write(tmp_path / "rows", "mds", DATA / "mds", np.arange(20), tmp_path)

    assert files(tmp_path / "rows") == files(DATA / "mds")


def test_a_sample_that_is_larger_than_a_shard_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mds, "_SHARD_BYTES", 100)

    source = write(tmp_path / "rows", "mds", DATA / "mds", np.arange(20), tmp_path)

    assert len(files(tmp_path / "rows")) == 21
    rows = opened("mds", tmp_path / "rows", tmp_path).take(np.arange(20))
    assert rows.equals(source.take(np.arange(20)))


def test_every_encoding_comes_back(tmp_path: Path) -> None:
    numbers = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
    floats = ["float16", "float32", "float64"]
    cells: dict[str, Any] = {
        **{name: np.array([0, np.iinfo(name).max], name) for name in numbers},
        **{name: np.array([-0.1, np.inf], name) for name in floats},
        "int": np.array([-1, 2**63 - 1]),
        **{name: [b"", b"\xff\x00"] for name in ("bytes", "jpeg", "png")},
        **{name: [b"", "é😀\0".encode()] for name in ("str", "json")},
        "str_decimal": [b"1.50", b"-2E+9"],
        "str_int": [b"12", b"-9223372036854775808"],
        "str_float": [b"0.1", b"5e-324"],
        "ndarray:int16:2,3": np.arange(12, dtype=np.int16).reshape(2, 6),
        "ndarray:float16:1": np.array([[0.5], [-2]], np.float16),
    }
    bytes_of = {
        name: [c if isinstance(c, bytes) else c.tobytes() for c in column]
        for name, column in cells.items()
    }
    source = tmp_path / "mds"
    table = pa.table({name: pa.array(c, pa.binary()) for name, c in bytes_of.items()})
    pool_formats.write_mds(source, [table], {name: name for name in cells})

    pool = write(tmp_path / "rows", "mds", source, np.arange(2), tmp_path)

    found = opened("mds", tmp_path / "rows", tmp_path).take(np.arange(2))
    assert found.equals(pool.take(np.arange(2)))
    assert found.column("str_decimal").to_pylist() == ["1.50", "-2E+9"]


# --- names, and what goes wrong ---


@pytest.mark.parametrize("name", ["rows.json", "rows.v2", ".rows.d"])
def test_a_name_with_another_ending_is_told(tmp_path: Path, name: str) -> None:
    pool = opened("mds", DATA / "mds", tmp_path)
    spec = PoolSpec(format="mds", path=str(DATA / "mds"))
    message = r"ends in .*, \.lance says the format, and one without an ending that of "
    with pytest.raises(ConfigError, match=message + r"the pool \(mds\); got '"):
        row_format(tmp_path / name, pool, spec)


def test_a_name_without_ending_is_told_where_the_pool_is_no_folder(
    tmp_path: Path,
) -> None:
    path = pool_formats.write("parquet", tmp_path / "data", pool_formats.table())
    pool = opened("parquet", path, tmp_path)
    with pytest.raises(ConfigError, match=r"\.lance says the format; got '.*/rows'$"):
        row_format(tmp_path / "rows", pool, PoolSpec(format="parquet", path=str(path)))


def test_a_column_that_is_not_kept_names_the_own_format(tmp_path: Path) -> None:
    pool = opened("huggingface", DATA / "hf", tmp_path)
    spec = PoolSpec(format="huggingface", path=str(DATA / "hf"))
    message = "pool: no ending (huggingface), .parquet, .arrow"
    with pytest.raises(ConfigError, match=f"{re.escape(message)}$"):
        row_format(tmp_path / "rows.csv", pool, spec)


@pytest.mark.parametrize("format", ["huggingface", "mds"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, format: str) -> None:
    noise = np.random.default_rng(0).bytes(200_000)
    table = pa.table(
        {
            "cls": range(20),
            "jpg": [noise[i * 10_000 :][:10_000] for i in range(20)],
            "real": [0.5] * 20,
            "txt": ["x"] * 20,
        }
    )
    source = pool_formats.write(format, tmp_path / "data", table)
    with small_disk(tmp_path / "disk", "64k") as disk:
        with pytest.raises(StorageError, match=r"no space left to write '.*/rows'"):
            write(disk / "rows", format, source, np.arange(20), tmp_path)

        assert os.listdir(disk) == []
