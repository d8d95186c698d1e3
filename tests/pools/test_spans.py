import numpy as np
import pyarrow as pa
import pytest

from curator.pools import MemoryPool, zero_rows
from curator.pools._spans import RowMemory


def address(view):
    return np.frombuffer(view, np.uint8).ctypes.data


def test_wide_rows_are_not_copied():
    values = pa.array(np.arange(10 * 2000, dtype=np.float32))
    column = pa.FixedSizeListArray.from_arrays(values, 2000)
    sliced = pa.chunked_array([column.slice(2, 3), column.slice(6, 4)])
    pool = MemoryPool(pa.table({"a": sliced}))

    spans = pool.spans(np.array([6, 0, 0, 3]), ["a"]).columns[0]

    start = values.buffers()[1].address
    # Rows 9, 2, 2 and 6 of the array underneath.
    assert [(address(s) - start) // 8000 for s in spans] == [9, 2, 2, 6]
    assert {len(span) for span in spans} == {8000}


def test_narrow_rows_are_gathered_into_one_piece():
    pool = MemoryPool(pa.table({"a": np.arange(10)}))

    (span,) = pool.spans(np.array([7, 1]), ["a"]).columns[0]

    assert np.frombuffer(span, np.int64).tolist() == [7, 1]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3]),
        pa.array(["a", "b", "c"]),
        pa.array([True, False, True]),
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array([[1], [2, 3], []]),
    ],
    ids=str,
)
def test_rows_that_vary_or_have_nulls_lie_nowhere(column):
    pool = MemoryPool(pa.table({"a": column, "b": [1, 2, 3]}))

    assert pool.spans(np.array([0, 2])) is None
    assert pool.spans(np.array([0, 2]), ["b"]) is not None
    assert pool.spans(np.empty(0, np.int64), ["b"]) is None
    assert pool.spans(np.array([0]), []) is None


def test_wide_rows_with_a_null_in_one_chunk_lie_nowhere():
    kind = pa.list_(pa.float32(), 2000)
    whole = pa.array([[0.0] * 2000], kind)
    pool = MemoryPool(pa.table({"a": pa.chunked_array([whole, pa.nulls(1, kind)])}))

    assert pool.spans(np.array([0]), ["a"]) is None


def test_rows_too_far_apart_for_one_index_are_left_to_arrow():
    # Not read: the span of the addresses alone decides.
    memory = RowMemory(np.array([1 << 12, 1 << 47]), np.array([1, 1]), 1 << 16)

    assert memory.take(np.array([0]), np.array([0])) is None


@pytest.mark.parametrize("nowhere", [0, -1, 1 << 47])
def test_where_an_empty_piece_lies_does_not_matter(nowhere):
    data = np.arange(20, dtype=np.uint8)
    start = address(data)
    memory = RowMemory(
        np.array([nowhere, start + 8, start]), np.array([0, 3, 2]), width=4
    )

    rows = memory.take(np.array([2, 1, 1]), np.array([1, 2, 0]))

    assert rows.tolist() == [[4, 5, 6, 7], [16, 17, 18, 19], [8, 9, 10, 11]]


def test_rows_of_a_piece_that_cannot_be_read_are_left_to_arrow():
    data = np.arange(8, dtype=np.uint8)
    memory = RowMemory(np.array([address(data), -1]), np.array([2, 2]), width=4)

    assert memory.take(np.array([0, 1]), np.array([0, 0])) is None
    assert memory.take(np.array([0]), np.array([1])).tolist() == [[4, 5, 6, 7]]


def test_rows_of_zeros_have_the_schema_asked_for():
    schema = pa.schema(
        {"a": pa.fixed_shape_tensor(pa.float32(), [2, 3]), "b": pa.int16()}
    )

    rows = zero_rows(schema, 4)

    rows.validate(full=True)
    assert rows.schema.equals(schema)
    assert rows.column("b").to_pylist() == [0] * 4
