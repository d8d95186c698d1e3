"""The ledger in SQLite, one file per session."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import numpy as np

from curator.errors import StorageError
from curator.ledger._records import Report, SnapshotRecord, StepRecord

__all__ = ["Ledger"]

FORMAT_VERSION = 2

_FEEDBACK_BLOCK = 256

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE steps (
    step INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    ids BLOB NOT NULL,        -- int64 little-endian [K]
    weights BLOB NOT NULL,    -- float32 little-endian [K]
    scores BLOB,              -- float32 little-endian [K]
    snapshot_step INTEGER,
    late INTEGER NOT NULL,
    stats TEXT NOT NULL       -- JSON object of numbers
);
CREATE TABLE reports (
    step INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    losses BLOB,              -- float32 little-endian [stop - start]
    PRIMARY KEY (step, start, stop)
) WITHOUT ROWID;
-- What a policy remembers of its steps, as long as it may ask for it.
CREATE TABLE memory (
    step INTEGER PRIMARY KEY,
    width INTEGER NOT NULL,
    rows BLOB NOT NULL        -- float32 little-endian [rows, width]
);
CREATE TABLE snapshots (
    snapshot_step INTEGER PRIMARY KEY,
    report_step INTEGER NOT NULL,
    digest TEXT NOT NULL
);
-- Running totals, so that a session of a million steps opens at once.
CREATE TABLE totals (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
"""


