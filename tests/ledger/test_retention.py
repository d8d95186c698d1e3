"""Old steps go away, and older formats are migrated or refused."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3

import numpy as np
import pytest
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import IDS_ONLY, served

from curator.config import parse_config
from curator.errors import ConfigError, SessionError, StorageError
from curator.ledger import Ledger, Report, StepRecord
from curator.samplers import InfoBatch

# Table for table, what format 2 was.
FORMAT_2 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE steps (
    step INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    ids BLOB NOT NULL,
    weights BLOB NOT NULL,
    scores BLOB,
    snapshot_step INTEGER,
    late INTEGER NOT NULL,
    stats TEXT NOT NULL
);
CREATE TABLE reports (
    step INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    losses BLOB,
    PRIMARY KEY (step, start, stop)
) WITHOUT ROWID;
CREATE TABLE memory (
    step INTEGER PRIMARY KEY,
    width INTEGER NOT NULL,
    rows BLOB NOT NULL
);
CREATE TABLE snapshots (
    snapshot_step INTEGER PRIMARY KEY,
    report_step INTEGER NOT NULL,
    digest TEXT NOT NULL
);
CREATE TABLE totals (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('next_step', '1');
INSERT INTO steps VALUES (0, 0, x'0700000000000000', x'0000803F', NULL, 3, 0, '{}');
INSERT INTO reports VALUES (0, 0, 1, x'00000040');
INSERT INTO snapshots VALUES (3, 2, 'ab');
INSERT INTO totals VALUES ('num_late', 0);
PRAGMA user_version = 2;
"""


def record(step, size=4):
    return StepRecord(
        step=step,
        epoch=0,
        ids=np.arange(size, dtype=np.int64),
        weights=np.ones(size, np.float32),
        stats={"scoring_seconds": 1.0},
    )


# --- discarding ---


def test_steps_and_reports_before_a_step_go_and_totals_stay(ledger):
    ledger.append(*(record(step) for step in range(700)))
    for step in range(700):
        ledger.add_report(Report(step, 0, 4), next_step=step + 1)

    ledger.discard_before(600)

    assert ledger.first_step() == 600
    assert [found.step for found in ledger.steps(0, 1000)] == list(range(600, 700))
    assert ledger.reports(599) == []
    assert len(ledger.reports(600)) == 1
    assert (ledger.num_defined(), ledger.next_step()) == (700, 700)
    assert ledger.totals()["scoring_seconds"] == 700


def test_what_is_gone_stays_gone_after_reopening(path, ledger):
    ledger.append(*(record(step) for step in range(10)))
    ledger.discard_before(6)

    with contextlib.closing(Ledger(path)) as again:
        assert again.first_step() == 6
        assert again.num_defined() == 10


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(-5, 30), max_size=5))
def test_the_newest_step_is_always_kept(tmp_path_factory, cuts):
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    with contextlib.closing(Ledger(path)) as ledger:
        ledger.append(*(record(step) for step in range(20)))

        for cut in cuts:
            ledger.discard_before(cut)

        first = min(max([0, *cuts]), 19)
        assert ledger.first_step() == first
        assert [found.step for found in ledger.steps(0, 30)] == list(range(first, 20))


def test_an_empty_ledger_has_nothing_to_discard(ledger):
    ledger.discard_before(100)

    assert ledger.first_step() == 0


def test_the_file_stops_growing(path, ledger):
    sizes = []
    for start in range(0, 4096, 64):
        ledger.append(*(record(step, size=256) for step in range(start, start + 64)))
        ledger.discard_before(start - 256)
        pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
        sizes.append(pages)
    unused = ledger._db.execute("PRAGMA freelist_count").fetchone()[0]

    assert max(sizes[6:]) <= 1.1 * sizes[6]
    assert unused == 0  # given back to the file system, not only to be used again


# --- sessions ---


@pytest.mark.slow
def test_a_session_keeps_as_many_steps_as_it_is_told(tmp_path):
    config = worlds.config(tmp_path, server={"keep_steps": 100}, s=IDS_ONLY)
    with served(config) as service:
        session = service.open("s")
        batches = worlds.train(session, 3)
        early = session.state_dict()
        batches += worlds.train(session, 247)
        late = session.state_dict()
        batches += worlds.train(session, 50)

        session = service.open("s")
        session.load_state_dict(early)
        with pytest.raises(
            SessionError,
            match=r"step 3 of session 's' is no longer kept .*: the oldest is [12]\d\d",
        ):
            next(iter(session.batches()))
        session = service.open("s")
        session.load_state_dict(late)
        again = worlds.train(session, 5)

    worlds.assert_same_batches(again, batches[250:255])
    path = tmp_path / "sessions" / "s" / "ledger.sqlite"
    with contextlib.closing(Ledger(path, read_only=True)) as ledger:
        assert 300 - 100 - 64 - 8 <= ledger.first_step() <= 300 - 100
        assert ledger.step(ledger.first_step()) is not None


