"""What notices that the files of an open pool are written to."""

from __future__ import annotations

import time
from collections.abc import Sequence

from curator.errors import PoolChangedError
from curator.pools._files import PoolFile

__all__ = ["MappedFiles", "changed", "check_unchanged"]


def changed(file: PoolFile) -> PoolChangedError:
    """Returns the error for a file that is another one than it was."""
    return PoolChangedError(
        f"{file}: changed since the pool was opened; open it again, or put it back"
    )


def check_unchanged(file: PoolFile) -> None:
    """Checks that a local file is what it was, by its size and time.

    One that lies elsewhere is not asked for: that may take as long as reading it.

    Raises:
        PoolChangedError: It is another one.
        OSError: It is gone.
    """
    if file.local is None:
        return
    now, was = file.current_state(), file.state
    if (now.size, now.mtime_ns) != (was.size, was.mtime_ns):
        raise changed(file)


class MappedFiles:
    """Files that are mapped into memory, which shows what is written to them.

    One that was replaced or removed is still there for whoever has mapped it.
    """

    # A system call for each file, and no reader can be told in time anyway.
    SECONDS_BETWEEN_CHECKS = 1.0

    def __init__(self, files: Sequence[PoolFile]) -> None:
        self._files = files
        self._next_check = 0.0

    def check(self) -> None:
        """Checks now and then that none was written to.

        Raises:
            PoolChangedError: One was.
        """
        now = time.monotonic()
        if now < self._next_check:
            return
        for file in self._files:
            try:
                state = file.current_state()
            except OSError:
                continue
            is_same = state.inode == file.state.inode
            if is_same and (state.size, state.mtime_ns) != (
                file.state.size,
                file.state.mtime_ns,
            ):
                raise changed(file)
        self._next_check = now + self.SECONDS_BETWEEN_CHECKS
