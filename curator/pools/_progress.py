"""How far the reading of a pool's files is, for whoever waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from curator.pools._files import PoolFile

__all__ = ["Progress", "named"]

_log = logging.getLogger("curator.pools.progress")
_EVERY_SECONDS = 5.0


def named(what: str, files: Sequence[PoolFile]) -> str:
    """Returns how something that is made of files is called in the log."""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{what} of {files[0]}{more}"


class Progress:
    """Logs how far a long reading is, every few seconds, and when it is over.

    What takes less time than that is not logged at all. Threads may share it.

    Args:
        what: What is being done, for the log.
        total: How many bytes there are to read.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._started = self._logged = time.monotonic()
        self._lock = threading.Lock()

    @classmethod
    def of(
        cls, what: str, files: Sequence[PoolFile], *, num_readings: int = 1
    ) -> Progress:
        """Returns the progress of something that is made of files.

        Args:
            what: What is made.
            files: Which are read, at least one.
            num_readings: How often each is read.
        """
        total = num_readings * sum(file.state.size for file in files)
        return cls(named(what, files), total)

    def advance(self, num_bytes: int) -> None:
        """Notes that so many more bytes were read."""
        with self._lock:
            self._done += num_bytes
            now = time.monotonic()
            if now - self._logged < _EVERY_SECONDS:
                return
            self._logged = now
            rate = self._done / max(now - self._started, 1e-9)
            _log.info(
                "%s: %.0f %% of %.2f GB, %.0f MB/s, %.0f s left",
                self._what,
                100 * self._done / max(self._total, 1),
                self._total / 1e9,
                rate / 1e6,
                max(self._total - self._done, 0) / max(rate, 1),
            )

    def leave_out(self, num_bytes: int) -> None:
        """Notes that so many bytes need not be read after all."""
        with self._lock:
            self._total -= num_bytes

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Says that it is over, where it has said that it goes on."""
        if kind is None and self._logged > self._started:
            seconds = time.monotonic() - self._started
            _log.info(
                "%s: %.2f GB read in %.0f s", self._what, self._done / 1e9, seconds
            )
