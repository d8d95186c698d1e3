from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_disk import small_disk
from stored import (
    DIM,
    NUM_EXAMPLES,
    check_present,
    check_present_rows,
    embeddings_of,
    ints,
    values_of,
)

from curator.errors import StorageError
from curator.store import FeatureStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "pool-model"


@pytest.fixture
def store(folder: Path) -> FeatureStore:
    return FeatureStore(folder, NUM_EXAMPLES)


KILLED = """
import sys
import numpy as np
from stored import NUM_EXAMPLES, embeddings_of
from curator.store import FeatureStore

store = FeatureStore(sys.argv[1], NUM_EXAMPLES)
rng = np.random.default_rng(int(sys.argv[2]))
while True:
    ids = rng.choice(NUM_EXAMPLES, 7, replace=False)
    # Wide rows: many pages each, so that a kill may come between two of them.
    store.put(ids, embeddings_of(ids, dim=1024))
    print(ids[0], flush=True)
"""


@pytest.mark.slow
def test_after_a_kill_every_row_is_right_or_absent(
    folder: Path, repository: Path
) -> None:
    path = os.pathsep.join([str(repository), str(repository / "tests")])
    counts: list[int] = []
    for attempt in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder), str(attempt)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        stored = [int(writer.stdout.readline()) for _ in range(3 + attempt)]
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL

        store = FeatureStore(folder, NUM_EXAMPLES)
        assert check_present(store, np.array(stored), dim=1024).all()
        present = check_present(store, np.arange(NUM_EXAMPLES), dim=1024)
        counts.append(int(present.sum()))

    assert counts == sorted(counts)
    assert counts[0] >= 7


@settings(max_examples=60)
@given(
    file=st.sampled_from(["rows", "sums"]),
    position=st.floats(0.0, 1.0, exclude_max=True),
    damage=st.binary(min_size=1, max_size=600),
    cut=st.booleans(),
)
def test_damaged_rows_are_absent(
    tmp_path_factory: pytest.TempPathFactory,
    file: str,
    position: float,
    damage: bytes,
    *,
    cut: bool,
) -> None:
    folder = tmp_path_factory.mktemp("store")
    ids = np.arange(30)
    FeatureStore(folder, 30).put(ids, embeddings_of(ids))
    path = folder / file
    offset = int(position * path.stat().st_size)

    with path.open("r+b") as damaged:
        damaged.truncate(offset) if cut else None
        damaged.seek(offset)
        damaged.write(b"" if cut else damage)

    store = FeatureStore(folder, 30)
    check_present(store, ids)
    store.put(ids, embeddings_of(ids))
    assert check_present(store, ids).all()


def test_damaged_numbers_are_absent(folder: Path, store: FeatureStore) -> None:
    ids = np.arange(30)
    store.put(ids, values_of(ids))

    with (folder / "rows").open("r+b") as file:
        file.seek(4 * 7)
        file.write(b"\x01\x02\x03\x04\x05")  # all of row 7, a byte of row 8
    with (folder / "sums").open("r+b") as file:
        file.truncate(4 * 28)

    present = check_present_rows(store, ids)
    assert np.flatnonzero(~present).tolist() == [7, 8, 28, 29]


def test_zeros_where_a_page_was_lost_are_absent(
    folder: Path, store: FeatureStore
) -> None:
    ids = np.arange(10)
    store.put(ids, embeddings_of(ids))
    row = 2 * DIM * 4

    with (folder / "rows").open("r+b") as file:
        file.seek(4 * row + row // 2)
        file.write(bytes(row))  # half of row 4, half of row 5

    present = check_present(store, ids)
    assert np.flatnonzero(~present).tolist() == [4, 5]


FULL = """
import sys
import numpy as np
from stored import NUM_EXAMPLES, embeddings_of
from curator.errors import StorageError
from curator.store import FeatureStore

store = FeatureStore(sys.argv[1], NUM_EXAMPLES)
try:
    for start in range(0, NUM_EXAMPLES, 50):
        ids = np.arange(start, start + 50)
        store.put(ids, embeddings_of(ids))
except StorageError as error:
    print(error)
# Reading holes of a full disk must not ask for pages.
present, _ = store.get(np.arange(NUM_EXAMPLES))
print(present.sum())
"""


def test_a_full_disk_is_an_error_and_not_a_signal(
    tmp_path: Path, repository: Path
) -> None:
    path = os.pathsep.join([str(repository), str(repository / "tests")])
    with small_disk(tmp_path / "disk", "128k") as disk:
        writer = subprocess.run(
            [sys.executable, "-c", FULL, str(disk / "store")],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert writer.returncode == 0, writer.stderr
        message, count = writer.stdout.splitlines()
        present = check_present(
            FeatureStore(disk / "store", NUM_EXAMPLES), np.arange(NUM_EXAMPLES)
        )

    assert "no space left to write 9600 bytes to the features in" in message
    assert 0 < int(count) < NUM_EXAMPLES
    assert int(present.sum()) == int(count)


def test_a_disk_that_is_full_from_the_start_is_an_error(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16k") as disk:
        filler = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
        assert os.write(filler, bytes(1 << 20)) < 1 << 20
        os.close(filler)
        store = FeatureStore(disk / "store", NUM_EXAMPLES)

        with pytest.raises(StorageError, match="no space left to write"):
            store.put(ints(1), embeddings_of(ints(1)))

        (disk / "filler").unlink()
        store.put(ints(1), embeddings_of(ints(1)))
        assert check_present(store, ints(1)).all()
