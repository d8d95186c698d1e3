"""How far something long is, for whoever waits for it."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

__all__ = ["LOGGER", "Progress"]

LOGGER = "curator.progress"
"""The name of the logger that says how far things are, at level INFO."""

_log = logging.getLogger(LOGGER)
_EVERY_SECONDS = 5.0


class Progress:
    """Logs how far something is, every few seconds, and when it is over.

    What takes less time than that is not logged at all. Threads may share it.

    Args:
        what: What is being done, for the log.
        total: How many of the units there are to do.
        unit: What they are, in the plural; bytes are told as GB.
        is_even: Whether they take about as long each: then it is told how long the rest
            will take.
    """

    def __init__(
        self, what: str, total: int, unit: str = "bytes", *, is_even: bool = True
    ) -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._is_even = is_even
        self._done = 0
        self._started = self._logged = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        """Notes that so many more units are done."""
        with self._lock:
            self._done += amount
            now = time.monotonic()
            if now - self._logged < _EVERY_SECONDS:
                return
            self._logged = now
            rate = self._done / max(now - self._started, 1e-9)
            speed = f", {rate / 1e6:.0f} MB/s" if self._unit == "bytes" else ""
            left = max(self._total - self._done, 0) / max(rate, 1e-9)
            _log.info(
                "%s: %.0f %% of %s%s%s",
                self._what,
                100 * self._done / max(self._total, 1),
                self._told(self._total),
                speed,
                f", {left:.0f} s left" if self._is_even else "",
            )

    def leave_out(self, amount: int) -> None:
        """Notes that so many units need not be done after all."""
        with self._lock:
            self._total -= amount

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
                "%s: %s done in %.0f s", self._what, self._told(self._done), seconds
            )

    def _told(self, amount: int) -> str:
        if self._unit == "bytes":
            return f"{amount / 1e9:.2f} GB"
        return f"{amount:,} {self._unit}"
