"""The files of a run, which are written while the next examples are scored."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from curator.errors import StorageError
from curator.offline._manifest import Manifest
from curator.offline._shards import Block, ShardWriter, shard_path

MANIFEST = Manifest(
    pool_fingerprint="p",
    model_fingerprint="m",
    model={"kind": "classifier"},
    outputs=["loss"],
    columns=[],
    where=None,
    pool_num_examples=40,
    num_examples=40,
    shard_size=20,
    versions={"batch-curator": "1"},
)


def blocks(shard: int) -> list[Block]:
    """A shard of 20 examples in two blocks; one is not finite."""
    ids = np.arange(20) + 20 * shard
    loss = ids.astype(np.float32)
    loss[3] = np.nan
    return [
        Block(ids[part], {"reference.loss": loss[part]})
        for part in (slice(12), slice(12, 20))
    ]


def in_the_way(folder: Path, shard: int) -> Path:
    """Returns the file that a shard is written to before it gets its name."""
    return folder / f".{shard_path(folder, shard).name}.part"


def test_shards_are_counted_once_they_are_on_the_disk(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, MANIFEST) as writer:
        writer.begin(0, blocks(0))
        writer.begin(1, blocks(1))
        assert shard_path(tmp_path, 0).exists()
        assert writer.not_finite == {"loss": 1}
        writer.wait()

    paths = [shard_path(tmp_path, shard) for shard in (0, 1)]
    assert sorted(tmp_path.iterdir()) == paths
    assert writer.not_finite == {"loss": 2}
    assert writer.num_bytes == sum(path.stat().st_size for path in paths)


def test_what_is_written_is_there_when_the_run_ends_early(tmp_path: Path) -> None:
    def interrupted() -> None:
        with ShardWriter(tmp_path, MANIFEST) as writer:
            writer.begin(0, blocks(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    table = pq.read_table(shard_path(tmp_path, 0))
    assert table["example_id"].to_pylist() == list(range(20))


def test_nobody_waits_for_a_shard_that_is_being_written(tmp_path: Path) -> None:
    pipe = in_the_way(tmp_path, 0)
    os.mkfifo(pipe)  # opening it waits for a reader

    def read() -> None:
        os.close(os.open(pipe, os.O_RDONLY))  # waits for the writer

    rescue = threading.Timer(60.0, read)  # of a writer that is waited for
    rescue.start()
    with ShardWriter(tmp_path, MANIFEST) as writer:
        writer.begin(0, blocks(0))
        writer.check()
        assert rescue.is_alive()
        rescue.cancel()
        read()
        with pytest.raises(StorageError, match=r"cannot write '.*/part-00000"):
            writer.wait()  # a pipe is no file
    assert writer.num_bytes == 0


def test_a_shard_that_failed_is_told_by_whatever_comes_next(tmp_path: Path) -> None:
    for ask in (
        lambda writer: writer.wait(),
        lambda writer: writer.begin(1, blocks(1)),
    ):
        in_the_way(tmp_path, 0).mkdir(exist_ok=True)
        with ShardWriter(tmp_path, MANIFEST) as writer:
            writer.begin(0, blocks(0))
            with pytest.raises(StorageError, match=r"part-00000\.parquet': Is a dir"):
                ask(writer)
            writer.wait()  # it is told once
        assert list(tmp_path.glob("part-*")) == []


def test_a_failure_is_told_without_waiting_once_it_is_known(tmp_path: Path) -> None:
    in_the_way(tmp_path, 0).mkdir()
    writer = ShardWriter(tmp_path, MANIFEST)
    with writer:
        writer.begin(0, blocks(0))

    with pytest.raises(StorageError, match=r"part-00000\.parquet': Is a directory"):
        writer.check()
    writer.check()


def test_ids_take_less_than_their_bytes(tmp_path: Path) -> None:
    ids = np.arange(0, 3 * 4000, 3)
    block = Block(ids, {"reference.loss": np.zeros(len(ids), np.float32)})
    manifest = dataclasses.replace(MANIFEST, shard_size=len(ids))

    with ShardWriter(tmp_path, manifest) as writer:
        writer.begin(0, [block])

    path = shard_path(tmp_path, 0)
    column = pq.read_metadata(path).row_group(0).column(0)
    assert column.total_compressed_size < len(ids)
    assert pq.read_table(path)["example_id"].to_pylist() == ids.tolist()
