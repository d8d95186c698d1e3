"""What every pool promises, for each kind of pool."""

import tempfile
import threading
from pathlib import Path

import numpy as np
import pool_tables
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import PoolError
from curator.pools import Pool, VirtualPool
from curator.wire import rows_from_bytes, spans_to_parts

TABLE = pool_tables.every_type()
ROWS = TABLE.to_pylist()
N = TABLE.num_rows
FEW_COLUMNS = TABLE.select(["tensor", "string", "null_int"])


@pytest.fixture(scope="module", params=sorted(pool_tables.KINDS))
def pool(request, tmp_path_factory):
    made = pool_tables.KINDS[request.param](tmp_path_factory.mktemp("pool"), TABLE)
    yield made
    made.close()


@pytest.fixture(params=sorted(pool_tables.KINDS))
def make_pool(request, tmp_path_factory):
    """Returns a function of a table that makes a pool of some kind."""
    make = pool_tables.KINDS[request.param]
    return lambda table: make(tmp_path_factory.mktemp("pool"), table)


def expected(ids, columns):
    return [{name: ROWS[i][name] for name in columns} for i in ids]


def test_every_id_gives_its_row(pool):
    taken = pool.take(np.arange(N))

    assert pool.num_examples == N
    assert taken.to_pylist() == ROWS


@pytest.mark.parametrize(
    "ids",
    [
        [5],
        [59, 0],
        [3, 3, 3, 17, 3],
        [10, 11, 12, 40, 41, 9],
        list(range(59, -1, -1)),
        [(i * 37) % N for i in range(500)],
    ],
    ids=["one", "ends", "repeats", "runs", "backwards", "many"],
)
def test_rows_come_in_the_order_asked_for(pool, ids):
    taken = pool.take(np.array(ids))

    taken.validate(full=True)
    for column in TABLE.column_names:
        assert taken.select([column]).to_pylist() == expected(ids, [column])


def test_batch_has_the_schema_of_the_pool(pool):
    taken = pool.take(np.array([1, 0]))

    assert taken.schema.equals(pool.schema)
    assert pool.schema.names == TABLE.column_names
    assert pool.schema.metadata is None


def test_dictionary_column_is_decoded(pool):
    assert pool.schema.field("category").type == pa.string()
    assert pool.take(np.array([0]), ["category"]).column(0).type == pa.string()


def test_tensor_column_stays_a_tensor(pool):
    taken = pool.take(np.array([2, 1]), ["tensor"]).column(0)

    assert taken.type == pa.fixed_shape_tensor(pa.float32(), [2, 3])
    np.testing.assert_array_equal(
        taken.to_numpy_ndarray(),
        np.stack([np.arange(12, 18), np.arange(6, 12)]).reshape(2, 2, 3),
    )


def test_columns_come_in_the_order_asked_for(pool):
    taken = pool.take(np.array([4, 2]), ["string", "int8"])

    assert taken.schema.names == ["string", "int8"]
    assert taken.to_pylist() == expected([4, 2], ["string", "int8"])


def test_no_columns_give_rows_without_columns(pool):
    taken = pool.take(np.array([4, 2, 4]), [])

    assert (taken.num_rows, taken.num_columns) == (3, 0)


def test_no_ids_give_an_empty_batch(pool):
    taken = pool.take(np.array([], np.int64))

    assert taken.num_rows == 0
    assert taken.schema.equals(pool.schema)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint64])
def test_ids_of_any_integer_type_are_taken(pool, dtype):
    taken = pool.take(np.array([7, 5], dtype), ["int64"])

    assert taken.to_pylist() == expected([7, 5], ["int64"])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, -1], r"not in the pool: id -1; the pool has 60 examples, ids 0 to 59"),
        ([60], r"not in the pool: id 60;"),
        ([99, 1, -2, 60, 61, 62], r"id 99, -2, 60 and 2 more;"),
    ],
)
def test_id_outside_the_pool_is_named(pool, ids, message):
    with pytest.raises(PoolError, match=message):
        pool.take(np.array(ids))


