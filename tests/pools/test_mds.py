import json
import shutil
from pathlib import Path

import numpy as np
import pool_formats
import pyarrow as pa
import pytest

from curator.errors import PoolChangedError, PoolError
from curator.pools import open_pool

DATA = Path(__file__).parent / "data"
ENCODINGS = {
    "caption": "str",
    "image": "bytes",
    "label": "int",
    "meta": "json",
    "n": "str_int",
    "score": "float32",
    "u": "uint16",
    "vec": "ndarray:float32:2,3",
}
ROWS = [
    {
        "caption": f"héllo {i}",
        "image": bytes([i]) * (i * 7 % 40),
        "label": i - 3,
        "meta": f'{{"i": {i}}}',
        "n": i * 10**12,
        "score": i / 4,
        "u": i,
        "vec": [[i, i + 1, i + 2], [i + 3, i + 4, i + 5]],
    }
    for i in range(20)
]


def open_mds(path, tmp_path):
    return open_pool("mds", path, fingerprint_cache=tmp_path / "state" / "f")


@pytest.fixture
def copy(tmp_path):
    """A copy of the real shards, to be damaged."""
    return shutil.copytree(DATA / "mds", tmp_path / "mds")


def edit_index(folder, **changes):
    index = json.loads((folder / "index.json").read_text())
    for entry in index["shards"]:
        entry.update(changes)
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["mds", "mds_zstd"])
def test_what_mosaicml_wrote_is_read(name, tmp_path):
    pool = open_mds(DATA / name, tmp_path)

    assert dict(zip(pool.schema.names, pool.schema.types, strict=True)) == {
        "caption": pa.string(),
        "image": pa.binary(),
        "label": pa.int64(),
        "meta": pa.string(),
        "n": pa.int64(),
        "score": pa.float32(),
        "u": pa.uint16(),
        "vec": pa.fixed_shape_tensor(pa.float32(), [2, 3]),
    }
    taken = pool.take(np.array([19, 0, 11, 10, 11]))
    plain = [{**ROWS[i], "vec": [*range(i, i + 6)]} for i in (19, 0, 11, 10, 11)]
    assert taken.to_pylist() == plain
    np.testing.assert_array_equal(
        taken.column("vec").to_numpy_ndarray()[1], ROWS[0]["vec"]
    )


def test_the_writer_of_these_tests_writes_what_mosaicml_writes(tmp_path):
    rows = [pa.Table.from_pylist(ROWS[:11]), pa.Table.from_pylist(ROWS[11:])]
    written = pool_formats.write_mds(tmp_path / "mds", rows, ENCODINGS)

    for file in sorted((DATA / "mds").iterdir()):
        assert (written / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("encoding", ["pkl", "pil", "ndarray", "ndarray:int8", "nope"])
def test_encoding_that_cannot_be_read_is_named(copy, tmp_path, encoding):
    index = json.loads((copy / "index.json").read_text())
    encodings = index["shards"][0]["column_encodings"]
    edit_index(copy, column_encodings=[encoding, *encodings[1:]])

    with pytest.raises(
        PoolError, match=rf"column 'caption' is encoded as '{encoding}'"
    ):
        open_mds(copy, tmp_path)


def test_shards_with_other_columns_are_told(copy, tmp_path):
    index = json.loads((copy / "index.json").read_text())
    index["shards"][1]["column_names"][0] = "title"
    (copy / "index.json").write_text(json.dumps(index))

    with pytest.raises(
        PoolError, match=r"the first has .*caption.*, shard 1 has .*title"
    ):
        open_mds(copy, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "json"}, r"index\.json: not the index .* format 'json', version 2"),
        ({"samples": None}, r"index\.json: not the index of MDS shards"),
        ({"samples": 0}, r"a pool has at least one example"),
        ({"raw_data": {"basename": "absent.mds"}}, r"absent\.mds cannot be read"),
    ],
)
def test_index_that_is_wrong_is_told(copy, tmp_path, changes, message):
    edit_index(copy, **changes)

    with pytest.raises(PoolError, match=message):
        open_mds(copy, tmp_path)


