from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scorers import lists_of
from small_disk import small_disk
from subsets import outputs_of, pool_table, write_scores

from curator.errors import ConfigError, StorageError
from curator.models import ScoreTable
from curator.offline import Scores, _scores
from curator.types import PairEmbeddings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_scores(tmp_path / "s", outputs_of(0))


def write(tmp_path: Path, **columns: object) -> Path:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("output", ["loss", "projection", "embeddings"])
def test_it_reads_what_a_table_serves(folder: Path, output: str) -> None:
    scores, table = Scores.open(folder), ScoreTable(folder)

    found = scores.read(output)

    expected = table.look_up(scores.ids(), frozenset([output]))[output]
    assert scores.outputs == table.outputs
    if isinstance(expected, PairEmbeddings):
        assert isinstance(found, PairEmbeddings)
        assert (found.logit_scale, found.logit_bias) == (10.0, -10.0)
        np.testing.assert_array_equal(found.queries, expected.queries)
        np.testing.assert_array_equal(found.targets, expected.targets)
    else:
        np.testing.assert_array_equal(found, expected)


def test_it_says_what_there_is(tmp_path: Path) -> None:
    table = pool_table()
    copied = {name: table[name] for name in ("domain", "label")}
    scores = Scores.open(write_scores(tmp_path / "s", outputs_of(0), copied=copied))

    assert scores.num_examples == 200
    assert scores.ids().tolist() == list(range(200))
    assert scores.pool_fingerprint == "pool"
    assert scores.model_fingerprint == "model of s"
    assert scores.numbers == [
        *("entropy", "grad_norm", "loss", "nuclear_norm", "num_tokens")
    ]
    assert scores.columns.names == ["domain", "label"]
    found = pa.Table.from_batches(scores.blocks(["label", "domain"]))
    assert found.to_pydict() == table.select(["label", "domain"]).to_pydict()


def test_blocks_are_no_larger_than_asked_for(folder: Path) -> None:
    scores = Scores.open(folder)

    found = list(scores.blocks(["example_id", "loss"], 25))

    assert max(len(block) for block in found) == 25  # of files of 64 rows
    table = pa.Table.from_batches(found)
    assert table["example_id"].to_pylist() == list(range(200))
    np.testing.assert_array_equal(table["loss"], scores.read("loss"))


def test_it_says_how_large_its_files_are(folder: Path) -> None:
    sizes = [path.stat().st_size for path in folder.glob("part-*.parquet")]

    assert Scores.open(folder).num_bytes == sum(sizes) > 0


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.integers(0, 2**40), min_size=1, max_size=20, unique=True))
def test_the_rows_of_others_may_be_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int]
) -> None:
    path = write(
        tmp_path_factory.mktemp("s"),
        example_id=ids,
        loss=[float(i % 7) for i in ids],
        wide=lists_of(np.array([[i % 5, i % 3] for i in ids], np.float32)),
    )

    scores = Scores.open(path)

    assert scores.manifest is scores.pool_fingerprint is scores.model_fingerprint
    assert scores.ids().tolist() == sorted(ids)
    losses, wide = scores.read("loss"), scores.read("wide")
    assert isinstance(losses, np.ndarray)
    assert isinstance(wide, np.ndarray)
    assert losses.tolist() == [i % 7 for i in sorted(ids)]
    assert wide.tolist() == [[i % 5, i % 3] for i in sorted(ids)]