@pytest.mark.slow
def test_a_session_that_keeps_few_steps_goes_on_after_a_restart(tmp_path):
    few = worlds.config(tmp_path / "few", server={"keep_steps": 1}, s=IDS_ONLY)
    every = worlds.config(tmp_path / "every", s=IDS_ONLY)
    with served(few) as service:
        worlds.train(service.open("s"), 150)
    with served(few) as service:
        ours = worlds.train(service.open("s"), 10)
    with served(every) as service:
        theirs = worlds.train(service.open("s"), 160)

    worlds.assert_same_batches(ours, theirs[150:])


@pytest.mark.slow
def test_losses_that_a_sampler_plans_from_are_kept(tmp_path):
    spec = dataclasses.replace(
        IDS_ONLY,
        batch_size=20,
        super_batch_size=20,
        sampler=InfoBatch(),
        num_epochs=50,
    )
    few = worlds.config(tmp_path / "few", server={"keep_steps": 1}, s=spec)
    every = worlds.config(tmp_path / "every", s=spec)
    with served(few) as service:
        worlds.train(service.open("s"), 180)
    with served(few) as service:
        ours = worlds.train(service.open("s"), 20)
    with served(every) as service:
        theirs = worlds.train(service.open("s"), 200)

    worlds.assert_same_batches(ours, theirs[180:])
    path = tmp_path / "few" / "sessions" / "s" / "ledger.sqlite"
    with contextlib.closing(Ledger(path, read_only=True)) as ledger:
        assert 0 < ledger.first_step() < 180


@pytest.mark.slow
def test_without_a_limit_every_step_is_kept(tmp_path):
    with served(worlds.config(tmp_path, s=IDS_ONLY)) as service:
        worlds.train(service.open("s"), 200)

    path = tmp_path / "sessions" / "s" / "ledger.sqlite"
    with contextlib.closing(Ledger(path, read_only=True)) as ledger:
        assert ledger.first_step() == 0
        assert ledger.step(0) is not None


def test_steps_that_nobody_reports_are_kept(tmp_path):
    config = worlds.config(tmp_path, server={"keep_steps": 1}, s=IDS_ONLY)
    with served(config) as service:
        batches = iter(service.open("s").batches())
        for _ in range(150):
            next(batches)

    path = tmp_path / "sessions" / "s" / "ledger.sqlite"
    with contextlib.closing(Ledger(path, read_only=True)) as ledger:
        assert ledger.first_step() == 0


def test_keeping_no_step_is_refused():
    with pytest.raises(ConfigError, match=r"keep_steps: at least 1; got 0"):
        parse_config({"server": {"keep_steps": 0}})


# --- formats ---


# What format 3 had beyond that; 4 packs ids and weights, and has more checksums.
FORMAT_3 = f"""{FORMAT_2}
CREATE TABLE skips (start INTEGER PRIMARY KEY, stop INTEGER NOT NULL);
ALTER TABLE steps ADD COLUMN checksum INTEGER;
PRAGMA user_version = 3;
"""


@pytest.mark.parametrize("script", [FORMAT_2, FORMAT_3])
def test_an_older_ledger_is_migrated_and_keeps_what_it_has(path, script):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(script)

    with contextlib.closing(Ledger(path)) as ledger:
        found = ledger.step(0)
        assert (found.ids.tolist(), found.weights.tolist()) == ([7], [1.0])
        assert ledger.reports(0)[0].losses.tolist() == [2.0]
        assert ledger.snapshots()[0].digest == "ab"
        assert (ledger.num_defined(), ledger.next_step()) == (1, 1)
        assert ledger.skips() == []
        ledger.add_skip(1, 2, next_step=2)
        ledger.append(record(1), record(2))
        ledger.discard_before(2)

    with contextlib.closing(Ledger(path, read_only=True)) as again:
        assert again.skips() == [(1, 2)]
        assert again.first_step() == 2


def test_a_ledger_of_format_2_is_not_changed_by_who_only_reads(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(FORMAT_2)

    with pytest.raises(StorageError, match=r"has format 2.*open its session once"):
        Ledger(path, read_only=True)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("version", [1, 99])
def test_other_formats_are_refused_and_left_alone(path, version, read_only):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(FORMAT_2)
        db.execute(f"PRAGMA user_version = {version}")

    with pytest.raises(StorageError, match=rf"has format {version}; this version"):
        Ledger(path, read_only=read_only)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