def test_index_without_shards_or_none_is_told(tmp_path):
    with pytest.raises(PoolError, match=r"index\.json cannot be read"):
        open_mds(tmp_path, tmp_path)
    (tmp_path / "index.json").write_text('{"shards": []}')
    with pytest.raises(PoolError, match=r"the index has no shards"):
        open_mds(tmp_path, tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(PoolError, match=r"index\.json: not the index of MDS shards"):
        open_mds(tmp_path, tmp_path)


def test_packing_that_is_not_known_is_told(tmp_path):
    folder = shutil.copytree(DATA / "mds_zstd", tmp_path / "mds")
    edit_index(folder, compression="snappy")

    with pytest.raises(
        PoolError, match=r"mds\.zstd: packed with 'snappy', which cannot"
    ):
        open_mds(folder, tmp_path)


def test_packed_shard_that_is_damaged_is_told(tmp_path):
    folder = shutil.copytree(DATA / "mds_zstd", tmp_path / "mds")
    file = folder / "shard.00001.mds.zstd"
    file.write_bytes(file.read_bytes()[:-9])

    with pytest.raises(PoolError, match=r"shard\.00001\.mds\.zstd: .*Truncated"):
        open_mds(folder, tmp_path)


def test_shard_that_is_damaged_is_told(copy, tmp_path):
    file = copy / "shard.00000.mds"
    whole = file.read_bytes()
    file.write_bytes(whole[:300])
    with pytest.raises(
        PoolError, match=r"shard\.00000\.mds: not the MDS shard of 11 sam"
    ):
        open_mds(copy, tmp_path).take(np.array([0]))
    file.write_bytes(b"\x0c" + whole[1:])
    with pytest.raises(PoolError, match=r"its header says 12 samples"):
        open_mds(copy, tmp_path).take(np.array([0]))
    start = int.from_bytes(whole[4:8], "little")
    file.write_bytes(whole[:start] + b"\xff" + whole[start + 1 :])
    with pytest.raises(
        PoolError, match=r"shard\.00000\.mds: sample 0 cannot be decoded: it has \d+ b"
    ):
        open_mds(copy, tmp_path).take(np.array([0]))


@pytest.mark.parametrize(
    ("encoding", "cell", "problem"),
    [
        ("str_int", str(10**30), "int too"),
        ("str_int", "-1" + "0" * 5000, "Exceeds the limit"),
        ("str_int", "seven", "invalid literal for int"),
        ("str_float", "seven", "could not convert string to float"),
        ("str", b"\xff", "'utf-8' codec can't decode"),
    ],
)
def test_cell_that_cannot_be_decoded_is_named(tmp_path, encoding, cell, problem):
    cell = cell if isinstance(cell, bytes) else cell.encode()
    columns = {"a": [b"1"] * 3, "b": [b"2", b"3", cell]}
    shards = [pa.table({**columns, "b": columns["a"]}), pa.table(columns)]
    encodings = {"a": "bytes", "b": "bytes"}
    folder = pool_formats.write_mds(tmp_path / "mds", shards, encodings)
    edit_index(folder, column_encodings=["bytes", encoding])
    pool = open_mds(folder, tmp_path)

    message = rf"shard\.00001\.mds: sample 2: column 'b' cannot be decoded: .*{problem}"
    with pytest.raises(PoolError, match=message):
        pool.take(np.array([0, 4, 5]))
    assert pool.take(np.array([5]), ["a"]).to_pylist() == [{"a": b"1"}]


def test_shard_that_changes_later_is_told(copy, tmp_path):
    pool = open_mds(copy, tmp_path)
    pool.take(np.array([0]))
    file = copy / "shard.00000.mds"
    file.write_bytes(file.read_bytes() + b"more")

    with pytest.raises(
        PoolChangedError, match=r"shard\.00000\.mds: changed since the po"
    ):
        pool.take(np.array([0]))
    assert pool.take(np.array([19]), ["label"]).to_pylist() == [{"label": 16}]
