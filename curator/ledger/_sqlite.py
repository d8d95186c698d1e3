"""The ledger in SQLite, one file per session."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import numpy as np

from curator.errors import StorageError
from curator.ledger._reading import connect_reading
from curator.ledger._records import Report, SnapshotRecord, StepRecord
from curator.ledger._rows import (
    ids_of,
    int_of,
    memory_from_row,
    memory_to_row,
    report_from_row,
    report_to_row,
    step_from_row,
    step_to_row,
)
from curator.ledger._schema import prepare

__all__ = ["Ledger"]

_FEEDBACK_BLOCK = 256
_DISCARD_BLOCK = 256  # steps of a transaction, so that defining never waits for long


class Ledger:
    """Steps, reports and snapshots of one session, durable once a call returns.

    SQLite in WAL mode with a sync per commit: what a call has written survives the
    death of the process and of the machine. Safe to use from several threads.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Opens the ledger at ``path``, making it where there is none.

        Args:
            path: The file.
            read_only: Whether only to look at it, which is safe while a server writes
                and needs no right to write.

        Raises:
            StorageError: It cannot be read or written, or is of another version.
        """
        self._path = path
        self._lock = threading.Lock()
        with self._storage_errors():
            # Statements commit on their own; transactions are explicit.
            self._db = (
                connect_reading(path)[0]
                if read_only
                else sqlite3.connect(
                    path, isolation_level=None, check_same_thread=False
                )
            )
            prepare(self._db, path, read_only=read_only)

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
        except UnicodeDecodeError as error:  # of what SQLite says of a damaged file
            msg = f"the ledger {str(self._path)!r} is damaged: {error}"
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

    def _number(self, key: str) -> int:
        """Returns a number of ``meta``, 0 where there is none."""
        rows = self._query("SELECT value FROM meta WHERE key = ?", key)
        return int_of(rows[0][0]) if rows else 0

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
                    "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    step_to_row(record),
                )
                if record.remember is not None:
                    db.execute(
                        "INSERT INTO memory VALUES (?, ?, ?, ?)",
                        memory_to_row(record.step, record.remember),
                    )
                    gone = db.execute(
                        "DELETE FROM memory WHERE step < ?", (forget_before,)
                    )
                    if gone.rowcount:
                        _set(db, "memory_from", forget_before)
                _add_totals(db, {**record.stats, "num_late": float(record.late)})

    def first_step(self) -> int:
        """Returns the first step that is kept; see :meth:`discard_before`."""
        return self._number("first_step")

    def discard_before(self, step: int) -> None:
        """Deletes the records and reports of steps before one, and gives space back.

        The newest step is always kept, and so are totals. What is deleted at once is
        little, so that other calls get in between.
        """
        step = min(step, self.num_defined() - 1)
        first = self.first_step()
        while first < step:
            first = min(first + _DISCARD_BLOCK, step)
            with self._transaction() as db:
                db.execute("DELETE FROM steps WHERE step < ?", (first,))
                db.execute("DELETE FROM reports WHERE step < ?", (first,))
                _set(db, "first_step", first)
            with self._lock, self._storage_errors():
                # A script is run to its end, where execute() gives one page back.
                self._db.executescript("PRAGMA incremental_vacuum")

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
        return [step_from_row(row, self._path) for row in rows]

    def memory(self) -> list[tuple[int, np.ndarray]]:
        """Returns the rows that steps remember and that are kept, in step order."""
        kept = self._query("SELECT * FROM memory ORDER BY step")
        return [memory_from_row(row, self._path) for row in kept]

    def memory_from(self) -> int:
        """Returns the first step whose rows :meth:`memory` has; 0 for all of them."""
        return self._number("memory_from")

    def forget_memory(self) -> None:
        """Deletes all rows that steps remember, as if there had never been any."""
        with self._transaction() as db:
            db.execute("DELETE FROM memory")
            db.execute("DELETE FROM meta WHERE key = 'memory_from'")

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
                "SELECT ids, reports.* FROM steps JOIN reports USING (step) "
                "WHERE step >= ? AND step < ? AND losses IS NOT NULL "
                "ORDER BY step, start",
                block,
                min(block + _FEEDBACK_BLOCK, stop),
            )
            for _, parts in itertools.groupby(rows, key=lambda row: row[1]):
                ids, losses = np.empty(0, np.int64), np.empty(0, np.float32)
                for blob, *row in parts:
                    report = report_from_row(row, self._path)
                    if not len(ids):
                        ids = ids_of(blob)
                        losses = np.full(len(ids), np.nan, np.float32)
                    losses[report.start : report.stop] = report.losses
                yield ids, losses

    def totals(self) -> dict[str, float]:
        """Returns the sum over all steps of what their ``stats`` count or time.

        A sum of means says nothing.
        """
        rows = self._query("SELECT name, value FROM totals")
        totals = {str(name): float(str(value)) for name, value in rows}
        return {name: total for name, total in totals.items() if _is_sum(name)}

    def add_totals(self, values: Mapping[str, float]) -> None:
        """Adds to the totals what belongs to no step."""
        with self._transaction() as db:
            _add_totals(db, values)

    def add_report(self, report: Report, *, next_step: int) -> None:
        """Records a report, and the first step that is not closed after it.

        A report of the same rows of the step is kept as it was. Losses that are NaN
        are counted among the totals, as ``num_quarantined_losses``.
        """
        with self._transaction() as db:
            added = db.execute(
                "INSERT OR IGNORE INTO reports VALUES (?, ?, ?, ?, ?)",
                report_to_row(report),
            )
            if report.losses is not None and added.rowcount:
                num_quarantined = float(np.isnan(report.losses).sum())
                if num_quarantined:
                    _add_totals(db, {"num_quarantined_losses": num_quarantined})
            _set(db, "next_step", next_step)

    def add_skip(self, start: int, stop: int, *, next_step: int) -> None:
        """Records that steps ``start`` to ``stop`` are not trained on.

        Args:
            start: The first of them.
            stop: One after the last.
            next_step: The first step that is not closed, now that these are.
        """
        with self._transaction() as db:
            db.execute("INSERT INTO skips VALUES (?, ?)", (start, stop))
            _add_totals(db, {"num_skipped": float(stop - start)})
            _set(db, "next_step", next_step)

    def skips(self) -> list[tuple[int, int]]:
        """Returns the ranges of steps that are not trained on, in order."""
        rows = self._query("SELECT start, stop FROM skips ORDER BY start")
        return [(int_of(start), int_of(stop)) for start, stop in rows]

    def reports(self, step: int) -> list[Report]:
        """Returns the reports of a step, by first row."""
        rows = self._query("SELECT * FROM reports WHERE step = ? ORDER BY start", step)
        return [report_from_row(row, self._path) for row in rows]

    def next_step(self) -> int:
        """Returns the first step that is not closed."""
        return self._number("next_step")

    def add_snapshot(self, snapshot: SnapshotRecord) -> None:
        """Records a published snapshot."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO snapshots VALUES (?, ?, ?)",
                (snapshot.snapshot_step, snapshot.report_step, snapshot.digest),
            )

    def snapshot(self, snapshot_step: int) -> SnapshotRecord | None:
        """Returns the snapshot of a step, or None."""
        return self._snapshot("snapshot_step = ?", snapshot_step)

    def last_snapshot(self, report_step: int | None = None) -> SnapshotRecord | None:
        """Returns the newest snapshot, or None.

        Args:
            report_step: As of the report of that step; snapshot 0 counts from the
                start. None: the newest there is.
        """
        if report_step is None:
            return self._snapshot("TRUE")
        return self._snapshot("report_step <= ? OR snapshot_step = 0", report_step)

    def snapshots(self, first: int = 0) -> list[SnapshotRecord]:
        """Returns the snapshots from ``snapshot_step`` ``first`` on, in order."""
        rows = self._query(
            "SELECT * FROM snapshots WHERE snapshot_step >= ? ORDER BY snapshot_step",
            first,
        )
        return [SnapshotRecord(int_of(s), int_of(r), str(d)) for s, r, d in rows]

    def discard_snapshots(self, first: int) -> None:
        """Deletes the records of snapshots from ``snapshot_step`` ``first`` on."""
        with self._transaction() as db:
            db.execute("DELETE FROM snapshots WHERE snapshot_step >= ?", (first,))

    def _snapshot(self, condition: str, *args: int) -> SnapshotRecord | None:
        # Snapshots arrive in order: read from the end, it is among the first rows, so
        # a million of them cost no more than one.
        rows = self._query(
            f"SELECT * FROM snapshots WHERE {condition} "
            "ORDER BY snapshot_step DESC LIMIT 1",
            *args,
        )
        return next(
            (SnapshotRecord(int_of(s), int_of(r), str(d)) for s, r, d in rows), None
        )

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()


def _is_sum(name: str) -> bool:
    return name.startswith("num_") or name.endswith("_seconds")


def _set(db: sqlite3.Connection, key: str, value: int) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, str(value)))


def _add_totals(db: sqlite3.Connection, values: Mapping[str, float]) -> None:
    db.executemany(
        "INSERT INTO totals VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        values.items(),
    )
