"""Digests of files, kept so that opening a pool again is instant."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator
from pathlib import Path

from curator.errors import PoolError

__all__ = ["DigestCache", "open_digest_cache"]


# How SQLite says that it may not write, as to a read-only mount.
_NOT_WRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


class DigestCache:
    """Digest by name, for as long as what tells of a change stays."""

    def __init__(self, connection: sqlite3.Connection, *, read_only: bool) -> None:
        self._connection = connection
        self._read_only = read_only

    def get(self, name: str, state: str) -> bytes | None:
        """Returns a digest; None where it is not known."""
        row = self._connection.execute(
            "SELECT digest FROM digests WHERE file = ? AND state = ?", (name, state)
        ).fetchone()
        return None if row is None else row[0]

    def put(self, name: str, state: str, digest: bytes) -> None:
        """Keeps a digest, where it may."""
        if self._read_only:
            return
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO digests VALUES (?, ?, ?)",
                (name, state, digest),
            )


@contextlib.contextmanager
def open_digest_cache(path: Path | None) -> Generator[DigestCache]:
    """Opens a cache of digests in a SQLite file; None is one that forgets.

    Where nothing may be written, what is known is used, and nothing is added.

    Raises:
        PoolError: The file is something else.
    """
    try:
        connection, read_only = _connect(path)
        with contextlib.closing(connection):
            yield DigestCache(connection, read_only=read_only)
    except sqlite3.Error as exc:
        msg = (
            f"the fingerprint cache {path} cannot be used: {exc}. It can be deleted: "
            "the next start hashes the files again"
        )
        raise PoolError(msg) from exc


def _connect(path: Path | None) -> tuple[sqlite3.Connection, bool]:
    """Returns a connection, and whether it only reads."""
    if path is None:
        return _connected(":memory:"), False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connected(str(path)), False
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _NOT_WRITABLE:
            raise
    except OSError:
        pass
    if not path.is_file():
        return _connected(":memory:"), False
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=60), True


def _connected(name: str) -> sqlite3.Connection:
    # Several servers may share the file; each waits for the other's short writes.
    connection = sqlite3.connect(name, timeout=60)
    try:
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS digests"
                " (file TEXT PRIMARY KEY, state TEXT NOT NULL, digest BLOB NOT NULL)"
            )
    except BaseException:
        connection.close()
        raise
    return connection
