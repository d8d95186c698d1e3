"""The tables of a ledger, and how those of an older version become these."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from curator.errors import StorageError

__all__ = ["prepare"]

FORMAT_VERSION = 4

_CACHE_KB = 512

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE steps (
    step INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    ids BLOB NOT NULL,        -- [K], see _rows.py
    weights BLOB NOT NULL,    -- [K], see _rows.py
    scores BLOB,              -- float32 little-endian [K]
    snapshot_step INTEGER,
    late INTEGER NOT NULL,
    stats TEXT NOT NULL,      -- JSON object of numbers
    checksum INTEGER          -- CRC-32 of the others; NULL before format 3
);
CREATE TABLE reports (
    step INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    losses BLOB,              -- float32 little-endian [stop - start]
    checksum INTEGER,         -- CRC-32 of the others; NULL before format 4
    PRIMARY KEY (step, start, stop)
) WITHOUT ROWID;
-- What a policy remembers of its steps, as long as it may ask for it.
CREATE TABLE memory (
    step INTEGER PRIMARY KEY,
    width INTEGER NOT NULL,
    rows BLOB NOT NULL,       -- float32 little-endian [rows, width]
    checksum INTEGER          -- CRC-32 of the others; NULL before format 4
);
CREATE TABLE snapshots (
    snapshot_step INTEGER PRIMARY KEY,
    report_step INTEGER NOT NULL,
    digest TEXT NOT NULL
);
CREATE TABLE skips (start INTEGER PRIMARY KEY, stop INTEGER NOT NULL);
-- Running totals, so that a session of a million steps opens at once.
CREATE TABLE totals (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
"""

# What makes a ledger of a version one of the next.
_MIGRATIONS = {
    2: "CREATE TABLE skips (start INTEGER PRIMARY KEY, stop INTEGER NOT NULL);"
    "ALTER TABLE steps ADD COLUMN checksum INTEGER;",
    3: "ALTER TABLE reports ADD COLUMN checksum INTEGER;"
    "ALTER TABLE memory ADD COLUMN checksum INTEGER;",
}


def prepare(db: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    """Makes an open file a ledger of this version, if it may.

    Raises:
        StorageError: It is of a version that cannot be read, or may not be changed.
        sqlite3.Error: It is no ledger, or cannot be written.
    """
    if not read_only:
        # Before anything is written: later it would need a whole rewrite.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        # What it reads is mostly what it has just written. SQLite's default, two
        # megabytes, would be filled over thousands of steps, for each session.
        db.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == FORMAT_VERSION:
        return
    if version == 0 and not read_only:
        _run(db, _SCHEMA)
    elif version == 0:
        msg = (
            f"ledger {str(path)!r} is empty: its session could not be opened, as on a "
            "full disk. Open it again, or remove its folder"
        )
        raise StorageError(msg)
    elif not min(_MIGRATIONS) <= version < FORMAT_VERSION:
        msg = (
            f"ledger {str(path)!r} has format {version}; this version of "
            f"batch-curator reads formats {min(_MIGRATIONS)} to {FORMAT_VERSION}"
        )
        raise StorageError(msg)
    elif read_only:
        msg = (
            f"ledger {str(path)!r} has format {version}, of an older batch-curator: "
            "open its session once with this one, which makes it format "
            f"{FORMAT_VERSION}"
        )
        raise StorageError(msg)
    else:
        _run(db, "".join(_MIGRATIONS[v] for v in range(version, FORMAT_VERSION)))


def _run(db: sqlite3.Connection, statements: str) -> None:
    db.executescript(
        f"BEGIN IMMEDIATE; {statements} PRAGMA user_version = {FORMAT_VERSION}; COMMIT;"
    )
