import subprocess
import sys

import lance
import numpy as np
import pool_formats
import pool_tables
import pyarrow as pa
import pytest

from curator.errors import PoolError
from curator.pools import MemoryPool, open_pool
from curator.pools._lance import LancePool

TABLE = pool_formats.table()


def open_lance(path, tmp_path):
    return open_pool("lance", path, fingerprint_cache=tmp_path / "state" / "f")


def test_every_type_that_lance_keeps_is_read(tmp_path):
    table = pool_tables.every_type().drop_columns(["map", "nothing"])
    pool = open_lance(pool_formats.write_lance(tmp_path / "a.lance", table), tmp_path)

    ids = np.array([59, 3, 3, 20, 0])
    assert pool.take(ids).to_pylist() == table.take(ids).to_pylist()
    assert pool.schema.field("category").type == pa.string()


def test_fingerprint_is_that_of_the_values_however_they_lie(tmp_path):
    one = lance.write_dataset(TABLE, tmp_path / "one")
    lance.write_dataset(TABLE.slice(0, 20), tmp_path / "two")
    lance.write_dataset(TABLE.slice(20), tmp_path / "two", mode="append")

    fingerprints = {
        open_lance(path, tmp_path).fingerprint for path in (one.uri, tmp_path / "two")
    }

    assert fingerprints == {MemoryPool(TABLE).fingerprint}


def test_version_is_the_last_one_when_it_opens(tmp_path):
    dataset = lance.write_dataset(TABLE, tmp_path / "a")
    before = open_lance(tmp_path / "a", tmp_path)
    first = before.fingerprint
    dataset.delete("cls < 7")
    after = open_lance(tmp_path / "a", tmp_path)

    assert before.num_examples == 60
    assert before.take(np.array([0]), ["cls"]).to_pylist() == [{"cls": -3}]
    assert after.num_examples == 50
    assert after.take(np.array([0, 49]), ["cls"]).column(0).to_pylist() == [7, 56]
    assert (
        open_lance(tmp_path / "a", tmp_path).fingerprint == after.fingerprint != first
    )


def test_what_is_no_dataset_is_told(tmp_path):
    with pytest.raises(PoolError, match=r"absent: not a Lance dataset, or damaged"):
        open_lance(tmp_path / "absent", tmp_path)
    lance.write_dataset(TABLE.slice(0, 0), tmp_path / "empty")
    with pytest.raises(PoolError, match=r"empty: .* the dataset has no rows"):
        open_lance(tmp_path / "empty", tmp_path)


def test_data_that_is_gone_is_told(tmp_path):
    pool_formats.write_lance(tmp_path / "a", TABLE)
    pool = LancePool(tmp_path / "a")  # open_pool's type check asks for the fingerprint
    for file in (tmp_path / "a" / "data").iterdir():
        file.unlink()

    with pytest.raises(PoolError, match=r"/a: a Lance dataset that cannot be read"):
        pool.take(np.array([0]))
    with pytest.raises(PoolError, match=r"/a: a Lance dataset that cannot be read"):
        _ = pool.fingerprint


def test_missing_package_is_named():
    code = (
        "import sys; sys.modules['lance'] = None\n"
        "from curator.pools import open_pool\n"
        "from curator.errors import MissingDependencyError\n"
        "try: open_pool('lance', 'a')\n"
        "except MissingDependencyError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "pip install 'batch-curator[lance]'" in run.stdout
