"""The same rows in every format give the same batches."""

import shutil
import threading
from typing import Any

import numpy as np
import pool_formats
import pyarrow as pa
import pytest

import curator
from curator.config import Config, PoolSpec, ServerSpec, SessionSpec
from curator.errors import ConfigError, PoolError
from curator.pools import FORMATS, Pool, open_pool

TABLE = pool_formats.table()
ROWS = TABLE.to_pylist()
N = TABLE.num_rows
KINDS = sorted(pool_formats.KINDS)


def open_kind(kind, path, folder):
    format, *_ = pool_formats.KINDS[kind]
    return open_pool(format, path, fingerprint_cache=folder / "state" / "f.sqlite")


@pytest.fixture(scope="module", params=KINDS)
def opened(request, tmp_path_factory):
    """A pool of some format, and the columns of the table that it has."""
    folder = tmp_path_factory.mktemp("pool")
    path = pool_formats.write(request.param, folder / "data", TABLE)
    pool = open_kind(request.param, path, folder)
    yield pool, pool_formats.KINDS[request.param][3]
    pool.close()


@pytest.fixture(params=KINDS)
def make_pool(request, tmp_path_factory):
    """Returns a function of a table that makes a pool of some format."""

    def make(table):
        folder = tmp_path_factory.mktemp("pool")
        path = pool_formats.write(request.param, folder / "data", table)
        return open_kind(request.param, path, folder)

    return make


def expected(ids, columns):
    return [{name: ROWS[i][name] for name in columns} for i in ids]


def test_every_format_is_here():
    assert {kind[0] for kind in pool_formats.KINDS.values()} == {*FORMATS} - {"virtual"}


def test_every_id_gives_its_row(opened):
    pool, columns = opened

    taken = pool.take(np.arange(N), columns)

    assert isinstance(pool, Pool)
    assert pool.num_examples == N
    assert {*pool.schema.names} - {"__key__"} == {*columns}
    assert taken.to_pylist() == expected(range(N), columns)


def test_types_are_those_of_the_rows(opened):
    pool, columns = opened

    taken = pool.take(np.array([1, 0]))

    assert taken.schema.equals(pool.schema)
    assert pool.schema.metadata is None
    for name in columns:
        assert pool.schema.field(name).type == TABLE.schema.field(name).type


@pytest.mark.parametrize(
    "ids",
    [
        [5],
        [59, 0],
        [3, 3, 3, 17, 3],
        [10, 11, 12, 40, 41, 9],
        list(range(59, -1, -1)),
        [(i * 37) % N for i in range(300)],
        [],
    ],
    ids=["one", "ends", "repeats", "runs", "backwards", "many", "none"],
)
def test_rows_come_in_the_order_asked_for(opened, ids):
    pool, columns = opened
    some = columns[::-2]

    taken = pool.take(np.array(ids, np.int64), some)

    taken.validate(full=True)
    assert taken.schema.names == some
    assert taken.to_pylist() == expected(ids, some)


def test_no_columns_give_rows_without_columns(opened):
    taken = opened[0].take(np.array([4, 2, 4]), [])

    assert (taken.num_rows, taken.num_columns) == (3, 0)


def test_ids_and_columns_outside_the_pool_are_named(opened):
    pool, _ = opened

    with pytest.raises(PoolError, match=r"not in the pool: id 60, -1; the pool has 60"):
        pool.take(np.array([60, -1]))
    with pytest.raises(PoolError, match=r"no column 'textt'"):
        pool.take(np.array([0]), ["textt"])


