import numpy as np
import pool_tables
import pyarrow as pa
import pytest

from curator.errors import ConfigError
from curator.pools import ArrowPool, ParquetPool, VirtualPool, open_pool

TABLE = pa.table({"a": [1, 2, 3]})


def test_formats_open_their_pools(tmp_path):
    arrow = pool_tables.write_arrow(tmp_path / "a.arrow", TABLE)
    parquet = pool_tables.write_parquet(tmp_path / "a.parquet", TABLE)

    opened = [
        open_pool("arrow", arrow),
        open_pool("parquet", str(parquet), cache_bytes=0),
        open_pool("parquet", str(tmp_path / "*.parquet")),
        open_pool("virtual", num_examples=3),
    ]

    assert [type(pool) for pool in opened] == [
        ArrowPool,
        ParquetPool,
        ParquetPool,
        VirtualPool,
    ]
    for pool in opened[:3]:
        assert pool.take(np.array([2])).to_pylist() == [{"a": 3}]


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_fingerprint_cache_reaches_the_pool(tmp_path, format):
    write = {"arrow": pool_tables.write_arrow, "parquet": pool_tables.write_parquet}
    file = write[format](tmp_path / f"a.{format}", TABLE)
    cache = tmp_path / "state" / "fingerprints.sqlite"

    pool = open_pool(format, file, fingerprint_cache=cache)

    assert pool.fingerprint == open_pool(format, file).fingerprint
    assert cache.exists()


def test_unknown_format_is_named_with_the_nearest():
    message = r"unknown pool format 'arow' \(did you mean 'arrow'\?\). Known: arrow, cs"
    with pytest.raises(ConfigError, match=message):
        open_pool("arow", "a")


def test_what_a_format_needs_is_asked_for():
    with pytest.raises(ConfigError, match=r"path: a pool of format 'arrow' needs one"):
        open_pool("arrow")
    with pytest.raises(ConfigError, match=r"num_examples: a virtual pool needs it"):
        open_pool("virtual")
