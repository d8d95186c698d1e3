"""Arrow columns as arrays, with nulls and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import curator
from curator import Config, ServerSpec, SessionSpec
from curator.columns import column_to_numpy, column_to_torch, nulls_as_nan
from curator.errors import PoolError
from curator.pools import MemoryPool

PAIRS = pa.list_(pa.float32(), 2)
TENSORS = pa.fixed_shape_tensor(pa.float64(), [1, 2])
NAN = float("nan")


def tensors(rows: list[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(TENSORS, pa.array(rows, TENSORS.storage_type))


FLOATS = [
    (pa.array([1.0, None], pa.float32()), [1.0, NAN]),
    (pa.array([None, np.float16(2)], pa.float16()), [NAN, 2.0]),
    (pa.array([None, None], pa.float64()), [NAN, NAN]),
    (pa.array([[1.0, None], [3.0, 4.0]], PAIRS), [[1.0, NAN], [3.0, 4.0]]),
    (pa.array([[1.0, 2.0], None], PAIRS), [[1.0, 2.0], [NAN, NAN]]),
    (pa.array([[1.0, 2.0], None, [5.0, 6.0]], PAIRS)[1:], [[NAN, NAN], [5.0, 6.0]]),
    (pa.array([[1.0, 2.0], None, [5.0, 6.0]], PAIRS)[:2], [[1.0, 2.0], [NAN, NAN]]),
    (
        pa.array([[[1.0], None], None], pa.list_(pa.list_(pa.float32(), 1), 2)),
        [[[1.0], [NAN]], [[NAN], [NAN]]],
    ),
    (tensors([[1.0, 2.0], None]), [[[1.0, 2.0]], [[NAN, NAN]]]),
    (
        # What lies under a null is anything.
        pa.FixedSizeListArray.from_arrays(
            pa.array([1.0, 2.0, 7.0, 7.0], pa.float32()),
            type=PAIRS,
            mask=pa.array([False, True]),
        ),
        [[1.0, 2.0], [NAN, NAN]],
    ),
]


@pytest.mark.parametrize(("column", "expected"), FLOATS)
def test_nulls_among_floats_are_nan(column: pa.Array, expected: list[Any]) -> None:
    found = nulls_as_nan(column)
    whole = column_to_numpy(column.drop_null())

    assert found is not None
    np.testing.assert_array_equal(found, expected)
    if isinstance(whole, np.ndarray):  # as where there are none
        assert found.dtype == whole.dtype
        assert found.shape[1:] == whole.shape[1:]
    assert column_to_numpy(column) == column.to_pylist()
    assert column_to_torch(column, None) == column.to_pylist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None]),
        pa.array([True, None]),
        pa.array([[1, 2], None], pa.list_(pa.uint8(), 2)),
        pa.array([[1, None]], pa.list_(pa.uint8(), 2)),
    ],
)
def test_nulls_among_integers_are_refused(column: pa.Array) -> None:
    with pytest.raises(PoolError, match=r"nulls, and no .* stands for one: fill them"):
        nulls_as_nan(column)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, 2.0]),
        pa.array([[1.0, 2.0]], PAIRS),
        pa.array([[1.0, 2.0], None], PAIRS)[:1],
        pa.array(["a", None]),
        pa.array([[1.0], None], pa.list_(pa.float32())),
        pa.array([], pa.float32()),
    ],
)
def test_what_has_no_null_or_no_numbers_is_as_it_was(column: pa.Array) -> None:
    assert nulls_as_nan(column) is None


@pytest.mark.parametrize("axes", [(0, 2, 1, 3), (0, 3, 2, 1), (0, 1, 3, 2)])
def test_tensors_that_are_stored_turned_around_come_as_they_were(axes: Any) -> None:
    stored = np.arange(4 * 2 * 3 * 5, dtype=np.float32).reshape(4, 2, 3, 5)
    given = stored.transpose(axes)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(given)
    holes = pa.array([True, False, True, True])
    with_null = pa.ExtensionArray.from_storage(
        column.type, pc.if_else(holes, column.storage, None)
    )

    found = column_to_numpy(column[1:])
    tensor = column_to_torch(column[1:], None)
    filled = nulls_as_nan(with_null)

    np.testing.assert_array_equal(found, given[1:])
    np.testing.assert_array_equal(np.asarray(tensor), given[1:])
    assert np.shares_memory(found, column.storage.values.to_numpy())
    assert filled is not None
    np.testing.assert_array_equal(filled[[0, 2, 3]], given[[0, 2, 3]])
    assert np.isnan(filled[1]).all()


def test_an_order_of_axes_that_pyarrow_writes_wrong_is_refused(tmp_path: Path) -> None:
    """Images of channels last that are turned to channels first, and not copied."""
    images = np.zeros((2, 4, 5, 3), np.uint8).transpose(0, 3, 1, 2)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(images)

    for read in (column_to_numpy, lambda column: column_to_torch(column, None)):
        with pytest.raises(PoolError, match=r"permutation \[1, 2, 0\], which pya"):
            read(column)

    rows = pa.table({"image": column})
    spec = SessionSpec(pool="pool", batch_size=2)
    config = Config(server=ServerSpec(state_dir=str(tmp_path)), sessions={"s": spec})
    with curator.local(config, pools={"pool": MemoryPool(rows)}) as service:
        batch = next(service.open("s").batches())
        with pytest.raises(PoolError, match="column 'image', step 0: its tensors have"):
            batch["image"]


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.duration("ns")])
def test_nanoseconds_that_python_has_not_are_told(kind: pa.DataType) -> None:
    for read in (column_to_numpy, lambda column: column_to_torch(column, None)):
        assert len(read(pa.array([1000, None], kind))) == 2
        with pytest.raises(PoolError, match=r"no value for all of its .*\[ns\]: cast"):
            read(pa.array([1001], kind))


@pytest.mark.parametrize("format", ["numpy", "torch"])
def test_a_column_is_of_one_type_in_all_batches(
    tmp_path: Path,
    format: Literal["numpy", "torch"],
) -> None:
    """Half of the batches have no null, and all come alike."""
    values = [None if i < 8 else float(i) for i in range(16)]
    rows = pa.table(
        {
            "float": pa.array(values, pa.float32()),
            "int": pa.array([None if i < 8 else i for i in range(16)]),
            "text": pa.array([None if i < 8 else str(i) for i in range(16)]),
        }
    )
    spec = SessionSpec(pool="pool", batch_size=2, num_epochs=1)
    config = Config(server=ServerSpec(state_dir=str(tmp_path)), sessions={"s": spec})
    with curator.local(config, pools={"pool": MemoryPool(rows)}) as service:
        batches = list(service.open("s").batches(format=format))

    assert len(batches) == 8
    for batch in batches:
        assert batch["float"].dtype == batches[-1]["float"].dtype
        expected = [NAN if i < 8 else i for i in batch.ids.tolist()]
        np.testing.assert_array_equal(np.asarray(batch["float"]), expected)
        assert isinstance(batch["text"], list)
        if min(batch.ids) < 8:
            with pytest.raises(PoolError, match=f"'int', step {batch.step}: it has nu"):
                batch["int"]
        else:
            assert batch["int"].tolist() == batch.ids.tolist()
