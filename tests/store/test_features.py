from __future__ import annotations

import json
import os
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import (
    DIM,
    NUM_EXAMPLES,
    check_present,
    check_present_rows,
    embeddings_of,
    ints,
    stored_embeddings,
    values_of,
)

from curator.errors import StorageError
from curator.store import FeatureStore
from curator.types import Feature, PairEmbeddings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "pool-model"


@pytest.fixture
def store(folder: Path) -> FeatureStore:
    return FeatureStore(folder, NUM_EXAMPLES)


# --- what is stored comes back ---


def test_nothing_stored_is_none_and_makes_no_folder(
    store: FeatureStore, folder: Path
) -> None:
    assert store.get(ints(1, 2)) is None
    assert not folder.exists()


def test_rows_come_back_in_the_order_asked_for(store: FeatureStore) -> None:
    store.put(ints(7, 8, 9, 3, 999, 0), embeddings_of(ints(7, 8, 9, 3, 999, 0)))

    ids = ints(999, 1, 3, 9, 8, 7, 7, 0, 10)
    present = check_present(store, ids)

    assert present.tolist() == [True, False, True, True, True, True, True, True, False]


def test_what_belongs_to_the_model_comes_back(store: FeatureStore) -> None:
    store.put(ints(1), embeddings_of(ints(1), scale=0.1 + 0.2, bias=None))

    _, embeddings = stored_embeddings(store, ints(5))

    assert embeddings.logit_scale == 0.1 + 0.2
    assert embeddings.logit_bias is None


def test_no_ids_give_no_rows(store: FeatureStore) -> None:
    none = np.empty(0, np.int64)
    store.put(none, embeddings_of(none))

    _, embeddings = stored_embeddings(store, none)

    assert embeddings.queries.shape == (0, DIM)


