"""How far a command is, on standard error."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
from collections.abc import Generator

from curator.progress import LOGGER

__all__ = ["ProgressLine", "progress_shown"]

# How often progress is shown.
_TERMINAL_SECONDS, _LOG_SECONDS = 0.2, 30.0


class ProgressLine:
    """One line on a terminal that is written over; a line now and then in a log."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._every = _TERMINAL_SECONDS if self._is_terminal else _LOG_SECONDS
        self._last = time.monotonic()
        self._width = 0

    def show(self, text: str) -> None:
        """Shows how far it is, if it is time to."""
        now = time.monotonic()
        if now - self._last < self._every:
            return
        self._last = now
        if not self._is_terminal:
            print(text, file=sys.stderr, flush=True)
            return
        # What is longer than a line could not be written over. Its end has the numbers.
        room = shutil.get_terminal_size().columns - 1
        if len(text) > room:
            text = f"...{text[len(text) - room + 3 :]}"
        print(f"\r{text.ljust(self._width)}", end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def end(self) -> None:
        """Leaves the terminal as it was."""
        if self._width:
            print(f"\r{' ' * self._width}\r", end="", file=sys.stderr, flush=True)


class _Shown(logging.Handler):
    """Shows what is logged."""

    def __init__(self, line: ProgressLine) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Shows it, unless nobody is there to see it."""
        with contextlib.suppress(OSError):
            self._line.show(record.getMessage())


@contextlib.contextmanager
def progress_shown() -> Generator[ProgressLine]:
    """Shows how far things are that take long: opening a pool, choosing examples.

    Yields:
        The line that it is shown on, for what else there is to show.
    """
    line = ProgressLine()
    shown, logger = _Shown(line), logging.getLogger(LOGGER)
    level = logger.level
    logger.addHandler(shown)
    logger.setLevel(logging.INFO)
    try:
        yield line
    finally:
        logger.setLevel(level)
        logger.removeHandler(shown)
        with contextlib.suppress(OSError):
            line.end()
