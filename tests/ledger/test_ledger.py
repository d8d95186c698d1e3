"""The ledger: durable, exact, and plain about a full disk."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.errors import StorageError
from curator.ledger import Ledger, Report, SnapshotRecord, StepRecord


def record(step, size=4, **fields):
    return StepRecord(
        step=step,
        epoch=step // 3,
        ids=np.arange(size, dtype=np.int64) + 1000 * step,
        weights=np.full(size, 0.5, np.float32),
        **fields,
    )


def assert_same(a, b):
    assert (a.step, a.epoch, a.snapshot_step, a.late) == (
        b.step,
        b.epoch,
        b.snapshot_step,
        b.late,
    )
    assert dict(a.stats) == dict(b.stats)
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.weights, b.weights)
    if b.scores is None:
        assert a.scores is None
    else:
        np.testing.assert_array_equal(a.scores, b.scores)


def test_records_come_back_as_they_were_after_reopening(tmp_path):
    scores = np.array([1.5, np.nan, -np.inf, 0], np.float32)
    records = [
        record(0),
        record(1, scores=scores, snapshot_step=7, late=True, stats={"num_late": 1.0}),
    ]
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for each in records:
        ledger.append(each)
    ledger.close()

    again = Ledger(tmp_path / "ledger.sqlite")

    assert again.num_defined() == 2
    for each in records:
        assert_same(again.step(each.step), each)
    assert again.step(2) is None
    again.close()


def test_a_step_is_defined_once(ledger):
    ledger.append(record(0))

    with pytest.raises(StorageError, match=r"UNIQUE"):
        ledger.append(record(0))
    assert ledger.num_defined() == 1


def test_a_step_that_is_not_what_was_written_is_refused(ledger):
    """A flipped bit between SQLite's own structures; SQLite does not notice it."""
    ledger.append(record(0), record(1))
    with ledger._transaction() as db:
        (ids,) = db.execute("SELECT ids FROM steps WHERE step = 1").fetchone()
        flipped = bytes([ids[0] ^ 1]) + ids[1:]
        db.execute("UPDATE steps SET ids = ? WHERE step = 1", (flipped,))

    assert_same(ledger.step(0), record(0))
    with pytest.raises(StorageError, match=r"is damaged: step 1 is not what was writ"):
        ledger.step(1)


@pytest.mark.parametrize(
    ("table", "column", "read"),
    [
        ("reports", "losses", lambda ledger: ledger.reports(0)),
        ("reports", "losses", lambda ledger: list(ledger.feedback(0, 1))),
        ("memory", "rows", lambda ledger: ledger.memory()),
    ],
)
def test_losses_and_memory_that_are_not_what_was_written_are_refused(
    ledger, table, column, read
):
    ledger.append(record(0, remember=np.ones((2, 3), np.float32)))
    ledger.add_report(Report(0, 0, 4, np.ones(4, np.float32)), next_step=1)
    read(ledger)
    with ledger._transaction() as db:
        (blob,) = db.execute(f"SELECT {column} FROM {table}").fetchone()
        flipped = bytes([blob[0] ^ 1]) + blob[1:]
        db.execute(f"UPDATE {table} SET {column} = ?", (flipped,))

    with pytest.raises(StorageError, match=r"is damaged: step 0 is not what was writ"):
        read(ledger)


@settings(max_examples=100, deadline=None)
@given(
    ids=st.lists(
        st.one_of(
            st.integers(0, 40),
            st.integers(2**31 - 2, 2**31),
            st.integers(2**62, 2**63 - 1),
        )
    ),
    weight=st.floats(width=32),
    odd=st.none() | st.floats(width=32),
)
def test_ids_and_weights_come_back_to_the_last_bit(tmp_path_factory, ids, weight, odd):
    weights = np.full(len(ids), weight, np.float32)
    if odd is not None:
        weights[:1] = odd
    made = StepRecord(0, 0, np.array(ids, np.int64), weights)
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    with contextlib.closing(Ledger(path)) as ledger:
        ledger.append(made)
        found = ledger.step(0)

    assert found.ids.dtype == np.int64
    assert found.ids.tolist() == ids
    assert found.weights.tobytes() == weights.tobytes()
    found.ids[:], found.weights[:] = 0, 0  # they are their own


def test_totals_sum_what_steps_cost(ledger):
    # A sum of means would say nothing.
    ledger.append(record(0, stats={"scoring_seconds": 0.5, "a_mean": 1.0}, late=True))
    ledger.append(record(1, stats={"scoring_seconds": 0.25, "a_mean": 2.0}))

    assert ledger.totals() == {"scoring_seconds": 0.75, "num_late": 1.0}


def test_a_report_is_kept_as_it_was_first(ledger):
    first = Report(3, 0, 2, np.array([1.0, 2.0], np.float32))
    ledger.add_report(first, next_step=0)
    ledger.add_report(Report(3, 0, 2, np.array([9, 9], np.float32)), next_step=0)
    ledger.add_report(Report(3, 2, 4), next_step=4)

    reports = ledger.reports(3)

    assert [(r.start, r.stop) for r in reports] == [(0, 2), (2, 4)]
    np.testing.assert_array_equal(reports[0].losses, first.losses)
    assert reports[1].losses is None
    assert ledger.next_step() == 4


def test_snapshots_and_meta_come_back(ledger):
    ledger.add_snapshot(SnapshotRecord(2, 1, "ab"))
    ledger.add_snapshot(SnapshotRecord(1, 0, "cd"))
    ledger.set_meta({"spec": "x", "pool": "y"})

    assert ledger.snapshot(1) == SnapshotRecord(1, 0, "cd")
    assert ledger.snapshot(3) is None
    assert ledger.last_snapshot() == SnapshotRecord(2, 1, "ab")
    assert ledger.last_snapshot(0) == SnapshotRecord(1, 0, "cd")
    assert ledger.last_snapshot(-1) is None
    assert ledger.meta() == {"spec": "x", "pool": "y"}


def test_a_full_disk_records_nothing_and_says_so(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.append(record(0))
    # SQLite meets this limit with the same error as a disk without space.
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StorageError, match=r"no space left to write the ledger"):
        ledger.append(record(1, size=100_000))
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    ledger.append(record(1, size=100_000))

    assert ledger.num_defined() == 2
    assert ledger.totals()["num_late"] == 0
    ledger.close()


def test_what_is_no_ledger_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 20)

    with pytest.raises(StorageError, match=r"cannot read or write the ledger"):
        Ledger(path)


def test_several_steps_are_defined_all_or_none(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.append(record(0), record(1))

    with pytest.raises(StorageError):
        ledger.append(record(2), record(1))

    assert ledger.num_defined() == 2
    assert [found.step for found in ledger.steps(0, 9)] == [0, 1]
    ledger.close()
