import numpy as np
import pyarrow as pa
import pytest

from curator.errors import PoolError
from curator.pools import MemoryPool


def test_table_without_rows_is_refused():
    with pytest.raises(PoolError, match="the table has no rows"):
        MemoryPool(pa.table({"a": pa.array([], pa.int8())}))


def test_two_columns_of_one_name_are_refused():
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])

    with pytest.raises(PoolError, match="two columns of one name: a; rename one"):
        MemoryPool(table)


def test_columns_chunked_differently_stay_in_step():
    table = pa.table(
        {
            "a": pa.chunked_array([[0, 1, 2], [3]]),
            "b": pa.chunked_array([["0"], ["1", "2", "3"]]),
        }
    )

    taken = MemoryPool(table).take(np.array([3, 0, 1]))

    assert taken.to_pydict() == {"a": [3, 0, 1], "b": ["3", "0", "1"]}