def test_unknown_column_is_named_with_the_nearest(pool):
    with pytest.raises(PoolError, match=r"no column 'strin' \(did you mean 'string'\?"):
        pool.take(np.array([0]), ["strin"])
    with pytest.raises(PoolError, match=r"no column '!'; the pool has int8, int64,"):
        pool.take(np.array([0]), ["int8", "!"])


def test_column_named_twice_is_refused(pool):
    with pytest.raises(PoolError, match=r"asked for once; got int8, bool, int8"):
        pool.take(np.array([0]), ["int8", "bool", "int8"])


def test_threads_get_their_own_rows(pool):
    start = threading.Barrier(8)
    wrong = []

    def hammer(seed):
        rng = np.random.default_rng(seed)
        start.wait()
        for _ in range(4):
            ids = rng.integers(0, N, 40)
            columns = rng.choice(TABLE.column_names, 3, replace=False).tolist()
            if pool.take(ids, columns).to_pylist() != expected(ids.tolist(), columns):
                wrong.append((seed, ids, columns))

    threads = [threading.Thread(target=hammer, args=[seed]) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_taken_rows_outlive_the_pool(make_pool):
    pool = make_pool(FEW_COLUMNS)
    taken = pool.take(np.array([8, 9, 30]))
    pool.close()
    del pool

    assert taken.to_pylist() == expected([8, 9, 30], FEW_COLUMNS.column_names)


def test_closed_pool_says_so(make_pool):
    pool = make_pool(FEW_COLUMNS)
    pool.close()
    pool.close()

    with pytest.raises(PoolError, match="the pool is closed"):
        pool.take(np.array([0]))


def test_fingerprint_is_that_of_the_data_wherever_it_lies(make_pool):
    one, two = make_pool(FEW_COLUMNS), make_pool(FEW_COLUMNS)

    assert one.fingerprint == two.fingerprint
    assert len(bytes.fromhex(one.fingerprint)) == 16


def test_fingerprint_differs_with_any_row(make_pool):
    table = pa.table({"a": list(range(30)), "b": [str(i) for i in range(30)]})
    changed = {
        "value": table.set_column(0, "a", pa.array([*range(29), 30])),
        "order": table.take(pa.array([1, 0, *range(2, 30)])),
        "name": table.rename_columns(["a", "c"]),
        "type": table.set_column(0, "a", table["a"].cast(pa.int32())),
        "length": table.slice(0, 29),
        "original": table,
    }

    fingerprints = {make_pool(data).fingerprint for data in changed.values()}

    assert len(fingerprints) == len(changed)


@pytest.mark.parametrize("kind", ["arrow-folder", "memory-chunks", "parquet-no-cache"])
@given(data=st.data())
@settings(max_examples=20)
def test_any_ids_of_any_slice_give_their_rows(kind, data):
    names = st.sampled_from(TABLE.column_names)
    columns = data.draw(st.lists(names, unique=True, min_size=1, max_size=3))
    size = data.draw(st.integers(1, N))
    table = TABLE.select(columns).slice(data.draw(st.integers(0, N - size)), size)
    rows = table.to_pylist()
    ids = data.draw(st.lists(st.integers(0, size - 1), max_size=60))
    with tempfile.TemporaryDirectory() as folder:
        made = pool_tables.KINDS[kind](Path(folder), table)

        taken = made.take(np.array(ids, np.int64))

        assert taken.to_pylist() == [rows[i] for i in ids]
        made.close()


def takes_a_pool(pool: Pool) -> int:
    return pool.take(np.array([0, 0])).num_rows


def test_pool_fits_the_protocol(make_pool):
    assert takes_a_pool(make_pool(FEW_COLUMNS)) == 2
    assert takes_a_pool(VirtualPool(N)) == 2


@pytest.mark.parametrize("column", TABLE.column_names)
def test_rows_where_they_lie_are_the_rows_that_are_taken(pool, column):
    ids = np.array([59, 3, 3, 20, 0])

    spans = pool.spans(ids, [column])

    taken = pool.take(ids, [column])
    if spans is None:
        return  # a fixed-width column in memory has them: test_take.py
    assert spans.num_rows == len(ids)
    assert spans.schema.equals(taken.schema)
    received = rows_from_bytes(b"".join(spans_to_parts(spans)), trusted=False)
    assert received.equals(taken)
