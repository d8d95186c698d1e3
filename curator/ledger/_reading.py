"""Ledgers that are only read: of a running server, of a stopped one, of a backup."""

from __future__ import annotations

import sqlite3
from pathlib import Path

__all__ = ["connect_reading", "state_of"]

# What SQLite answers where it would have to make the files that readers share.
_NEEDS_TO_WRITE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def connect_reading(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Connects to a ledger without the right to change it, or anything beside it.

    In WAL mode a reader shares two files with the writer. They are there while a server
    runs and after it was killed. Where it has stopped, SQLite makes them, which a
    read-only mount or another user's folder does not allow: the file alone is all there
    is then, and it is read as one that nobody changes. A server that starts meanwhile
    changes it after all; :func:`state_of` tells.

    Returns:
        The connection, and whether it reads the file alone.

    Raises:
        sqlite3.Error: There is no such file, or it cannot be read.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    db = _connect(uri)
    try:
        # The first access opens those files.
        db.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError as error:
        db.close()
        primary = error.sqlite_errorcode & 0xFF
        if primary not in _NEEDS_TO_WRITE or not path.is_file() or _has_log(path):
            raise
        return _connect(f"{uri}&immutable=1"), True
    except BaseException:
        db.close()
        raise
    return db, False


def state_of(path: Path) -> tuple[bool, int, int]:
    """Returns what changes when a server starts to write: log, size and time."""
    status = path.stat()
    return _has_log(path), status.st_size, status.st_mtime_ns


def _has_log(path: Path) -> bool:
    """Whether there are commits that the file itself does not have yet."""
    log = path.with_name(f"{path.name}-wal")
    return log.is_file() and log.stat().st_size > 0


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