def test_the_arrays_are_the_callers_own(store: FeatureStore) -> None:
    store.put(ints(1, 2), embeddings_of(ints(1, 2)))
    _, embeddings = stored_embeddings(store, ints(1, 2, 3))

    embeddings.queries[:] = 0.0

    assert embeddings.queries.flags.c_contiguous
    assert check_present(store, ints(1, 2, 3)).tolist() == [True, True, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_not_stored(
    store: FeatureStore, bad: float
) -> None:
    ids = ints(4, 5, 6)
    embeddings = embeddings_of(ids)
    embeddings.queries[1, 3] = bad
    embeddings.targets[2, 0] = bad

    store.put(ids, embeddings)

    assert check_present(store, ids).tolist() == [True, False, False]


SHAPES = [(), (1,), (5,), (3, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_and_rows_come_back_like_embeddings(
    store: FeatureStore, shape: tuple[int, ...]
) -> None:
    ids = ints(7, 8, 9, 3, 999)
    store.put(ids, values_of(ids, *shape))

    asked = ints(999, 1, 3, 9, 9, 10)
    present = check_present_rows(store, asked, *shape)

    assert present.tolist() == [True, False, True, True, True, False]


@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_that_are_not_finite_are_not_stored(
    store: FeatureStore, shape: tuple[int, ...]
) -> None:
    ids = ints(4, 5, 6)
    values = values_of(ids, *shape)
    values.reshape(3, -1)[1, -1] = np.nan
    values.reshape(3, -1)[2, 0] = -np.inf

    store.put(ids, values)

    assert check_present_rows(store, ids, *shape).tolist() == [True, False, False]


def test_numbers_of_no_ids_and_numbers_out_of_order_in_memory(
    store: FeatureStore,
) -> None:
    ids = np.arange(6)
    store.put(ids[:0], values_of(ids[:0], 4))

    store.put(ids, np.asfortranarray(values_of(ids, 4)))
    store.put(ids + 10, np.repeat(values_of(ids + 10, 4), 2, axis=0)[::2])

    assert check_present_rows(store, np.append(ids, ids + 10), 4).all()


def test_a_zero_is_told_from_nothing(store: FeatureStore) -> None:
    store.put(ints(3), np.zeros(1, np.float32))

    found = store.get(ints(3, 4))

    assert found is not None
    assert found[0].tolist() == [True, False]
    np.testing.assert_array_equal(found[1], [0.0, np.nan])  # pyright: ignore[reportArgumentType]  # it is an array


def test_an_all_zero_row_is_stored_like_any_other(store: FeatureStore) -> None:
    zeros = np.zeros((1, DIM), np.float32)
    store.put(ints(3), PairEmbeddings(zeros, zeros, 1.0))

    found = store.get(ints(3, 4))

    assert found is not None
    assert found[0].tolist() == [True, False]


def row_with_checksum_zero() -> np.ndarray:
    """Returns 2 * DIM finite floats whose CRC-32 is 0.

    A CRC is affine in the bits of its last four bytes, so they can be solved for.
    """
    for first in range(1, 100):
        row = np.full(2 * DIM, first, np.float32)
        row[-1] = 0.0
        base = zlib.crc32(row.tobytes())
        columns: dict[int, tuple[int, int]] = {}  # by leading bit: (effect, bits)
        for bit in range(32):
            row.view(np.uint32)[-1] = 1 << bit
            effect, bits = zlib.crc32(row.tobytes()) ^ base, 1 << bit
            while effect.bit_length() in columns:
                other = columns[effect.bit_length()]
                effect, bits = effect ^ other[0], bits ^ other[1]
            columns[effect.bit_length()] = effect, bits
        last = 0
        while base:
            effect, bits = columns[base.bit_length()]
            base, last = base ^ effect, last ^ bits
        row.view(np.uint32)[-1] = last
        if np.isfinite(row).all():
            return row
    raise AssertionError


def test_a_row_whose_checksum_is_zero_is_present(store: FeatureStore) -> None:
    row = row_with_checksum_zero()
    assert zlib.crc32(row.tobytes()) == 0

    store.put(ints(5), PairEmbeddings(row[None, :DIM], row[None, DIM:], 1.0))

    found = store.get(ints(5))
    assert found is not None
    assert found[0].all()


@settings(max_examples=60)
@given(
    batches=st.lists(
        st.lists(st.integers(0, NUM_EXAMPLES - 1), unique=True, max_size=40),
        max_size=5,
    ),
    asked=st.lists(st.integers(0, NUM_EXAMPLES - 1), max_size=60),
)
def test_exactly_what_was_put_is_present(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], asked: list[int]
) -> None:
    store = FeatureStore(tmp_path_factory.mktemp("store"), NUM_EXAMPLES)
    for batch in batches:
        ids = np.array(batch, np.int64)
        store.put(ids, embeddings_of(ids))

    present = check_present(store, np.array(asked, np.int64))

    known = {example for batch in batches for example in batch}
    assert present.tolist() == [example in known for example in asked]


def test_only_what_is_stored_takes_space(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "large", 10**9)
    ids = ints(0, 5 * 10**8, 10**9 - 1)

    store.put(ids, embeddings_of(ids))

    assert check_present(store, ids).all()
    sizes = [path.stat() for path in (tmp_path / "large").iterdir()]
    assert sum(size.st_size for size in sizes) > 10**11
    assert sum(size.st_blocks * 512 for size in sizes) < 10**6


# --- several at once, and afterwards ---


def test_it_is_there_when_opened_again(folder: Path, store: FeatureStore) -> None:
    store.put(ints(1, 2), embeddings_of(ints(1, 2)))

    again = FeatureStore(folder, NUM_EXAMPLES)

    assert check_present(again, ints(2, 3)).tolist() == [True, False]


def test_what_one_session_stores_another_finds(
    folder: Path, store: FeatureStore
) -> None:
    other = FeatureStore(folder, NUM_EXAMPLES)
    assert other.get(ints(1)) is None

    store.put(ints(1), embeddings_of(ints(1)))
    other.put(ints(2), embeddings_of(ints(2)))

    assert check_present(other, ints(1, 2)).all()
    assert check_present(store, ints(1, 2)).all()


def test_threads_that_start_at_once_lose_nothing(folder: Path) -> None:
    barrier = threading.Barrier(6)
    failures: list[Exception] = []

    def work(number: int) -> None:
        store = FeatureStore(folder, NUM_EXAMPLES)
        rng = np.random.default_rng(number)
        barrier.wait()
        try:
            for _ in range(10):
                ids = rng.choice(NUM_EXAMPLES, 50, replace=False)
                store.put(ids, embeddings_of(ids))
                assert check_present(store, ids).all()
                check_present(store, np.arange(NUM_EXAMPLES))
        except Exception as error:  # told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_files_are_closed_with_the_store(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))

    for number in range(20):
        store = FeatureStore(folder, NUM_EXAMPLES)
        store.put(ints(number), embeddings_of(ints(number)))
        del store

    assert len(os.listdir("/proc/self/fd")) == before


# --- what is refused ---


def test_another_number_of_examples_is_an_error(
    folder: Path, store: FeatureStore
) -> None:
    store.put(ints(1), embeddings_of(ints(1)))

    with pytest.raises(
        StorageError, match=r"of a pool of 1000 examples; expected .*999"
    ):
        FeatureStore(folder, 999)


@pytest.mark.parametrize(
    ("dim", "scale", "bias"),
    [(DIM + 8, 10.0, -10.0), (DIM, 10.1, -10.0), (DIM, 10.0, None), (DIM, 10.0, -9.0)],
)
def test_another_models_embeddings_are_an_error(
    store: FeatureStore, dim: int, scale: float, bias: float | None
) -> None:
    store.put(ints(1), embeddings_of(ints(1)))

    with pytest.raises(StorageError, match=r"= \(24, 10.0, -10.0\); got .*another mod"):
        store.put(ints(1), embeddings_of(ints(1), dim, scale, bias))
    assert check_present(store, ints(1)).all()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (values_of(ints(1)), values_of(ints(1), 3), r"shape \(\); got .* \(3,\)\."),
        (values_of(ints(1), 3), values_of(ints(1), 4), r"shape \(3,\); got rows of"),
        (values_of(ints(1), 2, DIM), embeddings_of(ints(1)), "got embeddings with"),
        (embeddings_of(ints(1)), values_of(ints(1), 2, DIM), r"\); got rows of shape"),
    ],
)
def test_another_kind_of_feature_is_an_error(
    store: FeatureStore, first: Feature, second: Feature, message: str
) -> None:
    store.put(ints(1), first)

    with pytest.raises(StorageError, match=message):
        store.put(ints(1), second)


