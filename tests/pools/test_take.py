"""The gather, where its layout matters; what it returns is in test_contract.py."""

import numpy as np
import pool_tables
import pyarrow as pa
import pytest

from curator.errors import PoolError
from curator.pools import ArrowPool, MemoryPool
from curator.pools._request import check_ids
from curator.pools._take import plain_schema


@pytest.mark.parametrize("num_bytes", [1, 7, 2048, 1 << 16, (1 << 16) + 1, 1 << 18])
def test_rows_of_any_width_are_gathered(num_bytes):
    values = np.arange(12 * num_bytes, dtype=np.uint32).astype(np.uint8)
    rows = values.reshape(12, num_bytes)
    table = pa.table({"a": pa.FixedSizeListArray.from_arrays(values, num_bytes)})
    batches = table.to_batches(max_chunksize=5)

    taken = MemoryPool(pa.Table.from_batches(batches)).take(np.array([11, 4, 5, 4]))

    got = taken.column(0).flatten().to_numpy().reshape(4, num_bytes)
    np.testing.assert_array_equal(got, rows[[11, 4, 5, 4]])


def test_empty_chunks_are_skipped():
    column = pa.chunked_array([[], [1, 2], [], [], [3], []], pa.int64())
    pool = MemoryPool(pa.table({"a": column}))

    assert pool.take(np.array([2, 0, 1])).column(0).to_pylist() == [3, 1, 2]


def test_next_row_of_another_chunk_does_not_prolong_a_run():
    column = pa.chunked_array([["a", "b", "c"], ["d", "e", "f"]])
    pool = MemoryPool(pa.table({"a": column}))

    assert pool.take(np.array([1, 5])).column(0).to_pylist() == ["b", "f"]


def test_chunk_without_nulls_beside_one_with_nulls():
    column = pa.chunked_array([[1, 2], [3, None]])
    pool = MemoryPool(pa.table({"a": column}))

    assert pool.take(np.array([1, 0])).column(0).to_pylist() == [2, 1]
    assert pool.take(np.array([3, 0])).column(0).to_pylist() == [None, 1]


@pytest.mark.parametrize("num_rows", [3, 3000])
def test_dictionaries_that_differ_by_file_are_decoded(tmp_path, num_rows):
    words = [["a", "b"], ["b", "c"], ["c", None]]
    for i, (first, second) in enumerate(words):
        column = pa.array([first, second] * num_rows).dictionary_encode()
        pool_tables.write_arrow(tmp_path / f"{i}.arrow", pa.table({"word": column}))
    pool = ArrowPool(tmp_path)

    ids = np.array([4 * num_rows + 1, 2 * num_rows, 1, 0, 4 * num_rows])
    assert pool.take(ids).column(0).to_pylist() == [None, "b", "b", "a", "c"]


def test_dictionaries_inside_lists_are_decoded():
    words = pa.array(["a", "b", "a", "c"]).dictionary_encode()
    table = pa.table(
        {
            "list": pa.ListArray.from_arrays([0, 1, 4], words),
            "large": pa.LargeListArray.from_arrays([0, 1, 4], words),
            "fixed": pa.FixedSizeListArray.from_arrays(words, 2),
            "struct": pa.StructArray.from_arrays([words[:2]], ["word"]),
        }
    )
    pool = MemoryPool(table)

    assert pool.schema.field("list").type == pa.list_(pa.string())
    assert pool.take(np.array([1, 0])).to_pylist() == table.to_pylist()[::-1]


def test_integer_dictionary_is_decoded_and_not_read_as_its_indices():
    column = pa.array([70, 50, 70]).dictionary_encode()
    pool = MemoryPool(pa.table({"a": column}))

    assert pool.take(np.array([0, 1])).column(0).to_pylist() == [70, 50]


@pytest.mark.parametrize(
    "dtype", [pa.string_view(), pa.list_view(pa.int8()), pa.list_(pa.int8(), 0)]
)
def test_types_that_arrow_cannot_take_are_sliced(dtype):
    values = ["a" * 20, None, "b"] if dtype == pa.string_view() else [[], None, []]
    pool = MemoryPool(pa.table({"a": pa.array(values, dtype)}))

    taken = pool.take(np.array([2, 1, 0, 0]))

    assert taken.column(0).to_pylist() == [values[i] for i in [2, 1, 0, 0]]


def test_field_metadata_is_kept_and_that_of_the_schema_dropped():
    field = pa.field("a", pa.int8(), nullable=False, metadata={"unit": "s"})
    schema = plain_schema(pa.schema([field], metadata={"pandas": "{}"}))

    assert schema.metadata is None
    assert schema.field("a").equals(field, check_metadata=True)


def test_more_than_32_bit_offsets_can_say_is_refused():
    pool = MemoryPool(pa.table({"image": pa.array([bytes(1 << 22)])}))

    message = r"column 'image' \(binary\): 513 rows cannot be gathered: .* large_binary"
    with pytest.raises(PoolError, match=message):
        pool.take(np.zeros(513, np.int64))


def test_ids_that_are_not_integers_in_a_row_are_refused():
    with pytest.raises(PoolError, match=r"of integers; got shape \(1,\) of float64"):
        check_ids(np.array([1.0]), 5)
    with pytest.raises(PoolError, match=r"of integers; got shape \(1, 2\) of int64"):
        check_ids(np.array([[1, 2]]), 5)
