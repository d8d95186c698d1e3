import numpy as np
import pyarrow as pa
import pytest

from curator.errors import PoolError
from curator.pools import VirtualPool


def test_virtual_pool_has_ids_and_no_columns():
    pool = VirtualPool(10**9)

    taken = pool.take(np.array([0, 999_999_999, 0]))

    assert pool.num_examples == 10**9
    assert pool.schema == pa.schema([])
    assert (taken.num_rows, taken.num_columns) == (3, 0)
    assert pool.take(np.array([1]), []).num_rows == 1


def test_rows_without_columns_survive_arrow_ipc():
    taken = VirtualPool(5).take(np.array([0, 1, 2]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, taken.schema) as writer:
        writer.write_batch(taken)

    assert pa.ipc.open_stream(sink.getvalue()).read_next_batch().num_rows == 3


def test_id_outside_the_pool_is_named():
    with pytest.raises(PoolError, match=r"id 5; the pool has 5 examples, ids 0 to 4"):
        VirtualPool(5).take(np.array([5]))


def test_any_column_is_unknown():
    with pytest.raises(PoolError, match=r"no column 'image'; the pool has none"):
        VirtualPool(5).take(np.array([0]), ["image"])


def test_fingerprint_is_that_of_the_number():
    assert VirtualPool(5).fingerprint == VirtualPool(5).fingerprint
    assert VirtualPool(5).fingerprint != VirtualPool(6).fingerprint


def test_pool_without_examples_is_refused():
    with pytest.raises(PoolError, match="at least one example; got 0"):
        VirtualPool(0)


def test_closing_changes_nothing():
    pool = VirtualPool(5)
    pool.close()

    assert pool.take(np.array([4])).num_rows == 1
