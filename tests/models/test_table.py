from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scorers import lists_of

from curator.errors import ConfigError, StorageError
from curator.models import ScoreTable
from curator.types import PairEmbeddings


def written(folder: Path, **columns: Any) -> Path:
    path = folder / "scores.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


LOSS = frozenset({"loss"})


def losses_of(table: ScoreTable, ids: np.ndarray) -> np.ndarray:
    losses = table.look_up(ids, LOSS)["loss"]
    assert isinstance(losses, np.ndarray)
    assert losses.dtype == np.float32
    return losses


# --- what comes out ---


@settings(max_examples=60, deadline=None)
@given(
    stored=st.lists(st.integers(0, 60), unique=True, min_size=1),
    asked=st.lists(st.integers(0, 80)),
)
def test_ids_get_their_own_values_and_nan_without_a_row(
    tmp_path_factory: pytest.TempPathFactory, stored: list[int], asked: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("table")
    losses = [example / 7 for example in stored]
    table = ScoreTable(written(folder, example_id=stored, loss=losses))

    found = losses_of(table, np.array(asked, np.int64))

    wanted = [example / 7 if example in stored else np.nan for example in asked]
    np.testing.assert_array_equal(found, np.array(wanted, np.float32))
    assert table.num_missing(50) == 50 - sum(example < 50 for example in stored)


@pytest.mark.parametrize(
    "kind",
    [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.int64(), pa.uint16()],
)
def test_values_are_any_numbers_and_a_null_is_nan(
    tmp_path: Path, kind: pa.DataType
) -> None:
    values = pa.array(np.array([3, 1, 2], np.float16)).cast(kind)
    with_null = pa.concat_arrays([values, pa.nulls(1, kind)])
    path = written(tmp_path, example_id=[5, 0, 7, 2], loss=with_null)

    found = losses_of(ScoreTable(path), ints(0, 2, 5, 7))

    np.testing.assert_array_equal(found, [1, np.nan, 3, 2])


def test_values_beyond_float32_are_infinite(tmp_path: Path) -> None:
    path = written(tmp_path, example_id=[0, 1], loss=[1e300, -1e300])

    found = losses_of(ScoreTable(path), ints(0, 1))

    np.testing.assert_array_equal(found, [np.inf, -np.inf])


def test_rows_of_numbers_are_rows(tmp_path: Path) -> None:
    values = np.arange(8, dtype=np.float64).reshape(4, 2)
    lists = lists_of(values).take(pa.array([0, None, 2, 3]))
    path = written(tmp_path, example_id=[3, 1, 0, 9], projection=lists, loss=[0.0] * 4)
    table = ScoreTable(path)

    found = table.look_up(ints(9, 1, 4, 3), frozenset({"projection"}))

    assert table.outputs == {"projection", "loss"}
    assert list(found) == ["projection"]
    nan = [np.nan, np.nan]
    np.testing.assert_array_equal(found["projection"], [[6, 7], nan, nan, [0, 1]])


def test_many_row_groups_are_one_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    ids = np.random.default_rng(0).permutation(1000)
    table = pa.table({"example_id": ids, "loss": ids / 3})
    pq.write_table(table, path, row_group_size=70)

    found = losses_of(ScoreTable(path), np.arange(1000))

    np.testing.assert_array_equal(found, (np.arange(1000) / 3).astype(np.float32))


def pairs(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    columns = {
        "example_id": [4, 2, 0],
        "queries": lists_of(rng.standard_normal((3, 5))),
        "targets": lists_of(rng.standard_normal((3, 5)).astype(np.float32)),
        "logit_scale": [10.0] * 3,
        "logit_bias": [-10.0] * 3,
        **changes,
    }
    return {name: column for name, column in columns.items() if column is not None}


@pytest.mark.parametrize("bias", [-10.0, None])
def test_two_columns_and_a_scale_are_embeddings(
    tmp_path: Path, bias: float | None
) -> None:
    columns = pairs(logit_bias=None if bias is None else [bias] * 3)
    table = ScoreTable(written(tmp_path, **columns))

    found = table.look_up(ints(0, 3, 4), frozenset({"embeddings"}))["embeddings"]

    assert table.outputs == {"embeddings"}
    assert isinstance(found, PairEmbeddings)
    assert (found.logit_scale, found.logit_bias) == (10.0, bias)
    for side in ("queries", "targets"):
        vectors = np.array(columns[side].to_pylist())
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = getattr(found, side)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows[[0, 2]], unit[[2, 0]], rtol=1e-6)
        assert np.isnan(rows[1]).all()


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, 3e38])
def test_an_embedding_without_direction_is_nan(tmp_path: Path, bad: float) -> None:
    queries = np.ones((3, 5), np.float32)
    queries[1] = bad
    table = ScoreTable(written(tmp_path, **pairs(queries=lists_of(queries))))

    found = table.look_up(ints(4, 2, 0), frozenset({"embeddings"}))["embeddings"]

    assert isinstance(found, PairEmbeddings)
    assert np.isnan(found.queries).all(axis=1).tolist() == [False, True, False]