def test_other_types_of_numbers_come_as_float32(tmp_path: Path) -> None:
    rows = pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2))
    path = write(
        tmp_path,
        example_id=pa.array([1, 4], pa.uint16()),
        a=[None, 3],
        b=pa.array([1e300, 0.1]),
        c=rows,
    )

    scores = Scores.open(path)

    for name, expected in (
        ("a", [np.nan, 3]),
        ("b", [np.inf, np.float32(0.1)]),
        ("c", [[1, 2], [np.nan, np.nan]]),
    ):
        found = scores.read(name)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    assert scores.numbers == ["a", "b"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"loss": [1.0]}, "have the columns loss; expected 'example_id', integers, "),
        ({"example_id": ["a"]}, "have the columns example_id; expected 'example_id'"),
    ],
)
def test_columns_that_are_no_scores_are_told(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Scores.open(write(tmp_path, **columns))


@pytest.mark.parametrize(
    ("columns", "output", "message"),
    [
        (
            {"example_id": [1, 1], "loss": [1.0, 2]},
            None,
            "example 1 is there more than",
        ),
        ({"example_id": [1, None]}, None, "'example_id' has nulls"),
        ({"example_id": [1], "a": ["x"]}, "a", "'a' is string; expected numbers or"),
        ({"example_id": [1], "a": [1]}, "b", "have no 'b'; they have a"),
        ({"example_id": [1]}, "b", "have no 'b'; they have no outputs"),
        (
            {"example_id": [1], "queries": [1]},
            "embeddings",
            "lack targets, logit_scale",
        ),
        (
            {"example_id": [1], "queries": [1], "targets": [1], "logit_scale": [1]},
            "embeddings",
            r"'queries' and 'targets' have the shapes \(1,\) and \(1,\)",
        ),
        (
            {
                "example_id": [1, 2],
                "queries": lists_of(np.ones((2, 3), np.float32)),
                "targets": lists_of(np.ones((2, 3), np.float32)),
                "logit_scale": [1.0, 2.0],
            },
            "embeddings",
            "'logit_scale' has 2 values; expected the model's own, one finite number",
        ),
    ],
)
def test_values_that_are_no_scores_are_told(
    tmp_path: Path, columns: dict[str, object], output: str | None, message: str
) -> None:
    scores = Scores.open(write(tmp_path, **columns))

    with pytest.raises(ConfigError, match=message):
        scores.ids() if output is None else scores.read(output)


def test_what_is_not_there_or_not_whole_is_told(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no scores at '.*none': no such file"):
        Scores.open(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no files that end in .parquet"):
        Scores.open(tmp_path / "empty")
    (folder / "part-00002.parquet").unlink()
    with pytest.raises(
        ConfigError, match=r"are of 136 of 200 examples: scoring is not"
    ):
        Scores.open(folder)
    (folder / "part-00002.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(
        ConfigError, match=r"'part-00002.parquet' is not a whole Parquet"
    ):
        Scores.open(folder)


def test_files_of_different_runs_are_told(tmp_path: Path, folder: Path) -> None:
    other = write_scores(tmp_path / "t", outputs_of(0))
    name = "part-00003.parquet"
    (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(ConfigError, match="files of different runs of scoring"):
        Scores.open(folder)

    few = write_scores(tmp_path / "few", {"loss": np.ones(200, np.float32)})
    (folder / name).write_bytes((few / name).read_bytes())
    with pytest.raises(
        ConfigError, match=r"'part-00003.parquet' has other columns than"
    ):
        Scores.open(folder)


def test_what_does_not_fit_into_memory_is_told_or_mapped(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Scores.open(folder)
    in_memory = scores.read("embeddings")
    # 200 examples, 2 sides of 8 numbers of 4 bytes, and as much for the policy.
    monkeypatch.setattr(_scores, "free_memory", lambda: 25_599)

    message = r"'embeddings' of 200 examples takes 12,800 bytes, .* 25,599 bytes of mem"
    with pytest.raises(ConfigError, match=message):
        scores.read("embeddings")
    mapped = scores.read("embeddings", scratch=tmp_path)
    assert isinstance(mapped, PairEmbeddings)
    assert isinstance(in_memory, PairEmbeddings)
    assert isinstance(mapped.queries, np.memmap)
    np.testing.assert_array_equal(mapped.queries, in_memory.queries)
    np.testing.assert_array_equal(mapped.targets, in_memory.targets)
    assert list(tmp_path.iterdir()) == [folder]

    monkeypatch.setattr(_scores, "free_memory", lambda: 25_600)
    assert not isinstance(scores.read("projection"), np.memmap)
    monkeypatch.setattr(_scores, "free_memory", lambda: 0)
    with pytest.raises(
        StorageError, match=r"cannot keep 4,800 bytes in '.*none': No such"
    ):
        scores.read("projection", scratch=tmp_path / "none")


def test_a_file_that_goes_away_is_told(folder: Path) -> None:
    scores = Scores.open(folder)
    (folder / "part-00001.parquet").unlink()

    with pytest.raises(StorageError, match=r"'part-00001.parquet' cannot be read: Fai"):
        scores.read("loss")


def test_a_disk_too_small_for_the_map_is_told(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Scores.open(folder)
    monkeypatch.setattr(_scores, "free_memory", lambda: 0)

    with small_disk(tmp_path / "disk", "4k") as disk:
        with pytest.raises(
            StorageError, match=r"cannot keep 4,800 bytes in .* No space"
        ):
            scores.read("projection", scratch=disk)

        assert list(disk.iterdir()) == []


def read_by(reader: str, folder: Path) -> list[np.ndarray]:
    """Reads losses and embeddings, as one of those that read scores does."""
    if reader == "scores":
        scores = Scores.open(folder)
        loss, pairs = scores.read("loss"), scores.read("embeddings")
    else:
        found = ScoreTable(folder).look_up(
            np.arange(200), frozenset(["loss", "embeddings"])
        )
        loss, pairs = found["loss"], found["embeddings"]
    assert isinstance(pairs, PairEmbeddings)
    assert isinstance(loss, np.ndarray)
    return [loss, pairs.queries, pairs.targets]


@pytest.mark.parametrize("reader", ["scores", "table"])
def test_a_bit_that_flips_is_noticed(folder: Path, reader: str) -> None:
    """Zstd and Parquet's encodings do not notice by themselves."""
    expected = read_by(reader, folder)
    path = folder / "part-00001.parquet"
    whole = path.read_bytes()
    footer = pq.ParquetFile(path).metadata.serialized_size + 8
    rng = np.random.default_rng(0)
    num_told = 0
    for place in rng.choice(np.arange(4, len(whole) - footer), 200, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = read_by(reader, folder)
        except (ConfigError, StorageError):
            num_told += 1
        else:  # what no reader looks at, such as statistics in the head of a page
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)

    assert num_told > 100
