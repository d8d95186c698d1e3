from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curator.errors import ConfigError, StorageError
from curator.offline import Subset, read_subset
from curator.offline._subset import write_subset


def subset(scores: np.ndarray | None) -> Subset:
    return Subset(
        ids=np.array([3, 8, 2**40]),
        weights=np.array([1, 0.5, 2], np.float32),
        scores=scores,
        metadata={"format": 1, "policy": None},
    )


@pytest.mark.parametrize(
    "scores", [None, np.array([0.5, np.nan, -1], np.float32)], ids=["none", "some"]
)
def test_a_subset_is_read_back(tmp_path: Path, scores: np.ndarray | None) -> None:
    given = subset(scores)
    write_subset(tmp_path / "s.parquet", given)

    found = read_subset(tmp_path / "s.parquet")

    np.testing.assert_array_equal(found.ids, given.ids)
    np.testing.assert_array_equal(found.weights, given.weights)
    assert (found.scores is None) == (scores is None)
    if scores is not None:
        np.testing.assert_array_equal(found.scores, scores)
    assert found.metadata == given.metadata
    nulls = pq.read_table(tmp_path / "s.parquet")["score"].null_count
    assert nulls == (3 if scores is None else 1)


def test_what_is_no_subset_is_told(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    with pytest.raises(StorageError, match=r"s.parquet' cannot be read: No such file"):
        read_subset(path)
    path.write_bytes(b"thesis")
    with pytest.raises(
        ConfigError, match="no subset that 'curator select' has written"
    ):
        read_subset(path)
    pq.write_table(pa.table({"example_id": [1]}), path)
    with pytest.raises(
        ConfigError, match="no subset that 'curator select' has written"
    ):
        read_subset(path)
    metadata = {Subset.KEY: "{}"}
    pq.write_table(pa.table({"id": [1]}).replace_schema_metadata(metadata), path)
    with pytest.raises(ConfigError, match=r"has other columns than a subset: .'id'"):
        read_subset(path)


def test_a_bit_that_flips_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    given = Subset(np.arange(500), np.ones(500, np.float32), None, {"format": 1})
    write_subset(path, given)
    whole = path.read_bytes()
    footer = pq.ParquetFile(path).metadata.serialized_size + 8
    num_told = 0
    for place in range(4, len(whole) - footer):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        try:
            found = read_subset(path)
        except (ConfigError, StorageError):
            num_told += 1
        else:
            np.testing.assert_array_equal(found.ids, given.ids)
            np.testing.assert_array_equal(found.weights, given.weights)

    assert num_told > 100