def test_the_last_bits_of_the_scale_may_differ(store: FeatureStore) -> None:
    store.put(ints(1), embeddings_of(ints(1), scale=10.0))
    store.put(ints(2), embeddings_of(ints(2), scale=10.000001))

    assert check_present(store, ints(1, 2)).all()


@pytest.mark.parametrize("ids", [[-1], [0, NUM_EXAMPLES], [10**12]])
def test_ids_outside_the_pool_are_a_programmers_mistake(
    store: FeatureStore, ids: list[int]
) -> None:
    wrong = np.array(ids, np.int64)

    with pytest.raises(ValueError, match=r"ids must be in \[0, 1000\); got"):
        store.get(wrong)
    with pytest.raises(ValueError, match=r"ids must be in \[0, 1000\); got"):
        store.put(wrong, embeddings_of(wrong))


def test_other_floats_and_other_counts_are_a_programmers_mistake(
    store: FeatureStore,
) -> None:
    right = embeddings_of(ints(1, 2))
    double = right.queries.astype(np.float64)

    with pytest.raises(ValueError, match=r"expected float32 .*; got float64"):
        store.put(ints(1, 2), PairEmbeddings(double, double, 1.0))
    with pytest.raises(ValueError, match="of 3 ids; got float32 rows of 2"):
        store.put(ints(1, 2, 3), right)
    with pytest.raises(ValueError, match=r"expected float32 .*; got int64 rows of 2"):
        store.put(ints(1, 2), ints(1, 2))
    with pytest.raises(ValueError, match=r"at least one number; got shape \(0,\)"):
        store.put(ints(1), np.zeros((1, 0), np.float32))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', "3"])
def test_damaged_metadata_is_an_error(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(text)

    with pytest.raises(StorageError, match=r"is damaged .*: delete the folder"):
        FeatureStore(folder, NUM_EXAMPLES)


def test_another_version_is_an_error(folder: Path, store: FeatureStore) -> None:
    store.put(ints(1), embeddings_of(ints(1)))
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "version": 1}))

    with pytest.raises(StorageError, match=r"holds version 1 .* expected version 2"):
        FeatureStore(folder, NUM_EXAMPLES)


def test_something_else_in_the_way_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "meta.json").mkdir()
    (tmp_path / "rows" / "rows").mkdir(parents=True)

    with pytest.raises(StorageError, match=r"cannot read .*Not a directory"):
        FeatureStore(file / "below", NUM_EXAMPLES)
    with pytest.raises(StorageError, match=r"cannot read .*Is a directory"):
        FeatureStore(tmp_path / "meta", NUM_EXAMPLES)
    with pytest.raises(StorageError, match=r"cannot open .*Is a directory"):
        FeatureStore(tmp_path / "rows", NUM_EXAMPLES).put(
            ints(1), embeddings_of(ints(1))
        )
