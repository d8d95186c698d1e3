"""Questions to a ledger: answers that can be checked by hand."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from read_only import read_only

from curator.errors import StorageError
from curator.ledger import (
    Ledger,
    Report,
    StepRecord,
    _inspect,
    appearances,
    copy_ledger,
    is_skipped,
    losses,
    ranks,
    step_tables,
)

NAN = float("nan")


def record(step, ids=(0, 1, 2, 3), **fields):
    return StepRecord(
        step=step,
        epoch=step // 2,
        ids=np.array(ids, np.int64),
        weights=np.arange(len(ids), dtype=np.float32) + 1,
        **fields,
    )


# --- reading only ---


def test_a_ledger_is_read_while_another_connection_writes(path, ledger):
    ledger.append(record(0))
    with contextlib.closing(Ledger(path, read_only=True)) as reader:
        assert reader.num_defined() == 1
        ledger.append(record(1))
        assert reader.num_defined() == 2


def test_a_ledger_that_is_only_read_cannot_be_written(path, ledger):
    with (
        contextlib.closing(Ledger(path, read_only=True)) as reader,
        pytest.raises(StorageError, match=r"readonly database"),
    ):
        reader.append(record(0))


def test_reading_makes_no_ledger(path):
    with pytest.raises(StorageError, match=r"unable to open"):
        Ledger(path, read_only=True)

    assert not path.exists()


def test_an_empty_file_is_no_ledger_to_read(path):
    path.touch()

    with pytest.raises(StorageError, match=r"is empty: its session could not"):
        Ledger(path, read_only=True)


def test_a_copy_made_while_steps_are_written_is_as_of_one_moment(tmp_path, ledger):
    stop = threading.Event()

    def write():
        for step in range(10_000):
            ledger.append(record(step))
            ledger.add_report(Report(step, 0, 4), next_step=step + 1)
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            target = tmp_path / f"copy-{number}.sqlite"
            copy_ledger(tmp_path / "ledger.sqlite", target)
            with contextlib.closing(Ledger(target)) as copy:
                defined, closed = copy.num_defined(), copy.next_step()
                assert defined - closed in (0, 1)
                steps = [found.step for found in copy.steps(0, defined)]
                assert steps == list(range(defined))
    finally:
        stop.set()
        writer.join()


def test_what_is_no_ledger_is_not_copied(tmp_path):
    with pytest.raises(
        StorageError,
        match=r"cannot copy the ledger '.*none\.sqlite' to '.*copy\.sqlite'",
    ):
        copy_ledger(tmp_path / "none.sqlite", tmp_path / "copy.sqlite")


# --- where nothing may be written ---


def make_ledger(path, num_steps):
    with contextlib.closing(Ledger(path)) as ledger:
        for step in range(ledger.num_defined(), num_steps):
            ledger.append(record(step))


def test_a_ledger_of_a_stopped_server_is_read_without_the_right_to_write(path):
    make_ledger(path, 3)
    assert [file.name for file in path.parent.iterdir()] == [path.name]

    with (
        read_only(path.parent),
        contextlib.closing(Ledger(path, read_only=True)) as reader,
    ):
        assert [found.step for found in reader.steps(0, 9)] == [0, 1, 2]
        with pytest.raises(StorageError, match=r"readonly database"):
            reader.append(record(3))


def test_a_ledger_of_a_killed_server_is_read_with_what_is_only_in_its_log(path, ledger):
    ledger.append(record(0))  # still open: its log is there, as after a kill

    with (
        read_only(path.parent),
        contextlib.closing(Ledger(path, read_only=True)) as reader,
    ):
        assert reader.num_defined() == 1


def test_a_log_without_the_index_that_readers_share_is_not_passed_over(path, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    with contextlib.closing(Ledger(path)) as ledger:
        ledger.append(record(0))
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", part)

    with read_only(part), pytest.raises(StorageError, match=r"cannot read"):
        Ledger(part / path.name, read_only=True)


def test_a_stopped_ledger_is_copied_without_the_right_to_write(path, tmp_path):
    folder = tmp_path / "stopped"
    folder.mkdir()
    make_ledger(folder / path.name, 3)

    with read_only(folder):
        copy_ledger(folder / path.name, path)

    with contextlib.closing(Ledger(path)) as copy:
        assert copy.num_defined() == 3


def test_a_copy_is_made_anew_where_a_server_has_started_meanwhile(
    path, tmp_path, monkeypatch
):
    folder = tmp_path / "stopped"
    folder.mkdir()
    source = folder / path.name
    make_ledger(source, 3)
    # The first connection can but read the file alone, as where nothing may be written.
    connect, alone = _inspect.connect_reading, []

    def reading_alone(source):
        if alone:
            return connect(source)
        alone.append(True)
        uri = f"{source.as_uri()}?mode=ro&immutable=1"
        return sqlite3.connect(uri, uri=True, factory=Started), True

    class Started(sqlite3.Connection):
        def backup(self, target, **options):
            super().backup(target, **options)
            make_ledger(source, 9)

    monkeypatch.setattr(_inspect, "connect_reading", reading_alone)
    copy_ledger(source, path)

    with contextlib.closing(Ledger(path)) as copy:
        assert copy.num_defined() == 9


# --- losses, ranks, skips ---


def test_losses_of_all_ranks_are_put_together(ledger):
    ledger.append(record(0), record(1))
    ledger.add_report(Report(0, 2, 4, np.array([3, NAN], np.float32)), next_step=0)
    ledger.add_report(Report(1, 0, 4), next_step=0)

    np.testing.assert_array_equal(losses(ledger, record(0)), [NAN, NAN, 3, NAN])
    assert losses(ledger, record(1)) is None


def test_ranks_count_from_the_highest_score():
    scores = np.array([1, NAN, 5, 5, -np.inf], np.float32)

    assert ranks(scores).tolist() == [3, 0, 1, 1, 4]


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)))
def test_a_rank_is_one_more_than_how_many_scores_are_higher(scores):
    expected = [0 if np.isnan(s) else 1 + int((scores > s).sum()) for s in scores]

    assert ranks(scores).tolist() == expected


def test_skips_are_half_open():
    assert [is_skipped([(2, 4)], step) for step in range(1, 5)] == [
        False,
        True,
        True,
        False,
    ]


# --- examples ---


def test_an_example_is_found_in_every_step_it_was_in(ledger):
    scores = np.array([0.5, 2.0, NAN, 1.0], np.float32)
    ledger.append(
        record(0, (7, 8, 9, 10), scores=scores, snapshot_step=3),
        record(1, (1, 2, 3, 4)),
        record(2, (10, 9, 8, 7), late=True),
        *(record(step, (1, 2, 3, 4)) for step in range(3, 600)),
        record(600, (5, 6, 10, 11)),
    )
    ledger.add_report(Report(0, 0, 4, np.array([1, 2, 3, 4], np.float32)), next_step=1)
    ledger.add_skip(2, 3, next_step=1)

    found = list(appearances(ledger, 10))

    assert [(a.step, a.epoch, a.position, a.weight) for a in found] == [
        (0, 0, 3, 4.0),
        (2, 1, 0, 1.0),
        (600, 300, 2, 3.0),
    ]
    assert [(a.score, a.rank, a.loss) for a in found] == [
        (1.0, 2, 4.0),
        (None, None, None),
        (None, None, None),
    ]
    assert [(a.snapshot_step, a.late, a.skipped) for a in found] == [
        (3, False, False),
        (None, True, True),
        (None, False, False),
    ]
    assert next(appearances(ledger, 9)).rank is None  # its score is not a number
    assert list(appearances(ledger, 99)) == []


# --- tables ---


def test_tables_have_a_row_for_each_example_of_each_step(ledger):
    scores = np.array([1, NAN, 3, 4], np.float32)
    ledger.append(record(0, scores=scores, snapshot_step=5))
    ledger.append(*(record(step) for step in range(1, 300)))
    ledger.add_report(Report(1, 0, 4, np.array([1, 2, 3, 4], np.float32)), next_step=0)
    ledger.add_skip(2, 3, next_step=0)

    table = pa.concat_tables(step_tables(ledger))

    assert table.num_rows == 1200
    assert table.column("step").to_pylist()[::4] == list(range(300))
    first, second, third = table.slice(0, 4), table.slice(4, 4), table.slice(8, 4)
    assert first.column("example_id").to_pylist() == [0, 1, 2, 3]
    assert first.column("position").to_pylist() == [0, 1, 2, 3]
    assert first.column("weight").to_pylist() == [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_array_equal(first.column("score").to_numpy(), scores)
    assert first.column("snapshot_step").to_pylist() == [5] * 4
    assert first.column("loss").null_count == 4
    assert second.column("loss").to_pylist() == [1.0, 2.0, 3.0, 4.0]
    assert second.column("score").null_count == 4
    assert second.column("skipped").to_pylist() == [False] * 4
    assert third.column("skipped").to_pylist() == [True] * 4


def test_an_empty_ledger_has_columns_and_no_rows(ledger):
    table = pa.concat_tables(step_tables(ledger))

    assert table.num_rows == 0
    assert "example_id" in table.column_names


def test_steps_that_are_not_kept_are_in_no_answer(path: Path, ledger):
    ledger.append(*(record(step) for step in range(10)))
    ledger.discard_before(6)

    assert [a.step for a in appearances(ledger, 0)] == [6, 7, 8, 9]
    assert pa.concat_tables(step_tables(ledger)).num_rows == 16