def test_what_is_looked_up_is_the_callers_own(tmp_path: Path) -> None:
    table = ScoreTable(written(tmp_path, example_id=[0, 1], loss=[1.0, 2.0]))

    losses_of(table, ints(0, 1))[:] = 9.0

    assert losses_of(table, ints(1, 0)).tolist() == [2.0, 1.0]


def test_the_fingerprint_is_that_of_the_file(tmp_path: Path) -> None:
    first = ScoreTable(written(tmp_path, example_id=[0, 1], loss=[1.0, 2.0]))
    again = ScoreTable(written(tmp_path, example_id=[0, 1], loss=[1.0, 2.0]))
    other = ScoreTable(written(tmp_path, example_id=[0, 1], loss=[1.0, 3.0]))

    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert len(first.fingerprint) == 32


# --- a folder of files ---


def part(folder: Path, name: str, *, manifest: str | None = None, **columns: Any):
    metadata = None if manifest is None else {ScoreTable.MANIFEST_KEY: manifest}
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, folder / name)


def test_a_folder_is_the_table_of_its_files(tmp_path: Path) -> None:
    part(tmp_path, "b.parquet", example_id=[3, 0], loss=[0.3, 0.0])
    part(tmp_path, "a.parquet", example_id=[5], loss=[0.5])
    part(tmp_path, "_hidden.parquet", example_id=[9], loss=[0.9])
    (tmp_path / ".a.parquet.part").write_bytes(b"cut short")
    (tmp_path / "_SUCCESS").touch()

    found = losses_of(ScoreTable(tmp_path), ints(0, 3, 5, 9))

    np.testing.assert_array_equal(found, np.array([0, 0.3, 0.5, np.nan], np.float32))


def test_the_fingerprint_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    part(tmp_path, "a.parquet", example_id=[0], loss=[0.0])
    one = ScoreTable(tmp_path).fingerprint
    part(tmp_path, "b.parquet", example_id=[1], loss=[1.0])
    two = ScoreTable(tmp_path).fingerprint
    part(tmp_path, "b.parquet", example_id=[1], loss=[2.0])
    changed = ScoreTable(tmp_path).fingerprint
    part(tmp_path, "b.parquet", example_id=[1], loss=[1.0])

    assert len({one, two, changed}) == 3
    assert ScoreTable(tmp_path).fingerprint == two


def test_an_id_in_two_files_is_told(tmp_path: Path) -> None:
    part(tmp_path, "a.parquet", example_id=[0, 1], loss=[0.0, 1.0])
    part(tmp_path, "b.parquet", example_id=[1, 2], loss=[1.0, 2.0])

    with pytest.raises(ConfigError, match=r"1 ids are in 'example_id' more than once"):
        ScoreTable(tmp_path)


def test_files_of_other_columns_are_told(tmp_path: Path) -> None:
    part(tmp_path, "a.parquet", example_id=[0], loss=[0.0])
    part(tmp_path, "b.parquet", example_id=[1], entropy=[0.0])

    message = (
        r"'b\.parquet' has the columns example_id \(int64\), entropy \(double\), and "
        r"'a\.parquet' has example_id \(int64\), loss \(double\); expected the same"
    )
    with pytest.raises(ConfigError, match=message):
        ScoreTable(tmp_path)


def test_a_damaged_file_of_a_folder_is_named(tmp_path: Path) -> None:
    part(tmp_path, "a.parquet", example_id=[0], loss=[0.0])
    (tmp_path / "b.parquet").write_bytes(b"PAR1")

    with pytest.raises(ConfigError, match=r"'b\.parquet' is not a whole Parquet file"):
        ScoreTable(tmp_path)