def test_threads_get_their_own_rows(opened):
    pool, columns = opened
    start = threading.Barrier(6)
    wrong = []

    def hammer(seed):
        rng = np.random.default_rng(seed)
        start.wait()
        for _ in range(4):
            ids = rng.integers(0, N, 40)
            some = rng.choice(columns, 2, replace=False).tolist()
            if pool.take(ids, some).to_pylist() != expected(ids.tolist(), some):
                wrong.append((seed, ids, some))

    threads = [threading.Thread(target=hammer, args=[seed]) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_taken_rows_outlive_the_pool_which_says_that_it_is_closed(make_pool):
    pool = make_pool(TABLE)
    taken = pool.take(np.array([8, 9, 30]), ["txt"])
    pool.close()
    pool.close()

    assert taken.to_pylist() == expected([8, 9, 30], ["txt"])
    with pytest.raises(PoolError, match="the pool is closed"):
        pool.take(np.array([0]))


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprint_is_that_of_the_data_wherever_it_lies(kind, tmp_path):
    path = pool_formats.write(kind, tmp_path / "data", TABLE)
    before = open_kind(kind, path, tmp_path).fingerprint
    shutil.copytree(path, tmp_path / "elsewhere" / "copy")

    again = open_kind(kind, path, tmp_path)
    copied = open_kind(kind, tmp_path / "elsewhere" / "copy", tmp_path / "other")

    assert before == again.fingerprint == copied.fingerprint
    assert len(bytes.fromhex(before)) == 16


def test_fingerprint_differs_with_any_row(make_pool):
    def with_column(name, values, dtype=None):
        i = TABLE.column_names.index(name)
        return TABLE.set_column(i, name, pa.array(values, dtype))

    whole = TABLE["cls"].to_pylist()
    changed = [
        TABLE,
        with_column("cls", [*whole[:-1], 1000]),
        with_column("txt", ["x", *TABLE["txt"].to_pylist()[1:]]),
        TABLE.take(pa.array([1, 0, *range(2, N)])),
        TABLE.slice(0, N - 1),
    ]

    fingerprints = [make_pool(data).fingerprint for data in changed]

    assert len({*fingerprints}) == len(changed)
    assert make_pool(TABLE).fingerprint == fingerprints[0]


def stream_of(kind, folder, columns):
    """Returns ids and rows of each batch of a session."""
    data = pool_formats.write(kind, folder / "data", TABLE)
    format: Any = pool_formats.KINDS[kind][0]
    config = Config(
        server=ServerSpec(state_dir=str(folder / "state")),
        pools={"p": PoolSpec(format=format, path=str(data))},
        sessions={
            "s": SessionSpec(
                pool="p", batch_size=7, num_steps=12, seed=3, columns=columns
            )
        },
    )
    stream = []
    with curator.local(config) as service:
        session = service.open("s")
        for batch in session.batches():
            rows = {name: list(batch[name]) for name in columns}
            stream.append((batch.ids.tolist(), rows))
            session.report(batch)
    return stream


@pytest.fixture(scope="module")
def parquets_stream(tmp_path_factory):
    columns = [name for name in TABLE.column_names if name != "tokens"]
    return stream_of("parquet", tmp_path_factory.mktemp("parquet"), columns)


@pytest.mark.parametrize("kind", KINDS)
def test_session_delivers_what_parquet_delivers(kind, parquets_stream, tmp_path):
    columns = [name for name in pool_formats.KINDS[kind][3] if name != "tokens"]

    stream = stream_of(kind, tmp_path, columns)

    assert len(stream) == 12
    assert stream == [
        (ids, {name: rows[name] for name in columns}) for ids, rows in parquets_stream
    ]
    ids, rows = stream[0]
    assert rows["txt"] == [ROWS[i]["txt"] for i in ids]


def test_file_of_another_format_is_told(tmp_path):
    pool_formats.write_csv(tmp_path / "a.csv", TABLE)

    message = r"a\.csv: a name of format 'csv', and the pool is of format 'jsonl': set"
    with pytest.raises(PoolError, match=message):
        open_pool("jsonl", tmp_path / "a.csv")
    with pytest.raises(PoolError, match=r"Files of format csv are there"):
        open_pool("webdataset", tmp_path)


def test_unknown_format_lists_all():
    with pytest.raises(
        ConfigError, match=r"unknown pool format 'tar'.*Known: arrow, c"
    ):
        open_pool("tar", "a")