class Ledger:
    """Steps, reports and snapshots of one session, durable once a call returns.

    SQLite in WAL mode with a sync per commit: what a call has written survives the
    death of the process and of the machine. Safe to use from several threads.
    """

    def __init__(self, path: Path) -> None:
        """Opens the ledger at ``path``, making it where there is none.

        Raises:
            StorageError: It cannot be read or written, or is of another version.
        """
        self._path = path
        self._lock = threading.Lock()
        with self._storage_errors():
            # Statements commit on their own; transactions are explicit.
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(
                    f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = "
                    f"{FORMAT_VERSION}; COMMIT;"
                )
            elif version != FORMAT_VERSION:
                msg = (
                    f"ledger {str(path)!r} has format {version}; this version of "
                    f"batch-curator reads format {FORMAT_VERSION}"
                )
                raise StorageError(msg)

    @contextlib.contextmanager
    def _storage_errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_FULL:
                what = (
                    "no space left to write the ledger: nothing of this call was "
                    "recorded; free some space and repeat it"
                )
            else:
                what = f"cannot read or write the ledger: {error}"
            msg = f"{what} ({str(self._path)!r})"
            raise StorageError(msg) from error

    @contextlib.contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._lock, self._storage_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A failed COMMIT (a full disk) may have ended the transaction already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _query(self, sql: str, *args: object) -> list[tuple[object, ...]]:
        with self._lock, self._storage_errors():
            return self._db.execute(sql, args).fetchall()

    def meta(self) -> dict[str, str]:
        """Returns what was written by :meth:`set_meta`."""
        return {str(k): str(v) for k, v in self._query("SELECT key, value FROM meta")}

    def set_meta(self, values: Mapping[str, str]) -> None:
        """Writes facts about the session, all or none."""
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def num_defined(self) -> int:
        """Returns how many steps are defined: they are 0 to this, without a gap."""
        last = self._query("SELECT max(step) FROM steps")[0][0]
        return 0 if last is None else int(str(last)) + 1

    def append(self, *records: StepRecord, forget_before: int = 0) -> None:
        """Defines steps, once and for all; all of them or none.

        Several at once cost one sync, which is most of what a step costs.

        Args:
            records: The next steps, in order. What they remember is kept apart: see
                :meth:`memory`.
            forget_before: The first step whose memory may still be asked for.
        """
        with self._transaction() as db:
            for record in records:
                db.execute(
                    "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _row(record)
                )
                if record.remember is not None:
                    rows = _blob(record.remember, "<f4")
                    width = record.remember.shape[1]
                    db.execute(
                        "INSERT INTO memory VALUES (?, ?, ?)",
                        (record.step, width, rows),
                    )
                    db.execute("DELETE FROM memory WHERE step < ?", (forget_before,))
                _add_totals(db, {**record.stats, "num_late": float(record.late)})

    def step(self, step: int) -> StepRecord | None:
        """Returns the record of a step, or None where it is not defined."""
        return next(iter(self.steps(step, step + 1)), None)

    def steps(self, start: int, stop: int) -> list[StepRecord]:
        """Returns the records of steps ``start`` to ``stop``, as far as defined."""
        rows = self._query(
            "SELECT * FROM steps WHERE step >= ? AND step < ? ORDER BY step",
            start,
            stop,
        )
        return [
            StepRecord(
                step=_int(number),
                epoch=_int(epoch),
                ids=_array(ids, "<i8"),
                weights=_array(weights, "<f4"),
                scores=None if scores is None else _array(scores, "<f4"),
                snapshot_step=None if snapshot_step is None else _int(snapshot_step),
                late=bool(late),
                stats=json.loads(str(stats)),
            )
            for number, epoch, ids, weights, scores, snapshot_step, late, stats in rows
        ]

    def memory(self) -> list[tuple[int, np.ndarray]]:
        """Returns the rows that steps remember and that are kept, in step order."""
        kept = self._query("SELECT step, width, rows FROM memory ORDER BY step")
        return [
            (_int(step), _array(rows, "<f4").reshape(-1, _int(width)))
            for step, width, rows in kept
        ]

    def feedback(
        self, start: int, stop: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields ids and losses of each step that has any, in step order.

        Args:
            start: The first step.
            stop: One after the last.

        Yields:
            int64 ids of the step's batch, and float32 losses, NaN where none was
            reported.
        """
        # By blocks of steps: a run's losses need not fit in memory at once.
        for block in range(start, stop, _FEEDBACK_BLOCK):
            rows = self._query(
                "SELECT step, ids, start, stop, losses FROM steps JOIN reports "
                "USING (step) WHERE step >= ? AND step < ? AND losses IS NOT NULL "
                "ORDER BY step, start",
                block,
                min(block + _FEEDBACK_BLOCK, stop),
            )
            for _, parts in itertools.groupby(rows, key=lambda row: row[0]):
                ids, losses = np.empty(0, np.int64), np.empty(0, np.float32)
                for _, blob, first, last, reported in parts:
                    if not len(ids):
                        ids = _array(blob, "<i8")
                        losses = np.full(len(ids), np.nan, np.float32)
                    losses[_int(first) : _int(last)] = _array(reported, "<f4")
                yield ids, losses

    def totals(self) -> dict[str, float]:
        """Returns the sum over all steps of each entry of their ``stats``."""
        rows = self._query("SELECT name, value FROM totals")
        return {str(name): float(str(value)) for name, value in rows}

    def add_totals(self, values: Mapping[str, float]) -> None:
        """Adds to the totals what belongs to no step."""
        with self._transaction() as db:
            _add_totals(db, values)

    def add_report(self, report: Report, *, next_step: int) -> None:
        """Records a report, and the first step that is not closed after it.

        A report of the same rows of the step is kept as it was. Losses that are NaN
        are counted among the totals, as ``num_quarantined_losses``.
        """
        losses = None if report.losses is None else _blob(report.losses, "<f4")
        with self._transaction() as db:
            added = db.execute(
                "INSERT OR IGNORE INTO reports VALUES (?, ?, ?, ?)",
                (report.step, report.start, report.stop, losses),
            )
            if report.losses is not None and added.rowcount:
                num_quarantined = float(np.isnan(report.losses).sum())
                _add_totals(db, {"num_quarantined_losses": num_quarantined})
            db.execute(
                "INSERT OR REPLACE INTO meta VALUES ('next_step', ?)", (str(next_step),)
            )

    def reports(self, step: int) -> list[Report]:
        """Returns the reports of a step, by first row."""
        rows = self._query(
            "SELECT start, stop, losses FROM reports WHERE step = ? ORDER BY start",
            step,
        )
        return [
            Report(
                step=step,
                start=_int(start),
                stop=_int(stop),
                losses=None if losses is None else _array(losses, "<f4"),
            )
            for start, stop, losses in rows
        ]

    def next_step(self) -> int:
        """Returns the first step that is not closed."""
        rows = self._query("SELECT value FROM meta WHERE key = 'next_step'")
        return _int(rows[0][0]) if rows else 0

    def add_snapshot(self, snapshot: SnapshotRecord) -> None:
        """Records a published snapshot."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO snapshots VALUES (?, ?, ?)",
                (snapshot.snapshot_step, snapshot.report_step, snapshot.digest),
            )

    def snapshots(self) -> list[SnapshotRecord]:
        """Returns the snapshots, by ``snapshot_step``."""
        rows = self._query("SELECT * FROM snapshots ORDER BY snapshot_step")
        return [SnapshotRecord(_int(s), _int(r), str(d)) for s, r, d in rows]

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()


def _row(record: StepRecord) -> tuple[object, ...]:
    """Returns the row of table ``steps``."""
    return (
        record.step,
        record.epoch,
        _blob(record.ids, "<i8"),
        _blob(record.weights, "<f4"),
        None if record.scores is None else _blob(record.scores, "<f4"),
        record.snapshot_step,
        int(record.late),
        json.dumps(dict(record.stats)),
    )


def _add_totals(db: sqlite3.Connection, values: Mapping[str, float]) -> None:
    db.executemany(
        "INSERT INTO totals VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        values.items(),
    )


def _int(value: object) -> int:
    return int(str(value))


def _blob(array: np.ndarray, dtype: str) -> bytes:
    return array.astype(dtype, copy=False).tobytes()


def _array(blob: object, dtype: str) -> np.ndarray:
    # A copy: the array owns its memory and is writable like any other.
    return np.frombuffer(bytes(blob), dtype).copy()  # pyright: ignore[reportArgumentType]