def test_a_folder_that_lacks_files_is_told(tmp_path: Path) -> None:
    whole = '{"num_examples": 3}'
    part(tmp_path, "a.parquet", manifest=whole, example_id=[0, 1], loss=[0.0, 1.0])

    with pytest.raises(ConfigError, match=r"2 of 3 examples: it is not finished\. Run"):
        ScoreTable(tmp_path)

    part(tmp_path, "b.parquet", manifest=whole, example_id=[2], loss=[2.0])
    assert ScoreTable(tmp_path).num_missing(3) == 0


def test_files_of_two_runs_are_told(tmp_path: Path) -> None:
    for name, manifest in (("a", '{"num_examples": 1}'), ("b", None)):
        part(
            tmp_path,
            f"{name}.parquet",
            manifest=manifest,
            example_id=[ord(name)],
            loss=[0.0],
        )

    with pytest.raises(ConfigError, match=r"files of different runs of scoring"):
        ScoreTable(tmp_path)


# --- what is refused ---


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "loss": [1.0]}, "has the columns id, loss; expected 'example_id'"),
        (
            {"example_id": [1, 2, 1, 3, 3], "loss": [0.0] * 5},
            r"2 ids are in 'example_id' more than once \(1, 3\)",
        ),
        (
            {"example_id": [*range(7)] * 2},
            r"7 ids are .* \(0, 1, 2, 3, 4, \.\.\.\); expected one row per example",
        ),
        ({"example_id": [1.0]}, "'example_id' is double with 0 nulls; expected integ"),
        ({"example_id": ["a"]}, "'example_id' is string"),
        ({"example_id": [1, None]}, "'example_id' is int64 with 1 nulls"),
        ({"example_id": pa.array([], pa.int64())}, "has no rows"),
        (
            {"example_id": [1], "text": ["a"]},
            "column 'text' is string; expected numbers or fixed-size lists of numbers",
        ),
        ({"example_id": [1], "chosen": [True]}, "column 'chosen' is bool"),
        ({"example_id": [1], "row": [[1.0]]}, r"column 'row' is list<.*convert it"),
        (pairs(targets=None), "queries and lacks targets; embeddings need all of"),
        ({"example_id": [1], "logit_bias": [1.0]}, "lacks logit_scale, queries, tar"),
        (pairs(queries=[1.0] * 3), r"shapes \(3,\) and \(3, 5\); expected lists"),
        (
            pairs(targets=lists_of(np.ones((3, 4)))),
            r"shapes \(3, 5\) and \(3, 4\); expected lists of one length",
        ),
        (
            pairs(logit_scale=[1.0, 1.0, 2.0]),
            "'logit_scale' has 2 values, 1.0 the first; .* one finite number above 0.0",
        ),
        (pairs(logit_scale=[-1.0] * 3), "'logit_scale' has 1 values, -1.0 the first"),
        (pairs(logit_bias=[None] * 3), "'logit_bias' is null"),
        (pairs(logit_bias=[float("nan")] * 3), "'logit_bias' has 1 values, nan the"),
        (pairs(logit_bias=[float("inf")] * 3), "'logit_bias' has 1 values, inf the"),
    ],
)
def test_a_table_that_is_no_table_of_scores_is_told(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoreTable(written(tmp_path, **columns))


def test_a_column_twice_is_told(tmp_path: Path) -> None:
    ids, losses = pa.array([1]), pa.array([1.0])
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table([ids, losses, losses], names=["example_id", "loss", "loss"]), path
    )

    with pytest.raises(ConfigError, match=r"example_id, loss, loss; .* each once"):
        ScoreTable(path)


def test_a_file_that_is_no_parquet_is_told(tmp_path: Path) -> None:
    whole = written(tmp_path, example_id=[1], loss=[1.0])
    for data in (b"", b"example_id,loss\n", whole.read_bytes()[:-4]):
        path = tmp_path / "other"
        path.write_bytes(data)

        with pytest.raises(ConfigError, match=r"other' is not a whole Parquet file"):
            ScoreTable(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent' cannot be read: No such file"):
        ScoreTable(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"no files that end in \.parquet in this fo"):
        ScoreTable(tmp_path)


def test_an_output_that_it_lacks_is_a_programmers_mistake(tmp_path: Path) -> None:
    table = ScoreTable(written(tmp_path, example_id=[1], entropy=[1.0]))
    empty = ScoreTable(written(tmp_path, example_id=[1]))

    with pytest.raises(ValueError, match=r"parquet' has entropy; got loss"):
        table.look_up(ints(1), LOSS)
    with pytest.raises(ValueError, match=r"has no outputs; got loss"):
        empty.look_up(ints(1), LOSS)
